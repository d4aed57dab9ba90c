/* pipe.c - Pipe-SGD of width 2 (Li, Yu, Li, Avestimehr, Kim, Schwing: "Pipe-SGD: a decentralized
 * pipelined SGD framework for distributed deep net training", NeurIPS 2018): the mean gradient of a
 * step is made during the next step's forward and backward and used at its end,
 *     x <- x - lr opt(mean over ranks of g(t-1))
 * and OD-SGD (Xu, Dong, Xu, Liao: "OD-SGD: one-step delay stochastic gradient descent for
 * distributed training", 2020) without its server: the same on a model W, while each rank computes
 * at W with its own newest gradient in the place of the mean that is under way,
 *     W <- W - lr opt(mean over ranks of g(t-1)) ;  x_i <- W - lambda lr g_i(t)
 * The update reads `average`, backward writes the gradients: a copy lies between. The first steps
 * are synchronous. The step behind them has no gradient to use yet: its update is with 0, momentum
 * going on. Drain makes the update that is under way, so every gradient is used once, and all ranks
 * end with the same model. */
#include <stdlib.h>

#include "runtime/algorithms/algorithm.h"

typedef struct pipeline {
    ts_algorithm base;
    float *average;              /* of the gradients of the step before */
    float *global;               /* od: W; pipe: NULL */
    ts_event *copied, *averaged; /* gradients, on compute; their mean, on comm */
    int64_t synchronous;         /* steps */
    int64_t in_flight;           /* 1: `average` is of a step whose update is still to come */
    float local_rate;            /* lambda */
} pipeline;

static void pipe_close(ts_algorithm *algorithm)
{
    pipeline *a = (pipeline *)algorithm;
    ts_event_close(a->averaged);
    ts_event_close(a->copied);
    ts_device_release(a->base.worker.device, TS_MEMORY_DEVICE, a->global);
    ts_device_release(a->base.worker.device, TS_MEMORY_DEVICE, a->average);
    free(a);
}

static ts_status open_vectors(pipeline *a, bool global)
{
    ts_worker *w = &a->base.worker;
    TS_TRY(ts_event_open(w->device, &a->copied));
    TS_TRY(ts_event_open(w->device, &a->averaged));
    TS_TRY(ts_worker_zeros(w, w->flat->n, &a->average));
    w->update.g = a->average;
    if (!global) return TS_OK;
    TS_TRY(ts_worker_zeros(w, w->flat->n, &a->global));
    w->update.x = a->global;
    w->update.shadow = NULL;
    return TS_OK;
}

static ts_status open_pipeline(const ts_worker *worker, const ts_algorithm_config *c,
                               const ts_algorithm_ops *ops, ts_algorithm **algorithm_p)
{
    bool global = ops == &ts_algorithm_od;
    TS_NEED(c->synchronous_steps >= 0, TS_EUSAGE, "%s: synchronous-steps %lld is below 0",
            ops->name, (long long)c->synchronous_steps);
    TS_NEED(c->local_rate >= 0, TS_EUSAGE, "%s: local-rate %g is below 0", ops->name,
            c->local_rate);
    pipeline *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for %s", ops->name);
    a->base.ops = ops;
    a->base.worker = *worker;
    a->synchronous = c->synchronous_steps;
    a->local_rate = (float)c->local_rate;
    ts_status status = worker->size == 1 ? TS_OK : open_vectors(a, global);
    if (status) {
        pipe_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

static ts_status pipe_open(const ts_worker *worker, const void *config, ts_algorithm **algorithm_p)
{
    return open_pipeline(worker, config, &ts_algorithm_pipe, algorithm_p);
}

static ts_status od_open(const ts_worker *worker, const void *config, ts_algorithm **algorithm_p)
{
    return open_pipeline(worker, config, &ts_algorithm_od, algorithm_p);
}

/* Comm makes the mean of the gradients that backward has left. */
static ts_status start(pipeline *a)
{
    const ts_worker *w = &a->base.worker;
    a->in_flight = 1;
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, -1));
    TS_TRY(ts_stream_copy(w->compute, a->average, w->flat->gradients, w->flat->n * sizeof(float)));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE));
    TS_TRY(ts_stream_after(a->copied, w->compute, w->comm));
    TS_TRY(ts_trace_begin(w->trace, w->comm, TS_SPAN_COMM, -1));
    TS_TRY(ts_worker_mean(w, a->average, a->average, w->flat->n));
    TS_TRY(ts_trace_end(w->trace, w->comm, TS_SPAN_COMM));
    return ts_event_record(a->averaged, w->comm);
}

