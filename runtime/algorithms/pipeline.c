/* pipeline.c - see pipeline.h. */
#include "runtime/algorithms/pipeline.h"

void ts_pipeline_close(ts_pipeline *p)
{
    ts_exchange_close(p->exchange);
    ts_event_close(p->averaged);
    ts_event_close(p->copied);
    ts_device_release(p->base.worker.device, TS_MEMORY_DEVICE, p->average);
}

ts_status ts_pipeline_open(ts_pipeline *p, const ts_algorithm_ops *ops, const ts_worker *worker,
                           const ts_algorithm_config *c)
{
    p->base.ops = ops;
    p->base.worker = *worker;
    p->synchronous = c->synchronous_steps;
    TS_NEED(c->synchronous_steps >= 0, TS_EUSAGE, "%s: synchronous-steps %lld is below 0",
            ops->name, (long long)c->synchronous_steps);
    if (worker->size == 1) return TS_OK;
    ts_worker *w = &p->base.worker;
    TS_TRY(ts_event_open(w->device, &p->copied));
    TS_TRY(ts_event_open(w->device, &p->averaged));
    p->all = (ts_slice){0, w->flat->n};
    TS_TRY(ts_exchange_open(w, &p->all, 1, NULL, &p->exchange));
    TS_TRY(ts_worker_zeros(w, w->flat->n, &p->average));
    w->update.g = p->average;
    w->update.carried = ts_exchange_carries_momentum(p->exchange);
    return TS_OK;
}

/* Comm makes the mean of the gradients that backward has left. */
static ts_status start(ts_pipeline *p)
{
    const ts_worker *w = &p->base.worker;
    p->in_flight = 1;
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, -1));
    TS_TRY(ts_stream_copy(w->compute, p->average, w->flat->gradients, w->flat->n * sizeof(float)));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE));
    TS_TRY(ts_stream_after(p->copied, w->compute, w->comm));
    TS_TRY(ts_trace_begin(w->trace, w->comm, TS_SPAN_COMM, -1));
    TS_TRY(ts_exchange_mean(p->exchange, 0, p->average, p->average));
    TS_TRY(ts_trace_end(w->trace, w->comm, TS_SPAN_COMM));
    return ts_event_record(p->averaged, w->comm);
}

/* Compute waits for the mean that was started last. */
static ts_status take(ts_pipeline *p)
{
    const ts_worker *w = &p->base.worker;
    if (!p->in_flight) return ts_stream_fill(w->compute, p->average, 0, w->flat->n * sizeof(float));
    p->in_flight = 0;
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_WAIT, -1));
    TS_TRY(ts_event_wait(p->averaged, w->compute));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_WAIT);
}

ts_status ts_pipeline_before_update(ts_algorithm *algorithm, int64_t step)
{
    ts_pipeline *p = (ts_pipeline *)algorithm;
    if (algorithm->worker.size == 1) return TS_OK;
    if (step < p->synchronous) { /* in a run resumed with more of them a gradient is under way */
        TS_TRY(ts_pipeline_drain(algorithm));
        TS_TRY(start(p));
    }
    return take(p);
}

ts_status ts_pipeline_after_update(ts_algorithm *algorithm, int64_t step)
{
    ts_pipeline *p = (ts_pipeline *)algorithm;
    return algorithm->worker.size == 1 || step < p->synchronous ? TS_OK : start(p);
}

ts_status ts_pipeline_drain(ts_algorithm *algorithm)
{
    ts_pipeline *p = (ts_pipeline *)algorithm;
    if (!p->in_flight) return TS_OK;
    TS_TRY(take(p));
    return ts_vector_sgd(algorithm->worker.compute, &algorithm->worker.update);
}

int ts_pipeline_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    ts_pipeline *p = (ts_pipeline *)algorithm;
    size_t bytes = algorithm->worker.flat->n * sizeof(float);
    int n = ts_part_add(parts, 0, max,
                        (ts_part){"in_flight", TS_PART_HOST, &p->in_flight, sizeof p->in_flight});
    if (!p->average) return n;
    n = ts_part_add(parts, n, max, (ts_part){"average", TS_PART_PARAMETERS, p->average, bytes});
    return ts_exchange_state(p->exchange, parts, n, max);
}
