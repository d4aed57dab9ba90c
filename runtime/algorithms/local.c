/* local.c - Local-SGD: k local steps, then every rank goes on from the mean of the models,
 *     x_i <- mean over ranks of x_j      every k-th step
 * (Stich: "Local SGD converges fast and communicates little", ICLR 2019). Compute waits for the
 * average; the merge is a plain replacement, so its delay is 0 and it keeps nothing. */
#include <stdlib.h>

#include "runtime/algorithms/averaging.h"

typedef struct local {
    ts_algorithm base;
    ts_averaging *averaging;
    int64_t period;
} local;

static void local_close(ts_algorithm *algorithm)
{
    local *a = (local *)algorithm;
    ts_averaging_close(a->averaging);
    free(a);
}

static ts_status local_open(const ts_worker *worker, const void *config, ts_algorithm **algorithm_p)
{
    const ts_algorithm_config *c = config;
    TS_NEED(c->period >= 1, TS_EUSAGE, "local: period %lld is below 1", (long long)c->period);
    local *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for local");
    a->base.ops = &ts_algorithm_local;
    a->base.worker = *worker;
    a->period = c->period;
    ts_status status = ts_averaging_open(worker, 1, false, &a->averaging);
    if (status) {
        local_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

static ts_status local_after_update(ts_algorithm *algorithm, int64_t step)
{
    local *a = (local *)algorithm;
    if (algorithm->worker.size == 1 || (step + 1) % a->period) return TS_OK;
    TS_TRY(ts_averaging_start(a->averaging));
    return ts_averaging_merge(a->averaging, 0);
}

const ts_algorithm_ops ts_algorithm_local = {
    .name = "local",
    .title = "Local-SGD",
    .paper = "arXiv:1805.09767",
    .rule = "every k steps: x <- mean over ranks of x",
    .periodic = true,
    .open = local_open,
    .close = local_close,
    .after_update = local_after_update,
};
