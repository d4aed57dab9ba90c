/* cocod.c - CoCoD-SGD (Shen, Xu, Liu, Liang, Cheng: "Faster distributed deep net training:
 * computation and communication decoupled stochastic gradient descent", IJCAI 2019).
 *
 * Every k-th step a rank starts averaging the models as they are and goes on from its own; k steps
 * later it takes the average and adds the progress it has made meanwhile:
 *     x_i <- mean over ranks of y_j + (x_i - y_i) ;  y_i <- x_i ; start averaging the y
 * The merge leaves the mean over ranks as it is. The first round averages equal models in the
 * paper and is skipped. Drain merges what is in flight by the same rule. Slow momentum and
 * fragments are not the paper's (averaging.h). */
#include "runtime/algorithms/periodic.h"

static ts_status cocod_open(const ts_worker *worker, const ts_algorithm_config *c,
                            ts_algorithm **algorithm_p)
{
    const ts_averaging_rule rule = {.period = c->period,
                                    .delay = c->period,
                                    .corrected = true,
                                    .fragments = (int)c->fragments,
                                    .slow_momentum = (float)c->slow_momentum,
                                    .slow_rate = (float)c->slow_rate};
    return ts_periodic_open(&ts_algorithm_cocod, worker, &rule, algorithm_p);
}

const ts_algorithm_ops ts_algorithm_cocod = {
    .name = "cocod",
    .title = "CoCoD-SGD",
    .paper = "arXiv:1906.12043",
    .rule = "every k steps: x <- mean over ranks of y + (x - y), then y <- x; the mean is made "
            "during the k steps between",
    .open = cocod_open,
    .late = ts_periodic_late,
    TS_PERIODIC,
};
