/* test_golden_overlap_local.c - Overlap-Local-SGD against its paper's equations. */
#include "tests/golden.h"

/* What is under way: the anchor of parameters; plain means of what the policies average. */
typedef struct flight {
    double z[N], m[N], s[N];
} flight;

static void pull(const setting *s, int size, everything *now, const flight *f)
{
    double alpha = s->config.pull;
    for (int r = 0; r < size; r++) {
        for (int i = 0; i < N; i++) {
            now->x[r][i] = (1 - alpha) * now->x[r][i] + alpha * f->z[i];
            if (s->policy == TS_MOMENTUM_AVERAGE)
                now->m[r][i] = (1 - alpha) * now->m[r][i] + alpha * f->m[i];
            if (s->policy == TS_MOMENTUM_ZERO) now->m[r][i] = 0;
        }
        if (s->average_statistics) memcpy(now->s[r], f->s, sizeof f->s);
    }
}

/* v <- beta v + (x - z) ; z <- mean over ranks of z + v */
static void send(const setting *s, int size, everything *now, models v, flight *f)
{
    static models z;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < N; i++) {
            v[r][i] = s->config.anchor_momentum * v[r][i] + (now->x[r][i] - f->z[i]);
            z[r][i] = f->z[i] + v[r][i];
        }
    mean_of(s, z, size, f->z);
    mean_of(s, now->m, size, f->m);
    mean_of(s, now->s, size, f->s);
}

static void simulate(const problem *p, const setting *s, int size, everything *trajectory)
{
    static everything now;
    static models g, v;
    flight f;
    int first = first_local(s);
    start_everything(p, &now);
    memset(v, 0, sizeof v);
    for (int t = 1; t <= STEPS; t++) {
        simulate_gradients(p, size, &now, g);
        if (t == first + 1) { /* the first anchor is the common model */
            mean_of(s, now.x, size, f.z);
            mean_of(s, now.m, size, f.m);
            mean_of(s, now.s, size, f.s);
        }
        if (t <= first) simulate_mean_gradients(s, size, g);
        simulate_sgd(s, size, &now, g);
        if (t > first && (t - first) % s->config.period == 0) {
            pull(s, size, &now, &f);
            send(s, size, &now, v, &f);
        }
        trajectory[t] = now;
    }
    if (first < STEPS) pull(s, size, &now, &f);
    trajectory[STEPS + 1] = now;
}

static const setting settings[] = {
    {"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false},
    {"overlap-local", {.period = 1, .pull = 0.6}, 0.9, 1e-2, 0, false, false},
    {"overlap-local",
     {.period = 4, .pull = 0.9, .anchor_momentum = 0.5},
     0.9,
     0,
     TS_MOMENTUM_ZERO,
     false,
     true},
    {"overlap-local",
     {.period = 3, .pull = 0.3, .anchor_momentum = 0.9},
     0.9,
     0,
     TS_MOMENTUM_AVERAGE,
     true,
     true},
    {"overlap-local",
     {.period = 2, .pull = 0.6, .anchor_momentum = 0.7, .post_local = 0.4, .overlap = true},
     0.9,
     0,
     0,
     false,
     true},
    {"overlap-local",
     {.period = 2, .pull = 0.6, .anchor_momentum = 0.7, .post_local = 1, .overlap = true},
     0.9,
     0,
     0,
     false,
     false},
};

#define PLAIN                                                                                      \
    {                                                                                              \
        "overlap-local", {.period = 2, .pull = 0.6}, 0, 0, 0, false, false                         \
    }
#define MOMENTUM                                                                                   \
    {                                                                                              \
        "overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false \
    }
static const value values[] = {
    {PLAIN, 2, {1.152, .712}},
    {PLAIN, 4, {1.160448, .597472}},
    {PLAIN, 6, {1.131361152, .536328832}},
    {MOMENTUM, 6, {1.102801152, .507768832}},
};

static const setting bad[] = {
    {"overlap-local", {.period = 0, .pull = 0.6}, 0, 0, 0, false, false},
    {"overlap-local", {.period = 2, .pull = 0}, 0, 0, 0, false, false},
    {"overlap-local", {.period = 2, .pull = 1}, 0, 0, 0, false, false},
    {"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 1}, 0, 0, 0, false, false},
    {"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = -0.1}, 0, 0, 0, false, false},
};

static const family tested = {.settings = settings,
                              .n_settings = sizeof settings / sizeof *settings,
                              .simulate = simulate,
                              .values = values,
                              .n_values = sizeof values / sizeof *values,
                              .bad = bad,
                              .n_bad = sizeof bad / sizeof *bad};

int main(void)
{
    const struct CMUnitTest tests[] = {GOLDEN_TESTS};
    return golden_open(&tested) ? golden_close(cmocka_run_group_tests(tests, NULL, NULL)) : 1;
}
