/* What every device promises, run for the device under test.
 *
 * Delays make wrong orders show. */
#include "runtime/base/clock.h"
#include "runtime/base/random.h"
#include "runtime/device/device.h"
#include "tests/check.h"
#include "tests/step.h"

#define MILLISECOND 1000000

static ts_device *device;

typedef struct bench {
    ts_stream *a, *b;
    ts_event *event, *other;
    int32_t *memory; /* COUNT integers of device memory, 0 at first */
    int32_t *host;   /* COUNT integers of pinned memory */
} bench;
enum { COUNT = 1024 };

/* ---- kernels -------------------------------------------------------------------------------- */

static ts_status step_run(const void *args)
{
    const step_args *a = args;
    if (a->sleep_ns) ts_clock_sleep_ns(a->sleep_ns);
    if (a->at) *a->at = *a->at * a->factor + a->add;
    return TS_OK;
}

static ts_status fail_run(const void *args)
{
    return TS_ERROR(TS_ECOMM, "the wire to rank %d is cut", *(const int *)args);
}

static ts_kernel step_kernel = {.name = "step", .run = step_run}; /* main adds CUDA's */
static const ts_kernel fail_kernel = {.name = "fail", .run = fail_run};

static void step(ts_stream *stream, int64_t sleep_ns, int32_t *at, int32_t factor, int32_t add)
{
    step_args args = {sleep_ns, at, factor, add};
    OK(ts_stream_launch(stream, &step_kernel, &args, sizeof args));
}

/* A host function that fails, as a collective does. */
static void break_wire(ts_stream *stream, int peer)
{
    OK(ts_stream_run_on_host(stream, &fail_kernel, &peer, sizeof peer));
}

static int32_t value(bench *k, ts_stream *stream, const int32_t *at)
{
    OK(ts_stream_copy(stream, k->host, at, sizeof *at));
    OK(ts_stream_sync(stream));
    return k->host[0];
}

static int setup(void **state)
{
    bench *k = calloc(1, sizeof *k);
    if (!k) return -1;
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &k->a));
    OK(ts_stream_open(device, TS_STREAM_COMM, "comm", &k->b));
    OK(ts_event_open(device, &k->event));
    OK(ts_event_open(device, &k->other));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, COUNT * sizeof(int32_t), (void **)&k->memory));
    OK(ts_device_alloc(device, TS_MEMORY_PINNED, COUNT * sizeof(int32_t), (void **)&k->host));
    OK(ts_stream_fill(k->a, k->memory, 0, COUNT * sizeof(int32_t)));
    OK(ts_stream_sync(k->a));
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    bench *k = *state;
    ts_stream_close(k->b);
    ts_stream_close(k->a);
    ts_event_close(k->other);
    ts_event_close(k->event);
    ts_device_release(device, TS_MEMORY_PINNED, k->host);
    ts_device_release(device, TS_MEMORY_DEVICE, k->memory);
    free(k);
    return 0;
}

/* ---- memory --------------------------------------------------------------------------------- */

static void memory_is_aligned_and_bounded(void **state)
{
    (void)state;
    size_t sizes[] = {0, 1, 63, 4096, (2 << 20) - 1, 2 << 20, (5 << 20) + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = TS_MEMORY_DEVICE; kind <= TS_MEMORY_PINNED; kind++) {
            void *memory = NULL;
            OK(ts_device_alloc(device, (ts_memory)kind, sizes[i], &memory));
            assert_non_null(memory);
            assert_int_equal((uintptr_t)memory % 64, 0);
            ts_device_release(device, (ts_memory)kind, memory);
        }
    size_t impossible[] = {(size_t)1 << 46, (size_t)-1, (size_t)-4096};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        void *memory = &memory;
        char text[32];
        assert_int_equal(ts_device_alloc(device, TS_MEMORY_DEVICE, impossible[i], &memory),
                         TS_ENOMEM);
        assert_null(memory);
        snprintf(text, sizeof text, "%zu", impossible[i]);
        assert_non_null(strstr(ts_trail_message(), text));
    }
    ts_device_release(device, TS_MEMORY_DEVICE, NULL);
}

