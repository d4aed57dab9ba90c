/* dasgd.c - DaSGD (Zhou, Zhang, Li, Liu, Yang, Wang, Huang: "DaSGD: squeezing SGD parallelization
 * performance in distributed training using delayed averaging", 2020; rule as in the authors'
 * simulator).
 *
 * Every k-th step a rank starts averaging the models; d local steps later it blends the average
 * with what its model has become:
 *     x_i <- xi x_i + (1 - xi) mean over ranks of y_j
 * d may exceed k: then several averages are in flight. Drain blends them in their order. */
#include <stdlib.h>

#include "runtime/algorithms/averaging.h"

typedef struct dasgd {
    ts_algorithm base;
    ts_averaging *averaging;
    int64_t period, delay;
    float mix;
} dasgd;

static void dasgd_close(ts_algorithm *algorithm)
{
    dasgd *a = (dasgd *)algorithm;
    ts_averaging_close(a->averaging);
    free(a);
}

static ts_status dasgd_open(const ts_worker *worker, const void *config, ts_algorithm **algorithm_p)
{
    const ts_algorithm_config *c = config;
    TS_NEED(c->period >= 1, TS_EUSAGE, "dasgd: period %lld is below 1", (long long)c->period);
    TS_NEED(c->delay >= 1, TS_EUSAGE,
            "dasgd: delay %lld is below 1; an average without delay is --algorithm local",
            (long long)c->delay);
    TS_NEED(c->mix >= 0 && c->mix <= 1, TS_EUSAGE, "dasgd: mix %g is not within 0 and 1", c->mix);
    int64_t in_flight = (c->delay + c->period - 1) / c->period;
    TS_NEED(in_flight <= 16, TS_EUSAGE,
            "dasgd: delay %lld with period %lld would keep %lld averages in flight, each with a "
            "copy of the model; at most 16: raise --period or lower --delay",
            (long long)c->delay, (long long)c->period, (long long)in_flight);
    dasgd *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for dasgd");
    a->base.ops = &ts_algorithm_dasgd;
    a->base.worker = *worker;
    a->period = c->period;
    a->delay = c->delay;
    a->mix = (float)c->mix;
    ts_status status = ts_averaging_open(worker, (int)in_flight, false, &a->averaging);
    if (status) {
        dasgd_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

/* Merge before start: an average of d = k steps ago makes room for the one that starts now. */
static ts_status dasgd_after_update(ts_algorithm *algorithm, int64_t step)
{
    dasgd *a = (dasgd *)algorithm;
    int64_t done = step + 1, started = done - a->delay;
    if (algorithm->worker.size == 1) return TS_OK;
    if (started > 0 && started % a->period == 0) TS_TRY(ts_averaging_merge(a->averaging, a->mix));
    return done % a->period ? TS_OK : ts_averaging_start(a->averaging);
}

static ts_status dasgd_drain(ts_algorithm *algorithm)
{
    dasgd *a = (dasgd *)algorithm;
    return ts_averaging_drain(a->averaging, a->mix);
}

static int dasgd_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    return ts_averaging_state(((dasgd *)algorithm)->averaging, parts, max);
}

const ts_algorithm_ops ts_algorithm_dasgd = {
    .name = "dasgd",
    .title = "DaSGD",
    .paper = "arXiv:2006.00441",
    .rule = "every k steps start a <- mean over ranks of x; d steps later x <- xi x + (1 - xi) a",
    .periodic = true,
    .open = dasgd_open,
    .close = dasgd_close,
    .after_update = dasgd_after_update,
    .drain = dasgd_drain,
    .state = dasgd_state,
};
