/* test_data.c - files, shards and batches of pictures; the files are the test's own. */
#include <math.h>
#include <unistd.h>

#include "ops/element.h"
#include "runtime/base/file.h"
#include "runtime/data/augment_element.h"
#include "runtime/data/data.h"
#include "tests/check.h"

enum { RECORD = 3073, EACH = 8, TRAIN = 5 * EACH };

static ts_device *device;
static ts_stream *stream;
static char folder[] = "/tmp/test_data_XXXXXX", source[80];

static uint8_t pixel(int sample, int at)
{
    return (uint8_t)(ts_random(3, (uint64_t)sample, (uint64_t)at).v[0] & 255);
}

static void write_batch(const char *name, int first, size_t bytes, int label)
{
    char path[100];
    uint8_t all[EACH * RECORD];
    for (int i = 0; i < EACH; i++) {
        all[i * RECORD] = (uint8_t)(label >= 0 ? label : (first + i) % 10);
        for (int p = 0; p < RECORD - 1; p++) all[i * RECORD + 1 + p] = pixel(first + i, p);
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(all, 1, bytes, f), bytes);
    fclose(f);
}

static void write_files(void)
{
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", i + 1);
        write_batch(name, i * EACH, EACH * RECORD, -1);
    }
    write_batch("test_batch.bin", TRAIN, EACH * RECORD, -1);
}

static void refused(const char *part)
{
    ts_dataset *d;
    assert_int_equal(ts_dataset_open(device, source, &d), TS_EDATA);
    if (!strstr(ts_trail_message(), part))
        fail_msg("\"%s\" is not in \"%s\"", part, ts_trail_message());
}

static void test_files(void **state)
{
    (void)state;
    ts_dataset *d;
    write_files();
    OK(ts_dataset_open(device, source, &d));
    assert_true(d->train.n == TRAIN && d->test.n == EACH && d->classes == 10);
    assert_int_equal(d->train.images[3 * 3072 + 5], pixel(3, 5));
    assert_int_equal(d->train.labels[13], 3);
    double sum = 0;
    for (int i = 0; i < TRAIN; i++)
        for (int p = 0; p < 1024; p++) sum += pixel(i, 1024 + p);
    assert_true(fabs(d->mean[1] - sum / (TRAIN * 1024)) < 1e-3);
    ts_dataset_close(d);
    write_batch("data_batch_2.bin", 0, RECORD + 7, -1);
    refused("data_batch_2.bin");
    write_batch("data_batch_2.bin", 0, 2 * RECORD, 10);
    refused("label 10");
    write_files();
    char path[100];
    snprintf(path, sizeof path, "%s/test_batch.bin", folder);
    unlink(path);
    refused("test_batch.bin");
    write_files();
    snprintf(path, sizeof path, "%s/data_batch_4.bin", folder);
    assert_int_equal(truncate(path, 0), 0);
    refused("data_batch_4.bin");
    write_files();
    assert_int_equal(ts_dataset_open(device, "cifar10:/no/such/folder", &d), TS_EDATA);
    assert_non_null(strstr(ts_trail_message(), "/no/such/folder"));
    assert_int_equal(ts_dataset_open(device, "cifar10", &d), TS_EUSAGE);
    assert_int_equal(ts_dataset_open(device, "cifar11:x", &d), TS_EUSAGE);
    assert_non_null(strstr(ts_trail_message(), "cifar10"));
    assert_int_equal(ts_dataset_open(device, "synthetic:trian=3", &d), TS_EUSAGE);
    assert_non_null(strstr(ts_trail_message(), "\"train\""));
}

