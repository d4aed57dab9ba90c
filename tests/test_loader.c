/* test_loader.c - items made ahead, staged and copied: what compute finds in the ring, how far the
 * threads go ahead, what is waited for, and, on the recording device, that every wait is needed. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/data/loader.h"
#include "tests/check.h"
#include "tests/recording_device.h"

enum { CHUNK = 4, CHUNKS = 3, RING = CHUNK * CHUNKS, BYTES = 32, ITEMS_MAX = 4096 };

static ts_device *device;
static ts_stream *compute;

/* ---- a source that counts ---- */

typedef struct source {
    atomic_int made[ITEMS_MAX]; /* times that an item was made */
    atomic_llong n;             /* items made */
    atomic_llong released;      /* chunks that the test has told it are free */
    atomic_bool too_far;
    int64_t fails_at; /* -1: never */
    bool slow;        /* some items take longer than others */
    pthread_mutex_t gate;
    bool gated;
} source;

static uint8_t byte_of(int64_t item, int at)
{
    return (uint8_t)(item * 7 + at * 3 + 1);
}

static ts_status make(void *context, int thread, int64_t item, uint8_t *bytes, uint16_t *label_p)
{
    source *s = context;
    (void)thread;
    TS_NEED(item != s->fails_at, TS_EDATA, "item %d is bad", (int)item);
    if (s->gated) {
        pthread_mutex_lock(&s->gate);
        pthread_mutex_unlock(&s->gate);
    }
    /* both rings may be full of what compute has not given back */
    if (item / CHUNK >= atomic_load(&s->released) + 2 * CHUNKS) atomic_store(&s->too_far, true);
    if (s->slow && item % 5 == 2) ts_clock_sleep_ns(300000);
    for (int i = 0; i < BYTES; i++) bytes[i] = byte_of(item, i);
    *label_p = (uint16_t)(item * 3);
    atomic_fetch_add(&s->made[item], 1);
    atomic_fetch_add(&s->n, 1);
    return TS_OK;
}

static ts_loader *open_loader(source *s, int threads)
{
    ts_loader *l;
    ts_loader_options o = {.chunk = CHUNK,
                           .chunks = CHUNKS,
                           .threads = threads,
                           .bytes = BYTES,
                           .make = make,
                           .context = s};
    OK(ts_loader_open(device, &o, &l));
    assert_int_equal(ts_loader_ring(l), RING);
    return l;
}

/* ---- compute reads a window ---- */

typedef struct read_job {
    const uint8_t *bytes;
    const uint16_t *labels;
    int64_t first;
    uint8_t *to; /* CHUNK items, then their labels */
} read_job;

static ts_status read_run(const void *args)
{
    const read_job *j = args;
    for (int n = 0; n < CHUNK; n++) {
        size_t place = (size_t)((j->first + n) % RING);
        memcpy(j->to + n * BYTES, j->bytes + place * BYTES, BYTES);
        memcpy(j->to + CHUNK * BYTES + 2 * n, &j->labels[place], 2);
    }
    return TS_OK;
}

static int read_accesses(const void *args, ts_access *list)
{
    const read_job *j = args;
    int n = 0;
    for (int i = 0; i < CHUNK; i++) {
        size_t place = (size_t)((j->first + i) % RING);
        list[n++] = (ts_access){j->bytes + place * BYTES, BYTES, false};
        list[n++] = (ts_access){&j->labels[place], 2, false};
    }
    list[n++] = (ts_access){j->to, CHUNK * (BYTES + 2), true};
    return n;
}

static const ts_kernel read_kernel = {"read", read_run, read_accesses, NULL};
enum { OUT = CHUNK * (BYTES + 2) };

static void check_window(const uint8_t *out, int64_t first)
{
    for (int n = 0; n < CHUNK; n++) {
        uint16_t label;
        memcpy(&label, out + CHUNK * BYTES + 2 * n, 2);
        assert_int_equal(label, (uint16_t)((first + n) * 3));
        for (int i = 0; i < BYTES; i++) assert_int_equal(out[n * BYTES + i], byte_of(first + n, i));
    }
}

