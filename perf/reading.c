/* reading.c - pictures a second that a feed of records gives: read, checked, decoded, cropped and
 * resized by its threads, and copied to the device. Nothing trains. One line of JSON. */
#include <jansson.h>
#include <stdio.h>

#include "perf/program.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/data/feed.h"

typedef struct settings {
    const char *data, *device;
    int64_t batch, batches, settle, threads, prefetch;
    bool help;
} settings;

#define AT(field) offsetof(settings, field)
static const ts_option rows[] = {
    {"data", TS_OPTION_TEXT, AT(data), "", NULL, 0, 0, "records:FILE[,size=224]"},
    {"device", TS_OPTION_TEXT, AT(device), "auto", NULL, 0, 0, "auto, cuda or host"},
    {"batch", TS_OPTION_INT, AT(batch), "64", NULL, 1, 1e6, "pictures"},
    {"batches", TS_OPTION_INT, AT(batches), "20", NULL, 1, 1e9, "that count"},
    {"settle", TS_OPTION_INT, AT(settle), "5", NULL, 0, 1e9, "batches before they count"},
    {"threads", TS_OPTION_INT, AT(threads), "2", NULL, 1, 1024, "that read"},
    {"prefetch", TS_OPTION_INT, AT(prefetch), "4", NULL, 1, 64, "batches read ahead"},
    {"help", TS_OPTION_BOOL, AT(help), "no", NULL, 0, 0, "this text"},
    {0},
};

typedef struct bench {
    settings set;
    ts_device *device;
    ts_stream *compute;
    ts_dataset *dataset;
    ts_shard shard;
    ts_feed *feed;
} bench;

/* Each batch is waited for on the host, as if compute took no time. */
static ts_status take(bench *b, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        TS_TRY(ts_loader_take(ts_feed_loader(b->feed), i * b->set.batch, (i + 1) * b->set.batch,
                              b->compute));
        TS_TRY(ts_stream_sync(b->compute));
    }
    return TS_OK;
}

static ts_status run(bench *b)
{
    const settings *s = &b->set;
    const int batch = (int)s->batch;
    const ts_augment augment = {.flip = true, .crop = 4, .shuffle = true, .echo = {.factor = 1}};
    const ts_feed_options reading = {
        .threads = (int)s->threads, .ranks = 1, .prefetch = (int)s->prefetch};
    TS_TRY(ts_device_open(s->device, 0, &b->device));
    TS_TRY(ts_stream_open(b->device, TS_STREAM_COMPUTE, "compute", &b->compute));
    TS_TRY(ts_dataset_open(b->device, s->data, &b->dataset));
    TS_NEED(b->dataset->records, TS_EUSAGE, "--data %s: give records:FILE", s->data);
    TS_TRY(ts_shard_open(b->dataset, 0, 1, &batch, 0, 1, &b->shard));
    TS_TRY(ts_feed_train(b->dataset, &b->shard, &augment, 1, &reading, &b->feed));
    TS_TRY(ts_loader_start(ts_feed_loader(b->feed), 0));
    TS_TRY(take(b, 0, s->settle));
    int64_t begin_ns = ts_clock_ns();
    TS_TRY(take(b, s->settle, s->settle + s->batches));
    double seconds = (double)(ts_clock_ns() - begin_ns) * 1e-9;
    double pictures = (double)(s->batches * s->batch);
    TS_TRY(ts_json_append(stdout, "standard output",
                          json_pack("{s:s, s:i, s:i, s:I, s:f, s:f}", "program", "twinstream",
                                    "size", b->dataset->picture.h, "batch", batch, "threads",
                                    (json_int_t)s->threads, "pictures", pictures,
                                    "pictures_per_second", pictures / seconds)));
    ts_feed_close(b->feed);
    ts_shard_close(b->dataset, &b->shard);
    ts_dataset_close(b->dataset);
    ts_stream_close(b->compute);
    ts_device_close(b->device);
    return TS_OK;
}

int main(int argc, char **argv)
{
    bench b = {0};
    ts_program_options("Reading records", rows, &b.set, &b.set.help, argc, argv);
    ts_status status = run(&b);
    if (status != TS_OK) ts_log_failure(status);
    return ts_status_exit_code(status);
}