static void copy_and_fill(void **state)
{
    bench *k = *state;
    for (int i = 0; i < COUNT; i++) k->host[i] = i;
    OK(ts_stream_copy(k->a, k->memory, k->host, COUNT * sizeof(int32_t)));
    OK(ts_stream_fill(k->a, k->memory + 10, 0xff, 4 * sizeof(int32_t)));
    OK(ts_stream_copy(k->a, k->memory + 100, k->memory + 8, 8 * sizeof(int32_t)));
    OK(ts_stream_copy(k->a, k->memory, k->memory, 0));
    OK(ts_stream_copy(k->a, k->host, k->memory, COUNT * sizeof(int32_t)));
    OK(ts_stream_sync(k->a));
    int32_t expected[8] = {8, 9, -1, -1, -1, -1, 14, 15};
    assert_memory_equal(k->host + 8, expected, sizeof expected);
    assert_memory_equal(k->host + 100, expected, sizeof expected);
    assert_int_equal(k->host[COUNT - 1], COUNT - 1);
}

static void describes_itself(void **state)
{
    (void)state;
    char text[256] = "", tiny[8];
    ts_device_describe(device, text, sizeof text);
    assert_true(strlen(text) > 8);
    assert_null(strchr(text, '\n'));
    ts_device_describe(device, tiny, sizeof tiny);
    assert_int_equal(strlen(tiny), sizeof tiny - 1);
}

/* ---- order ---------------------------------------------------------------------------------- */

/* Enqueuing does not wait; a stream keeps its order; arguments are copied. */
static void a_stream_is_a_queue(void **state)
{
    bench *k = *state;
    int64_t begin = ts_clock_ns();
    step(k->a, 200 * MILLISECOND, NULL, 0, 0);
    int32_t expected = 0;
    for (int i = 0; i < 500; i++) { /* CUDA's queue has room for about a thousand launches */
        step(k->a, 0, k->memory, 3, i);
        expected = (int32_t)((uint32_t)expected * 3 + (uint32_t)i);
        if (i % 10 == 9) { /* keep it small: signed overflow is undefined */
            step(k->a, 0, k->memory, 0, 1);
            expected = 1;
        }
    }
    assert_true(ts_clock_ns() - begin < 200 * MILLISECOND);
    assert_int_equal(value(k, k->a, k->memory), expected);
    assert_true(ts_clock_ns() - begin >= 200 * MILLISECOND);
}

static void a_long_queue(void **state)
{
    bench *k = *state;
    enum { LONG = 50000 };
    step(k->a, 20 * MILLISECOND, NULL, 0, 0);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < LONG; i++) step(k->a, 0, k->memory, 1, 1);
    assert_int_equal(value(k, k->a, k->memory), 2 * LONG);
    /* And again while the queue runs empty now and then. */
    for (int i = 0; i < 2000; i++) step(k->a, i % 500 == 0 ? 100000 : 0, k->memory, 1, 1);
    assert_int_equal(value(k, k->a, k->memory), 2 * LONG + 2000);
}

static void streams_run_beside_each_other(void **state)
{
    bench *k = *state;
    step(k->a, 200 * MILLISECOND, k->memory, 0, 1);
    OK(ts_event_record(k->event, k->a));
    step(k->b, 0, k->memory + 1, 0, 2);
    OK(ts_stream_sync(k->b));
    assert_false(ts_event_done(k->event));
    OK(ts_event_sync(k->event));
    assert_true(ts_event_done(k->event));
    assert_int_equal(value(k, k->a, k->memory), 1);
    assert_int_equal(value(k, k->b, k->memory + 1), 2);
}

/* Two streams hand one integer to and fro; every hand-over is an event, delays are random. */
static void events_order_streams(void **state)
{
    bench *k = *state;
    int32_t expected = 0;
    for (int i = 0; i < 200; i++) {
        uint32_t luck = ts_random(7, (uint64_t)i, 0).v[0];
        step(k->a, luck % 4 == 0 ? luck % 300000 : 0, k->memory, 1, 2);
        OK(ts_stream_after(k->event, k->a, k->b));
        step(k->b, luck % 4 == 1 ? luck % 300000 : 0, k->memory, -1, i);
        OK(ts_stream_after(k->other, k->b, k->a));
        expected = -(expected + 2) + i;
    }
    assert_int_equal(value(k, k->a, k->memory), expected);
}

static void an_unrecorded_event_is_no_wait(void **state)
{
    bench *k = *state;
    assert_true(ts_event_done(k->event));
    OK(ts_event_wait(k->event, k->a));
    OK(ts_event_sync(k->event));
    step(k->a, 0, k->memory, 0, 5);
    assert_int_equal(value(k, k->a, k->memory), 5);
    /* Nor is a wait before the first record. */
    OK(ts_event_wait(k->event, k->a));
    step(k->b, 0, k->memory, 1, 1);
    OK(ts_event_record(k->event, k->b));
    OK(ts_stream_sync(k->a));
    OK(ts_stream_sync(k->b));
}