/* Windows from `begin` on that go on by `by` items; compute runs behind the host. */
static void run_windows(source *s, int threads, int64_t begin, int by, int steps)
{
    uint8_t *out;
    ts_loader *l = open_loader(s, threads);
    OK(ts_device_alloc(device, TS_MEMORY_PINNED, (size_t)steps * OUT, (void **)&out));
    atomic_store(&s->released, begin / CHUNK);
    OK(ts_loader_start(l, begin));
    for (int i = 0; i < steps; i++) {
        int64_t first = begin + (int64_t)i * by;
        atomic_store(&s->released, first / CHUNK);
        OK(ts_loader_take(l, first, first + CHUNK, compute));
        read_job job = {ts_loader_bytes(l), ts_loader_labels(l), first, out + (size_t)i * OUT};
        OK(ts_stream_launch(compute, &read_kernel, &job, sizeof job));
    }
    OK(ts_stream_sync(compute));
    for (int i = 0; i < steps; i++) check_window(out + (size_t)i * OUT, begin + (int64_t)i * by);
    ts_loader_close(l);
    ts_device_release(device, TS_MEMORY_PINNED, out);
    assert_false(s->too_far);
    for (int64_t i = begin / CHUNK * CHUNK; i < begin + (int64_t)(steps - 1) * by + CHUNK; i++)
        assert_int_equal(s->made[i], 1); /* once, whatever an echo does with it */
}

static void test_windows(void **state)
{
    static const int steps[] = {1, 2, 3, CHUNK}; /* items from a window to the next */
    (void)state;
    for (int threads = 0; threads <= 3; threads++)
        for (int slow = 0; slow < 2; slow++)
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
                for (int begin = 0; begin < 11; begin += 5) {
                    source s = {.fails_at = -1, .slow = slow};
                    run_windows(&s, threads, begin, steps[i], 60);
                }
}

/* Without a take the threads fill their ring, and the device's with `has`, and no more. */
static void test_prefetch(void **state)
{
    (void)state;
    source s = {.fails_at = -1};
    ts_loader *l = open_loader(&s, 2);
    bool has = false;
    OK(ts_loader_start(l, 0));
    while (atomic_load(&s.n) < RING) usleep(100);
    while (!has) OK(ts_loader_has(l, RING, &has)); /* all on their way to the device */
    while (atomic_load(&s.n) < 2 * RING) {
        OK(ts_loader_has(l, RING, &has));
        usleep(100);
    }
    OK(ts_loader_has(l, RING + 1, &has));
    assert_false(has); /* made, but there is no room on the device */
    atomic_store(&s.released, 1);
    OK(ts_loader_take(l, CHUNK, 2 * CHUNK, compute));
    OK(ts_loader_has(l, RING + CHUNK, &has));
    assert_true(has); /* now there is */
    ts_loader_close(l);
    assert_false(s.too_far);
}

/* `has` does not wait for what is being made, and a take waits for nothing else. */
static void test_has_never_waits(void **state)
{
    (void)state;
    source s = {.fails_at = -1, .gated = true, .gate = PTHREAD_MUTEX_INITIALIZER};
    bool has = true;
    pthread_mutex_lock(&s.gate);
    ts_loader *l = open_loader(&s, 2);
    OK(ts_loader_start(l, 0));
    OK(ts_loader_has(l, 1, &has));
    assert_false(has);
    pthread_mutex_unlock(&s.gate);
    OK(ts_loader_take(l, 0, CHUNK, compute));
    OK(ts_loader_has(l, CHUNK, &has));
    assert_true(has);
    ts_loader_close(l);
}

static void test_failure(void **state)
{
    (void)state;
    for (int threads = 0; threads <= 3; threads += 3) {
        source s = {.fails_at = 9};
        ts_loader *l = open_loader(&s, threads);
        ts_status status = TS_OK;
        OK(ts_loader_start(l, 0));
        for (int64_t i = 0; !status && i < 10; i++)
            status = ts_loader_take(l, i * CHUNK, (i + 1) * CHUNK, compute);
        assert_int_equal(status, TS_EDATA);
        assert_non_null(strstr(ts_trail_message(), "item 9 is bad"));
        OK(ts_stream_sync(compute));
        ts_loader_close(l);
    }
}

