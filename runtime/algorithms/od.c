/* od.c - OD-SGD (Xu, Dong, Xu, Liao: "OD-SGD: one-step delay stochastic gradient descent for
 * distributed training", 2020) without its server: Pipe-SGD on a model W, while each rank computes
 * at W with its own newest gradient in the place of the mean that is under way,
 *     W <- W - lr opt(mean over ranks of g(t-1)) ;  x_i <- W - lambda lr g_i(t)
 * Drained, all ranks end with the same model, W. */
#include <stdlib.h>

#include "runtime/algorithms/pipeline.h"

typedef struct od {
    ts_pipeline pipeline;
    float *global;    /* W; NULL on one rank */
    float local_rate; /* lambda */
} od;

static void od_close(ts_algorithm *algorithm)
{
    od *a = (od *)algorithm;
    ts_device_release(algorithm->worker.device, TS_MEMORY_DEVICE, a->global);
    ts_pipeline_close(&a->pipeline);
    free(a);
}

/* The update works on W. */
static ts_status open_all(od *a, const ts_worker *worker, const ts_algorithm_config *c)
{
    ts_worker *w = &a->pipeline.base.worker;
    TS_TRY(ts_pipeline_open(&a->pipeline, &ts_algorithm_od, worker, c));
    a->local_rate = (float)c->local_rate;
    if (w->size == 1) return TS_OK;
    TS_TRY(ts_worker_zeros(w, w->flat->n, &a->global));
    w->update.x = a->global;
    w->update.shadow = NULL;
    return TS_OK;
}

static ts_status od_open(const ts_worker *worker, const ts_algorithm_config *c,
                         ts_algorithm **algorithm_p)
{
    TS_NEED(c->local_rate >= 0, TS_EUSAGE, "od: local-rate %g is below 0", c->local_rate);
    od *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for od");
    ts_status status = open_all(a, worker, c);
    if (status) {
        od_close(&a->pipeline.base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->pipeline.base;
    return TS_OK;
}

/* x <- W - rate g */
static ts_status step_from_global(od *a, float rate)
{
    const ts_worker *w = &a->pipeline.base.worker;
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

static ts_status od_before_update(ts_algorithm *algorithm, int64_t step)
{
    const ts_worker *w = &algorithm->worker;
    od *a = (od *)algorithm;
    if (a->global && step == 0)
        TS_TRY(
            ts_stream_copy(w->compute, a->global, w->flat->parameters, w->flat->n * sizeof(float)));
    return ts_pipeline_before_update(algorithm, step);
}

static ts_status od_after_update(ts_algorithm *algorithm, int64_t step)
{
    od *a = (od *)algorithm;
    TS_TRY(ts_pipeline_after_update(algorithm, step));
    if (!a->global) return TS_OK;
    bool synchronous = step < a->pipeline.synchronous;
    return step_from_global(a, synchronous ? 0 : a->local_rate * algorithm->learning_rate);
}

static ts_status od_drain(ts_algorithm *algorithm)
{
    od *a = (od *)algorithm;
    if (!a->pipeline.in_flight) return TS_OK;
    TS_TRY(ts_pipeline_drain(algorithm));
    return step_from_global(a, 0);
}

static int od_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    od *a = (od *)algorithm;
    int n = ts_pipeline_state(algorithm, parts, max);
    if (!a->global) return n;
    return ts_part_add(parts, n, max,
                       (ts_part){"global", TS_PART_PARAMETERS, a->global,
                                 algorithm->worker.flat->n * sizeof(float)});
}

const ts_algorithm_ops ts_algorithm_od = {
    .name = "od",
    .title = "OD-SGD",
    .paper = "arXiv:2005.06728",
    .rule = "every step: W <- W - lr opt(mean over ranks of the last step's g), made during this "
            "step; x <- W - lambda lr g",
    .open = od_open,
    .close = od_close,
    .before_update = od_before_update,
    .after_update = od_after_update,
    .drain = od_drain,
    .state = od_state,
};
