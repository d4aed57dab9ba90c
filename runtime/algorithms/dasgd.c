/* dasgd.c - DaSGD (Zhou, Zhang, Li, Liu, Yang, Wang, Huang: "DaSGD: squeezing SGD parallelization
 * performance in distributed training using delayed averaging", 2020; rule as in the authors'
 * simulator).
 *
 * Every k-th step a rank starts averaging the models; d local steps later it blends the average
 * with what its model has become:
 *     x_i <- xi x_i + (1 - xi) mean over ranks of y_j
 * which takes progress of those d steps away: with m = ceil(d / k) averages in flight
 *     (xi k + (1 - xi) (m k - d)) / (xi k + q (1 - xi) m k)
 * of it is left in the long run; q is 1, and (1 - beta) / alpha with slow momentum. The corrected
 * merge, not the paper's, leaves the mean over ranks as it is; - d falls away in that fraction:
 *     x_i <- x_i + (1 - xi) (mean over ranks of y_j - y_i)
 *
 * d may exceed k: then several averages are in flight. Drain merges them in their order. Slow
 * momentum and fragments are not the paper's either (averaging.h). */
#include <string.h>

#include "runtime/algorithms/periodic.h"
#include "runtime/base/log.h"

#define LITTLE 0.5 /* of the progress, and a run is told */

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

static double progress_left(const ts_averaging_rule *r)
{
    double k = (double)r->period, xi = r->keep, d = r->corrected ? 0 : (double)r->delay;
    double all = k * (double)ts_averaging_in_flight(r);
    double q = r->slow_rate > 0 ? (1 - r->slow_momentum) / r->slow_rate : 1;
    return (xi * k + (1 - xi) * (all - d)) / (xi * k + q * (1 - xi) * all);
}

static ts_status dasgd_open(const ts_worker *worker, const ts_algorithm_config *c,
                            ts_algorithm **algorithm_p)
{
    const ts_averaging_rule rule = ts_dasgd_rule(c);
    TS_NEED(c->delay >= 1, TS_EUSAGE,
            "dasgd: delay %lld is below 1; an average without delay is --algorithm local",
            (long long)c->delay);
    bool whole = rule.period > 0 && rule.delay % rule.period == 0;
    TS_NEED(worker->size == 1 || rule.corrected || rule.keep > 0 || !whole, TS_EUSAGE,
            "dasgd: with mix 0 a delay of whole periods (%lld, period %lld) would lose all "
            "progress: raise --mix, or take --merge corrected",
            (long long)c->delay, (long long)c->period);
    TS_TRY(ts_periodic_open(&ts_algorithm_dasgd, worker, &rule, algorithm_p));
    double left = progress_left(&rule);
    if (left < LITTLE && worker->size > 1 && !worker->rank)
        ts_warn("dasgd: with period %lld, delay %lld and mix %g merges leave %.0f %% of the "
                "progress: lower --delay, raise --mix%s",
                (long long)c->period, (long long)c->delay, c->mix, 100 * left,
                rule.corrected ? " or --slow-rate" : ", or take --merge corrected");
    return TS_OK;
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
