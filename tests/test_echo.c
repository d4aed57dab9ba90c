/* test_echo.c - which sample is used when: the window of data echoing by its definition, and whole
 * batches as the kernels make them, tick by tick. */
#include "runtime/data/augment_element.h"
#include "runtime/data/data.h"
#include "runtime/train/schedule.h"
#include "tests/check.h"

enum { STEPS = 400, SAMPLES_MAX = STEPS * 64 + 64 };

static const double factors[] = {1, 1.25, 1.5, 2, 2.5, 3, 4.7, 10};
static const int batches[] = {1, 4, 10, 64};

static void test_literal_windows(void **state)
{
    static const struct {
        ts_echo echo;
        int64_t batch, first[7];
    } known[] = {
        {{1, 0, TS_ECHO_EXAMPLE}, 4, {0, 4, 8, 12, 16, 20, 24}},
        {{0, 0, TS_ECHO_BATCH}, 4, {0, 4, 8, 12, 16, 20, 24}},
        {{2, 0, TS_ECHO_EXAMPLE}, 4, {0, 2, 4, 6, 8, 10, 12}},
        {{3, 0, TS_ECHO_AUGMENTED}, 4, {0, 2, 3, 4, 6, 7, 8}},
        {{1.5, 0, TS_ECHO_EXAMPLE}, 4, {0, 3, 6, 8, 11, 14, 16}},
        {{2, 0, TS_ECHO_BATCH}, 4, {0, 0, 4, 4, 8, 8, 12}},
        {{1.5, 0, TS_ECHO_BATCH}, 4, {0, 0, 4, 8, 8, 12, 16}},
        {{2, 1, TS_ECHO_BATCH}, 4, {0}}, /* the host moves it */
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (int64_t s = 0; s < 7; s++)
            assert_int_equal(ts_echo_first(&known[i].echo, s, known[i].batch), known[i].first[s]);
}

/* Every sample comes floor(e) or ceil(e) times, e in the mean, in successive steps; each use of an
 * example has a copy of its own, the last one copy 0. */
static void check_counts(const ts_echo *e, int64_t batch)
{
    static int uses[SAMPLES_MAX], copies[SAMPLES_MAX];
    static int64_t last[SAMPLES_MAX];
    int64_t end = 0, total = 0, counted = 0;
    memset(uses, 0, sizeof uses);
    for (int64_t s = 0; s < STEPS; s++) {
        int64_t first = ts_echo_first(e, s, batch);
        assert_true(first <= end && first + batch >= end); /* nothing is skipped, none comes back */
        end = first + batch;
        for (int n = 0; n < batch; n++) {
            int64_t sample = first + n;
            int copy = ts_echo_copy(e, s, batch, n, 0);
            assert_true(copy >= 0 && copy < ts_echo_copies(e));
            if (e->place != TS_ECHO_EXAMPLE) assert_int_equal(copy, 0);
            if (uses[sample]) assert_int_equal(last[sample], s - 1);
            if (uses[sample] && e->place == TS_ECHO_EXAMPLE)
                assert_int_equal(copy, copies[sample] - 1);
            copies[sample] = copy;
            last[sample] = s;
            uses[sample]++;
        }
    }
    /* the first and last samples lack the steps before and after the run */
    int64_t from = e->place == TS_ECHO_BATCH ? 0 : batch, to = ts_echo_first(e, STEPS - 1, batch);
    for (int64_t i = from; i < to; i++) {
        if (uses[i] != (int)floor(e->factor) && uses[i] != (int)ceil(e->factor))
            fail_msg("e %g, batch %d: sample %d is used %d times", e->factor, (int)batch, (int)i,
                     uses[i]);
        if (e->place == TS_ECHO_EXAMPLE) assert_int_equal(copies[i], 0);
        total += uses[i];
        counted++;
    }
    double mean = (double)total / (double)counted; /* but for a batch at the ends */
    assert_true(fabs(mean - e->factor) <= (double)batch / (double)counted + 1e-12);
}

static void test_counts(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof factors / sizeof *factors; f++)
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
            for (int place = 0; place < 3; place++) {
                ts_echo e = {factors[f], 0, (ts_echo_place)place};
                check_counts(&e, batches[b]);
            }
}

/* ---- the batches themselves ---- */

static ts_device *device;
static ts_stream *stream;

typedef struct rig {
    ts_dataset *dataset;
    ts_shard shard;
    ts_control *control;
    ts_batch batch;
} rig;

enum { PICTURES = 50, BATCH = 8, SIDE = 8, PICTURE = 3 * SIDE * SIDE, RANK = 1, RANKS = 2 };
static const uint64_t seed = 11;

static void open_rig(rig *r)
{
    *r = (rig){0};
    OK(ts_dataset_open(device, "synthetic:train=50,test=4,size=8", &r->dataset));
    OK(ts_shard_open(r->dataset, RANK, RANKS, (int[]){BATCH, BATCH}, 0, seed, &r->shard));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, sizeof *r->control, (void **)&r->control));
    *r->control = (ts_control){.seed = seed};
    r->batch = (ts_batch){.shape = {BATCH, 3, SIDE, SIDE}, .layout = TS_NHWC, .type = TS_F32};
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, BATCH * PICTURE * sizeof(float), &r->batch.input));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, BATCH * sizeof(int32_t),
                       (void **)&r->batch.labels));
}

