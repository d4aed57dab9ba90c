/* shard.c - which samples a rank sees. Every rank computes the whole division by itself from the
 * labels, the batches and the seed; nothing is communicated. */
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

/* ---- samples of a rank's own ---- */

typedef struct division {
    int rank, size;
    const int *batches;
    int64_t n, global; /* samples; the sum of the batches */
    double skew;
} division;

/* Samples that a rank has, and those of them that are sorted by class. */
static int64_t pool_of(const division *v, int rank)
{
    return v->n * v->batches[rank] / v->global;
}

static int64_t sorted_of(const division *v, int rank)
{
    return (int64_t)(v->skew * (double)pool_of(v, rank) + 0.5);
}

static int common_divisor(int a, int b)
{
    while (b) {
        int rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* What is not sorted is dealt out in turn, to each rank as many at once as its batch is to the
 * others' (one, of equal batches), until it has enough. */
static ts_status deal(const division *v, const int32_t *order, int32_t *mine)
{
    int unit = 0;
    int64_t left = 0, *need = malloc((size_t)v->size * sizeof *need);
    TS_NEED(need, TS_ENOMEM, "no memory for the shards of %d ranks", v->size);
    for (int r = 0; r < v->size; r++) {
        unit = common_divisor(unit, v->batches[r]);
        left += need[r] = pool_of(v, r) - sorted_of(v, r);
    }
    for (int r = 0; left; r = (r + 1) % v->size) {
        int64_t take = v->batches[r] / unit < need[r] ? v->batches[r] / unit : need[r];
        for (int64_t i = 0; i < take; i++, order++)
            if (r == v->rank) *mine++ = *order;
        need[r] -= take;
        left -= take;
    }
    free(need);
    return TS_OK;
}

/* The first share of a shuffled order is sorted by class and cut into one stretch a rank, the
 * rest is dealt out. */
static ts_status own_samples(const ts_dataset *d, const division *v, uint64_t seed,
                             int32_t *samples)
{
    const ts_split *split = &d->train;
    int64_t sorted = 0, at = 0, mine = sorted_of(v, v->rank);
    for (int r = 0; r < v->size; r++) {
        if (r == v->rank) at = sorted;
        sorted += sorted_of(v, r);
    }
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
    for (int64_t i = 0; i < mine; i++) samples[i] = by_class[at + i];
    status = deal(v, order + sorted, samples + mine);
out:
    free(by_class);
    free(order);
    return status;
}

static ts_status open_own(const ts_dataset *d, const division *v, uint64_t seed, ts_shard *shard)
{
    int32_t *samples;
    ts_stream *stream;
    size_t bytes = (size_t)shard->pool * sizeof *samples;
    TS_TRY(ts_device_alloc(d->device, TS_MEMORY_PINNED, bytes, (void **)&samples));
    ts_status status = own_samples(d, v, seed, samples);
    if (!status)
        status = ts_device_alloc(d->device, TS_MEMORY_DEVICE, bytes, (void **)&shard->samples);
    if (!status) status = ts_stream_open(d->device, TS_STREAM_COPY, "shard", &stream);
    if (!status) {
        status = ts_stream_copy(stream, shard->samples, samples, bytes);
        if (!status) status = ts_stream_sync(stream);
        ts_stream_close(stream);
    }
    ts_device_release(d->device, TS_MEMORY_PINNED, samples);
    return status;
}

ts_status ts_shard_open(const ts_dataset *d, int rank, int size, const int *batches, double skew,
                        uint64_t seed, ts_shard *shard)
{
    division v = {rank, size, batches, d->train.n, 0, skew};
    *shard = (ts_shard){.pool = v.n, .rank = rank, .batch = batches[rank]};
    for (int r = 0; r < size; r++) {
        if (r == rank) shard->first = v.global;
        v.global += batches[r];
    }
    TS_NEED(
        v.global <= v.n, TS_EUSAGE,
        "a local step of %d rank%s takes %lld samples, the training set has %lld: lower --batch",
        size, size == 1 ? "" : "s", (long long)v.global, (long long)v.n);
    shard->global = v.global;
    shard->n = v.n / v.global * shard->batch;
    if (skew <= 0) return TS_OK;
    shard->pool = pool_of(&v, rank);
    return open_own(d, &v, seed, shard);
}

void ts_shard_close(const ts_dataset *dataset, ts_shard *shard)
{
    ts_device_release(dataset->device, TS_MEMORY_DEVICE, shard->samples);
    shard->samples = NULL;
}
