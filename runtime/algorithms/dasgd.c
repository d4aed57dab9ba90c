/* dasgd.c - DaSGD (Zhou, Zhang, Li, Liu, Yang, Wang, Huang: "DaSGD: squeezing SGD parallelization
 * performance in distributed training using delayed averaging", 2020; rule as in the authors'
 * simulator).
 *
 * Every k-th step a rank starts averaging the models; d local steps later it blends the average
 * with what its model has become:
 *     x_i <- xi x_i + (1 - xi) mean over ranks of y_j
 * which takes a share 1 - xi of the progress of those d steps away. The corrected merge, not the
 * paper's, takes none, and leaves the mean over ranks as it is:
 *     x_i <- x_i + (1 - xi) (mean over ranks of y_j - y_i)
 * d may exceed k: then several averages are in flight. Drain merges them in their order. Slow
 * momentum and fragments are not the paper's either (averaging.h). */
#include <string.h>

#include "runtime/algorithms/periodic.h"

ts_averaging_rule ts_dasgd_rule(const ts_algorithm_config *c)
{
    return (ts_averaging_rule){.period = c->period,
                               .delay = c->delay,
                               .keep = (float)c->mix,
                               .corrected = c->merge && !strcmp(c->merge, "corrected"),
                               .fragments = (int)c->fragments,
                               .slow_momentum = (float)c->slow_momentum,
                               .slow_rate = (float)c->slow_rate};
}

static ts_status dasgd_open(const ts_worker *worker, const ts_algorithm_config *c,
                            ts_algorithm **algorithm_p)
{
    const ts_averaging_rule rule = ts_dasgd_rule(c);
    TS_NEED(c->delay >= 1, TS_EUSAGE,
            "dasgd: delay %lld is below 1; an average without delay is --algorithm local",
            (long long)c->delay);
    return ts_periodic_open(&ts_algorithm_dasgd, worker, &rule, algorithm_p);
}

const ts_algorithm_ops ts_algorithm_dasgd = {
    .name = "dasgd",
    .title = "DaSGD",
    .paper = "arXiv:2006.00441",
    .rule = "every k steps start a <- mean over ranks of x; d steps later x <- xi x + (1 - xi) a",
    .open = dasgd_open,
    .late = ts_periodic_late,
    TS_PERIODIC,
};
