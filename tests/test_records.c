/* test_records.c - JPEG pictures packed, read back, cropped and fed to batches. The pictures are
 * the test's own, and what they should look like comes from plain libjpeg and a filter in double.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "ops/element.h"
#include "runtime/base/file.h"
#include "runtime/data/augment_element.h"
#include "runtime/data/feed.h"
#include "runtime/data/records.h"
#include "tests/check.h"
#include "tests/jpeg_writer.h"

enum { TRAIN = 30, TEST = 11, CLASSES = 3, SIDE = 16, PICTURE = 3 * SIDE * SIDE };

static ts_device *device;
static ts_stream *stream;
static char folder[] = "/tmp/test_records_XXXXXX", packed[64], source[100];
static const ts_records_view view = {.size = SIDE, .resize = 20, .least = 0.08};

/* Class c of a split has pictures number c, c + CLASSES, ...: sizes and kinds differ. */
static int width_of(int number)
{
    return 24 + number * 5 % 37;
}

static int height_of(int number)
{
    return 20 + number * 11 % 41;
}

static int components_of(int number)
{
    return number % 7 == 3 ? 1 : number % 7 == 5 ? 4 : 3;
}

static void path_of(int number, char *path, size_t bytes)
{
    bool train = number < TRAIN;
    snprintf(path, bytes, "%s/set/%s/class%d/%04d.%s", folder, train ? "train" : "val",
             number % CLASSES, number, number % 2 ? "jpg" : "JPEG");
}

static void write_pictures(void)
{
    char path[200];
    for (int split = 0; split < 2; split++)
        for (int c = 0; c < CLASSES; c++) {
            snprintf(path, sizeof path, "%s/set/%s/class%d", folder, split ? "val" : "train", c);
            OK(ts_file_make_folder(path));
        }
    for (int i = 0; i < TRAIN + TEST; i++) {
        path_of(i, path, sizeof path);
        write_jpeg(path, i, width_of(i), height_of(i), components_of(i));
    }
}

/* The number of the picture that is entry i: by split, class, then name. */
static int number_of(int entry)
{
    int at = 0;
    for (int split = 0; split < 2; split++)
        for (int c = 0; c < CLASSES; c++)
            for (int i = split ? TRAIN : 0; i < (split ? TRAIN + TEST : TRAIN); i++)
                if (i % CLASSES == c && at++ == entry) return i;
    fail();
    return -1;
}

static void pack(void)
{
    ts_pack_result r;
    char from[64];
    snprintf(from, sizeof from, "%s/set", folder);
    OK(ts_records_pack(from, packed, false, &r));
    assert_true(r.train == TRAIN && r.test == TEST && r.classes == CLASSES && r.left_out == 0);
}

static void refused(ts_status status, ts_status want, const char *part)
{
    assert_int_equal(status, want);
    if (!strstr(ts_trail_message(), part))
        fail_msg("\"%s\" is not in \"%s\"", part, ts_trail_message());
}

/* ---- the file ---- */

static void test_round_trip(void **state)
{
    ts_records *r;
    void *file;
    size_t n;
    (void)state;
    pack();
    OK(ts_records_open(packed, &view, &r));
    OK(ts_file_read(packed, &file, &n));
    const ts_records_header *h = ts_records_get_header(r);
    assert_true(h->train == TRAIN && h->test == TEST && h->classes == CLASSES);
    assert_memory_equal((char *)file + h->names_at, "class0\nclass1\nclass2\n", 21);
    for (int i = 0; i < TRAIN + TEST; i++) {
        const ts_records_entry *e = &ts_records_entries(r)[i];
        int number = number_of(i);
        char path[200];
        void *bytes;
        size_t size;
        path_of(number, path, sizeof path);
        OK(ts_file_read(path, &bytes, &size));
        assert_true(e->bytes == size && e->label == number % CLASSES);
        assert_true(e->width == width_of(number) && e->height == height_of(number));
        assert_memory_equal((char *)file + e->at, bytes, size); /* as it came */
        free(bytes);
    }
    free(file);
    ts_records_close(r);
}