/* Two label bytes, of which the second counts; the files in the folder of the download. */
static void test_cifar100(void **state)
{
    static const char *const names[] = {"train.bin", "test.bin"};
    (void)state;
    ts_dataset *d;
    char inner[100], path[120], data[100];
    snprintf(inner, sizeof inner, "%s/cifar-100-binary", folder);
    snprintf(data, sizeof data, "cifar100:%s", folder);
    OK(ts_file_make_folder(inner));
    for (int last = 99; last <= 100; last++) {
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/%s", inner, names[k]);
            FILE *f = fopen(path, "wb");
            for (int i = 0; i < 3; i++) {
                fputc(i, f);
                fputc(k && i == 2 ? last : 50 + i, f);
                for (int p = 0; p < RECORD - 1; p++) fputc(pixel(k * 3 + i, p), f);
            }
            fclose(f);
        }
        ts_status status = ts_dataset_open(device, data, &d);
        if (last == 100) {
            assert_int_equal(status, TS_EDATA);
            assert_non_null(strstr(ts_trail_message(), "test.bin: record 2 has the label 100"));
            continue;
        }
        OK(status);
        assert_true(d->train.n == 3 && d->test.n == 3 && d->classes == 100);
        for (int i = 0; i < 3; i++) assert_int_equal(d->train.labels[i], 50 + i);
        assert_int_equal(d->test.labels[2], 99);
        assert_int_equal(d->test.images[3072 + 7], pixel(4, 7));
        ts_dataset_close(d);
    }
}

/* ---- batches ---- */

static ts_batch make_batch(int n, ts_shape picture, ts_layout layout, ts_type type)
{
    ts_batch b = {.shape = {n, picture.c, picture.h, picture.w}, .layout = layout, .type = type};
    b.input = malloc(ts_layout_count(layout, b.shape) * ts_type_bytes(type));
    b.labels = malloc((size_t)n * sizeof *b.labels);
    return b;
}

static void free_batch(ts_batch *b)
{
    free(b->input);
    free(b->labels);
}

static float at(const ts_batch *b, int n, int c, int h, int w)
{
    size_t i = ts_layout_at(b->layout, b->shape, n, c, h, w);
    return b->type == TS_BF16 ? ts_bf16_to_float(((uint16_t *)b->input)[i])
                              : ((float *)b->input)[i];
}

static void test_batch_is_what_it_says(void **state)
{
    static const ts_layout layouts[] = {TS_NCHW, TS_NHWC, TS_NCHW16C, TS_NCHW8C};
    (void)state;
    ts_dataset *d;
    ts_shard shard;
    OK(ts_dataset_open(device, source, &d));
    OK(ts_shard_open(d, 1, 2, (int[]){4, 4}, 0, 9, &shard));
    ts_control control = {.epoch = 3, .position = 8, .seed = 9};
    for (int mode = 0; mode < 3; mode++) /* plain; shuffled; cropped and mirrored too */
        for (int l = 0; l < 4; l++)
            for (int type = 0; type < 2; type++) {
                ts_augment a = {.flip = mode == 2, .crop = mode == 2 ? 4 : 0, .shuffle = mode > 0};
                ts_batch b = make_batch(4, d->picture, layouts[l], type ? TS_BF16 : TS_F32);
                OK(ts_data_train_batch(d, &shard, &a, &control, &b, stream));
                OK(ts_stream_sync(stream));
                for (int n = 0; n < 4; n++) {
                    int64_t s = ts_sample_at(&shard, 9, 3, 8 + n, a.shuffle);
                    if (!mode) assert_int_equal(s, 2 * 8 + 4 + n);
                    assert_int_equal(b.labels[n], s % 10);
                    ts_augmentation g = ts_augmentation_of(9, 3, s, 0, a.crop, a.flip);
                    for (int c = 0; c < 3; c++)
                        for (int y = 0; y < 32; y++)
                            for (int x = 0; x < 32; x++) {
                                int sx = (g.flip ? 31 - x : x) + g.dx, sy = y + g.dy;
                                bool in = sx >= 0 && sx < 32 && sy >= 0 && sy < 32;
                                int byte = in ? pixel((int)s, c * 1024 + sy * 32 + sx) : 0;
                                float want = (float)(byte - (double)d->mean[c]) / d->std[c];
                                assert_true(fabsf(at(&b, n, c, y, x) - want) <
                                            (type ? 0.01f : 1e-5f));
                            }
                }
                free_batch(&b);
            }
    ts_shard_close(d, &shard);
    ts_dataset_close(d);
}

