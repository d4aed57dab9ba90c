/* test_golden.c - S-SGD, Local-SGD, CoCoD-SGD and DaSGD against their papers' equations. */
#include <math.h>

#include "tests/golden.h"

/* The average `a` of the models `y` is merged into rank r's model (or momentum) `x`. */
static void merge_one(const setting *s, double *x, const double *y, const double *a)
{
    double xi = !strcmp(s->algorithm, "dasgd") ? s->config.mix : 0;
    bool corrected = !strcmp(s->algorithm, "cocod");
    for (int i = 0; i < N; i++)
        x[i] = corrected ? a[i] + (x[i] - y[i]) : xi * x[i] + (1 - xi) * a[i];
}

/* `now` <- merge of the averages of `then`. */
static void merge_all(const setting *s, int size, everything *now, everything *then)
{
    double a[N], am[N], as[N];
    mean_of(s, then->x, size, a);
    mean_of(s, then->m, size, am);
    mean_of(s, then->s, size, as);
    for (int r = 0; r < size; r++) {
        merge_one(s, now->x[r], then->x[r], a);
        if (s->policy == TS_MOMENTUM_ZERO) memset(now->m[r], 0, sizeof now->m[r]);
        if (s->policy == TS_MOMENTUM_AVERAGE) merge_one(s, now->m[r], then->m[r], am);
        if (s->average_statistics) memcpy(now->s[r], as, sizeof as);
    }
}

static void simulate_step(const problem *p, const setting *s, bool synchronous, int size,
                          everything *now)
{
    static models g;
    simulate_gradients(p, size, now, g);
    if (synchronous) simulate_mean_gradients(s, size, g);
    simulate_sgd(s, size, now, g);
}

static void simulate(const problem *p, const setting *s, int size, everything *trajectory)
{
    static everything now, snapshot[STEPS + 1]; /* of the averaging started after step t */
    bool started[STEPS + 1] = {false};
    const char *name = s->algorithm;
    int k = (int)s->config.period, d = (int)s->config.delay, first = first_local(s);
    start_everything(p, &now);
    for (int all = 1; all <= STEPS; all++) {
        int t = all - first; /* the method's own step, its first is 1 */
        simulate_step(p, s, !strcmp(name, "ssgd") || t < 1, size, &now);
        trajectory[all] = now;
        if (t < 1) continue;
        /* the average of which earlier step is merged now? Local-SGD averages what is there */
        int from = !strcmp(name, "local") && t % k == 0   ? t
                   : !strcmp(name, "cocod") && t % k == 0 ? t - k
                   : !strcmp(name, "dasgd")               ? t - d
                                                          : 0;
        if (from == t) {
            snapshot[t] = now;
            started[t] = true;
        }
        if (from > 0 && started[from]) {
            merge_all(s, size, &now, &snapshot[from]);
            started[from] = false;
        }
        if ((!strcmp(name, "cocod") || !strcmp(name, "dasgd")) && t % k == 0) {
            snapshot[t] = now;
            started[t] = true;
        }
        trajectory[all] = now;
    }
    for (int t = 1; t <= STEPS; t++) /* what is still in flight, in its order */
        if (started[t]) merge_all(s, size, &now, &snapshot[t]);
    trajectory[STEPS + 1] = now;
}

static const setting settings[] = {
    {"ssgd", {.overlap = true}, 0.9, 1e-2, 0, false, false},
    {"ssgd", {.overlap = false}, 0, 0, 0, false, false},
    {"local", {.period = 1}, 0.9, 0, 0, false, false},
    {"local", {.period = 2}, 0, 1e-2, 0, false, false},
    {"local", {.period = 5}, 0.9, 0, TS_MOMENTUM_AVERAGE, false, false},
    {"local", {.period = 5}, 0.9, 0, TS_MOMENTUM_ZERO, false, false},
    {"cocod", {.period = 1}, 0, 0, 0, false, false},
    {"cocod", {.period = 2}, 0.9, 1e-2, 0, false, false},
    {"cocod", {.period = 4}, 0.9, 0, TS_MOMENTUM_AVERAGE, false, false},
    {"cocod", {.period = 4}, 0.9, 0, TS_MOMENTUM_ZERO, false, false},
    {"dasgd", {.period = 4, .delay = 1, .mix = 0.25}, 0, 0, 0, false, false},
    {"dasgd", {.period = 2, .delay = 2, .mix = 0.5}, 0.9, 1e-2, 0, false, false},
    {"dasgd", {.period = 2, .delay = 5, .mix = 0.25}, 0.9, 0, TS_MOMENTUM_AVERAGE, false, false},
    {"dasgd", {.period = 1, .delay = 3, .mix = 0.1}, 0, 0, TS_MOMENTUM_ZERO, false, false},
    {"dasgd", {.period = 3, .delay = 2, .mix = 0}, 0.9, 0, 0, false, false},
    {"ssgd", {.overlap = true}, 0.9, 0, 0, true, true},
    {"ssgd", {.overlap = false}, 0.9, 0, 0, true, false},
    {"local", {.period = 3}, 0.9, 0, 0, true, true},
    {"cocod", {.period = 3}, 0.9, 0, TS_MOMENTUM_AVERAGE, true, true},
    {"dasgd", {.period = 3, .delay = 2, .mix = 0.25}, 0.9, 0, TS_MOMENTUM_AVERAGE, true, true},
    /* S-SGD for 7 steps (where the resume is), 9, 9, 3, all 17 */
    {"local", {.period = 3, .post_local = 0.4, .overlap = true}, 0.9, 0, 0, false, false},
    {"cocod", {.period = 2, .post_local = 0.51}, 0.9, 1e-2, TS_MOMENTUM_AVERAGE, true, true},
    {"dasgd",
     {.period = 2, .delay = 5, .mix = 0.25, .post_local = 0.51, .overlap = true},
     0.9,
     0,
     0,
     false,
     false},
    {"dasgd",
     {.period = 2, .delay = 1, .mix = 0.25, .post_local = 0.15, .overlap = true},
     0.9,
     0,
     0,
     false,
     true},
    {"local", {.period = 2, .post_local = 1}, 0.9, 0, 0, false, false},
};

