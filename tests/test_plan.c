/* test_plan.c - the planner against what can be worked out by hand, and its own laws. */
#include <math.h>

#include "runtime/plan/plan.h"
#include "tests/check.h"

/* 16 ranks of one host each, 100 ms steps, 40 MB, 1 GB/s: a ring takes 75 ms and 3 ms of latency.
 */
static const ts_plan_cluster plain = {.ranks = 16,
                                      .per_host = 1,
                                      .inner = {10e9, 1e-6},
                                      .outer = {1e9, 1e-4},
                                      .step_s = 0.1,
                                      .forward_share = 1. / 3,
                                      .bytes = 40e6,
                                      .buckets = 10,
                                      .seed = 1};
#define RING (2 * 15. / 16 * 0.04 + 30 * 1e-4)

static ts_plan_forecast forecast(const ts_plan_cluster *c, const char *algorithm, bool overlap,
                                 int64_t k, int64_t d)
{
    ts_plan_forecast f;
    ts_plan_method m = {algorithm, overlap, k, d, 1};
    OK(ts_plan_run(c, &m, 60 * k, &f));
    return f;
}

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * (1 + fabs(b)))) fail_msg("%.12g is not %.12g", a, b);
}

static void test_all_reduce(void **state)
{
    (void)state;
    ts_plan_cluster c = plain;
    near(ts_plan_all_reduce(&c, 40e6), RING);
    c.ranks = 1;
    near(ts_plan_all_reduce(&c, 40e6), 0);
    c.ranks = 8;
    c.per_host = 8;
    near(ts_plan_all_reduce(&c, 40e6), 2 * 7. / 8 * 40e6 / 10e9 + 14e-6);
    c.ranks = 32; /* four hosts: at the slowest link's pace; of 62 hops each eighth leaves a host */
    near(ts_plan_all_reduce(&c, 40e6), 2 * 31. / 32 * 0.04 + 62. / 8 * 1e-4 + 62. * 7 / 8 * 1e-6);
    c.shape = TS_PLAN_HIERARCHICAL;
    near(ts_plan_all_reduce(&c, 40e6), 2 * 7. / 8 * 40e6 / 10e9 + 14e-6 + 2 * 3. / 4 * 0.04 + 6e-4);
    c.shape = TS_PLAN_TREE;
    near(ts_plan_all_reduce(&c, 40e6), 2 * 0.04 + 14e-6 + 4e-4);
    c.ranks = 4096; /* 512 hosts: nine hops between hosts up and nine down, not 1024 */
    near(ts_plan_all_reduce(&c, 0), 14e-6 + 18e-4);
    c.ranks = 8; /* one host is a ring always */
    near(ts_plan_all_reduce(&c, 40e6), 2 * 7. / 8 * 40e6 / 10e9 + 14e-6);
}

static void test_closed_forms(void **state)
{
    (void)state;
    ts_plan_forecast f = forecast(&plain, "ssgd", false, 1, 1);
    near(f.step_s, 0.1 + RING);
    near(f.exposed_s, RING);
    near(f.hidden, 0);
    near(f.speedup, 16 * 0.1 / (0.1 + RING));
    f = forecast(&plain, "local", false, 4, 1);
    near(f.step_s, 0.1 + RING / 4);
    near(f.comm_s, RING / 4);
    f = forecast(&plain, "cocod", false, 1, 1); /* 78 ms beside 100 ms */
    near(f.step_s, 0.1);
    near(f.hidden, 1);
    near(f.speedup, 16);
    ts_plan_cluster slow = plain;
    slow.outer.bytes_per_s = 0.1e9; /* 0.753 s beside a round of 0.4 s */
    double ring = ts_plan_all_reduce(&slow, slow.bytes);
    f = forecast(&slow, "cocod", false, 4, 1);
    near(f.step_s, ring / 4);
    near(f.exposed_s, ring / 4 - 0.1);
    f = forecast(&slow, "dasgd", false, 8, 4); /* a round of 0.8 s, of which 0.4 s hide it */
    near(f.step_s, 0.1 + (ring - 0.4) / 8);
    f = forecast(&slow, "pipe", false, 8, 1); /* the mean gradient beside one step: max(c, m) */
    near(f.step_s, ring);
    near(f.comm_s, ring);
    near(forecast(&plain, "od", false, 8, 1).step_s, 0.1);
    near(forecast(&slow, "overlap-local", false, 4, 1).step_s, ring / 4);
    f = forecast(&slow, "dasgd", false, 8, 16); /* a delay beyond the period hides all */
    near(f.step_s, 0.1);
    ts_plan_method streaming = {"cocod", false, 4, 1, 4}; /* a quarter of it beside each step */
    OK(ts_plan_run(&plain, &streaming, 64, &f));
    near(f.step_s, 0.1);
    near(f.comm_s, ts_plan_all_reduce(&plain, plain.bytes / 4));
    OK(ts_plan_run(&slow, &streaming, 64, &f));
    near(f.step_s, ts_plan_all_reduce(&slow, slow.bytes / 4));
    streaming = (ts_plan_method){"dasgd", false, 8, 4, 2}; /* half of it beside 4 steps of 8 */
    OK(ts_plan_run(&slow, &streaming, 64, &f));
    near(f.step_s, 0.1);
    streaming.fragments = 9;
    assert_int_equal(ts_plan_run(&slow, &streaming, 64, &f), TS_EUSAGE);
    f = forecast(&slow, "dasgd", false, 4, 40); /* but no delay helps a link that is too slow */
    assert_true(f.step_s > 0.99 * ring / 4);
}