/* The mean and deviation in the header are those of all training pixels. */
static void test_moments(void **state)
{
    ts_records *r;
    double sum[3] = {0}, squares[3] = {0}, n = 0;
    (void)state;
    for (int i = 0; i < TRAIN; i++)
        for (int y = 0; y < height_of(i); y++)
            for (int x = 0; x < width_of(i); x++, n++)
                for (int c = 0; c < 3; c++) {
                    double v = picture_byte(i, components_of(i) == 1 ? 0 : c, x, y);
                    sum[c] += v;
                    squares[c] += v * v;
                }
    OK(ts_records_open(packed, &view, &r));
    const ts_records_header *h = ts_records_get_header(r);
    for (int c = 0; c < 3; c++) {
        double mean = sum[c] / n, deviation = sqrt(squares[c] / n - mean * mean);
        assert_true(fabs(h->mean[c] - mean) < 1.5); /* JPEG is lossy */
        assert_true(fabs(h->std[c] - deviation) < 2.5);
    }
    ts_records_close(r);
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* Any byte of header or index that changes is found when the file is opened, any of a picture when
 * it is read; so is a file that ends anywhere. */
static void test_damaged_files(void **state)
{
    ts_records *r;
    ts_reader *reader;
    unsigned char *file;
    uint8_t planes[PICTURE];
    ts_box box = {0, 0, 20, 20};
    char bad[100];
    size_t n;
    (void)state;
    snprintf(bad, sizeof bad, "%s/bad", folder);
    OK(ts_file_read(packed, (void **)&file, &n));
    OK(ts_records_open(packed, &view, &r));
    ts_records_header h = *ts_records_get_header(r);
    ts_records_entry e = ts_records_entries(r)[7];
    ts_records_close(r);
    for (size_t at = 0; at < n; at += at < sizeof h ? 1 : at < h.index_at ? 4096 : 5) {
        if (at >= sizeof h && at < h.index_at) continue;
        file[at] ^= 0x21;
        write_file(bad, file, n);
        if (ts_records_open(bad, &view, &r) != TS_EDATA)
            fail_msg("byte %d of %d was changed, and nobody noticed", (int)at, (int)n);
        assert_null(r);
        file[at] ^= 0x21;
    }
    for (size_t size = 0; size < n; size = size * 3 / 2 + 50) {
        write_file(bad, file, size);
        refused(ts_records_open(bad, &view, &r), TS_EDATA,
                size < sizeof h ? "no records file, or cut off" : "cut off");
    }
    file[e.at + e.bytes / 2] ^= 0x21;
    write_file(bad, file, n);
    OK(ts_records_open(bad, &view, &r));
    OK(ts_reader_open(r, &reader));
    refused(ts_reader_read(reader, 7, &box, 1, planes), TS_EDATA, "picture 7 of");
    OK(ts_reader_read(reader, 8, &box, 1, planes));
    assert_int_equal(truncate(bad, (off_t)e.at + 9), 0); /* while it is open */
    refused(ts_reader_read(reader, 8, &box, 1, planes), TS_EDATA, "cut off");
    ts_reader_close(reader);
    ts_records_close(r);
    refused(ts_records_open("/no/such/file", &view, &r), TS_EDATA, "/no/such/file");
    write_file(bad,
               "version https://git-lfs.github.com/spec/v1 and what else may stand there, which "
               "is no header at all, but long enough to hold one, as it has 128 bytes",
               150);
    refused(ts_records_open(bad, &view, &r), TS_EDATA, "does not begin with TWRECORD");
    free(file);
}

static void test_bad_folders(void **state)
{
    ts_pack_result r;
    char from[64], path[200], out[80];
    unsigned char *bytes;
    size_t n;
    (void)state;
    snprintf(from, sizeof from, "%s/set", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    refused(ts_records_pack("/no/such", out, false, &r), TS_EDATA, "no folder train");
    path_of(16, path, sizeof path);
    OK(ts_file_read(path, (void **)&bytes, &n));
    for (int kind = 0; kind < 4; kind++) { /* text, empty, cut off, garbled in the middle */
        unsigned char *copy = malloc(n);
        memcpy(copy, bytes, n);
        if (kind == 3) memset(copy + n * 2 / 3, 0x55, n / 6);
        write_file(path, kind == 0 ? (unsigned char *)"no picture" : copy,
                   kind == 0   ? 10
                   : kind == 1 ? 0
                   : kind == 2 ? n / 2
                               : n);
        refused(ts_records_pack(from, out, false, &r), TS_EDATA, strrchr(path, '/') + 1);
        assert_false(ts_file_exists(out));
        OK(ts_records_pack(from, out, true, &r));
        assert_true(r.left_out == 1 && r.train == TRAIN - 1);
        unlink(out);
        free(copy);
    }
    write_file(path, bytes, n);
    free(bytes);
    snprintf(path, sizeof path, "%s/set/val/other", folder);
    OK(ts_file_make_folder(path));
    refused(ts_records_pack(from, out, false, &r), TS_EDATA, "\"other\"");
    rmdir(path);
    snprintf(path, sizeof path, "%s/set/train/zempty", folder);
    OK(ts_file_make_folder(path));
    refused(ts_records_pack(from, out, false, &r), TS_EDATA, "zempty has no JPEG");
    rmdir(path);
}

/* ---- boxes ---- */

static void test_random_boxes(void **state)
{
    int large = 0, wide = 0, same = 0, n = 4000;
    (void)state;
    for (int i = 0; i < n; i++) {
        int w = 50 + i % 300, h = 60 + i * 7 % 250;
        ts_box b = ts_box_random(5, 2, i, 0, w, h, 0.08), c = ts_box_random(5, 2, i, 1, w, h, 0.08);
        double area = b.w * b.h / ((double)w * h), ratio = b.w / b.h;
        assert_true(b.x >= 0 && b.y >= 0 && b.w >= 1 && b.h >= 1);
        assert_true(b.x + b.w <= w && b.y + b.h <= h);
        assert_true(b.x == floor(b.x) && b.w == floor(b.w)); /* whole pixels, as torchvision's */
        assert_true(ratio > 3.0 / 4 * (1 - 1 / b.w) * (1 - 1 / b.h) - 1e-9);
        assert_true(ratio < 4.0 / 3 * (1 + 1 / b.w) * (1 + 1 / b.h) + 1e-9);
        if (area < 0.08 - 1.0 / b.w - 1.0 / b.h) fail_msg("an area of %g", area);
        large += area > 0.54;
        wide += ratio > 1;
        same += b.x == c.x && b.y == c.y && b.w == c.w && b.h == c.h;
    }
    /* large parts fit less often */
    assert_true(large > n / 8 && large < n / 2 && wide > n / 3 && wide < n * 2 / 3);
    assert_true(same < n / 50); /* copies differ */
    /* pictures too long for any part of an allowed ratio and a large area: the middle */
    ts_box b = ts_box_random(5, 2, 7, 0, 1000, 10, 1);
    assert_true(b.h == 10 && b.w == 13 && b.x == 493 && b.y == 0);
    b = ts_box_random(5, 2, 7, 0, 3, 500, 1);
    assert_true(b.w == 3 && b.h == 4 && b.y == 248);
    b = ts_box_middle(60, 40, 0.5);
    assert_true(b.x == 20 && b.y == 10 && b.w == 20 && b.h == 20);
}

static void test_scales(void **state)
{
    (void)state;
    ts_box boxes[2] = {{0, 0, 448, 500}, {3, 9, 900, 900}};
    assert_int_equal(ts_box_eighths(boxes, 2, 224), 4);
    assert_int_equal(ts_box_eighths(boxes + 1, 1, 224), 2);
    assert_int_equal(ts_box_eighths(boxes, 1, 225), 8);
    assert_int_equal(ts_box_eighths(boxes, 1, 56), 1);
    assert_int_equal(ts_box_eighths(boxes, 1, 4000), 8);
    int top, bottom;
    ts_box_rows(boxes, 2, 4, &top, &bottom);
    assert_true(top == 0 && bottom == 455);
    ts_box_rows(boxes + 1, 1, 2, &top, &bottom);
    assert_true(top == 2 && bottom == 228);
}

/* ---- pixels ---- */

/* The whole picture by plain libjpeg, as RGB. */
static uint8_t *decode_plainly(const unsigned char *bytes, unsigned long n)
{
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr errors;
    d.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, (unsigned char *)(uintptr_t)bytes, n);
    jpeg_read_header(&d, TRUE);
    d.out_color_space = JCS_RGB;
    jpeg_start_decompress(&d);
    size_t row = 3 * (size_t)d.output_width;
    uint8_t *all = malloc(row * d.output_height);
    while (d.output_scanline < d.output_height) {
        uint8_t *line = all + row * d.output_scanline;
        jpeg_read_scanlines(&d, &line, 1);
    }
    jpeg_finish_decompress(&d);
    jpeg_destroy_decompress(&d);
    return all;
}

/* Weight of input k for output i of `side`: a triangle as wide as an output, at least one input. */
static double triangle(double begin, double length, int side, int i, int k)
{
    double scale = length / side, support = scale > 1 ? scale : 1;
    double t = fabs(k + 0.5 - (begin + (i + 0.5) * scale)) / support;
    return t < 1 ? 1 - t : 0;
}

static double resample_plainly(const uint8_t *rgb, int width, ts_box b, int side, int c, int y,
                               int x)
{
    double sum = 0, weights = 0;
    for (int v = (int)b.y; v < (int)ceil(b.y + b.h); v++)
        for (int u = (int)b.x; u < (int)ceil(b.x + b.w); u++) {
            double weight = triangle(b.y, b.h, side, y, v) * triangle(b.x, b.w, side, x, u);
            sum += weight * rgb[3 * (v * width + u) + c];
            weights += weight;
        }
    return sum / weights;
}

/* At full scale the bytes are the reference's, but for one; at a reduced scale near it. */
static void test_resampling(void **state)
{
    static const struct {
        int width, height, side;
        ts_box box;
        double most, mean; /* differences allowed */
    } cases[] = {
        {40, 30, 16, {0, 0, 40, 30}, 1, 0.5},     {40, 30, 16, {3, 2, 20, 25}, 1, 0.5},
        {33, 47, 24, {5, 7, 11, 13}, 1, 0.5},     {17, 19, 16, {0.5, 1.25, 16, 16}, 1, 0.5},
        {40, 30, 16, {39, 0, 1, 30}, 1, 0.5},     {64, 64, 16, {0, 0, 64, 64}, 8, 2},
        {200, 150, 16, {10, 20, 130, 120}, 8, 2}, {300, 280, 24, {31, 17, 240, 251}, 8, 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int w = cases[i].width, h = cases[i].height, side = cases[i].side;
        ts_box box = cases[i].box;
        unsigned long n;
        unsigned char *bytes = make_jpeg((int)i, w, h, 3, &n);
        uint8_t *whole = decode_plainly(bytes, n), *planes = malloc(3 * (size_t)(side * side));
        ts_jpeg *jpeg;
        ts_resizer *resizer;
        ts_pixels pixels;
        double total = 0;
        int top, bottom, eighths = ts_box_eighths(&box, 1, side);
        assert_true((eighths == 8) == (cases[i].most < 2));
        OK(ts_jpeg_open(&jpeg));
        OK(ts_resizer_open(side, &resizer));
        ts_box_rows(&box, 1, eighths, &top, &bottom);
        OK(ts_jpeg_decode(jpeg, bytes, n, "it", eighths, top, bottom, &pixels));
        assert_true(pixels.w == (w * eighths + 7) / 8 && pixels.top == top);
        if (eighths == 8)
            assert_memory_equal(pixels.rgb, whole + 3 * top * w, (size_t)(3 * pixels.h * w));
        OK(ts_resize(resizer, &pixels, box, eighths, planes));
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < side; y++)
                for (int x = 0; x < side; x++) {
                    double want = resample_plainly(whole, w, box, side, c, y, x);
                    double off = fabs(planes[(c * side + y) * side + x] - want);
                    if (off > cases[i].most)
                        fail_msg("case %d, channel %d, (%d, %d): %d, should be %g", (int)i, c, x, y,
                                 planes[(c * side + y) * side + x], want);
                    total += off;
                }
        assert_true(total / (3 * side * side) < cases[i].mean);
        ts_resizer_close(resizer);
        ts_jpeg_close(jpeg);
        free(planes);
        free(whole);
        free(bytes);
    }
}

/* Grey pictures have three equal channels, CMYK ones the colours they were made from. */
static void test_colours(void **state)
{
    (void)state;
    for (int components = 1; components <= 4; components += 3) {
        unsigned long n;
        unsigned char *bytes = make_jpeg(2, 48, 32, components, &n);
        ts_jpeg *jpeg;
        ts_pixels p;
        OK(ts_jpeg_open(&jpeg));
        OK(ts_jpeg_decode(jpeg, bytes, n, "it", 8, 0, 32, &p));
        for (int y = 0; y < 32; y++)
            for (int x = 0; x < 48; x++)
                for (int c = 0; c < 3; c++)
                    assert_true(abs(p.rgb[3 * (y * 48 + x) + c] -
                                    picture_byte(2, components == 1 ? 0 : c, x, y)) < 12);
        ts_jpeg_close(jpeg);
        free(bytes);
    }
}

/* ---- a feed ---- */

typedef struct rig {
    ts_dataset *dataset;
    ts_shard shard;
    ts_augment augment;
    ts_feed *feed;
    ts_control *control;
    ts_batch batch;
} rig;

enum { BATCH = 4 };
static const uint64_t seed = 17;

static void open_rig(rig *r, int rank, int size, double skew, ts_augment augment,
                     const ts_feed_options *options)
{
    *r = (rig){.augment = augment};
    OK(ts_dataset_open(device, source, &r->dataset));
    OK(ts_shard_open(r->dataset, rank, size, (int[]){BATCH, BATCH, 1}, skew, seed, &r->shard));
    if (options) OK(ts_feed_train(r->dataset, &r->shard, &r->augment, seed, options, &r->feed));
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
    ts_feed_close(r->feed);
    ts_device_release(device, TS_MEMORY_DEVICE, r->batch.labels);
    ts_device_release(device, TS_MEMORY_DEVICE, r->batch.input);
    ts_device_release(device, TS_MEMORY_DEVICE, r->control);
    ts_shard_close(r->dataset, &r->shard);
    ts_dataset_close(r->dataset);
}

/* Is picture n of the batch these planes, mirrored or not? */
static void check_picture(const rig *r, int n, const uint8_t *planes, int flip)
{
    const float *input = (const float *)r->batch.input + (size_t)n * PICTURE;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++) {
                uint8_t byte = planes[(c * SIDE + y) * SIDE + (flip ? SIDE - 1 - x : x)];
                float want = ((float)byte - r->dataset->mean[c]) * (1.0f / r->dataset->std[c]);
                assert_true(input[(y * SIDE + x) * 3 + c] == want);
            }
}

