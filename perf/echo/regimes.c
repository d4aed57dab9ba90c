/* regimes.c - what echoing a batch can and cannot save, on logistic regression (Agarwal, Anil,
 * Koren, Talwar, Zhang: "Stochastic optimization with laggard data pipelines", arXiv:2010.13639).
 *
 *   perf_echo_regimes DATA [--option value ...]        DATA as for --data: cifar10:DIR
 *
 * Each round draws B fresh samples with replacement and makes K steps on them,
 *     echo   w <- w - s grad f_B(w)
 *     prox   w <- w - (grad f_B(w) + (w - w0) / s) / (beta + 1 / s),  w0: w when the round began
 * The table has the fresh samples until the loss over all samples is at most 1.05 times its minimum
 * (by Newton's method), and the step size s for which they were fewest, for each B and K. Theory
 * says: a curvature term that echoing divides by K, and a noise term that it does not touch. So a
 * small batch gains nothing and wants s / K; a large one gains up to K at the same s; prox's best s
 * does not depend on K.
 *
 * Two classes (vehicles and animals: labels 0, 1, 8, 9 and the others), pictures averaged to 8 x 8,
 * centred. The form of prox is from notes on the paper, whose text was not at hand. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/program.h"
#include "runtime/base/log.h"
#include "runtime/base/random.h"
#include "runtime/data/data.h"

enum { SIDE = 8, FEATURES = 3 * SIDE * SIDE, D = 208 /* and the bias, in whole vectors */ };
enum { BATCHES = 3, ECHOES = 5, CELLS = 2 * BATCHES * ECHOES, STEPS = 16, SEEDS_MAX = 16 };
static const int batches[BATCHES] = {8, 64, 1024}, echoes[ECHOES] = {1, 2, 4, 8, 16};
#define RATIO 1.9306977288832496 /* of a step size to the next: seven to a factor of 100 */
#define LEAST 0.01

static struct settings {
    int64_t samples, most, seeds;
    double target;
    bool help;
} set;

#define AT(field) offsetof(struct settings, field)
static const ts_option rows[] = {
    {"samples", TS_OPTION_INT, AT(samples), "4000", NULL, 100, 1e6, "of the problem"},
    {"most", TS_OPTION_INT, AT(most), "400000", NULL, 1, 1e12, "fresh samples of a run at most"},
    {"seeds", TS_OPTION_INT, AT(seeds), "3", NULL, 1, SEEDS_MAX,
     "runs that a number is the mean of"},
    {"target", TS_OPTION_REAL, AT(target), "1.05", NULL, 1.0001, 100, "loss over its minimum"},
    {"help", TS_OPTION_BOOL, AT(help), "no", NULL, 0, 0, "this text"},
    {0}};

typedef struct problem {
    int64_t n;
    float *x; /* [n][D] */
    float *y; /* [n], -1 or 1 */
    double minimum;
    double beta[BATCHES]; /* smoothness of a batch's loss */
} problem;

/* ---- the problem ---- */

static void average(const uint8_t *image, ts_shape s, float *x)
{
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < SIDE * SIDE; i++) {
            int y0 = i / SIDE * s.h / SIDE, y1 = (i / SIDE + 1) * s.h / SIDE;
            int x0 = i % SIDE * s.w / SIDE, x1 = (i % SIDE + 1) * s.w / SIDE, sum = 0;
            for (int y = y0; y < y1; y++)
                for (int u = x0; u < x1; u++) sum += image[(c * s.h + y) * s.w + u];
            x[c * SIDE * SIDE + i] = (float)sum / (float)(255 * (y1 - y0) * (x1 - x0));
        }
}

static ts_status open_problem(const char *data, problem *p)
{
    ts_device *device;
    ts_dataset *d;
    TS_TRY(ts_device_open("host", 0, &device));
    TS_TRY(ts_dataset_open(device, data, &d));
    TS_NEED(!d->records && d->picture.h >= SIDE && d->picture.w >= SIDE, TS_EUSAGE,
            "%s: pictures of at least %d x %d that live in memory are needed", data, SIDE, SIDE);
    p->n = d->train.n < set.samples ? d->train.n : set.samples;
    p->x = calloc((size_t)p->n * D, sizeof *p->x);
    p->y = calloc((size_t)p->n, sizeof *p->y);
    TS_NEED(p->x && p->y, TS_ENOMEM, "no memory for %lld samples", (long long)p->n);
    for (int64_t i = 0; i < p->n; i++) {
        int label = d->train.host_labels[i];
        p->y[i] = label <= 1 || label == 8 || label == 9 ? -1 : 1;
        average(d->train.images + (size_t)i * ts_shape_count(d->picture), d->picture, p->x + i * D);
        p->x[i * D + FEATURES] = 1;
    }
    for (int f = 0; f < FEATURES; f++) {
        double mean = 0;
        for (int64_t i = 0; i < p->n; i++) mean += p->x[i * D + f];
        for (int64_t i = 0; i < p->n; i++) p->x[i * D + f] -= (float)(mean / (double)p->n);
    }
    ts_dataset_close(d);
    ts_device_close(device);
    return TS_OK;
}

