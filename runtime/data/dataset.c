/* dataset.c - sources by name, and the way of their pictures onto the device. Mean and deviation
 * of each channel are those of the training split itself, from exact integer sums. */
#include "runtime/data/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/option.h"
#include "runtime/data/records.h"

static const ts_source *const sources[] = {&ts_source_cifar10, &ts_source_cifar100,
                                           &ts_source_synthetic, &ts_source_records, NULL};

static ts_status upload_bytes(ts_device *device, ts_stream *stream, const void *from, size_t n,
                              void **to_p)
{
    void *pinned;
    TS_TRY(ts_device_alloc(device, TS_MEMORY_DEVICE, n ? n : 1, to_p));
    TS_TRY(ts_device_alloc(device, TS_MEMORY_PINNED, n ? n : 1, &pinned));
    memcpy(pinned, from, n);
    ts_status status = ts_stream_copy(stream, *to_p, pinned, n);
    if (!status) status = ts_stream_sync(stream);
    ts_device_release(device, TS_MEMORY_PINNED, pinned);
    return status;
}

/* Takes the labels over. */
static ts_status upload(ts_dataset *d, ts_stream *stream, ts_pictures *p, ts_split *split)
{
    split->n = p->n;
    split->host_labels = p->labels;
    p->labels = NULL;
    size_t n = (size_t)p->n;
    TS_TRY(upload_bytes(d->device, stream, p->images, n * ts_shape_count(d->picture),
                        (void **)&split->images));
    return upload_bytes(d->device, stream, split->host_labels, n * sizeof *split->labels,
                        (void **)&split->labels);
}

void ts_dataset_moments(double sum, double squares, double n, float *mean_p, float *std_p)
{
    double mean = sum / n, variance = squares / n - mean * mean;
    *mean_p = (float)mean;
    *std_p = (float)sqrt(variance > 1e-3 ? variance : 1); /* pictures of one colour */
}

static void measure(ts_dataset *d, const ts_pictures *p)
{
    size_t plane = (size_t)d->picture.h * (size_t)d->picture.w, channels = (size_t)d->picture.c;
    for (size_t c = 0; c < channels; c++) {
        uint64_t sum = 0, squares = 0;
        for (size_t i = 0; i < (size_t)p->n; i++) {
            const uint8_t *at = p->images + (i * channels + c) * plane;
            for (size_t j = 0; j < plane; j++) {
                sum += at[j];
                squares += (uint64_t)at[j] * at[j];
            }
        }
        ts_dataset_moments((double)sum, (double)squares, (double)p->n * (double)plane, &d->mean[c],
                           &d->std[c]);
    }
}

static ts_status check(const ts_dataset *d, const ts_pictures *p, const char *split)
{
    TS_NEED(p->n > 0, TS_EDATA, "%s has no %s pictures", d->name, split);
    return TS_OK;
}

static ts_status load(ts_dataset *d, const ts_source *source, const char *argument)
{
    ts_pictures train = {0}, test = {0};
    ts_stream *stream = NULL;
    ts_status status = source->load(argument, d, &train, &test);
    if (!status) status = check(d, &train, "training");
    if (!status) status = check(d, &test, "test");
    if (!status) measure(d, &train);
    if (!status) status = ts_stream_open(d->device, TS_STREAM_COPY, "upload", &stream);
    if (!status) status = upload(d, stream, &train, &d->train);
    if (!status) status = upload(d, stream, &test, &d->test);
    ts_stream_close(stream);
    free(train.images);
    free(train.labels);
    free(test.images);
    free(test.labels);
    return status;
}

ts_status ts_dataset_open(ts_device *device, const char *source, ts_dataset **dataset_p)
{
    size_t length = strcspn(source, ":");
    const char *argument = source[length] ? source + length + 1 : "";
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)length, source);
    int i = 0;
    while (sources[i] && strcmp(sources[i]->name, name)) i++;
    if (!sources[i]) {
        const char *near = ts_option_nearest(name, "cifar10|cifar100|synthetic|records");
        return TS_ERROR(TS_EUSAGE,
                        "no data set \"%s\"%s%s%s; there are cifar10:DIR, cifar100:DIR, synthetic, "
                        "records:FILE",
                        name, near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    ts_dataset *d = calloc(1, sizeof *d);
    TS_NEED(d, TS_ENOMEM, "no memory for a data set");
    d->device = device;
    d->name = sources[i]->name;
    ts_status status =
        sources[i]->open ? sources[i]->open(argument, d) : load(d, sources[i], argument);
    if (status) {
        ts_dataset_close(d);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *dataset_p = d;
    return TS_OK;
}

static void close_split(ts_device *device, ts_split *split)
{
    ts_device_release(device, TS_MEMORY_DEVICE, split->images);
    ts_device_release(device, TS_MEMORY_DEVICE, split->labels);
    free(split->host_labels);
}

void ts_dataset_close(ts_dataset *d)
{
    if (!d) return;
    close_split(d->device, &d->test);
    close_split(d->device, &d->train);
    ts_records_close(d->records);
    free(d);
}
