/* test_order.c - every pair of conflicting accesses is ordered, and every wait is needed.
 *
 * Two ranks' streams on one recording device run three rounds of each algorithm, as it is and with
 * its exchanges compressed, with a consensus in the middle. The recorded program has no unordered
 * conflict, any legal order of it gives the same bits, and with any one wait left out a conflict is
 * reported. */
#include "runtime/algorithms/algorithm.h"
#include "tests/check.h"
#include "tests/recording_device.h"

enum { RANKS = 2, N = 256, N_STATISTICS = 16, BUCKETS = 3 };

/* ---- a communicator whose collectives are meetings on the device ---- */

typedef struct meeting {
    ts_communicator base;
    uint64_t calls;
} meeting;

typedef struct reduce_job {
    float *to;
    const float *from;
    size_t n;
    bool bf16; /* n such elements, and their sum */
} reduce_job;

static void sum_bf16(const reduce_job *j)
{
    const uint16_t *a = (const void *)j[0].from, *b = (const void *)j[1].from;
    uint16_t *to[RANKS] = {(void *)j[0].to, (void *)j[1].to};
    for (size_t i = 0; i < j->n; i++)
        to[0][i] = to[1][i] = ts_bf16_from_float(ts_bf16_to_float(a[i]) + ts_bf16_to_float(b[i]));
}

static ts_status reduce_run(const void *args)
{
    const reduce_job *j = args; /* [RANKS] */
    if (j->bf16) sum_bf16(j);
    for (size_t i = 0; !j->bf16 && i < j->n; i++) {
        float mean = (j[0].from[i] + j[1].from[i]) / RANKS;
        j[0].to[i] = j[1].to[i] = mean;
    }
    return TS_OK;
}

static int reduce_accesses(const void *args, ts_access *list)
{
    const reduce_job *j = args;
    size_t bytes = j->n * (j->bf16 ? sizeof(uint16_t) : sizeof(float));
    list[0] = (ts_access){j->from, bytes, false};
    list[1] = (ts_access){j->to, bytes, true};
    return 2;
}

static const ts_kernel reduce_kernel = {
    .name = "all_reduce", .run = reduce_run, .accesses = reduce_accesses};

static ts_status meet(ts_communicator *communicator, float *to, const float *from, size_t n,
                      ts_reduction reduction, const float *weight)
{
    meeting *m = (meeting *)communicator;
    reduce_job job = {to, from, n, false};
    (void)reduction;
    (void)weight;
    return recording_meet(communicator->stream, m->calls++, RANKS, &reduce_kernel, &job,
                          sizeof job);
}

static ts_status meet_bf16(ts_communicator *communicator, uint16_t *to, const uint16_t *from,
                           size_t n)
{
    meeting *m = (meeting *)communicator;
    reduce_job job = {(void *)to, (const void *)from, n, true};
    return recording_meet(communicator->stream, m->calls++, RANKS, &reduce_kernel, &job,
                          sizeof job);
}

typedef struct gather_job {
    char *to;
    const char *from;
    size_t bytes;
} gather_job;

static ts_status gather_run(const void *args)
{
    const gather_job *j = args; /* [RANKS] */
    size_t bytes = j->bytes;
    for (int r = 0; r < RANKS; r++) { /* `from` is found by where it lies in its own rank's `to` */
        for (int s = 0; s < RANKS; s++) {
            size_t at = (size_t)(j[s].from - j[s].to);
            if (r != s) memcpy(j[r].to + at, j[s].from, bytes);
        }
    }
    return TS_OK;
}

static int gather_accesses(const void *args, ts_access *list)
{
    const gather_job *j = args;
    list[0] = (ts_access){j->from, j->bytes, false};
    list[1] = (ts_access){j->to, RANKS * j->bytes, true};
    return 2;
}

static const ts_kernel gather_kernel = {
    .name = "all_gather", .run = gather_run, .accesses = gather_accesses};

static ts_status meet_all(ts_communicator *communicator, void *to, const void *from, size_t bytes)
{
    meeting *m = (meeting *)communicator;
    gather_job job = {to, from, bytes};
    return recording_meet(communicator->stream, m->calls++, RANKS, &gather_kernel, &job,
                          sizeof job);
}

