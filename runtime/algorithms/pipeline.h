/* pipeline.h - a pipeline of two steps: the mean gradient of a step is made during the next step's
 * forward and backward and is what that step's update uses. Pipe-SGD is this, OD-SGD a local step
 * more.
 *
 * The update reads `average`, backward writes the gradients: a copy lies between. The first steps
 * are synchronous. The step behind them has no gradient to use yet: its update is with 0, momentum
 * going on. Drain makes the update that is under way, at the rate of the step behind
 * the last: 0, where the schedule ends there. (And so does the first synchronous step of a run
 * resumed with more of them.) */
#ifndef TS_ALGORITHMS_PIPELINE_H
#define TS_ALGORITHMS_PIPELINE_H

#include "runtime/algorithms/exchange.h"

typedef struct ts_pipeline {
    ts_algorithm base;
    ts_slice all;
    ts_exchange *exchange;
    float *average;              /* of the gradients of the step before; NULL on one rank */
    ts_event *copied, *averaged; /* gradients, on compute; their mean, on comm */
    int64_t synchronous;         /* steps */
    int64_t in_flight;           /* 1: `average` is of a step whose update is still to come */
} ts_pipeline;

/* Fills `p`, the zeroed beginning of an algorithm that takes these hooks or calls them in its own;
 * none does anything on one rank. Close also what failed to open. */
ts_status ts_pipeline_open(ts_pipeline *p, const ts_algorithm_ops *ops, const ts_worker *worker,
                           const ts_algorithm_config *config);
void ts_pipeline_close(ts_pipeline *p);
ts_status ts_pipeline_before_update(ts_algorithm *algorithm, int64_t step);
ts_status ts_pipeline_after_update(ts_algorithm *algorithm, int64_t step);
ts_status ts_pipeline_drain(ts_algorithm *algorithm);
int ts_pipeline_state(ts_algorithm *algorithm, ts_part *parts, int max);

#endif
