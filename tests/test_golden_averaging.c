/* test_golden_averaging.c - what methods that average models can be told: slow momentum, corrected
 * merges, fragments; against the equations in averaging.h and SlowMo's paper.
 *
 * The learning rate changes during a run, because SlowMo divides by it. The simulation keeps the
 * paper's u, works on each element by itself, and finds by search which fragment it belongs to. */
#include <math.h>

#include "tests/golden.h"

static double rate(int step)
{
    static const double rates[] = {0.1, 0.1, 0.05, 0.08, 0, 0.02, 0.02, 0.02};
    return step < 32 ? rates[step / 4] : rates[7];
}

/* ---- the simulation ---- */

/* An average that started with some local step, of one fragment. */
typedef struct flight {
    everything then;
    double x[N], m[N], s[N]; /* the average, or the outer model */
    bool under_way;
} flight;

typedef struct outer {
    double z[N], u[N];
} outer;

static int fragments_of(const setting *s)
{
    return s->config.fragments ? (int)s->config.fragments : 1;
}

/* Is element i of n in fragment p? Fragments are whole blocks of 64, as equal as they can be. */
static bool within(const setting *s, int p, int i, int n)
{
    int all = fragments_of(s);
    return i / 64 >= p * (n / 64) / all && i / 64 < (p + 1) * (n / 64) / all;
}

/* The fragment whose average starts with local step t, or -1. */
static int starting(const setting *s, int t)
{
    int k = (int)s->config.period;
    for (int p = 0; t > 0 && p < fragments_of(s); p++)
        for (int at = p * k / fragments_of(s); at <= t; at += k)
            if (at == t) return p;
    return -1;
}

/* An outer step of the elements of fragment p: SlowMo, algorithm 1, lines 7 and 8. */
static void move(const setting *s, int p, double eta, outer *o, double *average)
{
    double beta = s->config.slow_momentum, alpha = s->config.slow_rate;
    if (beta == 0 && (alpha == 0 || alpha == 1)) return;
    for (int i = 0; i < N; i++) {
        if (!within(s, p, i, N)) continue;
        if (eta > 0) {
            o->u[i] = beta * o->u[i] + (o->z[i] - average[i]) / eta;
            o->z[i] -= alpha * eta * o->u[i];
        } else { /* the limit: what u was counts for nothing */
            o->z[i] -= alpha * (o->z[i] - average[i]);
            o->u[i] = 0;
        }
        average[i] = o->z[i];
    }
}

static void begin_flight(const setting *s, int size, int p, double eta, const everything *now,
                         outer *o, flight *f)
{
    f->then = *now;
    f->under_way = true;
    mean_of(s, f->then.x, size, f->x);
    mean_of(s, f->then.m, size, f->m);
    mean_of(s, f->then.s, size, f->s);
    move(s, p, eta, o, f->x);
}

static double merged(const setting *s, double x, double y, double a)
{
    bool cocod = !strcmp(s->algorithm, "cocod"), dasgd = !strcmp(s->algorithm, "dasgd");
    double w = dasgd ? 1 - s->config.mix : 1;
    if (cocod || (s->config.merge && !strcmp(s->config.merge, "corrected"))) return x + w * (a - y);
    return (1 - w) * x + w * a;
}

static void end_flight(const setting *s, int size, int p, everything *now, flight *f)
{
    f->under_way = false;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < N; i++) {
            if (i < N_STATISTICS && s->average_statistics && within(s, p, i, N_STATISTICS))
                now->s[r][i] = f->s[i];
            if (!within(s, p, i, N)) continue;
            now->x[r][i] = merged(s, now->x[r][i], f->then.x[r][i], f->x[i]);
            if (s->policy == TS_MOMENTUM_ZERO) now->m[r][i] = 0;
            if (s->policy == TS_MOMENTUM_AVERAGE)
                now->m[r][i] = merged(s, now->m[r][i], f->then.m[r][i], f->m[i]);
        }
}

static void step_all(const setting *s, int size, double eta, everything *now, models g)
{
    for (int r = 0; r < size; r++)
        for (int i = 0; i < N; i++) {
            now->m[r][i] = s->momentum * now->m[r][i] + g[r][i] + s->weight_decay * now->x[r][i];
            now->x[r][i] -= eta * now->m[r][i];
        }
}

