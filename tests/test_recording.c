/* The recording device itself: a program with a known race is caught in every order, its fixed
 * form is clean and gives the same numbers in every order, and each of its waits is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/device/vector.h"
#include "tests/recording_device.h"

enum { N = 16, ROUNDS = 3, RANKS = 2 };

#define OK(expression)                                                                             \
    do {                                                                                           \
        if ((expression) != TS_OK) fail_msg("%s: %s", #expression, ts_trail());                    \
    } while (0)

/* One rank: compute scales x and copies it to a snapshot, comm averages the snapshot over the
 * ranks, compute merges the average. */
typedef struct rank {
    ts_stream *compute, *comm;
    ts_event *ready, *arrived;
    float *x, *snapshot, *average;
} rank;

typedef struct average_args {
    float *to;
    const float *from;
} average_args;

static ts_status average_run(const void *args)
{
    const average_args *a = args;
    for (int i = 0; i < N; i++) {
        float sum = 0;
        for (int r = 0; r < RANKS; r++) sum += a[r].from[i];
        for (int r = 0; r < RANKS; r++) a[r].to[i] = sum / RANKS;
    }
    return TS_OK;
}

static int average_accesses(const void *args, ts_access *list)
{
    const average_args *a = args;
    list[0] = (ts_access){a->to, N * sizeof(float), true};
    list[1] = (ts_access){a->from, N * sizeof(float), false};
    return 2;
}

static const ts_kernel average_kernel = {
    .name = "average", .run = average_run, .accesses = average_accesses};

static void rank_open(ts_device *device, rank *k, int index)
{
    char label[32];
    snprintf(label, sizeof label, "rank %d compute", index);
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, label, &k->compute));
    snprintf(label, sizeof label, "rank %d comm", index);
    OK(ts_stream_open(device, TS_STREAM_COMM, label, &k->comm));
    OK(ts_event_open(device, &k->ready));
    OK(ts_event_open(device, &k->arrived));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, N * sizeof(float), (void **)&k->x));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, N * sizeof(float), (void **)&k->snapshot));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, N * sizeof(float), (void **)&k->average));
    for (int i = 0; i < N; i++) k->x[i] = (float)(i + 1 + 100 * index);
}

static void rank_close(ts_device *device, rank *k)
{
    ts_device_release(device, TS_MEMORY_DEVICE, k->average);
    ts_device_release(device, TS_MEMORY_DEVICE, k->snapshot);
    ts_device_release(device, TS_MEMORY_DEVICE, k->x);
    ts_event_close(k->arrived);
    ts_event_close(k->ready);
    ts_stream_close(k->comm);
    ts_stream_close(k->compute);
}

static void rank_round(rank *k, int round)
{
    OK(ts_vector_scale(k->compute, N, k->x, 0.5f));
    OK(ts_stream_copy(k->compute, k->snapshot, k->x, N * sizeof(float)));
    OK(ts_stream_after(k->ready, k->compute, k->comm));
    average_args args = {k->average, k->snapshot};
    OK(recording_meet(k->comm, (uint64_t)round, RANKS, &average_kernel, &args, sizeof args));
    OK(ts_vector_scale(k->compute, N, k->x, 3));
    OK(ts_stream_after(k->arrived, k->comm, k->compute));
    ts_merge merge = {
        .n = N, .x = k->x, .average = k->average, .snapshot = k->snapshot, .a = 1, .b = 1, .c = -1};
    OK(ts_vector_merge(k->compute, &merge));
}

typedef struct outcome {
    int conflicts, waits;
    float x[RANKS][N];
    char first_conflict[256], wait[256];
} outcome;

static void keep_first(void *context, const recording_conflict *conflict)
{
    outcome *o = context;
    if (!o->first_conflict[0])
        recording_conflict_text(conflict, o->first_conflict, sizeof o->first_conflict);
}

static outcome program_run(uint64_t seed, int drop)
{
    outcome o = {0};
    ts_device *device;
    rank ranks[RANKS];
    OK(recording_open(&device));
    recording_drop_wait(device, drop);
    for (int r = 0; r < RANKS; r++) rank_open(device, &ranks[r], r);
    for (int round = 0; round < ROUNDS; round++)
        for (int r = 0; r < RANKS; r++) rank_round(&ranks[r], round);
    OK(recording_run(device, seed));
    o.conflicts = recording_conflicts(device, keep_first, &o);
    o.waits = recording_waits(device);
    if (drop >= 0) recording_wait_text(device, drop, o.wait, sizeof o.wait);
    for (int r = 0; r < RANKS; r++) {
        memcpy(o.x[r], ranks[r].x, sizeof o.x[r]);
        rank_close(device, &ranks[r]);
    }
    ts_device_close(device);
    return o;
}

static void every_order_gives_the_same(void **state)
{
    (void)state;
    float x[RANKS];
    for (int r = 0; r < RANKS; r++) x[r] = 1 + 100 * r;
    for (int round = 0; round < ROUNDS; round++) {
        float snapshot[RANKS], sum = 0;
        for (int r = 0; r < RANKS; r++) sum += snapshot[r] = x[r] * 0.5f;
        for (int r = 0; r < RANKS; r++) x[r] = snapshot[r] * 3 + (sum / RANKS - snapshot[r]);
    }
    outcome first = program_run(0, -1);
    for (int r = 0; r < RANKS; r++) assert_float_equal(first.x[r][0], x[r], 1e-4);
    for (uint64_t seed = 0; seed < 200; seed++) {
        outcome o = program_run(seed, -1);
        if (o.conflicts) fail_msg("order %d: %s", (int)seed, o.first_conflict);
        assert_memory_equal(o.x, first.x, sizeof o.x);
    }
}

