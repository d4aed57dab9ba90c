/* test_input.c - the hook before a step's batch: what it waits for, that the wait is in the trace,
 * and what an automatic echo makes of a late input. The samples are never read: a feed of a data
 * set on the device is its rate. */
#include "runtime/base/clock.h"
#include "runtime/train/input.h"
#include "tests/check.h"

enum { BATCH = 4, SAMPLES = 24 };

static ts_device *device;
static ts_world one = {.size = 1};

typedef struct rig {
    ts_config config;
    ts_trainer t;
    ts_input *input;
    int64_t waited_ns, last_end_ns; /* of spans "input" */
} rig;

/* `seconds`: of a batch by the rate. */
static void open_rig(rig *r, double seconds, double echo, const char *at, ts_control control)
{
    *r = (rig){.config = {.batch = BATCH, .echo = echo, .echo_at = at, .echo_most = 3}};
    ts_trainer *t = &r->t;
    t->config = &r->config;
    t->world = &one;
    t->device = device;
    t->step = control.step;
    t->schedule = (ts_schedule){.peak = 1, .total = 1000};
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &t->compute));
    OK(ts_trace_open(device, 1024, &t->trace));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, sizeof *t->control, (void **)&t->control));
    *t->control = control;
    OK(ts_dataset_open(device, "synthetic:train=24,test=4,size=4", &t->dataset));
    OK(ts_shard_open(t->dataset, 0, 1, (int[]){BATCH}, 0, 1, &t->shard));
    ts_augment augment = {.shuffle = true};
    ts_feed_options o = {.ranks = 1, .prefetch = 2, .rate = BATCH / seconds};
    OK(ts_feed_train(t->dataset, &t->shard, &augment, 1, &o, &t->feed));
    OK(ts_input_open(t, &r->input));
    assert_non_null(r->input);
}

static void close_rig(rig *r)
{
    ts_trainer *t = &r->t;
    OK(ts_stream_sync(t->compute));
    ts_input_close(r->input);
    ts_feed_close(t->feed);
    ts_shard_close(t->dataset, &t->shard);
    ts_dataset_close(t->dataset);
    ts_device_release(device, TS_MEMORY_DEVICE, t->control);
    ts_trace_close(t->trace);
    ts_stream_close(t->compute);
}

static void on_span(void *context, const ts_span *span)
{
    rig *r = context;
    if (span->kind != TS_SPAN_INPUT) return;
    r->waited_ns += span->end_ns - span->begin_ns;
    r->last_end_ns = span->end_ns;
}

/* A step with nothing in it but the hook and the tick; the control block is as the batch sees it.
 */
static void run_step(rig *r, ts_control *seen)
{
    ts_trainer *t = &r->t;
    ts_echo echo = ts_input_echo(t);
    OK(ts_input_step(r->input));
    OK(ts_stream_sync(t->compute));
    *seen = *t->control;
    OK(ts_schedule_tick(t->compute, &t->schedule, BATCH, t->shard.n, &echo, t->control));
    OK(ts_stream_sync(t->compute));
    ts_trace_drain(t->trace, on_span, r);
    t->step++;
}

static int64_t position_of(const ts_control *c)
{
    return c->epoch * SAMPLES + c->position;
}

/* Compute leaves step s not before the batch that it needs first is due; it stood in the spans for
 * most of that time (all of it but for what the threads need to wake up). */
static void test_waits(void **state)
{
    static const struct {
        double echo;
        const char *at;
        int batches[6]; /* fresh batches that step s needs */
    } cases[] = {
        {1, "example", {1, 2, 3, 4, 5, 6}},
        {2, "batch", {1, 1, 2, 2, 3, 3}},
        {2, "example", {1, 2, 2, 3, 3, 4}},
    };
    const double seconds = 0.1;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig r;
        ts_control seen;
        open_rig(&r, seconds, cases[i].echo, cases[i].at, (ts_control){0});
        int64_t begin = ts_clock_ns();
        for (int s = 0; s < 6; s++) {
            run_step(&r, &seen);
            assert_true((double)(r.last_end_ns - begin) * 1e-9 >= cases[i].batches[s] * seconds);
        }
        assert_true((double)r.waited_ns * 1e-9 >= cases[i].batches[5] * seconds / 2);
        close_rig(&r);
    }
}

/* No batch is used before it is due, none more than three times, and none is skipped. */
static void test_automatic(void **state)
{
    const double seconds = 0.02;
    ts_control seen = {0};
    int64_t last = 0, uses = 0, echoed = 0;
    rig r;
    (void)state;
    open_rig(&r, seconds, 0, "example", (ts_control){0});
    int64_t begin = ts_clock_ns();
    for (int s = 0; s < 90; s++) {
        run_step(&r, &seen);
        int64_t at = position_of(&seen);
        assert_true(at == last || at == last + BATCH);
        uses = s && at == last ? uses + 1 : 1;
        echoed += uses > 1;
        assert_true(uses <= 3 && seen.repeats == uses - 1);
        assert_true((double)(ts_clock_ns() - begin) * 1e-9 >=
                    (double)(at / BATCH + 1) * (seconds - 1e-9));
        assert_int_equal(ts_input_fresh(&r.t, r.t.control, r.t.step), at + BATCH);
        last = at;
    }
    assert_true(last >= 29 * BATCH); /* three uses each at most */
    print_message("%d of 90 steps took a batch again\n", (int)echoed);
    close_rig(&r);
}