static void simulate(const problem *p, const setting *s, int size, everything *trajectory)
{
    static everything now;
    static flight flights[STEPS + 1];
    static models g;
    outer o = {.u = {0}};
    int first = first_local(s);
    int d = (int)(!strcmp(s->algorithm, "local")   ? 0
                  : !strcmp(s->algorithm, "cocod") ? s->config.period
                                                   : s->config.delay);
    for (int t = 0; t <= STEPS; t++) flights[t].under_way = false;
    start_everything(p, &now);
    memcpy(o.z, now.x[0], sizeof o.z);
    for (int all = 1; all <= STEPS; all++) {
        int t = all - first; /* the method's own step */
        double eta = rate(all);
        simulate_gradients(p, size, &now, g);
        if (t < 1) simulate_mean_gradients(s, size, g);
        step_all(s, size, eta, &now, g);
        if (t == 0) memcpy(o.z, now.x[0], sizeof o.z);
        if (t - d > 0 && d && flights[t - d].under_way)
            end_flight(s, size, starting(s, t - d), &now, &flights[t - d]);
        if (starting(s, t) >= 0) {
            begin_flight(s, size, starting(s, t), eta, &now, &o, &flights[t]);
            if (!d) end_flight(s, size, starting(s, t), &now, &flights[t]);
        }
        trajectory[all] = now;
    }
    for (int t = 1; t <= STEPS; t++)
        if (flights[t].under_way) end_flight(s, size, starting(s, t), &now, &flights[t]);
    trajectory[STEPS + 1] = now;
}

/* ---- settings ---- */

#define SLOW(beta, alpha) .slow_momentum = beta, .slow_rate = alpha
#define CORRECTED .merge = "corrected"
#define FRAGMENTS(p) .fragments = p
#define AVERAGE TS_MOMENTUM_AVERAGE
#define ZERO TS_MOMENTUM_ZERO

static const setting settings[] = {
    {"local", {.period = 2, SLOW(0.5, 1)}, 0, 0, 0, false, false},
    {"local", {.period = 3, SLOW(0.7, 0.8)}, 0.9, 1e-2, AVERAGE, true, true},
    {"local", {.period = 1, SLOW(0, 0.6)}, 0.9, 0, ZERO, false, false},
    {"local",
     {.period = 2, SLOW(0.5, 1), .post_local = 0.4, .overlap = true},
     0.9,
     0,
     0,
     false,
     true},
    {"cocod", {.period = 2, SLOW(0.5, 1)}, 0, 1e-2, 0, false, false},
    {"cocod", {.period = 3, SLOW(0.4, 0.9)}, 0.9, 0, AVERAGE, true, true},
    {"dasgd", {.period = 4, .delay = 1, .mix = 0.25, SLOW(0.5, 1)}, 0, 0, 0, false, false},
    {"dasgd",
     {.period = 4, .delay = 4, .mix = 0.5, SLOW(0.3, 1.2), .post_local = 0.15, .overlap = true},
     0.9,
     0,
     ZERO,
     false,
     true},
    /* corrected merges, with one, two and three averages in flight */
    {"dasgd", {.period = 4, .delay = 1, .mix = 0.25, CORRECTED}, 0, 1e-2, 0, false, false},
    {"dasgd", {.period = 2, .delay = 2, .mix = 0, CORRECTED}, 0.9, 0, AVERAGE, true, true},
    {"dasgd", {.period = 3, .delay = 5, .mix = 0.25, CORRECTED}, 0.9, 0, AVERAGE, true, false},
    {"dasgd", {.period = 2, .delay = 5, .mix = 0.5, CORRECTED}, 0, 0, ZERO, false, true},
    {"dasgd", {.period = 3, .delay = 2, CORRECTED, SLOW(0.5, 1)}, 0.9, 0, 0, true, true},
    /* fragments: equal, unequal, each step another; all with what they must go along with */
    {"cocod", {.period = 2, FRAGMENTS(2)}, 0.9, 1e-2, 0, false, false},
    {"cocod", {.period = 4, FRAGMENTS(3)}, 0.9, 0, AVERAGE, true, true},
    {"cocod", {.period = 4, FRAGMENTS(4)}, 0.9, 0, ZERO, false, true},
    {"cocod", {.period = 5, FRAGMENTS(2), SLOW(0.5, 0.9)}, 0.9, 0, 0, true, true},
    {"cocod",
     {.period = 3, FRAGMENTS(3), SLOW(0.5, 1), .post_local = 0.3, .overlap = true},
     0.9,
     1e-2,
     AVERAGE,
     false,
     true},
    {"dasgd",
     {.period = 4, .delay = 1, .mix = 0.25, FRAGMENTS(2)},
     0.9,
     1e-2,
     AVERAGE,
     false,
     false},
    {"dasgd", {.period = 2, .delay = 5, .mix = 0.25, FRAGMENTS(2)}, 0.9, 0, ZERO, true, true},
    {"dasgd", {.period = 2, .delay = 4, .mix = 0.25, FRAGMENTS(2)}, 0, 0, 0, false, false},
    {"dasgd",
     {.period = 3, .delay = 5, .mix = 0.4, CORRECTED, FRAGMENTS(3)},
     0.9,
     0,
     AVERAGE,
     true,
     true},
    {"dasgd",
     {.period = 4, .delay = 3, .mix = 0.1, CORRECTED, FRAGMENTS(4), SLOW(0.6, 1)},
     0.9,
     0,
     0,
     false,
     true},
};

