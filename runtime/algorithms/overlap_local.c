/* overlap_local.c - Overlap-Local-SGD (Wang, Liang, Joshi: "Overlap Local-SGD: an algorithmic
 * approach to hide communication delays in distributed SGD", ICASSP 2020; rule as in the authors'
 * code).
 *
 * Every k-th step a rank is pulled to an anchor z, equal on all ranks, and starts to move it by
 * what it has found, which arrives k steps later:
 *     x_i <- (1 - alpha) x_i + alpha z ;  v_i <- beta v_i + (x_i - z) ;  z <- mean of z + v_j
 * with v scaled when the learning rate changes, since the authors' code keeps v over the rate.
 * The mean is linear, so one v, of the mean of the x, moves z as those of all ranks: z is the outer
 * model of slow momentum (exchange.h) with u = -v / lr.
 * The first anchor is the common model. In the long run a pull leaves (1 - alpha) / (1 - alpha
 * beta) of the progress: a learning rate tuned for S-SGD is that much too small, and with alpha = 1
 * nothing would ever be learnt. Drain pulls once more. */
#include "runtime/algorithms/periodic.h"

static ts_status overlap_local_open(const ts_worker *worker, const ts_algorithm_config *c,
                                    ts_algorithm **algorithm_p)
{
    const ts_averaging_rule rule = {.period = c->period,
                                    .delay = c->period,
                                    .at_start = true,
                                    .keep = (float)(1 - c->pull),
                                    .slow_momentum = (float)c->anchor_momentum,
                                    .slow_rate = 1};
    TS_NEED(c->pull > 0 && c->pull < 1, TS_EUSAGE,
            "overlap-local: pull %g is not above 0 and below 1, where all progress would be lost",
            c->pull);
    TS_NEED(c->anchor_momentum >= 0 && c->anchor_momentum < 1, TS_EUSAGE,
            "overlap-local: anchor-momentum %g is not within 0 and 1", c->anchor_momentum);
    return ts_periodic_open(&ts_algorithm_overlap_local, worker, &rule, algorithm_p);
}

const ts_algorithm_ops ts_algorithm_overlap_local = {
    .name = "overlap-local",
    .title = "Overlap-Local-SGD",
    .paper = "arXiv:2002.09539",
    .rule = "every k steps: x <- (1 - alpha) x + alpha z; v <- beta v + (x - z); then start z <- "
            "mean over ranks of z + v",
    .open = overlap_local_open,
    .before_update = ts_periodic_before_update,
    .late = ts_periodic_late,
    TS_PERIODIC,
};