/* Compute waits for the mean that was started last. */
static ts_status take(pipeline *a)
{
    const ts_worker *w = &a->base.worker;
    if (!a->in_flight) return ts_stream_fill(w->compute, a->average, 0, w->flat->n * sizeof(float));
    a->in_flight = 0;
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_WAIT, -1));
    TS_TRY(ts_event_wait(a->averaged, w->compute));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_WAIT);
}

/* od: x <- W - rate g */
static ts_status step_from_global(pipeline *a, float rate)
{
    const ts_worker *w = &a->base.worker;
    if (!a->global) return TS_OK;
    ts_merge merge = {.n = w->flat->n,
                      .x = w->flat->parameters,
                      .shadow = w->flat->shadow,
                      .average = a->global,
                      .snapshot = w->flat->gradients,
                      .b = 1,
                      .c = -rate};
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, -1));
    TS_TRY(ts_vector_merge(w->compute, &merge));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE);
}

static ts_status pipe_before_update(ts_algorithm *algorithm, int64_t step)
{
    pipeline *a = (pipeline *)algorithm;
    const ts_worker *w = &algorithm->worker;
    if (w->size == 1) return TS_OK;
    if (a->global && step == 0)
        TS_TRY(
            ts_stream_copy(w->compute, a->global, w->flat->parameters, w->flat->n * sizeof(float)));
    if (step < a->synchronous) TS_TRY(start(a));
    return take(a);
}

static ts_status pipe_after_update(ts_algorithm *algorithm, int64_t step)
{
    pipeline *a = (pipeline *)algorithm;
    if (algorithm->worker.size == 1) return TS_OK;
    if (step < a->synchronous) return step_from_global(a, 0);
    TS_TRY(start(a));
    return step_from_global(a, a->local_rate * algorithm->learning_rate);
}

static ts_status pipe_drain(ts_algorithm *algorithm)
{
    pipeline *a = (pipeline *)algorithm;
    if (!a->in_flight) return TS_OK;
    TS_TRY(take(a));
    TS_TRY(ts_vector_sgd(algorithm->worker.compute, &algorithm->worker.update));
    return step_from_global(a, 0);
}

static int pipe_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    pipeline *a = (pipeline *)algorithm;
    size_t bytes = algorithm->worker.flat->n * sizeof(float);
    const ts_part all[] = {{"in_flight", TS_PART_HOST, &a->in_flight, sizeof a->in_flight},
                           {"average", TS_PART_PARAMETERS, a->average, bytes},
                           {"global", TS_PART_PARAMETERS, a->global, bytes}};
    int n = a->global ? 3 : a->average ? 2 : 1;
    for (int i = 0; i < n && i < max; i++) parts[i] = all[i];
    return n;
}

#define PIPELINE                                                                                   \
    .close = pipe_close, .before_update = pipe_before_update, .after_update = pipe_after_update,   \
    .drain = pipe_drain, .state = pipe_state

const ts_algorithm_ops ts_algorithm_pipe = {
    .name = "pipe",
    .title = "Pipe-SGD",
    .paper = "arXiv:1811.03619",
    .rule = "every step: x <- x - lr opt(mean over ranks of the last step's g), made during this "
            "step",
    .open = pipe_open,
    PIPELINE,
};

const ts_algorithm_ops ts_algorithm_od = {
    .name = "od",
    .title = "OD-SGD",
    .paper = "arXiv:2005.06728",
    .rule = "every step: W <- W - lr opt(mean over ranks of the last step's g), made during this "
            "step; x <- W - lambda lr g",
    .open = od_open,
    PIPELINE,
};