#define BY_HAND(name, ...)                                                                         \
    {                                                                                              \
        name, {__VA_ARGS__}, 0, 0, 0, false, false                                                 \
    }
static const value values[] = {
    {BY_HAND("local", .period = 2, SLOW(0.5, 1)), 2, {.83, .83}},
    {BY_HAND("local", .period = 2, SLOW(0.5, 1)), 4, {.62175, .62175}},
    {BY_HAND("local", .period = 2, SLOW(0.5, 1)), 6, {.45164375, .45164375}},
    {BY_HAND("cocod", .period = 2, SLOW(0.5, 1)), 4, {1.1378, .3692}},
    {BY_HAND("cocod", .period = 2, SLOW(0.5, 1)), 6, {1.022318, .175588}},
    {BY_HAND("dasgd", .period = 4, .delay = 1, .mix = .25, CORRECTED), 5, {1.118295, .356085}},
    {BY_HAND("cocod", .period = 2, FRAGMENTS(2)), 6, {1.107318, .260588}},
};

static const setting bad[] = {
    {"local", {.period = 2, SLOW(1, 1)}, 0, 0, 0, false, false},
    {"local", {.period = 2, SLOW(-0.1, 1)}, 0, 0, 0, false, false},
    {"cocod", {.period = 2, SLOW(0.5, 0)}, 0, 0, 0, false, false},
    {"cocod", {.period = 2, SLOW(0.5, -1)}, 0, 0, 0, false, false},
    {"cocod", {.period = 2, FRAGMENTS(3)}, 0, 0, 0, false, false},
    {"cocod", {.period = 2, FRAGMENTS(-1)}, 0, 0, 0, false, false},
    {"cocod", {.period = 9, FRAGMENTS(5)}, 0, 0, 0, false, false}, /* 4 blocks */
    {"dasgd", {.period = 2, .delay = 1, FRAGMENTS(4)}, 0, 0, 0, false, false},
    {"dasgd", {.period = 2, .delay = 3, .mix = 0.25, SLOW(0.5, 1)}, 0, 0, 0, false, false},
    {"dasgd", {.period = 2, .delay = 4, .mix = 0, CORRECTED}, 0, 0, 0, false, false},
    {"dasgd", {.period = 2, .delay = 5, .mix = 0.38, CORRECTED}, 0, 0, 0, false, false},
};

/* Merges that lose nothing keep the mean, unless what is merged has momentum. */
static bool keeps_mean(const setting *s)
{
    return (s->config.merge || !strcmp(s->algorithm, "cocod")) && s->config.slow_rate == 0;
}

static const family tested = {.settings = settings,
                              .n_settings = sizeof settings / sizeof *settings,
                              .simulate = simulate,
                              .values = values,
                              .n_values = sizeof values / sizeof *values,
                              .bad = bad,
                              .n_bad = sizeof bad / sizeof *bad,
                              .rate = rate,
                              .keeps_mean = keeps_mean};

/* ---- the same bits ---- */

static void assert_same_run(const setting *a, const setting *b)
{
    float x[N], y[N];
    problem p = random_problem();
    run_to(&p, a, STEPS, true, x);
    run_to(&p, b, STEPS, true, y);
    if (memcmp(x, y, sizeof x)) fail_msg("%s and %s differ", a->algorithm, b->algorithm);
    run_and_drain(&p, a, STEPS, x);
    run_and_drain(&p, b, STEPS, y);
    if (memcmp(x, y, sizeof x)) fail_msg("%s and %s differ, drained", a->algorithm, b->algorithm);
}

