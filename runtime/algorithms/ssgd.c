/* ssgd.c - synchronous SGD: every local step uses the mean gradient of all ranks,
 *     g <- mean over ranks of g_i ; x <- x - lr opt(g)
 * With overlap each bucket is averaged while backward goes on with the layers before it; without,
 * the whole gradient is averaged after backward: the baseline of the papers. Either may be
 * compressed. */
#include <stdlib.h>

#include "runtime/algorithms/exchange.h"

static const ts_algorithm_ops blocking_ops; /* the same without overlap */

typedef struct ssgd {
    ts_algorithm base;
    ts_event *ready, *averaged;
    ts_slice all;
    ts_exchange *exchange; /* of buckets, or of all */
} ssgd;

static void ssgd_close(ts_algorithm *algorithm)
{
    ssgd *a = (ssgd *)algorithm;
    ts_exchange_close(a->exchange);
    ts_event_close(a->averaged);
    ts_event_close(a->ready);
    free(a);
}

static ts_status ssgd_open(const ts_worker *worker, const ts_algorithm_config *c,
                           ts_algorithm **algorithm_p)
{
    ts_status status;
    ssgd *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for ssgd");
    a->base.ops = c->overlap ? &ts_algorithm_ssgd : &blocking_ops;
    a->base.worker = *worker;
    TS_TRY_TO(status, fail, ts_event_open(worker->device, &a->ready));
    TS_TRY_TO(status, fail, ts_event_open(worker->device, &a->averaged));
    a->all = (ts_slice){0, worker->flat->n};
    TS_TRY_TO(status, fail,
              ts_exchange_open(worker, c->overlap ? worker->flat->buckets : &a->all,
                               c->overlap ? worker->flat->n_buckets : 1, NULL, &a->exchange));
    a->base.worker.update.carried = ts_exchange_carries_momentum(a->exchange);
    *algorithm_p = &a->base;
    return TS_OK;
fail:
    ssgd_close(&a->base);
    return status;
}

/* Comm takes a slice of the gradients once compute has made it, and leaves its mean in place. */
static ts_status average(ssgd *a, int slice, int64_t detail)
{
    const ts_worker *w = &a->base.worker;
    TS_TRY(ts_stream_after(a->ready, w->compute, w->comm));
    TS_TRY(ts_trace_begin(w->trace, w->comm, TS_SPAN_COMM, detail));
    TS_TRY(ts_exchange_mean(a->exchange, slice, w->flat->gradients, w->flat->gradients));
    return ts_trace_end(w->trace, w->comm, TS_SPAN_COMM);
}

static ts_status wait(ssgd *a)
{
    const ts_worker *w = &a->base.worker;
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_WAIT, -1));
    TS_TRY(ts_stream_after(a->averaged, w->comm, w->compute));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_WAIT);
}

static ts_status ssgd_bucket_ready(ts_algorithm *algorithm, int bucket)
{
    if (algorithm->worker.size == 1) return TS_OK;
    return average((ssgd *)algorithm, bucket, bucket);
}

static ts_status ssgd_before_update(ts_algorithm *algorithm, int64_t step)
{
    (void)step;
    return algorithm->worker.size == 1 ? TS_OK : wait((ssgd *)algorithm);
}

static ts_status blocking_before_update(ts_algorithm *algorithm, int64_t step)
{
    (void)step;
    if (algorithm->worker.size == 1) return TS_OK;
    TS_TRY(average((ssgd *)algorithm, 0, -1));
    return wait((ssgd *)algorithm);
}

static int ssgd_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    return ts_exchange_state(((ssgd *)algorithm)->exchange, parts, 0, max);
}

#define SSGD_ABOUT                                                                                 \
    .name = "ssgd", .title = "S-SGD", .paper = "arXiv:1604.00981",                                 \
    .rule = "every step: x <- x - lr opt(mean over ranks of g)", .open = ssgd_open,                \
    .close = ssgd_close, .state = ssgd_state

const ts_algorithm_ops ts_algorithm_ssgd = {
    SSGD_ABOUT,
    .bucket_ready = ssgd_bucket_ready,
    .before_update = ssgd_before_update,
};

static const ts_algorithm_ops blocking_ops = {
    SSGD_ABOUT,
    .before_update = blocking_before_update,
};
