/* test_golden_pipe.c - Pipe-SGD and OD-SGD against their papers' equations. */
#include <math.h>

#include "tests/golden.h"

/* The model that gradients are averaged for: x itself, or with OD-SGD W, equal on all ranks. */
static void update(const setting *s, int size, double model[N], everything *now, const double *g)
{
    for (int i = 0; i < N; i++) {
        double m = s->momentum * now->m[0][i] + g[i] + s->weight_decay * model[i];
        for (int r = 0; r < size; r++) now->m[r][i] = m;
        model[i] -= RATE * m;
    }
}

static void simulate(const problem *p, const setting *s, int size, everything *trajectory)
{
    static everything now;
    static models g;
    bool od = !strcmp(s->algorithm, "od");
    double model[N], mean[N], late[N];
    start_everything(p, &now);
    for (int i = 0; i < N; i++) model[i] = p->start;
    memset(late, 0, sizeof late); /* before there is one */
    for (int t = 1; t <= STEPS; t++) {
        bool synchronous = t <= s->config.synchronous_steps;
        double lambda = od && !synchronous ? s->config.local_rate : 0;
        simulate_gradients(p, size, &now, g);
        mean_of(s, g, size, mean);
        update(s, size, model, &now, synchronous ? mean : late);
        for (int r = 0; r < size; r++)
            for (int i = 0; i < N; i++) now.x[r][i] = model[i] - lambda * RATE * g[r][i];
        if (!synchronous) memcpy(late, mean, sizeof late);
        trajectory[t] = now;
    }
    if (STEPS > s->config.synchronous_steps) update(s, size, model, &now, late);
    for (int r = 0; r < size; r++) memcpy(now.x[r], model, sizeof model);
    trajectory[STEPS + 1] = now;
}

static const setting settings[] = {
    {"pipe", {.synchronous_steps = 0}, 0, 0, 0, false, false},
    {"pipe", {.synchronous_steps = 4}, 0.9, 1e-2, 0, false, false},
    {"pipe", {.synchronous_steps = 7}, 0.9, 0, 0, true, false}, /* the resume is at 7 */
    {"pipe", {.synchronous_steps = 100}, 0.9, 1e-2, 0, false, false},
    {"od", {.local_rate = 1}, 0, 0, 0, false, false},
    {"od", {.synchronous_steps = 4, .local_rate = 0.5}, 0.9, 1e-2, 0, false, false},
    {"od", {.synchronous_steps = 7, .local_rate = 1}, 0.9, 0, 0, true, false},
    {"od", {.synchronous_steps = 6, .local_rate = 0}, 0.9, 1e-2, 0, false, false},
    {"od", {.synchronous_steps = 100, .local_rate = 1}, 0.9, 1e-2, 0, false, false},
};

#define PIPE                                                                                       \
    {                                                                                              \
        "pipe", {.synchronous_steps = 0}, 0, 0, 0, false, false                                    \
    }
#define OD                                                                                         \
    {                                                                                              \
        "od", {.local_rate = 1}, 0, 0, 0, false, false                                             \
    }
static const value values[] = {
    {PIPE, 1, {1, 1}},           {PIPE, 2, {.9, .9}},         {PIPE, 3, {.8, .8}},
    {PIPE, 4, {.715, .715}},     {PIPE, 6, {.58775, .58775}}, {OD, 2, {1.08, .58}},
    {OD, 6, {.878798, .386198}},
};

static const setting bad[] = {
    {"pipe", {.synchronous_steps = -1}, 0, 0, 0, false, false},
    {"od", {.synchronous_steps = -1, .local_rate = 1}, 0, 0, 0, false, false},
    {"od", {.local_rate = -1}, 0, 0, 0, false, false},
    {"pipe", {.post_local = 0.5}, 0, 0, 0, false, false},
};

static const family tested = {.settings = settings,
                              .n_settings = sizeof settings / sizeof *settings,
                              .simulate = simulate,
                              .values = values,
                              .n_values = sizeof values / sizeof *values,
                              .bad = bad,
                              .n_bad = sizeof bad / sizeof *bad};

/* By hand: W after step t, the mean gradient that was under way used. */
static void test_drained(void **state)
{
    static const value known[] = {{OD, 2, {.83, .83}}, {OD, 6, {.632498, .632498}}};
    (void)state;
    if (world->size != 2) skip();
    problem p = known_problem();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        float out[N];
        run_and_drain(&p, &known[i].s, known[i].step, out);
        assert_true(fabs(out[7] - known[i].x[0]) < 1e-5);
    }
}

/* The models of all ranks have the same bits: Pipe-SGD's always, OD-SGD's when it is drained. */
static void test_equal_on_all_ranks(void **state)
{
    (void)state;
    float out[N], all[RANKS_MAX][N];
    problem p = random_problem();
    for (int i = 0; i < tested.n_settings; i++)
        for (int drained = strcmp(settings[i].algorithm, "od") == 0; drained < 2; drained++) {
            if (drained)
                run_and_drain(&p, &settings[i], STEPS, out);
            else
                run_to(&p, &settings[i], STEPS, true, out);
            OK(world->ops->all_gather(world, out, all, sizeof out));
            for (int r = 1; r < world->size; r++) assert_memory_equal(all[r], all[0], sizeof out);
        }
}

/* Pipe-SGD that is synchronous to the end is S-SGD; OD-SGD without a local step is Pipe-SGD. */
static void test_equalities(void **state)
{
    (void)state;
    float a[N], b[N];
    problem p = random_problem();
    const setting ssgd = {"ssgd", {.overlap = false}, 0.9, 1e-2, 0, false, false};
    const setting pipe = {"pipe", {.synchronous_steps = 6}, 0.9, 1e-2, 0, false, false};
    run_to(&p, &ssgd, STEPS, true, a);
    run_to(&p, &settings[3], STEPS, true, b);
    assert_memory_equal(a, b, sizeof a);
    run_to(&p, &pipe, STEPS, true, a);
    run_to(&p, &settings[7], STEPS, true, b);
    assert_memory_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {GOLDEN_TESTS, cmocka_unit_test(test_drained),
                                       cmocka_unit_test(test_equal_on_all_ranks),
                                       cmocka_unit_test(test_equalities)};
    return golden_open(&tested) ? golden_close(cmocka_run_group_tests(tests, NULL, NULL)) : 1;
}