/* A wait keeps the record it saw: a slow later record of the same event does not hold it up. */
static void an_earlier_wait_keeps_its_record(void **state)
{
    bench *k = *state;
    step(k->a, 0, k->memory, 0, 1);
    OK(ts_event_record(k->event, k->a));
    OK(ts_event_wait(k->event, k->b));
    step(k->b, 0, k->memory + 1, 0, 1);
    step(k->a, 300 * MILLISECOND, k->memory, 0, 2);
    OK(ts_event_record(k->event, k->a));
    int64_t begin = ts_clock_ns();
    OK(ts_stream_sync(k->b));
    assert_true(ts_clock_ns() - begin < 200 * MILLISECOND);
    assert_false(ts_event_done(k->event));
    OK(ts_event_sync(k->event));
    assert_int_equal(value(k, k->a, k->memory), 2);
}

/* Nor does a fast later record on another stream let it go early. */
static void a_later_record_elsewhere_does_not_end_a_wait(void **state)
{
    bench *k = *state;
    ts_stream *c;
    OK(ts_stream_open(device, TS_STREAM_COPY, "copy", &c));
    for (int i = 0; i < 5; i++) {
        step(k->a, 20 * MILLISECOND, k->memory, 0, 10 + i);
        OK(ts_event_record(k->event, k->a));
        OK(ts_event_wait(k->event, c));
        OK(ts_stream_copy(c, k->memory + 1, k->memory, sizeof(int32_t)));
        OK(ts_event_record(k->event, k->b)); /* done at once */
        OK(ts_event_sync(k->event));
        assert_int_equal(value(k, c, k->memory + 1), 10 + i);
    }
    ts_stream_close(c);
}

/* A record counts although its stream is closed, and although another took its place. */
static void a_record_outlives_its_stream(void **state)
{
    bench *k = *state;
    ts_stream *c;
    OK(ts_stream_open(device, TS_STREAM_COPY, "first", &c));
    step(c, 10 * MILLISECOND, k->memory, 0, 3);
    OK(ts_event_record(k->event, c));
    ts_stream_close(c);
    assert_true(ts_event_done(k->event));
    OK(ts_stream_open(device, TS_STREAM_COPY, "second", &c));
    step(c, 300 * MILLISECOND, NULL, 0, 0);
    assert_true(ts_event_done(k->event));
    OK(ts_event_wait(k->event, k->a));
    int64_t begin = ts_clock_ns();
    assert_int_equal(value(k, k->a, k->memory), 3);
    assert_true(ts_clock_ns() - begin < 200 * MILLISECOND);
    ts_stream_close(c);
}

static void open_and_close_often(void **state)
{
    bench *k = *state;
    for (int i = 0; i < 200; i++) {
        ts_stream *c;
        ts_event *e;
        OK(ts_stream_open(device, TS_STREAM_COMPUTE, "a label longer than a thread's name", &c));
        OK(ts_event_open(device, &e));
        step(c, 0, k->memory, 1, 1);
        OK(ts_stream_after(e, c, k->a));
        if (i % 2) ts_event_close(e);
        ts_stream_close(c); /* finishes what is queued */
        if (i % 2 == 0) ts_event_close(e);
    }
    assert_int_equal(value(k, k->a, k->memory), 200);
    ts_stream_close(NULL);
    ts_event_close(NULL);
    ts_graph_close(NULL);
    for (int i = 0; i < 20; i++) {
        ts_device *again;
        OK(ts_device_open(device->ops->name, 0, &again));
        ts_device_close(again);
    }
    ts_device_close(NULL);
}

/* ---- errors --------------------------------------------------------------------------------- */

static void an_error_sticks(void **state)
{
    bench *k = *state;
    step(k->a, 0, k->memory, 0, 1);
    OK(ts_event_record(k->other, k->a));
    break_wire(k->a, 3);
    for (int i = 0; i < 3; i++) {
        ts_trail_clear();
        assert_int_equal(ts_stream_sync(k->a), TS_ECOMM);
        assert_string_equal(ts_trail_message(), "the wire to rank 3 is cut");
        assert_non_null(strstr(ts_trail(), "contract_device.c"));
        assert_non_null(strstr(ts_trail(), "compute"));
    }
    step_args args = {0, k->memory, 0, 9};
    ts_graph *graph = NULL;
    assert_int_equal(ts_stream_launch(k->a, &step_kernel, &args, sizeof args), TS_ECOMM);
    assert_int_equal(ts_stream_copy(k->a, k->host, k->memory, 4), TS_ECOMM);
    assert_int_equal(ts_stream_fill(k->a, k->memory, 0, 4), TS_ECOMM);
    assert_int_equal(ts_event_record(k->event, k->a), TS_ECOMM);
    assert_int_equal(ts_event_wait(k->other, k->a), TS_ECOMM);
    if (ts_device_can_capture(device)) assert_int_equal(ts_stream_capture_begin(k->a), TS_ECOMM);
    assert_null(graph);
    assert_string_equal(ts_trail_message(), "the wire to rank 3 is cut");
    /* What was recorded before the failure is fine, and so is the other stream. */
    OK(ts_event_sync(k->other));
    assert_int_equal(value(k, k->b, k->memory), 1);
}