static const value values[] = {
    {{"ssgd", {.overlap = true}, 0, 0, 0, false, false}, 6, {.584766344, .584766344}},
    {{"local", {.period = 2}, 0, 0, 0, false, false}, 6, {.61739375, .61739375}},
    {{"cocod", {.period = 2}, 0, 0, 0, false, false}, 4, {1.1378, .3692}},
    {{"cocod", {.period = 2}, 0, 0, 0, false, false}, 6, {1.107318, .260588}},
    {{"dasgd", {.period = 4, .delay = 1, .mix = .25}, 0, 0, 0, false, false}, 4, {1.6878, -.1808}},
    {{"dasgd", {.period = 4, .delay = 1, .mix = .25}, 0, 0, 0, false, false},
     5,
     {1.01988, .478965}},
    {{"dasgd", {.period = 4, .delay = 1, .mix = .25}, 0, 0, 0, false, false},
     8,
     {1.55649252, -.24276992}},
};

static const setting bad[] = {
    {"dasgd", {.period = 1, .delay = 3, .mix = 0}, 0, 0, 0, false, false},
    {"dasgd", {.period = 4, .delay = 4, .mix = 0}, 0, 0, 0, false, false},
    {"local", {.period = 0}, 0, 0, 0, false, false},
    {"cocod", {.period = -1}, 0, 0, 0, false, false},
    {"dasgd", {.period = 0, .delay = 1}, 0, 0, 0, false, false},
    {"dasgd", {.period = 4, .delay = 0}, 0, 0, 0, false, false},
    {"dasgd", {.period = 4, .delay = -2}, 0, 0, 0, false, false},
    {"dasgd", {.period = 4, .delay = 1, .mix = 1.5}, 0, 0, 0, false, false},
    {"dasgd", {.period = 4, .delay = 1, .mix = -.5}, 0, 0, 0, false, false},
    {"dasgd", {.period = 1, .delay = 100}, 0, 0, 0, false, false},
    {"local", {.period = 0, .post_local = 0.5}, 0, 0, 0, false, false},
    {"local", {.period = 1, .post_local = 1.5}, 0, 0, 0, false, false},
    {"ssgd", {.post_local = -1}, 0, 0, 0, false, false},
    {"adam", {.period = 1}, 0, 0, 0, false, false}};

static bool keeps_mean(const setting *s)
{
    return !strcmp(s->algorithm, "cocod");
}

static const family tested = {.settings = settings,
                              .n_settings = sizeof settings / sizeof *settings,
                              .simulate = simulate,
                              .values = values,
                              .n_values = sizeof values / sizeof *values,
                              .bad = bad,
                              .n_bad = sizeof bad / sizeof *bad,
                              .keeps_mean = keeps_mean};

static void test_equalities(void **state)
{
    (void)state;
    float a[N], b[N];
    problem p = random_problem();
    /* Local-SGD with k = 1 is S-SGD up to rounding, momentum being linear */
    setting local = {"local", {.period = 1}, 0.9, 0, 0, false, false},
            ssgd = {"ssgd", {.overlap = true}, 0.9, 0, 0, false, false};
    run_to(&p, &local, STEPS, true, a);
    run_to(&p, &ssgd, STEPS, true, b);
    for (int i = 0; i < N; i++) assert_true(fabsf(a[i] - b[i]) < 1e-5f);
    /* DaSGD that keeps all of the local model is N runs of their own */
    setting alone = {"dasgd", {.period = 2, .delay = 1, .mix = 1}, 0.9, 0, 0, false, false};
    run_to(&p, &alone, STEPS, true, a);
    run_to(&p, &alone, STEPS, false, b);
    assert_memory_equal(a, b, sizeof a);
    /* with the same data everywhere CoCoD-SGD is SGD, up to rounding of a - y */
    problem same = p;
    for (int r = 1; r < RANKS_MAX; r++) {
        memcpy(same.target[r], p.target[0], sizeof p.target[0]);
        memcpy(same.curve[r], p.curve[0], sizeof p.curve[0]);
    }
    setting cocod = {"cocod", {.period = 3}, 0.9, 0, 0, false, false};
    run_to(&same, &cocod, STEPS, true, a);
    run_to(&same, &cocod, STEPS, false, b);
    for (int i = 0; i < N; i++) assert_true(fabsf(a[i] - b[i]) < 1e-5f);
}

/* A run that had come to the method stays with it when it is resumed as a longer one. */
static void test_post_local_stays(void **state)
{
    (void)state;
    float a[N], b[N];
    problem p = random_problem();
    const setting early = {"cocod", {.period = 2, .post_local = 0.3}, 0.9, 0, 0, false, false};
    const setting late = {"cocod", {.period = 2, .post_local = 0.7}, 0.9, 0, 0, false, false};
    run_to(&p, &early, STEPS, true, a);
    run_resumed(&p, &early, &late, 8, b);
    assert_memory_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {GOLDEN_TESTS, cmocka_unit_test(test_equalities),
                                       cmocka_unit_test(test_post_local_stays)};
    return golden_open(&tested) ? golden_close(cmocka_run_group_tests(tests, NULL, NULL)) : 1;
}