static void each_wait_is_needed(void **state)
{
    (void)state;
    int waits = program_run(0, -1).waits, wrong = 0;
    outcome right = program_run(0, -1);
    assert_int_equal(waits, 2 * ROUNDS * RANKS);
    for (int i = 0; i < waits; i++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            outcome o = program_run(seed, i);
            if (o.conflicts == 0) fail_msg("not caught without: %s", o.wait);
            wrong += memcmp(o.x, right.x, sizeof o.x) != 0;
        }
    /* The orders that are run are wild enough for the races to change numbers too. */
    assert_true(wrong > waits);
    outcome o = program_run(1, 0);
    assert_non_null(strstr(o.first_conflict, "copy on rank 0 compute"));
    assert_non_null(strstr(o.first_conflict, "average on rank 0 comm"));
    assert_string_equal(o.wait, "rank 0 comm, after nothing, waits for rank 0 compute, after copy");
}

/* What the host has waited for is ordered before what it enqueues next. */
static void the_host_orders(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        ts_device *device;
        ts_stream *a, *b;
        ts_event *event;
        char *memory;
        OK(recording_open(&device));
        OK(ts_stream_open(device, TS_STREAM_COMPUTE, "a", &a));
        OK(ts_stream_open(device, TS_STREAM_COMM, "b", &b));
        OK(ts_event_open(device, &event));
        OK(ts_device_alloc(device, TS_MEMORY_DEVICE, 64, (void **)&memory));
        OK(ts_stream_fill(a, memory, 1, 64));
        OK(ts_event_record(event, a));
        if (how == 1) OK(ts_stream_sync(a));
        if (how == 2) OK(ts_event_sync(event));
        OK(ts_stream_fill(b, memory + 63, 2, 1));
        OK(ts_stream_fill(b, memory + 64, 2, 0));
        OK(recording_run(device, 5));
        assert_int_equal(recording_conflicts(device, NULL, NULL), how == 0 ? 1 : 0);
        ts_device_release(device, TS_MEMORY_DEVICE, memory);
        ts_event_close(event);
        ts_stream_close(a);
        ts_stream_close(b);
        ts_device_close(device);
    }
}

/* Two reads do not conflict; neighbours do not; a graph's copies are seen one by one. */
static void only_real_conflicts(void **state)
{
    (void)state;
    for (int conflicts = 0; conflicts < 3; conflicts++) {
        ts_device *device;
        ts_stream *a, *b;
        ts_graph *graph;
        char *memory;
        OK(recording_open(&device));
        OK(ts_stream_open(device, TS_STREAM_COMPUTE, "a", &a));
        OK(ts_stream_open(device, TS_STREAM_COMM, "b", &b));
        OK(ts_device_alloc(device, TS_MEMORY_DEVICE, 256, (void **)&memory));
        OK(ts_stream_capture_begin(a));
        OK(ts_stream_copy(a, memory + 64, memory, 64));
        OK(ts_stream_capture_end(a, &graph));
        OK(ts_graph_launch(graph, a));
        OK(ts_stream_copy(b, memory + 128, memory, 64));
        if (conflicts > 0) OK(ts_stream_fill(b, memory + 127, 0, 1));
        if (conflicts > 1) OK(ts_graph_launch(graph, a));
        OK(recording_run(device, 1));
        assert_int_equal(recording_conflicts(device, NULL, NULL), conflicts);
        /* After a run the host has waited for everything. */
        OK(ts_stream_fill(b, memory, 0, 256));
        OK(recording_run(device, 1));
        assert_int_equal(recording_conflicts(device, NULL, NULL), conflicts);
        ts_graph_close(graph);
        ts_device_release(device, TS_MEMORY_DEVICE, memory);
        ts_stream_close(a);
        ts_stream_close(b);
        ts_device_close(device);
    }
}

static void a_lonely_collective_is_an_error(void **state)
{
    (void)state;
    ts_device *device;
    ts_stream *a;
    float from[N] = {0}, to[N];
    average_args args = {to, from};
    OK(recording_open(&device));
    OK(ts_stream_open(device, TS_STREAM_COMM, "alone", &a));
    OK(recording_meet(a, 7, RANKS, &average_kernel, &args, sizeof args));
    assert_int_equal(ts_stream_sync(a), TS_EDEVICE);
    assert_non_null(strstr(ts_trail_message(), "stream alone can never go on"));
    assert_int_equal(recording_meet(a, 7, RANKS, &average_kernel, &args, sizeof args), TS_EDEVICE);
    ts_stream_close(a);
    ts_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_gives_the_same),
        cmocka_unit_test(each_wait_is_needed),
        cmocka_unit_test(the_host_orders),
        cmocka_unit_test(only_real_conflicts),
        cmocka_unit_test(a_lonely_collective_is_an_error),
    };
    return cmocka_run_group_tests_name("recording", tests, NULL, NULL);
}