/* What was queued behind the failure does not run, and what waits for it fails with it. */
static void a_failure_reaches_who_waits_for_it(void **state)
{
    bench *k = *state;
    if (!strcmp(device->ops->name, "cuda")) skip(); /* CUDA's events do not carry failures */
    step(k->a, 20 * MILLISECOND, k->memory, 0, 1);
    break_wire(k->a, 4);
    step(k->a, 0, k->memory, 0, 2);
    OK(ts_stream_after(k->event, k->a, k->b));
    step(k->b, 0, k->memory, 0, 3);
    assert_int_equal(ts_event_sync(k->event), TS_ECOMM);
    assert_int_equal(ts_stream_sync(k->b), TS_ECOMM);
    assert_string_equal(ts_trail_message(), "the wire to rank 4 is cut");
    ts_stream *c;
    OK(ts_stream_open(device, TS_STREAM_COPY, "copy", &c));
    assert_int_equal(value(k, c, k->memory), 1);
    ts_stream_close(c);
}

/* A stream that failed leaves nothing behind for the next that is opened. */
static void a_new_stream_is_healthy(void **state)
{
    bench *k = *state;
    ts_stream *c;
    for (int i = 0; i < 3; i++) {
        OK(ts_stream_open(device, TS_STREAM_COPY, "copy", &c));
        step(c, 0, k->memory, 1, 1);
        assert_int_equal(value(k, c, k->memory), i + 1);
        break_wire(c, 5);
        assert_int_equal(ts_stream_sync(c), TS_ECOMM);
        ts_stream_close(c);
    }
}

static void too_many_arguments(void **state)
{
    bench *k = *state;
    char args[TS_KERNEL_ARGS_MAX + 1] = {0};
    assert_int_equal(ts_stream_launch(k->a, &step_kernel, args, sizeof args), TS_EDEVICE);
    OK(ts_stream_sync(k->a)); /* refused, not stuck */
}

/* ---- graphs --------------------------------------------------------------------------------- */

static void a_graph_is_replayed(void **state)
{
    bench *k = *state;
    if (!ts_device_can_capture(device)) skip();
    ts_graph *graph;
    OK(ts_stream_capture_begin(k->a));
    step(k->a, 0, k->memory, 2, 1);
    OK(ts_stream_copy(k->a, k->memory + 1, k->memory, sizeof(int32_t)));
    OK(ts_stream_fill(k->a, k->memory + 2, 1, 1));
    for (int i = 0; i < 300; i++) step(k->a, 0, k->memory + 3, 1, 1);
    OK(ts_stream_capture_end(k->a, &graph));
    OK(ts_stream_sync(k->a));
    for (int i = 0; i < 4; i++) assert_int_equal(value(k, k->a, k->memory + i), 0); /* not run */
    int32_t expected = 0;
    for (int i = 0; i < 20; i++) {
        OK(ts_graph_launch(graph, i % 3 ? k->a : k->b)); /* any stream of the device */
        OK(ts_stream_after(k->event, i % 3 ? k->a : k->b, k->a));
        OK(ts_stream_after(k->event, k->a, k->b));
        expected = expected * 2 + 1;
        assert_int_equal(value(k, k->a, k->memory + 1), expected);
        if (i % 5 == 4) { /* what lies in memory counts, not what lay there at capture */
            step(k->a, 0, k->memory, 0, i);
            OK(ts_stream_after(k->event, k->a, k->b));
            expected = i;
        }
    }
    assert_int_equal(value(k, k->a, k->memory + 2), 1);
    assert_int_equal(value(k, k->a, k->memory + 3), 20 * 300);
    step(k->a, 20 * MILLISECOND, k->memory, 0, 0);
    OK(ts_graph_launch(graph, k->a));
    ts_graph_close(graph); /* while it waits for its turn */
    assert_int_equal(value(k, k->a, k->memory), 1);
}

