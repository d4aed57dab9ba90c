/* test_schedule.c - learning rates against their formulas in double, and the tick that ends a local
 * step in the control block. */
#include <math.h>

#include "runtime/train/schedule.h"
#include "tests/check.h"

static void near(double x, double y)
{
    if (fabs(x - y) > 1e-6) fail_msg("%g is not %g", x, y);
}

/* Values worked out by hand. */
static void test_literal_rates(void **state)
{
    (void)state;
    ts_schedule s = {.kind = TS_SCHEDULE_CONSTANT,
                     .peak = 0.4f,
                     .gamma = 0.1f,
                     .total = 100,
                     .warmup = 3,
                     .n_milestones = 2,
                     .milestones = {50, 75}};
    near(ts_schedule_rate(&s, 0), 0.1);
    near(ts_schedule_rate(&s, 2), 0.3);
    near(ts_schedule_rate(&s, 3), 0.4);
    near(ts_schedule_rate(&s, 99), 0.4);
    s.kind = TS_SCHEDULE_STEP;
    near(ts_schedule_rate(&s, 49), 0.4);
    near(ts_schedule_rate(&s, 50), 0.04);
    near(ts_schedule_rate(&s, 75), 0.004);
    s.kind = TS_SCHEDULE_COSINE;
    s.warmup = 0;
    near(ts_schedule_rate(&s, 0), 0.4);
    near(ts_schedule_rate(&s, 50), 0.2);
    near(ts_schedule_rate(&s, 100), 0);
    near(ts_schedule_rate(&s, 200), 0);
    s.kind = TS_SCHEDULE_ONE_CYCLE;
    s.warmup = 20;
    s.final_ratio = 0.5f;
    near(ts_schedule_rate(&s, 20), 0.4);
    near(ts_schedule_rate(&s, 60), 0.3);
    near(ts_schedule_rate(&s, 100), 0.2);
    near(ts_schedule_rate(&s, 1000), 0.2);
    for (int i = 1; i < 100; i++) /* up to the peak, then down */
        assert_true((ts_schedule_rate(&s, i) > ts_schedule_rate(&s, i - 1)) == (i <= 20));
    s.warmup = s.total; /* all of it warm-up */
    near(ts_schedule_rate(&s, 100), 0.2);
}

static void test_rates(void **state)
{
    (void)state;
    ts_schedule s = {.peak = 0.4f, .final_ratio = 0.1f, .gamma = 0.5f, .total = 100, .warmup = 20};
    for (s.kind = TS_SCHEDULE_CONSTANT; s.kind <= TS_SCHEDULE_ONE_CYCLE; s.kind++)
        for (int64_t step = 0; step < 120; step++) {
            double t = step < 100 ? (double)(step - 20) / 80 : 1, low = 0.1, expected = 0.4;
            if (step < 20) {
                double from = s.kind == TS_SCHEDULE_ONE_CYCLE ? low : 0;
                expected *= from + (1 - from) * (double)(step + 1) / 21;
            } else if (s.kind == TS_SCHEDULE_COSINE) {
                expected *= low + (1 - low) * (1 + cos(acos(-1) * t)) / 2;
            } else if (s.kind == TS_SCHEDULE_ONE_CYCLE) {
                expected *= 1 - (1 - low) * t;
            } else if (s.kind == TS_SCHEDULE_STEP) {
                s.n_milestones = 2;
                s.milestones[0] = 40;
                s.milestones[1] = 60;
                expected *= step < 40 ? 1 : step < 60 ? 0.5 : 0.25;
            }
            double rate = (double)ts_schedule_rate(&s, step);
            if (fabs(rate - expected) > 1e-6)
                fail_msg("schedule %d, step %d: %g, expected %g", (int)s.kind, (int)step, rate,
                         expected);
        }
}

/* 3 batches of 4 fit in 14 samples: then the next epoch begins. */
static void test_tick(void **state)
{
    (void)state;
    ts_device *device;
    ts_stream *stream;
    ts_control *control;
    ts_schedule s = {.kind = TS_SCHEDULE_COSINE, .peak = 1, .total = 7};
    OK(ts_device_open(test_device(), 0, &device));
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, sizeof *control, (void **)&control));
    *control = (ts_control){.seed = 1};
    for (int64_t step = 1; step <= 7; step++) {
        OK(ts_schedule_tick(stream, &s, 4, 14, &(ts_echo){0}, control));
        OK(ts_stream_sync(stream));
        assert_int_equal(control->step, step);
        assert_int_equal(control->epoch, step / 3);
        assert_int_equal(control->position, step % 3 * 4);
        assert_true(control->learning_rate == ts_schedule_rate(&s, step));
    }
    ts_device_release(device, TS_MEMORY_DEVICE, control);
    ts_stream_close(stream);
    ts_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_literal_rates),
                                       cmocka_unit_test(test_rates), cmocka_unit_test(test_tick)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