static float dot(const float *a, const float *b)
{
    float sum[16] = {0}, total = 0;
    for (int i = 0; i < D; i += 16)
        for (int j = 0; j < 16; j++) sum[j] += a[i + j] * b[i + j];
    for (int j = 0; j < 16; j++) total += sum[j];
    return total;
}

static double loss(const problem *p, const float *w)
{
    double sum = 0;
    for (int64_t i = 0; i < p->n; i++) {
        float margin = p->y[i] * dot(p->x + i * D, w);
        sum += margin > 0 ? log1pf(expf(-margin)) : -margin + log1pf(expf(margin));
    }
    return sum / (double)p->n;
}

/* In place: a (symmetric, positive) becomes its Cholesky factor, b the solution of a x = b. */
static bool solve(double (*a)[D], double *b, int n)
{
    for (int j = 0; j < n; j++)
        for (int i = j; i < n; i++) {
            double sum = a[i][j];
            for (int k = 0; k < j; k++) sum -= a[i][k] * a[j][k];
            if (i == j && sum <= 0) return false;
            a[i][j] = i == j ? sqrt(sum) : sum / a[j][j];
        }
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++) b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
    return true;
}

/* Newton's method with halved steps, until a step no longer helps. */
static ts_status minimise(problem *p)
{
    enum { N = FEATURES + 1 };
    static double h[D][D], g[D];
    float w[D] = {0}, next[D];
    p->minimum = loss(p, w);
    for (int round = 0; round < 100; round++) {
        memset(h, 0, sizeof h);
        memset(g, 0, sizeof g);
        for (int64_t s = 0; s < p->n; s++) {
            const float *x = p->x + s * D;
            double q = 1 / (1 + exp((double)(p->y[s] * dot(x, w)))), c = q * (1 - q);
            for (int i = 0; i < N; i++) {
                g[i] -= q * (double)(p->y[s] * x[i]);
                for (int j = 0; j <= i; j++) h[i][j] += c * (double)(x[i] * x[j]);
            }
        }
        for (int i = 0; i < N; i++) h[i][i] += 1e-9 * (double)p->n;
        TS_NEED(solve(h, g, N), TS_EDATA, "the problem has no minimum");
        double step = 1, better = p->minimum;
        for (; step > 1e-6; step /= 2) {
            memset(next, 0, sizeof next);
            for (int i = 0; i < N; i++) next[i] = w[i] - (float)(step * g[i]);
            better = loss(p, next);
            if (better < p->minimum) break;
        }
        double gain = p->minimum - better;
        if (gain <= 0) break;
        memcpy(w, next, sizeof w);
        p->minimum = better;
        if (gain < 1e-7 * better) break;
    }
    return TS_OK;
}

/* ---- a run ---- */

static void draw(const problem *p, uint64_t seed, int64_t round, int batch, int64_t *samples)
{
    for (int i = 0; i < batch; i++)
        samples[i] = (int64_t)(((uint64_t)ts_random(seed, (uint64_t)round, (uint64_t)i).v[0] *
                                (uint64_t)p->n) >>
                               32);
}

static void gradient(const problem *p, const int64_t *samples, int batch, const float *w, float *g)
{
    memset(g, 0, D * sizeof *g);
    for (int i = 0; i < batch; i++) {
        const float *x = p->x + samples[i] * D;
        float y = p->y[samples[i]], q = -y / ((1 + expf(y * dot(x, w))) * (float)batch);
        for (int f = 0; f < D; f++) g[f] += q * x[f];
    }
}

/* The largest curvature that a batch's loss can have: a quarter of the largest eigenvalue of its
 * second moments, the mean over some batches. */
static double smoothness(const problem *p, int batch)
{
    enum { TRIES = 30, POWERS = 40 };
    int64_t samples[1024];
    double sum = 0;
    for (int t = 0; t < TRIES; t++) {
        float v[D], next[D];
        double length = 0;
        draw(p, 99, t, batch, samples);
        for (int f = 0; f < D; f++) v[f] = 1;
        for (int k = 0; k < POWERS; k++) {
            memset(next, 0, sizeof next);
            for (int i = 0; i < batch; i++) {
                const float *x = p->x + samples[i] * D;
                float q = dot(x, v) / (float)batch;
                for (int f = 0; f < D; f++) next[f] += q * x[f];
            }
            length = sqrt((double)dot(next, next));
            for (int f = 0; f < D; f++) v[f] = next[f] / (float)length;
        }
        sum += length / 4;
    }
    return sum / TRIES;
}

