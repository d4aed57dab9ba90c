/* golden.h - what the golden tests share: one problem, a rig that runs our code on it, and the
 * comparisons of every parameter after every step with a simulation of the papers' equations.
 *
 * A test file brings its family of algorithms: settings, a serial simulation in double precision
 * for all ranks that knows nothing of our code, and values worked out by hand. The problem is a
 * quadratic for each element with a target and a curvature of each rank's own, f_i(x) = a_i/2 (x -
 * t_i)^2; statistics follow the parameters, at each rank's own offset. */
#ifndef TS_TESTS_GOLDEN_H
#define TS_TESTS_GOLDEN_H

#include "runtime/algorithms/algorithm.h"
#include "tests/check.h"

enum { N = 256, N_STATISTICS = 128, RANKS_MAX = 4, STEPS = 17 };
#define RATE 0.1

typedef struct problem {
    double target[RANKS_MAX][N], curve[RANKS_MAX][N], start;
} problem;

typedef struct setting {
    const char *algorithm;
    ts_algorithm_config config;
    double momentum, weight_decay;
    ts_momentum_policy policy;
    bool weighted;           /* rank r has the weight (r + 1) / (1 + 2 + ... + size) */
    bool average_statistics; /* else they are each rank's own */
} setting;

/* What the four flat buffers hold, for all ranks; statistics fill the beginning of theirs. */
typedef double models[RANKS_MAX][N];
typedef struct everything {
    models x, m, s;
} everything;

/* x[r] on rank r of two after local step `step` of known_problem, worked out by hand. */
typedef struct value {
    setting s;
    int step;
    double x[2];
} value;

typedef struct family {
    const setting *settings;
    int n_settings;
    /* trajectory[t] is everything after local step t, trajectory[STEPS + 1] after the drain. */
    void (*simulate)(const problem *p, const setting *s, int size, everything *trajectory);
    const value *values;
    int n_values;
    const setting *bad; /* that open refuses with TS_EUSAGE */
    int n_bad;
    /* Optional: what a setting changes about the worker beyond its fields. */
    void (*prepare)(const setting *s, ts_flat *flat, ts_worker *worker);
    /* Elements that may differ from the simulation: where our code rounds a number one way or the
     * other, the simulation's last digits may fall on the other side. */
    int strays;
    /* Optional: the learning rate of local step `step`, the first is 1; without, RATE. */
    double (*rate)(int step);
    /* Optional: does the drain leave the mean over ranks as it is? */
    bool (*keeps_mean)(const setting *s);
} family;

/* ---- for the simulations ---- */
double weight_of(const setting *s, int rank, int size);
void mean_of(const setting *s, models x, int size, double *mean);
/* Every rank at its start. */
void start_everything(const problem *p, everything *now);
/* Each rank's own gradient at now->x; statistics take their step. */
void simulate_gradients(const problem *p, int size, everything *now, models g);
/* Every rank's gradients become their mean: S-SGD. */
void simulate_mean_gradients(const setting *s, int size, models g);
/* Local steps of S-SGD before the method begins. */
int first_local(const setting *s);
/* x and m of all ranks by SGD with these gradients, at the rate RATE. */
void simulate_sgd(const setting *s, int size, everything *now, models g);

/* ---- for tests of a family's own ---- */
extern ts_world *world;
problem random_problem(void);
/* f_1 = 1/2 (x - 3)^2, f_2 = (x + 1)^2, x_0 = 1 */
problem known_problem(void);
/* Our code: runs `steps` and copies the parameters; without hooks it is plain SGD on each rank. */
void run_to(const problem *p, const setting *s, int steps, bool hooks, float *out);
void run_and_drain(const problem *p, const setting *s, int steps, float *out);
/* `at` steps with `s`, saved, and the rest of STEPS with `then`. */
void run_resumed(const problem *p, const setting *s, const setting *then, int at, float *out);

/* What every family is held to: equations, values, one rank is plain SGD bit for bit, consensus,
 * resume, bad settings. */
void golden_equations(void **state);
void golden_values(void **state);
void golden_one_rank(void **state);
void golden_consensus(void **state);
void golden_resume(void **state);
void golden_bad_settings(void **state);
#define GOLDEN_TESTS                                                                               \
    cmocka_unit_test(golden_equations), cmocka_unit_test(golden_values),                           \
        cmocka_unit_test(golden_one_rank), cmocka_unit_test(golden_consensus),                     \
        cmocka_unit_test(golden_resume), cmocka_unit_test(golden_bad_settings)

/* In main, around cmocka_run_group_tests: true when a rank, its device and streams are there; and
 * main's exit code. */
bool golden_open(const family *f);
int golden_close(int failed);

#endif