static void check_train_batch(const rig *r, ts_reader *reader, int64_t step)
{
    const ts_shard *s = &r->shard;
    const ts_echo *e = &r->augment.echo;
    uint8_t planes[PICTURE];
    for (int n = 0; n < BATCH; n++) {
        int64_t fresh = ts_echo_first(e, step, BATCH) + n, epoch = fresh / s->n;
        int64_t sample = ts_sample_at(s, seed, epoch, fresh % s->n, true);
        if (s->samples) sample = s->samples[sample];
        int copy = ts_echo_copy(e, step, BATCH, n, 0), number = number_of((int)sample);
        ts_box box = r->augment.crop ? ts_box_random(seed, epoch, sample, copy, width_of(number),
                                                     height_of(number), 0.08)
                                     : ts_box_middle(width_of(number), height_of(number), 0.8);
        assert_int_equal(r->batch.labels[n], number % CLASSES);
        /* one decode for all copies may be at a larger scale than one for this box alone */
        ts_box boxes[8];
        uint8_t all[8 * PICTURE];
        int copies = ts_echo_copies(e);
        for (int c = 0; c < copies; c++)
            boxes[c] = r->augment.crop ? ts_box_random(seed, epoch, sample, c, width_of(number),
                                                       height_of(number), 0.08)
                                       : box;
        OK(ts_reader_read(reader, sample, boxes, copies, all));
        memcpy(planes, all + copy * PICTURE, sizeof planes);
        check_picture(r, n, planes,
                      ts_augmentation_of(seed, epoch, sample, copy, 0, r->augment.flip).flip);
    }
}