static void test_augmentation_varies(void **state)
{
    (void)state;
    int flips = 0, moves[9] = {0};
    for (int i = 0; i < 900; i++) {
        ts_augmentation g = ts_augmentation_of(1, 0, i, 0, 4, 1);
        flips += g.flip;
        moves[g.dx + 4]++;
        assert_true(g.dy >= -4 && g.dy <= 4);
    }
    assert_true(flips > 380 && flips < 520);
    for (int i = 0; i < 9; i++) assert_true(moves[i] > 60 && moves[i] < 140);
}

/* Of `pool` samples in one order: of each `global` in a row this rank has `batch`, from `first` on.
 */
static ts_shard turns(int64_t pool, int rank, int64_t first, int64_t global, int batch)
{
    return (ts_shard){.pool = pool, .rank = rank, .first = first, .global = global, .batch = batch};
}

/* The samples of one global batch are the same whatever the number of ranks. */
static void test_shards_share_one_order(void **state)
{
    (void)state;
    const ts_shard one = turns(TRAIN, 0, 0, 8, 8);
    for (int epoch = 0; epoch < 2; epoch++) {
        int seen[TRAIN] = {0};
        for (int size = 1; size <= 4; size *= 2)
            for (int rank = 0; rank < size; rank++) {
                const ts_shard s = turns(TRAIN, rank, rank * 8 / size, 8, 8 / size);
                for (int i = 0; i < TRAIN / size; i++) seen[ts_sample_at(&s, 5, epoch, i, 1)]++;
            }
        for (int i = 0; i < TRAIN; i++) assert_int_equal(seen[i], 3);
        for (int n = 0; n < 8; n++) {
            const ts_shard half = turns(TRAIN, n / 4, n / 4 * 4, 8, 4);
            assert_int_equal(ts_sample_at(&one, 5, epoch, 8 + n, 1),
                             ts_sample_at(&half, 5, epoch, 4 + n % 4, 1));
        }
    }
    int same = 0;
    for (int i = 0; i < TRAIN; i++)
        same += ts_sample_at(&one, 5, 0, i, 1) == ts_sample_at(&one, 5, 1, i, 1);
    assert_true(same < TRAIN / 2); /* epochs differ */
}

static void test_skewed_shards(void **state)
{
    (void)state;
    ts_dataset *d;
    OK(ts_dataset_open(device, "synthetic:train=1000,test=10,size=4", &d));
    for (int full = 0; full < 2; full++) {
        int seen[1000] = {0}, classes_of_first = 0;
        for (int rank = 0; rank < 4; rank++) {
            ts_shard s;
            bool has[10] = {false};
            int batches[] = {10, 10, 10, 10};
            OK(ts_shard_open(d, rank, 4, batches, full ? 1.0 : 0.4, 1, &s));
            assert_true(s.pool == 250 && s.n == 250);
            for (int i = 0; i < s.pool; i++) {
                seen[s.samples[i]]++;
                has[d->train.host_labels[s.samples[i]]] = true;
            }
            for (int c = 0; c < 10; c++) classes_of_first += rank == 0 && has[c];
            ts_shard_close(d, &s);
        }
        for (int i = 0; i < 1000; i++) assert_int_equal(seen[i], 1);
        assert_true(full ? classes_of_first <= 4 : classes_of_first == 10);
    }
    ts_shard s;
    assert_int_equal(ts_shard_open(d, 0, 2, (int[]){600, 600}, 0, 1, &s), TS_EUSAGE);
    ts_dataset_close(d);
}

/* Batches 5, 2 and 1: of an epoch's samples each is taken once, the ranks' shares are like these,
 * and all have as many steps; in turns of one order, and as samples of one's own. */
