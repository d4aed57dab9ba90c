/* overlap_local.c - Overlap-Local-SGD (Wang, Liang, Joshi: "Overlap Local-SGD: an algorithmic
 * approach to hide communication delays in distributed SGD", ICASSP 2020; rule as in the authors'
 * code).
 *
 * Every k-th step a rank is pulled to an anchor z, equal on all ranks, and starts to move it by
 * what it has found, which arrives k steps later: x_i <- (1 - alpha) x_i + alpha z ; v_i <- beta
 * v_i + (x_i - z) ; z <- mean over ranks of z + v_j The first anchor is the common model. In the
 * long run a pull leaves (1 - alpha) / (1 - alpha beta) of the progress: a learning rate tuned for
 * S-SGD is that much too small. Drain pulls once more. */
#include <stdlib.h>

#include "runtime/algorithms/averaging.h"

typedef struct overlap_local {
    ts_algorithm base;
    ts_averaging *averaging;
    int64_t period;
    float keep; /* 1 - alpha */
} overlap_local;

static void overlap_local_close(ts_algorithm *algorithm)
{
    overlap_local *a = (overlap_local *)algorithm;
    ts_averaging_close(a->averaging);
    free(a);
}

static ts_status overlap_local_open(const ts_worker *worker, const void *config,
                                    ts_algorithm **algorithm_p)
{
    const ts_algorithm_config *c = config;
    TS_NEED(c->period >= 1, TS_EUSAGE, "overlap-local: period %lld is below 1",
            (long long)c->period);
    TS_NEED(c->pull > 0 && c->pull <= 1, TS_EUSAGE, "overlap-local: pull %g is not within 0 and 1",
            c->pull);
    TS_NEED(c->anchor_momentum >= 0 && c->anchor_momentum < 1, TS_EUSAGE,
            "overlap-local: anchor-momentum %g is not within 0 and 1", c->anchor_momentum);
    overlap_local *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for overlap-local");
    a->base.ops = &ts_algorithm_overlap_local;
    a->base.worker = *worker;
    a->period = c->period;
    a->keep = (float)(1 - c->pull);
    ts_status status = ts_averaging_open(worker, 1, false, &a->averaging);
    if (!status) status = ts_averaging_anchor(a->averaging, (float)c->anchor_momentum);
    if (status) {
        overlap_local_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

static ts_status overlap_local_before_update(ts_algorithm *algorithm, int64_t step)
{
    if (algorithm->worker.size == 1 || step) return TS_OK;
    return ts_averaging_start(((overlap_local *)algorithm)->averaging);
}

static ts_status overlap_local_after_update(ts_algorithm *algorithm, int64_t step)
{
    overlap_local *a = (overlap_local *)algorithm;
    if (algorithm->worker.size == 1 || (step + 1) % a->period) return TS_OK;
    TS_TRY(ts_averaging_merge(a->averaging, a->keep));
    return ts_averaging_start(a->averaging);
}

static ts_status overlap_local_drain(ts_algorithm *algorithm)
{
    overlap_local *a = (overlap_local *)algorithm;
    return ts_averaging_drain(a->averaging, a->keep);
}

static int overlap_local_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    return ts_averaging_state(((overlap_local *)algorithm)->averaging, parts, max);
}

const ts_algorithm_ops ts_algorithm_overlap_local = {
    .name = "overlap-local",
    .title = "Overlap-Local-SGD",
    .paper = "arXiv:2002.09539",
    .rule = "every k steps: x <- (1 - alpha) x + alpha z; v <- beta v + (x - z); then start z <- "
            "mean over ranks of z + v",
    .periodic = true,
    .open = overlap_local_open,
    .close = overlap_local_close,
    .before_update = overlap_local_before_update,
    .after_update = overlap_local_after_update,
    .drain = overlap_local_drain,
    .state = overlap_local_state,
};