/* Staged batches are the pictures that sampler, boxes and echo say: on one rank and on two, with
 * own samples, whatever the threads, from the begin and from where a run resumes. */
static void test_train_feed(void **state)
{
    static const struct {
        int rank, size, threads, crop, from;
        double skew;
        ts_echo echo;
    } cases[] = {
        {0, 1, 1, 4, 0, 0, {1, 0, TS_ECHO_EXAMPLE}},
        {1, 2, 3, 4, 0, 0, {1, 0, TS_ECHO_EXAMPLE}},
        {0, 2, 2, 0, 0, 0.5, {1, 0, TS_ECHO_EXAMPLE}},
        {0, 1, 0, 4, 0, 0, {2, 0, TS_ECHO_EXAMPLE}},
        {1, 2, 2, 4, 0, 0, {2.5, 0, TS_ECHO_EXAMPLE}},
        {0, 1, 2, 4, 5, 0, {3, 0, TS_ECHO_AUGMENTED}},
        {0, 1, 2, 4, 7, 0, {1.5, 0, TS_ECHO_BATCH}},
        {0, 1, 2, 4, 9, 0, {2.5, 0, TS_ECHO_EXAMPLE}},
    };
    ts_records *records;
    ts_reader *reader;
    (void)state;
    OK(ts_records_open(packed, &view, &records));
    OK(ts_reader_open(records, &reader));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig r;
        ts_feed_options o = {.threads = cases[i].threads, .ranks = 1, .prefetch = 1 + (int)i % 3};
        ts_augment a = {
            .flip = true, .crop = cases[i].crop, .shuffle = true, .echo = cases[i].echo};
        open_rig(&r, cases[i].rank, cases[i].size, cases[i].skew, a, &o);
        int64_t first = ts_echo_first(&a.echo, cases[i].from, BATCH);
        OK(ts_loader_start(ts_feed_loader(r.feed), first));
        for (int64_t step = cases[i].from; step < cases[i].from + 25; step++) {
            first = ts_echo_first(&a.echo, step, BATCH);
            r.control->step = step;
            r.control->epoch = first / r.shard.n;
            r.control->position = first % r.shard.n;
            OK(ts_loader_take(ts_feed_loader(r.feed), first, first + BATCH, stream));
            OK(ts_data_train_batch(r.dataset, &r.shard, &a, r.control, &r.batch, stream));
            OK(ts_stream_sync(stream));
            check_train_batch(&r, reader, step);
        }
        close_rig(&r);
    }
    ts_reader_close(reader);
    ts_records_close(records);
}

