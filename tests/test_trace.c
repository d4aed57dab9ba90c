/* Spans from stamps: nesting, rows, replays, what is lost when nobody drains, and a reader that
 * races with the writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/clock.h"
#include "runtime/device/trace.h"

#define OK(expression)                                                                             \
    do {                                                                                           \
        if ((expression) != TS_OK) fail_msg("%s: %s", #expression, ts_trail());                    \
    } while (0)
#define MILLISECOND 1000000

static ts_device *device;
static ts_stream *compute, *comm;

enum { MOST = 4096 };
typedef struct spans {
    int n;
    ts_span list[MOST];
} spans;
static spans found;

static void keep(void *context, const ts_span *span)
{
    spans *s = context;
    if (s->n < MOST) s->list[s->n] = *span;
    s->n++;
}

static ts_status sleep_run(const void *args)
{
    ts_clock_sleep_ns(*(const int64_t *)args);
    return TS_OK;
}
static const ts_kernel sleep_kernel = {.name = "sleep", .run = sleep_run};

static void rest(ts_stream *stream, int64_t ns)
{
    OK(ts_stream_launch(stream, &sleep_kernel, &ns, sizeof ns));
}

static int setup(void **state)
{
    (void)state;
    found.n = 0;
    OK(ts_device_open("host", 0, &device));
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &compute));
    OK(ts_stream_open(device, TS_STREAM_COMM, "comm", &comm));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ts_stream_close(comm);
    ts_stream_close(compute);
    ts_device_close(device);
    return 0;
}

static void spans_nest(void **state)
{
    (void)state;
    ts_trace *trace;
    OK(ts_trace_open(device, 64, &trace));
    int64_t begin = ts_clock_ns();
    OK(ts_trace_begin(trace, compute, TS_SPAN_STEP, 7));
    OK(ts_trace_begin(trace, compute, TS_SPAN_FORWARD, -1));
    rest(compute, 5 * MILLISECOND);
    OK(ts_trace_end(trace, compute, TS_SPAN_FORWARD));
    OK(ts_trace_begin(trace, compute, TS_SPAN_BACKWARD, -1));
    rest(compute, 10 * MILLISECOND);
    OK(ts_trace_begin(trace, comm, TS_SPAN_COMM, 3));
    OK(ts_trace_end(trace, comm, TS_SPAN_COMM));
    OK(ts_trace_end(trace, compute, TS_SPAN_BACKWARD));
    OK(ts_trace_begin(trace, compute, TS_SPAN_UPDATE, -1)); /* not finished yet */
    OK(ts_stream_sync(compute));
    OK(ts_stream_sync(comm));
    ts_trace_drain(trace, keep, &found);
    assert_int_equal(found.n, 3);
    /* the stream used first comes last */
    assert_int_equal(found.list[0].kind, TS_SPAN_COMM);
    assert_int_equal(found.list[1].kind, TS_SPAN_FORWARD);
    assert_int_equal(found.list[2].kind, TS_SPAN_BACKWARD);
    assert_int_equal(found.list[0].stream, 1);
    assert_int_equal(found.list[1].stream, 0);
    assert_int_equal(found.list[0].detail, 3);
    assert_string_equal(ts_trace_stream_label(trace, 0), "compute");
    assert_string_equal(ts_trace_stream_label(trace, 1), "comm");
    assert_string_equal(ts_trace_stream_label(trace, 2), "");
    assert_true(found.list[1].begin_ns >= begin);
    assert_true(found.list[1].end_ns - found.list[1].begin_ns >= 5 * MILLISECOND);
    assert_true(found.list[2].end_ns - found.list[2].begin_ns >= 10 * MILLISECOND);
    assert_true(found.list[2].begin_ns >= found.list[1].end_ns);
    /* What was open at one drain is finished at a later one. */
    OK(ts_trace_end(trace, compute, TS_SPAN_UPDATE));
    OK(ts_trace_end(trace, compute, TS_SPAN_STEP));
    OK(ts_stream_sync(compute));
    ts_trace_drain(trace, keep, &found);
    assert_int_equal(found.n, 5);
    assert_int_equal(found.list[3].kind, TS_SPAN_UPDATE);
    assert_int_equal(found.list[4].kind, TS_SPAN_STEP);
    assert_int_equal(found.list[4].detail, 7);
    assert_true(found.list[4].begin_ns <= found.list[1].begin_ns);
    assert_int_equal(ts_trace_lost(trace), 0);
    ts_trace_close(trace);
    for (int kind = 0; kind < TS_SPAN_KINDS; kind++) assert_non_null(ts_span_names[kind]);
}

static void a_graph_stamps_anew(void **state)
{
    (void)state;
    ts_trace *trace;
    ts_graph *graph;
    OK(ts_trace_open(device, 64, &trace));
    OK(ts_stream_capture_begin(compute));
    OK(ts_trace_begin(trace, compute, TS_SPAN_STEP, 1));
    rest(compute, MILLISECOND);
    OK(ts_trace_end(trace, compute, TS_SPAN_STEP));
    OK(ts_stream_capture_end(compute, &graph));
    for (int i = 0; i < 5; i++) OK(ts_graph_launch(graph, compute));
    OK(ts_stream_sync(compute));
    ts_trace_drain(trace, keep, &found);
    assert_int_equal(found.n, 5);
    for (int i = 0; i < 5; i++) {
        assert_true(found.list[i].end_ns - found.list[i].begin_ns >= MILLISECOND);
        if (i) assert_true(found.list[i].begin_ns >= found.list[i - 1].end_ns);
    }
    ts_graph_close(graph);
    ts_trace_close(trace);
}