static void close_rig(rig *r)
{
    OK(ts_stream_sync(stream));
    ts_device_release(device, TS_MEMORY_DEVICE, r->batch.labels);
    ts_device_release(device, TS_MEMORY_DEVICE, r->batch.input);
    ts_device_release(device, TS_MEMORY_DEVICE, r->control);
    ts_shard_close(r->dataset, &r->shard);
    ts_dataset_close(r->dataset);
}

/* Is picture n of the batch this sample with that augmentation, to the bit? */
static void check_picture(const rig *r, int n, int64_t sample, ts_augmentation a)
{
    const float *input = (const float *)r->batch.input + (size_t)n * PICTURE;
    const uint8_t *image = r->dataset->train.images + (size_t)sample * PICTURE;
    assert_int_equal(r->batch.labels[n], r->dataset->train.labels[sample]);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++) {
                int sx = (a.flip ? SIDE - 1 - x : x) + a.dx, sy = y + a.dy;
                bool in = sx >= 0 && sx < SIDE && sy >= 0 && sy < SIDE;
                uint8_t byte = in ? image[(c * SIDE + sy) * SIDE + sx] : 0;
                float want = ((float)byte - r->dataset->mean[c]) * (1.0f / r->dataset->std[c]);
                assert_true(input[(y * SIDE + x) * 3 + c] == want);
            }
}

/* 60 steps over epochs of 24 samples: windows cross the ends of epochs. */
static void test_batches(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof factors / sizeof *factors; f++)
        for (int place = 0; place < 3; place++) {
            rig r;
            ts_augment a = {.flip = true, .crop = 2, .shuffle = true};
            ts_schedule schedule = {.peak = 1, .total = 60};
            a.echo = (ts_echo){factors[f], 0, (ts_echo_place)place};
            open_rig(&r);
            assert_int_equal(r.shard.n, 24);
            for (int64_t s = 0; s < 60; s++) {
                OK(ts_data_train_batch(r.dataset, &r.shard, &a, r.control, &r.batch, stream));
                OK(ts_stream_sync(stream));
                for (int n = 0; n < BATCH; n++) {
                    /* the definition, in its own words */
                    double e = factors[f];
                    int64_t first = place == TS_ECHO_BATCH ? (int64_t)floor((double)s / e) * BATCH
                                                           : (int64_t)ceil((double)(s * BATCH) / e);
                    int64_t fresh = first + n, epoch = fresh / 24, at = fresh % 24;
                    int64_t i = at / BATCH * BATCH * RANKS + RANK * BATCH + at % BATCH;
                    int64_t sample = (int64_t)ts_random_permute(seed, (uint64_t)epoch << 20,
                                                                PICTURES, (uint64_t)i);
                    int copy = place == TS_ECHO_EXAMPLE
                                   ? (int)(floor((double)fresh * e / BATCH) - (double)s)
                                   : 0;
                    check_picture(&r, n, sample,
                                  ts_augmentation_of(seed, epoch, sample, copy, 2, 1));
                }
                OK(ts_schedule_tick(stream, &schedule, BATCH, r.shard.n, &a.echo, r.control));
            }
            close_rig(&r);
        }
}

/* Uses of an example differ; copy 0 is what a run without echo sees. */
static void test_copies_are_augmented_anew(void **state)
{
    int same = 0;
    (void)state;
    for (int i = 0; i < 500; i++) {
        ts_augmentation a = ts_augmentation_of(seed, 3, i, 0, 4, 1),
                        b = ts_augmentation_of(seed, 3, i, 1, 4, 1);
        ts_random4 words = ts_random(seed ^ UINT64_C(0xA06E47A7104), 3, (uint64_t)i);
        assert_int_equal(a.flip, words.v[0] & 1);
        same += a.flip == b.flip && a.dx == b.dx && a.dy == b.dy;
    }
    assert_true(same < 30); /* one in 162 by chance */
}

/* An automatic echo: the tick leaves the window, moves shift it by a batch or count a use. */
static void test_moves(void **state)
{
    rig r;
    ts_echo e = {1, 1, TS_ECHO_EXAMPLE};
    ts_schedule schedule = {.peak = 1, .total = 60};
    (void)state;
    open_rig(&r);
    for (int64_t s = 0; s < 12; s++) {
        bool move = s % 3 == 0 && s;
        OK(ts_schedule_move(stream, &schedule, s, move ? BATCH : 0, s % 3, BATCH, r.shard.n,
                            r.control));
        OK(ts_stream_sync(stream));
        assert_int_equal(r.control->repeats, s % 3);
        assert_int_equal(r.control->epoch, s / 9);
        assert_int_equal(r.control->position, s / 3 % 3 * BATCH);
        assert_int_equal(ts_echo_copy(&e, s, BATCH, 5, r.control->repeats), s % 3);
        OK(ts_schedule_tick(stream, &schedule, BATCH, r.shard.n, &e, r.control));
    }
    close_rig(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literal_windows), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_batches),         cmocka_unit_test(test_copies_are_augmented_anew),
        cmocka_unit_test(test_moves),
    };
    if (ts_device_open(test_device(), 0, &device) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(stream);
    ts_device_close(device);
    return failed;
}