static void a_graph_may_fail(void **state)
{
    bench *k = *state;
    if (!ts_device_can_capture(device)) skip();
    ts_graph *graph;
    OK(ts_stream_capture_begin(k->a));
    step(k->a, 0, k->memory, 1, 1);
    break_wire(k->a, 6);
    step(k->a, 0, k->memory, 1, 1);
    OK(ts_stream_capture_end(k->a, &graph));
    OK(ts_graph_launch(graph, k->a));
    assert_int_equal(ts_stream_sync(k->a), TS_ECOMM);
    assert_int_equal(ts_graph_launch(graph, k->a), TS_ECOMM);
    /* CUDA runs what stands behind it all the same. */
    bool cuda = !strcmp(device->ops->name, "cuda");
    assert_int_equal(value(k, k->b, k->memory), cuda ? 2 : 1);
    ts_graph_close(graph);
}

static void capture_misuse_is_told(void **state)
{
    bench *k = *state;
    if (!ts_device_can_capture(device)) skip();
    ts_graph *graph, *empty;
    assert_int_equal(ts_stream_capture_end(k->a, &graph), TS_EDEVICE);
    assert_null(graph);
    OK(ts_stream_capture_begin(k->a));
    OK(ts_stream_capture_end(k->a, &empty));
    OK(ts_event_record(k->event, k->a));
    OK(ts_stream_capture_begin(k->a));
    step(k->a, 0, k->memory, 1, 1);
    assert_int_equal(ts_stream_capture_begin(k->a), TS_EDEVICE);
    assert_int_equal(ts_event_record(k->event, k->a), TS_EDEVICE);
    assert_int_equal(ts_event_wait(k->event, k->a), TS_EDEVICE);
    assert_int_equal(ts_stream_sync(k->a), TS_EDEVICE);
    assert_non_null(strstr(ts_trail_message(), "compute"));
    assert_int_equal(ts_graph_launch(empty, k->a), TS_EDEVICE);
    OK(ts_event_sync(k->event)); /* recorded before the capture */
    step(k->b, 0, k->memory + 1, 0, 8);
    assert_int_equal(value(k, k->b, k->memory + 1), 8); /* the other stream is not captured */
    OK(ts_stream_capture_end(k->a, &graph));
    OK(ts_graph_launch(graph, k->a));
    OK(ts_graph_launch(empty, k->a));
    assert_int_equal(value(k, k->a, k->memory), 1);
    ts_graph_close(graph);
    ts_graph_close(empty);
    ts_stream *c;
    OK(ts_stream_open(device, TS_STREAM_COPY, "closed while capturing", &c));
    OK(ts_stream_capture_begin(c));
    step(c, 0, k->memory, 1, 1);
    ts_stream_close(c); /* logs it */
    assert_int_equal(value(k, k->a, k->memory), 1);
}

/* ---- by name -------------------------------------------------------------------------------- */

static void devices_by_name(void **state)
{
    (void)state;
    ts_device *found;
    OK(ts_device_open("auto", 0, &found));
    ts_device_close(found);
    assert_int_equal(ts_device_open("hosst", 0, &found), TS_EUSAGE);
    assert_null(found);
    assert_non_null(strstr(ts_trail_message(), "did you mean 'host'"));
    OK(ts_device_open("host", 1, &found)); /* the ranks of a machine share it */
    ts_device_close(found);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest contract[] = {
        CASE(memory_is_aligned_and_bounded),
        CASE(copy_and_fill),
        CASE(describes_itself),
        CASE(a_stream_is_a_queue),
        CASE(a_long_queue),
        CASE(streams_run_beside_each_other),
        CASE(events_order_streams),
        CASE(an_unrecorded_event_is_no_wait),
        CASE(an_earlier_wait_keeps_its_record),
        CASE(a_later_record_elsewhere_does_not_end_a_wait),
        CASE(a_record_outlives_its_stream),
        CASE(open_and_close_often),
        CASE(an_error_sticks),
        CASE(a_failure_reaches_who_waits_for_it),
        CASE(a_new_stream_is_healthy),
        CASE(too_many_arguments),
        CASE(a_graph_is_replayed),
        CASE(a_graph_may_fail),
        CASE(capture_misuse_is_told),
    };
    const struct CMUnitTest names[] = {cmocka_unit_test(devices_by_name)};
    step_kernel.enqueue = step_enqueue;
    int failures = cmocka_run_group_tests_name("device names", names, NULL, NULL);
    OK(ts_device_open(test_device(), 0, &device));
    failures += cmocka_run_group_tests_name(device->ops->name, contract, NULL, NULL);
    ts_device_close(device);
    return failures;
}