/* An input that keeps up makes an automatic echo none. */
static void test_automatic_in_time(void **state)
{
    ts_control seen;
    rig r;
    (void)state;
    open_rig(&r, 1e-9, 0, "example", (ts_control){0});
    for (int s = 0; s < 40; s++) {
        run_step(&r, &seen);
        assert_true(position_of(&seen) == s * BATCH && seen.repeats == 0);
    }
    close_rig(&r);
}

/* Steps that are not counted, while an average is late: the same batch, step and learning rate, up
 * to its third use; then, and without them, the next batch. */
static void test_repeat(void **state)
{
    ts_control seen, again;
    rig r;
    (void)state;
    open_rig(&r, 1e-9, 0, "example", (ts_control){0});
    assert_false(ts_input_can_repeat(r.input)); /* there is no last batch */
    for (int s = 0; s < 20; s++) {
        run_step(&r, &seen);
        assert_true(seen.step == s && position_of(&seen) == s * BATCH && seen.repeats == 0);
        for (int uses = 1; uses < 1 + s % 3; uses++) {
            assert_true(ts_input_can_repeat(r.input));
            ts_input_repeat(r.input);
            run_step(&r, &again);
            r.t.step--;
            OK(ts_input_repeated(r.input));
            OK(ts_stream_sync(r.t.compute));
            assert_true(r.t.control->step == s + 1 && r.t.control->repeats == uses);
            assert_true(again.step == s + 1 && again.repeats == uses);
            assert_int_equal(position_of(&again), s * BATCH);
            assert_true(again.learning_rate == ts_schedule_rate(&r.t.schedule, s + 1));
        }
        assert_int_equal(ts_input_fresh(&r.t, r.t.control, r.t.step), (s + 1) * BATCH);
        if (s % 3 == 2) assert_false(ts_input_can_repeat(r.input));
    }
    run_step(&r, &seen);
    assert_int_equal(seen.echoed, 19); /* 0 + 1 + 2, six times, and 0 + 1 */
    close_rig(&r);
    open_rig(&r, 1e-9, 2, "example", (ts_control){0});
    run_step(&r, &seen);
    assert_false(ts_input_can_repeat(r.input)); /* a fixed echo */
    assert_false(ts_input_can_repeat(NULL));
    close_rig(&r);
}

/* From a checkpoint: a fixed echo goes on where it was, an automatic one takes the next batch. */
static void test_resume(void **state)
{
    ts_control seen;
    rig r;
    (void)state;
    open_rig(&r, 1e-9, 2, "example", (ts_control){.step = 13, .epoch = 1, .position = 2});
    for (int s = 0; s < 20; s++) {
        run_step(&r, &seen);
        assert_int_equal(position_of(&seen), 26 + 2 * s);
        assert_int_equal(ts_input_fresh(&r.t, r.t.control, r.t.step), 26 + 2 * s + BATCH);
    }
    close_rig(&r);
    open_rig(&r, 1e-9, 0, "example",
             (ts_control){.step = 13, .epoch = 1, .position = 8, .repeats = 2});
    run_step(&r, &seen);
    assert_true(position_of(&seen) == 36 && seen.repeats == 0);
    close_rig(&r);
}

/* Where nothing is late there is no hook. */
static void test_nothing_to_wait_for(void **state)
{
    ts_config config = {.batch = BATCH, .echo_at = "example"};
    ts_trainer t = {.config = &config, .device = device, .world = &one};
    ts_input *input = (ts_input *)&t;
    ts_augment augment = {0};
    (void)state;
    OK(ts_dataset_open(device, "synthetic:train=24,test=4,size=4", &t.dataset));
    OK(ts_shard_open(t.dataset, 0, 1, (int[]){BATCH}, 0, 1, &t.shard));
    OK(ts_feed_train(t.dataset, &t.shard, &augment, 1, &(ts_feed_options){.prefetch = 2}, &t.feed));
    assert_null(t.feed);
    OK(ts_input_open(&t, &input));
    assert_null(input);
    assert_false(ts_input_echo(&t).automatic); /* nothing would move the window */
    ts_shard_close(t.dataset, &t.shard);
    ts_dataset_close(t.dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits),  cmocka_unit_test(test_automatic),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_automatic_in_time),
        cmocka_unit_test(test_repeat), cmocka_unit_test(test_nothing_to_wait_for),
    };
    if (ts_device_open(test_device(), 0, &device)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_device_close(device);
    return failed;
}