/* Fresh samples to the target, more than `most` when it is not met. */
static int64_t run(const problem *p, bool prox, int b, int echo, double step, uint64_t seed,
                   int64_t most)
{
    const int batch = batches[b];
    const int64_t every = batch < 1024 ? 1024 / batch : 1; /* rounds between looks at the loss */
    const double target = set.target * p->minimum;
    float w[D] = {0}, w0[D], g[D];
    int64_t samples[1024];
    float rate = (float)(prox ? 1 / (p->beta[b] + 1 / step) : step);
    float pull = prox ? (float)(1 / step) : 0;
    for (int64_t round = 1; round * batch <= most; round++) {
        draw(p, seed, round, batch, samples);
        memcpy(w0, w, sizeof w0);
        for (int k = 0; k < echo; k++) {
            gradient(p, samples, batch, w, g);
            for (int f = 0; f < D; f++) w[f] -= rate * (g[f] + pull * (w[f] - w0[f]));
        }
        if (round % every) continue;
        double now = loss(p, w);
        if (now <= target) return round * batch;
        if (!(now < 30)) break;
    }
    return most + 1;
}

typedef struct cell {
    double fresh, step; /* mean over seeds; INFINITY: not within `most` */
} cell;

static cell tune(const problem *p, bool prox, int b, int echo)
{
    cell best = {INFINITY, 0};
    /* from the middle outwards: a good step found early ends the others' runs early */
    for (int i = 0; i <= STEPS; i++) {
        int at = STEPS / 2 + (i % 2 ? (i + 1) / 2 : -(i / 2));
        if (at < 0 || at >= STEPS) continue;
        double step = LEAST * pow(RATIO, at), sum = 0;
        /* more than this and the mean is no better than the best */
        double room = isfinite(best.fresh) ? best.fresh * (double)set.seeds : INFINITY;
        for (int64_t s = 1; s <= set.seeds && sum < room; s++) {
            int64_t most = room - sum < (double)set.most ? (int64_t)(room - sum) : set.most;
            int64_t fresh = run(p, prox, b, echo, step, (uint64_t)s, most);
            sum = fresh > most ? INFINITY : sum + (double)fresh;
        }
        if (sum < room) best = (cell){sum / (double)set.seeds, step};
    }
    return best;
}

static void print(const cell *cells)
{
    printf("| B |");
    for (int k = 0; k < ECHOES; k++) printf(" K = %d |", echoes[k]);
    printf(" best step |\n|---|");
    for (int k = 0; k <= ECHOES; k++) printf("---|");
    for (int r = 0; r < CELLS / ECHOES; r++) {
        printf("\n| %d %s |", batches[r % BATCHES], r < BATCHES ? "echo" : "prox");
        for (int k = 0; k < ECHOES; k++) {
            double fresh = cells[r * ECHOES + k].fresh;
            if (isfinite(fresh))
                printf(" %.0fk |", fresh / 1000);
            else
                printf(" > %.0fk |", (double)set.most / 1000);
        }
        for (int k = 0; k < ECHOES; k++) {
            const cell *c = &cells[r * ECHOES + k];
            printf(k ? ", " : " ");
            if (isfinite(c->fresh))
                printf(c->step < 100 ? "%.2g" : "%.0f", c->step);
            else
                printf("-");
        }
        printf(" |");
    }
    printf("\n");
}

static ts_status regimes(const char *data)
{
    problem p = {0};
    cell cells[CELLS];
    TS_TRY(open_problem(data, &p));
    TS_TRY(minimise(&p));
    for (int b = 0; b < BATCHES; b++) p.beta[b] = smoothness(&p, batches[b]);
    ts_info("%lld samples, minimum %.4f, target %.4f, smoothness %.3g, %.3g, %.3g for batches of "
            "8, 64, 1024",
            (long long)p.n, p.minimum, set.target * p.minimum, p.beta[0], p.beta[1], p.beta[2]);
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < CELLS; i++) { /* the long ones first: large K */
        int k = ECHOES - 1 - i / (CELLS / ECHOES), r = i % (CELLS / ECHOES);
        cells[r * ECHOES + k] = tune(&p, r >= BATCHES, r % BATCHES, echoes[k]);
    }
    print(cells);
    free(p.x);
    free(p.y);
    return TS_OK;
}

int main(int argc, char **argv)
{
    bool named = argc > 1 && strncmp(argv[1], "--", 2);
    ts_program_options("perf_echo_regimes DATA [--option value ...], DATA as for --data", rows,
                       &set, &set.help, argc - named, argv + named);
    ts_status status =
        named ? regimes(argv[1]) : TS_ERROR(TS_EUSAGE, "which data? perf_echo_regimes cifar10:DIR");
    ts_log_failure(status);
    return ts_status_exit_code(status);
}