/* Block s of rank r's `from` goes to block r of rank s's `to`. */
static ts_status swap_run(const void *args)
{
    const gather_job *j = args; /* [RANKS] */
    size_t bytes = j->bytes;
    for (int r = 0; r < RANKS; r++)
        for (int s = 0; s < RANKS; s++)
            memcpy(j[s].to + (size_t)r * bytes, j[r].from + (size_t)s * bytes, bytes);
    return TS_OK;
}

static int swap_accesses(const void *args, ts_access *list)
{
    const gather_job *j = args;
    list[0] = (ts_access){j->from, RANKS * j->bytes, false};
    list[1] = (ts_access){j->to, RANKS * j->bytes, true};
    return 2;
}

static const ts_kernel swap_kernel = {
    .name = "all_to_all", .run = swap_run, .accesses = swap_accesses};

static ts_status meet_swapping(ts_communicator *communicator, void *to, const void *from,
                               size_t bytes)
{
    meeting *m = (meeting *)communicator;
    gather_job job = {to, from, bytes};
    return recording_meet(communicator->stream, m->calls++, RANKS, &swap_kernel, &job, sizeof job);
}

static const ts_communicator_ops meeting_ops = {.name = "meeting",
                                                .all_reduce = meet,
                                                .all_reduce_bf16 = meet_bf16,
                                                .all_gather = meet_all,
                                                .all_to_all = meet_swapping};

/* ---- a model of a training step: gradients from parameters, bucket by bucket ---- */

typedef struct slice_job {
    float *to;
    const float *from;
    size_t n;
} slice_job;

static ts_status slice_run(const void *args)
{
    const slice_job *j = args;
    for (size_t i = 0; i < j->n; i++) j->to[i] = 0.5f * j->from[i] + (float)(i % 7);
    return TS_OK;
}

static int slice_accesses(const void *args, ts_access *list)
{
    const slice_job *j = args;
    list[0] = (ts_access){j->from, j->n * sizeof(float), false};
    list[1] = (ts_access){j->to, j->n * sizeof(float), true};
    return 2;
}

static const ts_kernel backward_kernel = {
    .name = "backward", .run = slice_run, .accesses = slice_accesses};
static const ts_kernel evaluate_kernel = {
    .name = "evaluate", .run = slice_run, .accesses = slice_accesses};

typedef struct rank {
    ts_flat flat;
    ts_worker worker;
    meeting communicator;
    ts_control *control;
    ts_algorithm *algorithm;
    ts_event *event;
    float *consensus, *consensus_statistics, *score;
    char compute[24], comm[24];
} rank;

typedef struct setting {
    const char *algorithm;
    ts_algorithm_config config;
    ts_momentum_policy policy;
    bool statistics;
} setting;

static const setting settings[] = {
    {"ssgd", {.overlap = true}, 0, false},
    {"ssgd", {.overlap = false}, 0, false},
    {"pipe", {.synchronous_steps = 1}, 0, false},
    {"od", {.synchronous_steps = 1, .local_rate = 1}, 0, false},
    {"local", {.period = 2}, TS_MOMENTUM_ZERO, true},
    {"cocod", {.period = 2}, 0, false},
    {"cocod", {.period = 1}, TS_MOMENTUM_AVERAGE, true},
    {"dasgd", {.period = 2, .delay = 1, .mix = 0.25}, 0, true},
    {"dasgd", {.period = 2, .delay = 3, .mix = 0.25}, TS_MOMENTUM_AVERAGE, false},
    {"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, true},
    {"cocod", {.period = 2, .post_local = 0.5, .overlap = true}, 0, false},
    {"local", {.period = 2, .slow_momentum = 0.5, .slow_rate = 1}, TS_MOMENTUM_AVERAGE, false},
    {"cocod",
     {.period = 3, .fragments = 2, .slow_momentum = 0.5, .slow_rate = 1},
     TS_MOMENTUM_ZERO,
     true},
    {"dasgd",
     {.period = 3, .delay = 4, .mix = 0.25, .merge = "corrected", .fragments = 3},
     TS_MOMENTUM_AVERAGE,
     true},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

/* What travels in the run under way. */
#define QSGD .name = "qsgd", .levels = 7, .block = 64
static const ts_compression ways[] = {{.name = "none"},
                                      {.name = "bf16"},
                                      {QSGD, .exchange = "gather"},
                                      {QSGD, .exchange = "scatter"},
                                      {.name = "terngrad"},
                                      {.name = "topk", .density = 0.1},
                                      {.name = "randomk", .density = 0.1},
                                      {.name = "dgc", .density = 0.1}};
enum { N_WAYS = sizeof ways / sizeof *ways };
static ts_compression way;

/* Chooses one; false where it is for gradients, and models are what travels. */
static bool choose(const setting *s, int i)
{
    way = ways[i];
    way.seed = 3;
    if (s->config.anchor_momentum > 0) way.feedback = "no"; /* which does not go with it */
    return strcmp(way.name, "dgc") != 0 || !s->config.period;
}
static const ts_slice weights[] = {{0, 64}, {128, 128}};

static const ts_slice buckets[BUCKETS] = {{192, 64}, {64, 128}, {0, 64}};

static float *alloc(ts_device *device, size_t n, float value)
{
    float *memory;
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, n * sizeof *memory, (void **)&memory));
    for (size_t i = 0; i < n; i++) memory[i] = value * (float)(i % 5);
    return memory;
}

