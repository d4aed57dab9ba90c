/* shard.c - which samples a rank sees. Every rank computes the whole division by itself from the
 * labels and the seed; nothing is communicated. */
#include <stdlib.h>

#include "runtime/data/data.h"

/* Counting sort of samples [0, n) by class, stable, through a shuffled order. */
static ts_status sort_by_class(const ts_split *split, int classes, const int32_t *from, int64_t n,
                               int32_t *to)
{
    int64_t *start = calloc((size_t)classes + 1, sizeof *start);
    TS_NEED(start, TS_ENOMEM, "no memory for %d classes", classes);
    for (int64_t i = 0; i < n; i++) start[split->host_labels[from[i]] + 1]++;
    for (int c = 0; c < classes; c++) start[c + 1] += start[c];
    for (int64_t i = 0; i < n; i++) to[start[split->host_labels[from[i]]]++] = from[i];
    free(start);
    return TS_OK;
}

/* The first share of a shuffled order is sorted by class and cut into one stretch a rank, the
 * rest is dealt out evenly. */
static ts_status own_samples(const ts_dataset *d, int rank, int size, double skew, uint64_t seed,
                             int64_t each, int32_t *samples)
{
    const ts_split *split = &d->train;
    int64_t sorted_each = (int64_t)(skew * (double)each + 0.5), sorted = sorted_each * size;
    int32_t *order = malloc((size_t)split->n * sizeof *order);
    int32_t *by_class = malloc((size_t)(sorted + 1) * sizeof *by_class);
    ts_status status = TS_OK;
    if (!order || !by_class) {
        status =
            TS_ERROR(TS_ENOMEM, "no memory for the shards of %lld samples", (long long)split->n);
        goto out;
    }
    for (int64_t i = 0; i < split->n; i++)
        order[i] =
            (int32_t)ts_random_permute(seed, UINT64_C(0x5AADD), (uint64_t)split->n, (uint64_t)i);
    TS_TRY_TO(status, out, sort_by_class(split, d->classes, order, sorted, by_class));
    for (int64_t i = 0; i < sorted_each; i++) samples[i] = by_class[rank * sorted_each + i];
    for (int64_t i = sorted_each; i < each; i++)
        samples[i] = order[sorted + (i - sorted_each) * size + rank];
out:
    free(by_class);
    free(order);
    return status;
}

ts_status ts_shard_open(const ts_dataset *d, int rank, int size, int batch, double skew,
                        uint64_t seed, ts_shard *shard)
{
    int64_t n = d->train.n, global = (int64_t)batch * size;
    TS_NEED(global <= n, TS_EUSAGE,
            "batch %d on each of %d ranks takes %lld samples, the training set has %lld: lower "
            "--batch",
            batch, size, (long long)global, (long long)n);
    *shard =
        (ts_shard){.n = n / global * batch, .pool = n, .rank = rank, .size = size, .batch = batch};
    if (skew <= 0) return TS_OK;
    int32_t *samples;
    ts_stream *stream;
    shard->pool = n / size;
    shard->n = shard->pool / batch * batch;
    TS_TRY(ts_device_alloc(d->device, TS_MEMORY_PINNED, (size_t)shard->pool * sizeof *samples,
                           (void **)&samples));
    ts_status status = own_samples(d, rank, size, skew, seed, shard->pool, samples);
    if (!status)
        status = ts_device_alloc(d->device, TS_MEMORY_DEVICE, (size_t)shard->pool * sizeof *samples,
                                 (void **)&shard->samples);
    if (!status) status = ts_stream_open(d->device, TS_STREAM_COPY, "shard", &stream);
    if (!status) {
        status =
            ts_stream_copy(stream, shard->samples, samples, (size_t)shard->pool * sizeof *samples);
        if (!status) status = ts_stream_sync(stream);
        ts_stream_close(stream);
    }
    ts_device_release(d->device, TS_MEMORY_PINNED, samples);
    return status;
}

void ts_shard_close(const ts_dataset *dataset, ts_shard *shard)
{
    ts_device_release(dataset->device, TS_MEMORY_DEVICE, shard->samples);
    shard->samples = NULL;
}