/* beta 0, alpha 1, one fragment, a blend: what each method is without them. */
static void what_is_off_changes_nothing(void **state)
{
    static const setting plain[] = {
        {"local", {.period = 2}, 0.9, 1e-2, AVERAGE, true, true},
        {"cocod", {.period = 3}, 0.9, 1e-2, AVERAGE, true, true},
        {"dasgd", {.period = 2, .delay = 3, .mix = 0.25}, 0.9, 1e-2, ZERO, true, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        setting told = plain[i];
        told.config.slow_rate = 1;
        told.config.fragments = 1;
        told.config.merge = "blend";
        assert_same_run(&plain[i], &told);
    }
}

/* DaSGD that keeps nothing, corrects, and merges where the next average starts is CoCoD-SGD. */
static void corrected_dasgd_is_cocod(void **state)
{
    static const int fragments[] = {1, 3};
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int policy = 0; policy < 3; policy++) {
            setting cocod = {"cocod", {.period = 3}, 0.9, 1e-2, policy, true, true};
            cocod.config.fragments = fragments[i];
            setting dasgd = cocod;
            dasgd.algorithm = "dasgd";
            dasgd.config.delay = 3;
            dasgd.config.merge = "corrected";
            assert_same_run(&cocod, &dasgd);
            cocod.config.slow_momentum = dasgd.config.slow_momentum = 0.6;
            cocod.config.slow_rate = dasgd.config.slow_rate = 0.9;
            assert_same_run(&cocod, &dasgd);
        }
}

/* After a merge of SlowMo all ranks have the outer model, bit for bit. */
static void slowmo_leaves_equal_models(void **state)
{
    (void)state;
    problem p = random_problem();
    float x[N];
    run_to(&p, &settings[1], 15, true, x);
    OK(ts_world_same(world, "the outer model", x, sizeof x));
}

/* A run may go on with another delay: averages under way are merged so many steps after their
 * start. */
static void another_delay_from_the_resume_on(void **state)
{
    (void)state;
    problem p = random_problem();
    float x[N], y[N];
    setting one = {"dasgd", {.period = 4, .delay = 1, .mix = 0.25}, 0.9, 0, AVERAGE, true, true};
    setting three = one;
    three.config.delay = 3;
    run_resumed(&p, &one, &three, 4, x); /* with the first average just started */
    run_to(&p, &three, STEPS, true, y);
    assert_memory_equal(x, y, sizeof x);
    run_resumed(&p, &three, &one, 6, x); /* that of step 4 is overdue */
    run_resumed(&p, &three, &one, 7, y); /* it has been merged */
    assert_memory_equal(x, y, sizeof x);
}

/* Near the limit that periodic.c lets pass differences between ranks die away. */
static void corrected_merges_converge(void **state)
{
    (void)state;
    if (world->size != 2) skip();
    float early[N], late[N], other[N];
    problem p = random_problem();
    for (int i = 0; i < N; i++) p.curve[0][i] = p.curve[1][i] = 0; /* models stay where they are, */
    p.start = world->rank;                                         /* apart by 1 */
    setting s = {"dasgd", {.period = 1, .delay = 3, .mix = 0.45, CORRECTED}, 0, 0, 0, false, false};
    run_to(&p, &s, 4, true, early);
    run_to(&p, &s, 400, true, late);
    OK(world->ops->broadcast(world, memcpy(other, late, sizeof late), sizeof late, 0));
    assert_true(fabsf(early[0] - 0.5f) > 0.01f);
    for (int i = 0; i < N; i++) assert_true(fabsf(late[i] - other[i]) < 1e-4f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {GOLDEN_TESTS,
                                       cmocka_unit_test(what_is_off_changes_nothing),
                                       cmocka_unit_test(corrected_dasgd_is_cocod),
                                       cmocka_unit_test(slowmo_leaves_equal_models),
                                       cmocka_unit_test(another_delay_from_the_resume_on),
                                       cmocka_unit_test(corrected_merges_converge)};
    return golden_open(&tested) ? golden_close(cmocka_run_group_tests(tests, NULL, NULL)) : 1;
}