/* Buckets: the first leaves after forward and a tenth of backward, the last when backward ends. */
static void test_buckets(void **state)
{
    (void)state;
    ts_plan_cluster c = plain;
    c.outer.latency_s = 0;
    double ring = ts_plan_all_reduce(&c, c.bytes), bucket = ring / 10;
    ts_plan_forecast f = forecast(&c, "ssgd", true, 1, 1);
    double first =
        0.1 * (1. / 3 + 2. / 3 / 10); /* from here on the link never rests: 7.5 > 6.7 ms */
    near(f.step_s, first + ring);
    c.bytes = 4e6; /* the link waits for gradients: only the last bucket is late */
    f = forecast(&c, "ssgd", true, 1, 1);
    near(f.step_s, 0.1 + bucket / 10);
}

static void test_contention(void **state)
{
    (void)state;
    ts_plan_cluster c = plain;
    c.contention = 0.2;
    ts_plan_forecast f = forecast(&c, "cocod", false, 1, 1);
    /* RING seconds of each step pass at 1 / 1.2 of the speed */
    near(f.step_s, RING + (0.1 - RING / 1.2));
    near(f.exposed_s, 0);
    f = forecast(&c, "ssgd", false, 1, 1); /* compute waits: nothing runs beside */
    near(f.step_s, 0.1 + RING);
}

/* With stragglers every barrier costs; the fewer of them, the less. One rank waits for nobody. */
static void test_stragglers(void **state)
{
    (void)state;
    ts_plan_cluster c = plain;
    c.spread = 0.2;
    c.bytes = 0;
    c.outer.latency_s = 0;
    double before = 1e9;
    for (int64_t k = 1; k <= 64; k *= 4) {
        ts_plan_forecast f = forecast(&c, "local", false, k, 1);
        assert_true(f.step_s > 0.1 && f.step_s < before);
        before = f.step_s;
    }
    c.ranks = 1;
    ts_plan_forecast f = forecast(&c, "ssgd", false, 1, 1);
    assert_true(fabs(f.step_s - 0.1) < 0.01); /* 60 steps of spread 0.2: 2.6 % */
    near(f.exposed_s, 0);
    ts_plan_forecast again = forecast(&c, "ssgd", false, 1, 1);
    near(again.step_s, f.step_s); /* the same seed */
}

static void test_unequal(void **state)
{
    (void)state;
    double speeds[16];
    for (int r = 0; r < 16; r++) speeds[r] = r == 3 ? 0.5 : 1;
    ts_plan_cluster c = plain;
    c.speeds = speeds;
    near(forecast(&c, "ssgd", false, 1, 1).step_s, 0.2 + RING);
    near(forecast(&c, "cocod", false, 4, 1).step_s, 0.2);
}

static void test_period(void **state)
{
    (void)state;
    int64_t k;
    ts_plan_cluster c = plain;
    OK(ts_plan_period(&c, "cocod", 0, 0.01, 1, 100, &k));
    assert_int_equal(k, 1);
    c.outer.bytes_per_s = 0.1e9; /* 0.753 s: eight steps */
    OK(ts_plan_period(&c, "cocod", 0, 0.001, 1, 100, &k));
    assert_int_equal(k, 8);
    OK(ts_plan_period(&c, "dasgd", 0, 0.001, 1, 100, &k));
    assert_int_equal(k, 16); /* half of it is the delay */
    OK(ts_plan_period(&c, "cocod", 0, 0.001, 1, 7, &k));
    assert_int_equal(k, 0);
    double ring = ts_plan_all_reduce(&c, c.bytes), x;
    OK(ts_plan_excess(&c, "cocod", 7, 0, &x));
    near(x, ring / 0.1 / 7 - 1);
    OK(ts_plan_period(&c, "dasgd", 5, 0.1, 1, 100, &k)); /* (7.5 - 5) / k steps */
    assert_int_equal(k, 26);
    OK(ts_plan_period(&c, "dasgd", 5, 0.1, 40, 100, &k));
    assert_int_equal(k, 40);
    OK(ts_plan_excess(&c, "dasgd", 26, 5, &x));
    near(x, (ring / 0.1 - 5) / 26);
}

static void test_refusals(void **state)
{
    (void)state;
    ts_plan_forecast f;
    ts_plan_cluster c = plain;
    assert_int_equal(ts_plan_run(&c, &(ts_plan_method){"adam", false, 1, 1, 1}, 10, &f), TS_EUSAGE);
    assert_int_equal(ts_plan_run(&c, &(ts_plan_method){"cocod", false, 0, 1, 1}, 10, &f),
                     TS_EUSAGE);
    c.step_s = 0;
    assert_int_equal(ts_plan_run(&c, &(ts_plan_method){"cocod", false, 1, 1, 1}, 10, &f),
                     TS_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_reduce), cmocka_unit_test(test_closed_forms),
        cmocka_unit_test(test_buckets),    cmocka_unit_test(test_contention),
        cmocka_unit_test(test_stragglers), cmocka_unit_test(test_unequal),
        cmocka_unit_test(test_period),     cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
