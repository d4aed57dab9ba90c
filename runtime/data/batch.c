/* batch.c - one kernel makes a batch: gather, crop, mirror, normalise, cast and lay out in one
 * pass. A byte's normalised value comes from a table of 256 for each channel. */
#include <string.h>

#include "runtime/data/batch_job.h"

typedef struct tables {
    float f32[TS_CHANNELS][256];
    uint16_t bf16[TS_CHANNELS][256];
} tables;

static void fill_tables(const ts_batch_job *j, tables *t)
{
    for (int c = 0; c < j->picture.c; c++)
        for (int byte = 0; byte < 256; byte++) {
            t->f32[c][byte] = ((float)byte - j->mean[c]) * j->scale[c];
            t->bf16[c][byte] = ts_bf16_from_float(t->f32[c][byte]);
        }
}

/* Elements from one pixel to the next, from one channel to the next, of picture n. */
typedef struct strides {
    size_t start, pixel, channel;
} strides;

static strides find_strides(const ts_batch *b, int n)
{
    size_t pixels = (size_t)b->shape.h * (size_t)b->shape.w;
    size_t padded = ts_layout_count(b->layout, (ts_shape){1, b->shape.c, 1, 1});
    size_t start = (size_t)n * padded * pixels;
    if (b->layout == TS_NHWC) return (strides){start, (size_t)b->shape.c, 1};
    if (b->layout == TS_NCHW) return (strides){start, 1, pixels};
    return (strides){start, padded, 1}; /* three channels lie in the first block */
}

static void write_picture(const ts_batch_job *j, const tables *t, int n, const ts_batch_picture *p)
{
    const ts_augmentation a = p->augmentation;
    const int height = j->picture.h, width = j->picture.w, channels = j->picture.c;
    size_t plane = (size_t)height * (size_t)width;
    const uint8_t *image = j->split.images + (size_t)p->image * plane * (size_t)channels;
    strides to = find_strides(&j->batch, n);
    size_t at = to.start;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, at += to.pixel) {
            int from_x = (a.flip ? width - 1 - x : x) + a.dx, from_y = y + a.dy;
            bool inside = from_x >= 0 && from_x < width && from_y >= 0 && from_y < height;
            size_t from = inside ? (size_t)from_y * (size_t)width + (size_t)from_x : 0;
            for (int c = 0; c < channels; c++) {
                uint8_t byte = inside ? image[(size_t)c * plane + from] : 0;
                size_t place = at + (size_t)c * to.channel;
                if (j->batch.type == TS_BF16)
                    ((uint16_t *)j->batch.input)[place] = t->bf16[c][byte];
                else
                    ((float *)j->batch.input)[place] = t->f32[c][byte];
            }
        }
}

static ts_status batch_run(const void *args)
{
    const ts_batch_job *j = args;
    tables t;
    fill_tables(j, &t);
    if (ts_layout_block(j->batch.layout) > 1) /* padding channels are zero */
        memset(j->batch.input, 0,
               ts_layout_count(j->batch.layout, j->batch.shape) * ts_type_bytes(j->batch.type));
#pragma omp parallel for
    for (int n = 0; n < j->batch.shape.n; n++) {
        ts_batch_picture p = ts_batch_find(j, n);
        j->batch.labels[n] = p.sample < 0 ? -1 : j->split.labels[p.label];
        write_picture(j, &t, n, &p);
    }
    return TS_OK;
}

static int batch_accesses(const void *args, ts_access *list)
{
    const ts_batch_job *j = args;
    size_t n = (size_t)j->batch.shape.n, pictures = (size_t)j->split.n, labels = pictures;
    if (j->split.ring) {
        labels = (size_t)j->split.ring;
        pictures = labels * (size_t)j->split.copies;
    }
    list[0] = (ts_access){
        j->batch.input,
        ts_layout_count(j->batch.layout, j->batch.shape) * ts_type_bytes(j->batch.type), true};
    list[1] = (ts_access){j->batch.labels, n * sizeof *j->batch.labels, true};
    list[2] = (ts_access){j->split.images, pictures * ts_shape_count(j->picture), false};
    list[3] = (ts_access){j->split.labels, labels * sizeof *j->split.labels, false};
    if (!j->control) return 4;
    list[4] = (ts_access){j->control, sizeof *j->control, false};
    return 5;
}

static const ts_kernel batch_kernel = {"batch", batch_run, batch_accesses, ts_batch_enqueue};

static ts_status launch(const ts_dataset *d, ts_batch_job *j, ts_stream *stream)
{
    j->picture = d->picture;
    for (int c = 0; c < d->picture.c; c++) {
        j->mean[c] = d->mean[c];
        j->scale[c] = 1.0f / d->std[c];
    }
    return ts_stream_launch(stream, &batch_kernel, j, sizeof *j);
}

ts_status ts_data_train_batch(const ts_dataset *dataset, const ts_shard *shard,
                              const ts_augment *augment, const ts_control *control,
                              const ts_batch *batch, ts_stream *stream)
{
    ts_batch_job j = {.split = dataset->train,
                      .batch = *batch,
                      .control = control,
                      .augment = *augment,
                      .shard = *shard};
    if (j.split.ring) j.augment.crop = 0;
    return launch(dataset, &j, stream);
}

ts_status ts_data_test_batch(const ts_dataset *dataset, int64_t first, int64_t item,
                             const ts_batch *batch, ts_stream *stream)
{
    ts_batch_job j = {.split = dataset->test, .batch = *batch, .first = first, .item = item};
    return launch(dataset, &j, stream);
}