static void open_rank(rank *r, int number, ts_device *device, const setting *s)
{
    memset(r, 0, sizeof *r);
    snprintf(r->compute, sizeof r->compute, "rank %d compute", number);
    snprintf(r->comm, sizeof r->comm, "rank %d comm", number);
    r->flat = (ts_flat){.n = N,
                        .n_statistics = N_STATISTICS,
                        .parameters = alloc(device, N, 1 + (float)number),
                        .gradients = alloc(device, N, 0),
                        .momentum = alloc(device, N, 0),
                        .statistics = alloc(device, N_STATISTICS, 2),
                        .buckets = buckets,
                        .n_buckets = BUCKETS,
                        .weights = weights,
                        .n_weights = 2};
    r->consensus = alloc(device, N, 0);
    r->consensus_statistics = alloc(device, N_STATISTICS, 0);
    r->score = alloc(device, N, 0);
    r->control = (ts_control *)(void *)alloc(device, sizeof *r->control, 0);
    r->control->learning_rate = 0.1f;
    r->worker = (ts_worker){.device = device,
                            .rank = number,
                            .size = RANKS,
                            .flat = &r->flat,
                            .communicator = &r->communicator.base,
                            .update = {.n = N,
                                       .x = r->flat.parameters,
                                       .m = r->flat.momentum,
                                       .g = r->flat.gradients,
                                       .control = r->control,
                                       .momentum = 0.9f},
                            .momentum_policy = s->policy,
                            .average_statistics = s->statistics,
                            .compression = way};
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, r->compute, &r->worker.compute));
    OK(ts_stream_open(device, TS_STREAM_COMM, r->comm, &r->worker.comm));
    r->communicator.base = (ts_communicator){.ops = &meeting_ops, .stream = r->worker.comm};
    OK(ts_event_open(device, &r->event));
    OK(ts_algorithm_open(s->algorithm, &r->worker, &s->config, 4, &r->algorithm));
}

static void close_rank(rank *r, ts_device *device)
{
    r->algorithm->ops->close(r->algorithm);
    ts_event_close(r->event);
    ts_stream_close(r->worker.comm);
    ts_stream_close(r->worker.compute);
    void *all[] = {r->flat.parameters, r->flat.gradients, r->flat.momentum,
                   r->flat.statistics, r->consensus,      r->consensus_statistics,
                   r->score,           r->control};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ts_device_release(device, TS_MEMORY_DEVICE, all[i]);
}

static void enqueue_step(rank *r, int64_t step)
{
    ts_stream *compute = r->worker.compute;
    const ts_algorithm_ops *ops = r->algorithm->ops;
    r->algorithm->learning_rate = 0.1f;
    for (int b = 0; b < BUCKETS; b++) {
        slice_job job = {r->flat.gradients + buckets[b].at, r->flat.parameters + buckets[b].at,
                         buckets[b].n};
        OK(ts_stream_launch(compute, &backward_kernel, &job, sizeof job));
        if (ops->bucket_ready) OK(ops->bucket_ready(r->algorithm, b));
    }
    if (ops->before_update) OK(ops->before_update(r->algorithm, step));
    OK(ts_vector_sgd(compute, &r->algorithm->worker.update));
    if (ops->after_update) OK(ops->after_update(r->algorithm, step));
}