/* Three evaluations in a row on two of three ranks: all their pictures, in order, and no more. */
static void test_test_feed(void **state)
{
    ts_records *records;
    ts_reader *reader;
    (void)state;
    OK(ts_records_open(packed, &view, &records));
    OK(ts_reader_open(records, &reader));
    for (int rank = 0; rank < 2; rank++) {
        rig r;
        ts_feed *feed;
        ts_feed_options o = {.threads = 2, .ranks = 1, .prefetch = 1};
        int64_t item = 0;
        open_rig(&r, rank, 3, 0, (ts_augment){0}, NULL);
        OK(ts_feed_test(r.dataset, &r.shard, &o, &feed));
        for (int round = 0; round < 3; round++)
            for (int64_t at = rank * BATCH; at < TEST; at += 2 * BATCH + 1, item += BATCH) {
                OK(ts_loader_take(ts_feed_loader(feed), item, item + BATCH, stream));
                OK(ts_data_test_batch(r.dataset, at, item, &r.batch, stream));
                OK(ts_stream_sync(stream));
                for (int n = 0; n < BATCH; n++) {
                    uint8_t planes[PICTURE];
                    if (at + n >= TEST) {
                        assert_int_equal(r.batch.labels[n], -1);
                        continue;
                    }
                    int number = number_of(TRAIN + (int)at + n);
                    ts_box box = ts_box_middle(width_of(number), height_of(number), 0.8);
                    assert_int_equal(r.batch.labels[n], number % CLASSES);
                    OK(ts_reader_read(reader, TRAIN + at + n, &box, 1, planes));
                    check_picture(&r, n, planes, 0);
                }
            }
        ts_feed_close(feed);
        close_rig(&r);
    }
    /* a rank without a batch needs no feed */
    ts_feed *none;
    rig r;
    open_rig(&r, 0, 1, 0, (ts_augment){0}, NULL);
    r.shard.first = TEST;
    OK(ts_feed_test(r.dataset, &r.shard, &(ts_feed_options){.prefetch = 1}, &none));
    assert_null(none);
    close_rig(&r);
    ts_reader_close(reader);
    ts_records_close(records);
}