static void test_unequal_shards(void **state)
{
    static const int batches[] = {5, 2, 1};
    static const double skews[] = {0, 0.4, 1};
    (void)state;
    ts_dataset *d;
    OK(ts_dataset_open(device, "synthetic:train=1003,test=10,size=4", &d));
    for (int i = 0; i < 3; i++) {
        int seen[1003] = {0}, first = 0, sum = 0;
        for (int rank = 0; rank < 3; first += batches[rank++]) {
            ts_shard s;
            OK(ts_shard_open(d, rank, 3, batches, skews[i], 1, &s));
            assert_true(s.n == 1003 / 8 * batches[rank] && s.batch == batches[rank]);
            assert_true(s.first == first && s.global == 8);
            assert_int_equal(s.pool, i ? 1003 * batches[rank] / 8 : 1003);
            for (int64_t at = 0; at < (i ? s.pool : s.n); at++) {
                int64_t n = ts_sample_at(&s, 7, 2, at, 1);
                seen[i ? s.samples[n] : n]++;
                sum++;
            }
            ts_shard_close(d, &s);
        }
        for (int n = 0; n < 1003; n++) assert_in_range(seen[n], 0, 1);
        assert_true(sum <= 1003 && sum >= 1000);
    }
    /* what one rank has is a stretch of the global batch */
    const ts_shard part = turns(1003, 1, 5, 8, 2), all = turns(1003, 0, 0, 8, 8);
    for (int n = 0; n < 2; n++)
        assert_int_equal(ts_sample_at(&part, 7, 2, 6 + n, 1),
                         ts_sample_at(&all, 7, 2, 3 * 8 + 5 + n, 1));
    ts_dataset_close(d);
}

/* With equal batches a rank's own samples are those it had before there were others. */
static void test_equal_shards_stay(void **state)
{
    (void)state;
    ts_dataset *d;
    OK(ts_dataset_open(device, "synthetic:train=100,test=10,size=4", &d));
    for (int rank = 0; rank < 3; rank++) {
        ts_shard s;
        OK(ts_shard_open(d, rank, 3, (int[]){4, 4, 4}, 0.5, 1, &s));
        assert_true(s.pool == 33 && s.n == 32);
        for (int i = 17; i < 33; i++)
            assert_int_equal(s.samples[i], ts_random_permute(1, 0x5AADD, 100,
                                                             (uint64_t)(51 + (i - 17) * 3 + rank)));
        ts_shard_close(d, &s);
    }
    ts_dataset_close(d);
}

static void test_tail_of_the_test_split(void **state)
{
    (void)state;
    ts_dataset *d;
    OK(ts_dataset_open(device, source, &d));
    ts_batch b = make_batch(6, d->picture, TS_NCHW, TS_F32);
    OK(ts_data_test_batch(d, 6, 0, &b, stream));
    OK(ts_stream_sync(stream));
    for (int n = 0; n < 6; n++) assert_int_equal(b.labels[n], n < 2 ? (TRAIN + 6 + n) % 10 : -1);
    assert_true(fabsf(at(&b, 1, 2, 3, 4) -
                      ((float)pixel(TRAIN + 7, 2048 + 100) - d->mean[2]) / d->std[2]) < 1e-5f);
    free_batch(&b);
    ts_dataset_close(d);
}

static void test_synthetic(void **state)
{
    (void)state;
    ts_dataset *a, *b, *other;
    OK(ts_dataset_open(device, "synthetic:train=300,test=20,size=12", &a));
    OK(ts_dataset_open(device, "synthetic:train=300,test=20,size=12", &b));
    OK(ts_dataset_open(device, "synthetic:train=300,test=20,size=12,seed=2", &other));
    size_t bytes = 300 * 3 * 144;
    assert_memory_equal(a->train.images, b->train.images, bytes);
    assert_memory_not_equal(a->train.images, other->train.images, bytes);
    int counts[10] = {0};
    for (int i = 0; i < 300; i++) counts[a->train.host_labels[i]]++;
    for (int c = 0; c < 10; c++) assert_true(counts[c] > 10);
    ts_dataset_close(a);
    ts_dataset_close(b);
    ts_dataset_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_cifar100),
        cmocka_unit_test(test_batch_is_what_it_says),
        cmocka_unit_test(test_augmentation_varies),
        cmocka_unit_test(test_shards_share_one_order),
        cmocka_unit_test(test_skewed_shards),
        cmocka_unit_test(test_unequal_shards),
        cmocka_unit_test(test_equal_shards_stay),
        cmocka_unit_test(test_tail_of_the_test_split),
        cmocka_unit_test(test_synthetic),
    };
    if (!mkdtemp(folder)) return 1;
    snprintf(source, sizeof source, "cifar10:%s", folder);
    if (ts_device_open("host", 0, &device) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(stream);
    ts_device_close(device);
    (void)ts_file_remove_folder(folder);
    return failed;
}
