/* cocod.c - CoCoD-SGD (Shen, Xu, Liu, Liang, Cheng: "Faster distributed deep net training:
 * computation and communication decoupled stochastic gradient descent", IJCAI 2019).
 *
 * Every k-th step a rank starts averaging the models as they are and goes on from its own; k steps
 * later it takes the average and adds the progress it has made meanwhile:
 *     x_i <- mean over ranks of y_j + (x_i - y_i) ;  y_i <- x_i ; start averaging the y
 * The merge leaves the mean over ranks as it is. The first round averages equal models in the
 * paper and is skipped. Drain merges what is in flight by the same rule. */
#include <stdlib.h>

#include "runtime/algorithms/averaging.h"

typedef struct cocod {
    ts_algorithm base;
    ts_averaging *averaging;
    int64_t period;
} cocod;

static void cocod_close(ts_algorithm *algorithm)
{
    cocod *a = (cocod *)algorithm;
    ts_averaging_close(a->averaging);
    free(a);
}

static ts_status cocod_open(const ts_worker *worker, const void *config, ts_algorithm **algorithm_p)
{
    const ts_algorithm_config *c = config;
    TS_NEED(c->period >= 1, TS_EUSAGE, "cocod: period %lld is below 1", (long long)c->period);
    cocod *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for cocod");
    a->base.ops = &ts_algorithm_cocod;
    a->base.worker = *worker;
    a->period = c->period;
    ts_status status = ts_averaging_open(worker, 1, true, &a->averaging);
    if (status) {
        cocod_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

static ts_status cocod_after_update(ts_algorithm *algorithm, int64_t step)
{
    cocod *a = (cocod *)algorithm;
    if (algorithm->worker.size == 1 || (step + 1) % a->period) return TS_OK;
    TS_TRY(ts_averaging_merge(a->averaging, 0));
    return ts_averaging_start(a->averaging);
}

static ts_status cocod_drain(ts_algorithm *algorithm)
{
    return ts_averaging_drain(((cocod *)algorithm)->averaging, 0);
}

static int cocod_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    return ts_averaging_state(((cocod *)algorithm)->averaging, parts, max);
}

const ts_algorithm_ops ts_algorithm_cocod = {
    .name = "cocod",
    .title = "CoCoD-SGD",
    .paper = "arXiv:1906.12043",
    .rule = "every k steps: x <- mean over ranks of y + (x - y), then y <- x; the mean is made "
            "during the k steps between",
    .periodic = true,
    .open = cocod_open,
    .close = cocod_close,
    .after_update = cocod_after_update,
    .drain = cocod_drain,
    .state = cocod_state,
};
