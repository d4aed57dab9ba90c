/* feed.c - see feed.h. */
#include "runtime/data/feed.h"

#include <sched.h>
#include <stdlib.h>

#include "runtime/data/augment_element.h"
#include "runtime/data/records.h"

enum { READ_BY_COMPUTE = 2 /* chunks that a window may touch */, COPIES_MAX = 64 };

struct ts_feed {
    ts_dataset *dataset;
    ts_split *split;
    ts_loader *loader;
    ts_reader **readers; /* [threads] */
    int threads;
    ts_shard shard;
    int64_t batches; /* of this rank in an evaluation */
    /* training */
    ts_augment augment;
    uint64_t seed;
    int copies;
    int32_t *samples; /* pinned copy of the shard's own */
};

static ts_status make_train(void *context, int thread, int64_t item, uint8_t *bytes,
                            uint16_t *label_p)
{
    const ts_feed *f = context;
    const ts_shard *s = &f->shard;
    const ts_records_view *view = ts_records_get_view(f->dataset->records);
    int64_t epoch = item / s->n;
    int64_t sample = ts_sample_at(s, f->seed, epoch, item % s->n, f->augment.shuffle);
    if (f->samples) sample = f->samples[sample];
    const ts_records_entry *e = &ts_records_entries(f->dataset->records)[sample];
    ts_box boxes[COPIES_MAX];
    for (int c = 0; c < f->copies; c++)
        boxes[c] =
            f->augment.crop
                ? ts_box_random(f->seed, epoch, sample, c, e->width, e->height, view->least)
                : ts_box_middle(e->width, e->height, (double)view->size / (double)view->resize);
    *label_p = e->label;
    return ts_reader_read(f->readers[thread], sample, boxes, f->copies, bytes);
}

static ts_status make_test(void *context, int thread, int64_t item, uint8_t *bytes,
                           uint16_t *label_p)
{
    const ts_feed *f = context;
    const ts_records_view *view = ts_records_get_view(f->dataset->records);
    const ts_shard *s = &f->shard;
    int64_t sample = s->first + item / s->batch % f->batches * s->global + item % s->batch;
    if (sample >= f->dataset->test.n) return TS_OK; /* its label will be -1 */
    int64_t entry = f->dataset->train.n + sample;
    const ts_records_entry *e = &ts_records_entries(f->dataset->records)[entry];
    ts_box box = ts_box_middle(e->width, e->height, (double)view->size / (double)view->resize);
    *label_p = e->label;
    return ts_reader_read(f->readers[thread], entry, &box, 1, bytes);
}

static int default_threads(int ranks)
{
    cpu_set_t usable;
    CPU_ZERO(&usable);
    int cores = sched_getaffinity(0, sizeof usable, &usable) ? 1 : CPU_COUNT(&usable);
    return cores > ranks ? cores / (ranks > 0 ? ranks : 1) : 1;
}

static ts_status open_readers(ts_feed *f)
{
    f->readers = calloc((size_t)f->threads, sizeof *f->readers);
    TS_NEED(f->readers, TS_ENOMEM, "no memory for %d readers", f->threads);
    for (int i = 0; i < f->threads; i++)
        TS_TRY(ts_reader_open(f->dataset->records, &f->readers[i]));
    return TS_OK;
}

/* The shard's own samples, from where the kernels have them. */
static ts_status fetch_samples(ts_feed *f)
{
    ts_stream *stream;
    size_t bytes = (size_t)f->shard.pool * sizeof *f->samples;
    if (!f->shard.samples) return TS_OK;
    TS_TRY(ts_device_alloc(f->dataset->device, TS_MEMORY_PINNED, bytes, (void **)&f->samples));
    TS_TRY(ts_stream_open(f->dataset->device, TS_STREAM_COPY, "samples", &stream));
    ts_status status = ts_stream_copy(stream, f->samples, f->shard.samples, bytes);
    if (!status) status = ts_stream_sync(stream);
    ts_stream_close(stream);
    return status;
}

