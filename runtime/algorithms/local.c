/* local.c - Local-SGD: k local steps, then every rank goes on from the mean of the models,
 *     x_i <- mean over ranks of x_j      every k-th step
 * (Stich: "Local SGD converges fast and communicates little", ICLR 2019). Compute waits for the
 * average; the merge is a plain replacement, so its delay is 0 and it keeps nothing. With slow
 * momentum it is SlowMo (Wang, Tantia, Ballas, Rabbat: "SlowMo: improving communication-efficient
 * distributed SGD with slow momentum", ICLR 2020): x_i <- z. */
#include "runtime/algorithms/periodic.h"

static ts_status local_open(const ts_worker *worker, const ts_algorithm_config *c,
                            ts_algorithm **algorithm_p)
{
    const ts_averaging_rule rule = {.period = c->period,
                                    .slow_momentum = (float)c->slow_momentum,
                                    .slow_rate = (float)c->slow_rate};
    return ts_periodic_open(&ts_algorithm_local, worker, &rule, algorithm_p);
}

const ts_algorithm_ops ts_algorithm_local = {
    .name = "local",
    .title = "Local-SGD",
    .paper = "arXiv:1805.09767",
    .rule = "every k steps: x <- mean over ranks of x",
    .open = local_open,
    TS_PERIODIC,
};