static void older_stamps_are_lost_and_counted(void **state)
{
    (void)state;
    ts_trace *trace;
    OK(ts_trace_open(device, 8, &trace));
    OK(ts_trace_begin(trace, compute, TS_SPAN_STEP, 0));
    for (int i = 0; i < 50; i++) {
        OK(ts_trace_begin(trace, compute, TS_SPAN_FORWARD, i));
        OK(ts_trace_end(trace, compute, TS_SPAN_FORWARD));
    }
    OK(ts_stream_sync(compute));
    ts_trace_drain(trace, keep, &found);
    assert_int_equal(ts_trace_lost(trace), 101 - 8);
    assert_int_equal(found.n, 4);
    for (int i = 0; i < 4; i++) assert_int_equal(found.list[i].detail, 46 + i);
    /* The end of what was lost ends nothing, and the next spans are whole again. */
    OK(ts_trace_end(trace, compute, TS_SPAN_STEP));
    OK(ts_trace_begin(trace, compute, TS_SPAN_STEP, 2));
    OK(ts_trace_end(trace, compute, TS_SPAN_STEP));
    OK(ts_stream_sync(compute));
    ts_trace_drain(trace, keep, &found);
    assert_int_equal(found.n, 5);
    assert_int_equal(found.list[4].detail, 2);
    assert_int_equal(ts_trace_lost(trace), 101 - 8);
    ts_trace_close(trace);
}

static int64_t raced, last_detail;

/* Details count up and a span's clock does not run backwards, or the reader saw half a stamp. */
static void check(void *context, const ts_span *span)
{
    (void)context;
    raced++;
    if (span->detail <= last_detail || span->end_ns < span->begin_ns ||
        span->kind != (span->detail % 2 ? TS_SPAN_FORWARD : TS_SPAN_BACKWARD))
        fail_msg("span of kind %d, detail %lld after %lld, %lld to %lld ns", (int)span->kind,
                 (long long)span->detail, (long long)last_detail, (long long)span->begin_ns,
                 (long long)span->end_ns);
    last_detail = span->detail;
}

static void the_host_may_drain_at_any_time(void **state)
{
    (void)state;
    enum { ROUNDS = 20000 };
    ts_trace *trace;
    raced = 0;
    last_detail = -1;
    OK(ts_trace_open(device, 4, &trace));
    for (int64_t i = 0; i < ROUNDS; i++) {
        ts_span_kind kind = i % 2 ? TS_SPAN_FORWARD : TS_SPAN_BACKWARD;
        OK(ts_trace_begin(trace, compute, kind, i));
        OK(ts_trace_end(trace, compute, kind));
        if (i % 16 == 0) ts_trace_drain(trace, check, NULL);
    }
    OK(ts_stream_sync(compute));
    ts_trace_drain(trace, check, NULL);
    assert_true(raced > 0);
    assert_int_equal(last_detail, ROUNDS - 1);
    assert_true(2 * raced + ts_trace_lost(trace) <= 2 * ROUNDS);
    ts_trace_close(trace);
}

static void no_trace_is_no_work(void **state)
{
    (void)state;
    ts_trace *trace;
    OK(ts_trace_begin(NULL, compute, TS_SPAN_STEP, 0));
    OK(ts_trace_end(NULL, compute, TS_SPAN_STEP));
    ts_trace_drain(NULL, keep, &found);
    assert_int_equal(ts_trace_lost(NULL), 0);
    ts_trace_close(NULL);
    assert_int_equal(ts_trace_open(device, 0, &trace), TS_EUSAGE);
    assert_null(trace);
}

/* A device may give a new stream the place of a closed one; it gets a row of its own. */
static void a_row_belongs_to_a_label(void **state)
{
    (void)state;
    ts_trace *trace;
    OK(ts_trace_open(device, 16, &trace));
    for (int i = 0; i < 3; i++) {
        ts_stream *s;
        OK(ts_stream_open(device, TS_STREAM_COPY, i == 1 ? "second" : "first", &s));
        OK(ts_trace_begin(trace, s, TS_SPAN_DATA, i));
        OK(ts_trace_end(trace, s, TS_SPAN_DATA));
        ts_stream_close(s);
    }
    ts_trace_drain(trace, keep, &found);
    assert_int_equal(found.n, 3);
    assert_string_equal(ts_trace_stream_label(trace, 0), "first");
    assert_string_equal(ts_trace_stream_label(trace, 1), "second");
    assert_int_equal(found.list[0].stream, 1);
    ts_trace_close(trace);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(spans_nest),
        CASE(a_graph_stamps_anew),
        CASE(older_stamps_are_lost_and_counted),
        CASE(the_host_may_drain_at_any_time),
        CASE(no_trace_is_no_work),
        CASE(a_row_belongs_to_a_label),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