static void test_sources(void **state)
{
    ts_dataset *d;
    char text[200];
    (void)state;
    OK(ts_dataset_open(device, source, &d));
    assert_true(d->train.n == TRAIN && d->test.n == TEST && d->classes == CLASSES);
    assert_true(d->picture.h == SIDE && d->picture.w == SIDE && d->picture.c == 3);
    for (int i = 0; i < TRAIN; i++)
        assert_int_equal(d->train.host_labels[i], number_of(i) % CLASSES);
    ts_dataset_close(d);
    assert_int_equal(ts_dataset_open(device, "records", &d), TS_EUSAGE);
    snprintf(text, sizeof text, "records:%s,sise=8", packed);
    refused(ts_dataset_open(device, text, &d), TS_EUSAGE, "\"size\"");
    snprintf(text, sizeof text, "records:%s,size=32,resize=31", packed);
    refused(ts_dataset_open(device, text, &d), TS_EUSAGE, "resize 31");
    snprintf(text, sizeof text, "records:%s,size", packed);
    refused(ts_dataset_open(device, text, &d), TS_EUSAGE, "key=value");
    snprintf(text, sizeof text, "records:%s", folder); /* a folder: the file in it */
    refused(ts_dataset_open(device, text, &d), TS_EDATA, TS_RECORDS_NAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_moments),
        cmocka_unit_test(test_damaged_files), cmocka_unit_test(test_bad_folders),
        cmocka_unit_test(test_random_boxes),  cmocka_unit_test(test_scales),
        cmocka_unit_test(test_resampling),    cmocka_unit_test(test_colours),
        cmocka_unit_test(test_train_feed),    cmocka_unit_test(test_test_feed),
        cmocka_unit_test(test_sources),
    };
    if (!mkdtemp(folder)) return 1;
    snprintf(packed, sizeof packed, "%s/packed", folder);
    snprintf(source, sizeof source, "records:%s,size=%d,resize=20", packed, SIDE);
    if (ts_device_open(test_device(), 0, &device) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream))
        return 1;
    write_pictures();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(stream);
    ts_device_close(device);
    (void)ts_file_remove_folder(folder);
    return failed;
}
