/* periodic.h - an algorithm that averages models and is a rule (averaging.h), nothing else.
 *
 * Local steps are counted from 1. A fragment p of P is averaged every k steps, p k / P (whole)
 * steps after fragment 0, whose averages start with the steps k, 2k, ...; each is merged d steps
 * later, before the next start. On one rank nothing is done. */
#ifndef TS_ALGORITHMS_PERIODIC_H
#define TS_ALGORITHMS_PERIODIC_H

#include "runtime/algorithms/averaging.h"

ts_averaging_rule ts_dasgd_rule(const ts_algorithm_config *config);
/* Averages of a fragment that may be under way at once by this rule, whatever its delay. */
int64_t ts_periodic_flights_max(const ts_averaging_rule *rule);
/* TS_EUSAGE for what makes no sense in any of them. */
ts_status ts_periodic_open(const ts_algorithm_ops *ops, const ts_worker *worker,
                           const ts_averaging_rule *rule, ts_algorithm **algorithm_p);
void ts_periodic_close(ts_algorithm *algorithm);
ts_status ts_periodic_begin(ts_algorithm *algorithm);
ts_status ts_periodic_before_update(ts_algorithm *algorithm, int64_t step); /* for at_start */
ts_status ts_periodic_after_update(ts_algorithm *algorithm, int64_t step);
bool ts_periodic_late(ts_algorithm *algorithm, int64_t step); /* for a delay */
ts_status ts_periodic_drain(ts_algorithm *algorithm);
int ts_periodic_state(ts_algorithm *algorithm, ts_part *parts, int max);

/* In such an algorithm's table of operations. */
#define TS_PERIODIC                                                                                \
    .periodic = true, .close = ts_periodic_close, .begin = ts_periodic_begin,                      \
    .after_update = ts_periodic_after_update, .drain = ts_periodic_drain,                          \
    .state = ts_periodic_state

#endif