static void enqueue_consensus(rank *r)
{
    OK(ts_consensus(&r->worker, r->event, r->consensus, r->consensus_statistics));
    slice_job job = {r->score, r->consensus, N};
    OK(ts_stream_launch(r->worker.compute, &evaluate_kernel, &job, sizeof job));
}

/* Three rounds, a drain and a consensus at the end. One in the `middle` of it all waits for
 * whatever comm has in flight, which makes the next merge's own wait void: it is left out where
 * every wait must be missed. */
static void enqueue_program(rank *ranks, const setting *s, bool middle)
{
    int64_t period = s->config.period ? s->config.period : 1, steps = 3 * period + s->config.delay;
    for (int64_t step = 0; step < steps; step++)
        for (int r = 0; r < RANKS; r++) {
            enqueue_step(&ranks[r], step);
            if (middle && step == steps / 2) enqueue_consensus(&ranks[r]);
        }
    for (int r = 0; r < RANKS; r++) {
        const ts_algorithm_ops *ops = ranks[r].algorithm->ops;
        if (ops->drain) OK(ops->drain(ranks[r].algorithm));
        enqueue_consensus(&ranks[r]);
    }
}

static void print_conflict(void *context, const recording_conflict *conflict)
{
    char text[512];
    (void)context;
    recording_conflict_text(conflict, text, sizeof text);
    print_message("  %s\n", text);
}

/* Runs the program in the order of `seed` without wait `drop`; returns the conflicts. */
static int run(const setting *s, uint64_t seed, bool with_middle, int drop, int *waits_p,
               float *result)
{
    ts_device *device;
    rank ranks[RANKS];
    OK(recording_open(&device));
    recording_count_waits(device, false);
    for (int r = 0; r < RANKS; r++) open_rank(&ranks[r], r, device, s);
    OK(recording_run(device, seed)); /* what opening enqueued */
    recording_count_waits(device, true);
    recording_drop_wait(device, drop);
    enqueue_program(ranks, s, with_middle);
    OK(recording_run(device, seed));
    int conflicts = recording_conflicts(device, drop < 0 ? print_conflict : NULL, NULL);
    if (waits_p) *waits_p = recording_waits(device);
    if (result)
        for (int r = 0; r < RANKS; r++)
            memcpy(result + r * 2 * N, ranks[r].flat.parameters, N * sizeof *result),
                memcpy(result + r * 2 * N + N, ranks[r].score, N * sizeof *result);
    if (drop >= 0 && !conflicts) {
        char text[256];
        recording_wait_text(device, drop, text, sizeof text);
        print_message("  not missed: %s\n", text);
    }
    for (int r = 0; r < RANKS; r++) close_rank(&ranks[r], device);
    ts_device_close(device);
    return conflicts;
}

static void test_ordered(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETTINGS * N_WAYS; i++) {
        const setting *s = &settings[i / N_WAYS];
        float first[RANKS * 2 * N], other[RANKS * 2 * N];
        if (!choose(s, i % N_WAYS)) continue;
        assert_int_equal(run(s, 1, true, -1, NULL, first), 0);
        for (uint64_t seed = 2; seed < 20; seed++) {
            assert_int_equal(run(s, seed, true, -1, NULL, other), 0);
            assert_memory_equal(first, other, sizeof first);
        }
    }
}

static void test_every_wait_is_needed(void **state)
{
    int total = 0;
    (void)state;
    for (int i = 0; i < N_SETTINGS * N_WAYS; i++) {
        const setting *s = &settings[i / N_WAYS];
        int waits;
        if (!choose(s, i % N_WAYS)) continue;
        run(s, 1, false, -1, &waits, NULL);
        assert_true(waits > 0);
        for (int drop = 0; drop < waits; drop++)
            if (!run(s, 1, false, drop, NULL, NULL))
                fail_msg("%s, %s: without wait %d of %d no conflict is found", s->algorithm,
                         way.name, drop, waits);
        total += waits;
    }
    print_message("%d waits removed in turn, each caught\n", total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordered),
        cmocka_unit_test(test_every_wait_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