/* A chunk is due its time after the one before it: that many cannot be there before. */
static void test_rate(void **state)
{
    (void)state;
    for (int bytes = 0; bytes < 2; bytes++) {
        source s = {.fails_at = -1};
        ts_loader *l;
        bool has = true;
        ts_loader_options o = {.chunk = CHUNK,
                               .chunks = CHUNKS,
                               .threads = 2,
                               .bytes = BYTES,
                               .rate = CHUNK / 0.02,
                               .make = bytes ? make : NULL,
                               .context = &s};
        OK(ts_loader_open(device, &o, &l));
        if (!bytes) assert_null(ts_loader_bytes(l));
        OK(ts_loader_start(l, 0));
        ts_clock_sleep_ns(30000000); /* the clock does not run yet */
        int64_t begin = ts_clock_ns();
        OK(ts_loader_has(l, CHUNK, &has));
        if (has) assert_true(ts_clock_ns() - begin >= 19999999);
        for (int i = 0; i < 10; i++) {
            if (bytes) atomic_store(&s.released, i);
            OK(ts_loader_take(l, (int64_t)i * CHUNK, (int64_t)(i + 1) * CHUNK, compute));
            assert_true(ts_clock_ns() - begin >= (i + 1) * (int64_t)19999999);
        }
        OK(ts_stream_sync(compute));
        ts_loader_close(l);
    }
}

/* ---- every wait is needed ---- */

static int conflicts_without(int drop, int by, uint64_t seed, int *waits_p)
{
    enum { STEPS = 14 };
    ts_device *recording;
    ts_stream *stream;
    ts_loader *l;
    uint8_t *out;
    source s = {.fails_at = -1};
    ts_loader_options o = {
        .chunk = CHUNK, .chunks = CHUNKS, .bytes = BYTES, .make = make, .context = &s};
    OK(recording_open(&recording));
    recording_seed(recording, seed);
    recording_count_waits(recording, false);
    OK(ts_stream_open(recording, TS_STREAM_COMPUTE, "compute", &stream));
    OK(ts_device_alloc(recording, TS_MEMORY_DEVICE, STEPS * OUT, (void **)&out));
    OK(ts_loader_open(recording, &o, &l));
    OK(recording_run(recording, seed));
    recording_count_waits(recording, true);
    recording_drop_wait(recording, drop);
    OK(ts_loader_start(l, 0));
    for (int i = 0; i < STEPS; i++) {
        int64_t first = (int64_t)i * by;
        atomic_store(&s.released, first / CHUNK);
        OK(ts_loader_take(l, first, first + CHUNK, stream));
        read_job job = {ts_loader_bytes(l), ts_loader_labels(l), first, out + i * OUT};
        OK(ts_stream_launch(stream, &read_kernel, &job, sizeof job));
    }
    OK(recording_run(recording, seed));
    int conflicts = recording_conflicts(recording, NULL, NULL);
    *waits_p = recording_waits(recording);
    if (drop < 0)
        for (int i = 0; i < STEPS; i++) check_window(out + i * OUT, (int64_t)i * by);
    ts_loader_close(l);
    ts_device_release(recording, TS_MEMORY_DEVICE, out);
    ts_stream_close(stream);
    ts_device_close(recording);
    return conflicts;
}

static void test_order(void **state)
{
    (void)state;
    for (int by = 2; by <= CHUNK; by += 2) {
        int waits, total;
        for (uint64_t seed = 1; seed < 12; seed++)
            assert_int_equal(conflicts_without(-1, by, seed, &total), 0);
        assert_true(total > 8);
        for (int drop = 0; drop < total; drop++)
            if (!conflicts_without(drop, by, 1, &waits))
                fail_msg("windows that go on by %d: without wait %d of %d nothing is missed", by,
                         drop, total);
        print_message("%d waits removed in turn, each caught\n", total);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_prefetch),
        cmocka_unit_test(test_has_never_waits),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_order),
    };
    if (ts_device_open(test_device(), 0, &device) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &compute))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(compute);
    ts_device_close(device);
    return failed;
}