/* `o` says what and how fast; the rest is the same for both splits. */
static ts_status open_loader(ts_feed *f, ts_split *split, const ts_feed_options *options,
                             ts_loader_options *o)
{
    f->split = split;
    f->threads = options->threads ? options->threads : default_threads(options->ranks);
    o->threads = f->threads;
    o->chunks = options->prefetch + READ_BY_COMPUTE;
    o->bytes = (size_t)f->copies * ts_shape_count(f->dataset->picture);
    o->context = f;
    if (o->make) TS_TRY(open_readers(f));
    TS_TRY(ts_loader_open(f->dataset->device, o, &f->loader));
    if (!o->make) return TS_OK;
    split->images = ts_loader_bytes(f->loader);
    split->labels = ts_loader_labels(f->loader);
    split->ring = ts_loader_ring(f->loader);
    split->copies = f->copies;
    return TS_OK;
}

static ts_status new_feed(ts_dataset *dataset, ts_feed **feed_p)
{
    *feed_p = calloc(1, sizeof **feed_p);
    TS_NEED(*feed_p, TS_ENOMEM, "no memory for a feed");
    (*feed_p)->dataset = dataset;
    (*feed_p)->copies = 1;
    return TS_OK;
}

ts_status ts_feed_train(ts_dataset *dataset, const ts_shard *shard, const ts_augment *augment,
                        uint64_t seed, const ts_feed_options *options, ts_feed **feed_p)
{
    ts_status status;
    ts_feed *f;
    *feed_p = NULL;
    if (!dataset->records && options->rate <= 0) return TS_OK;
    TS_TRY(new_feed(dataset, &f));
    f->shard = *shard;
    f->augment = *augment;
    f->seed = seed;
    if (dataset->records) f->copies = ts_echo_copies(&augment->echo);
    if (f->copies > COPIES_MAX) {
        status = TS_ERROR(TS_EUSAGE,
                          "echo %g before augmentation would read %d crops of each picture, at "
                          "most %d are possible: lower --echo, or --echo-at augmented",
                          augment->echo.factor, f->copies, COPIES_MAX);
        goto fail;
    }
    ts_loader_options o = {
        .chunk = shard->batch, .rate = options->rate, .make = dataset->records ? make_train : NULL};
    TS_TRY_TO(status, fail, fetch_samples(f));
    TS_TRY_TO(status, fail, open_loader(f, &dataset->train, options, &o));
    *feed_p = f;
    return TS_OK;
fail:
    ts_feed_close(f);
    return status;
}

ts_status ts_feed_test(ts_dataset *dataset, const ts_shard *part, const ts_feed_options *options,
                       ts_feed **feed_p)
{
    ts_status status;
    ts_feed *f;
    *feed_p = NULL;
    if (!dataset->records || part->first >= dataset->test.n) return TS_OK;
    TS_TRY(new_feed(dataset, &f));
    f->shard = *part;
    f->batches = (dataset->test.n - part->first + part->global - 1) / part->global;
    ts_loader_options o = {.chunk = part->batch, .make = make_test};
    TS_TRY_TO(status, fail, open_loader(f, &dataset->test, options, &o));
    TS_TRY_TO(status, fail, ts_loader_start(f->loader, 0));
    *feed_p = f;
    return TS_OK;
fail:
    ts_feed_close(f);
    return status;
}

void ts_feed_close(ts_feed *f)
{
    if (!f) return;
    ts_loader_close(f->loader);
    if (f->split && f->split->ring) {
        f->split->images = NULL;
        f->split->labels = NULL;
        f->split->ring = 0;
    }
    for (int i = 0; f->readers && i < f->threads; i++) ts_reader_close(f->readers[i]);
    free(f->readers);
    ts_device_release(f->dataset->device, TS_MEMORY_PINNED, f->samples);
    free(f);
}

ts_loader *ts_feed_loader(ts_feed *feed)
{
    return feed->loader;
}
