/* averaging.h - the one mechanism of the methods that average models: snapshot, average, merge.
 *
 * At some local step: y <- x, and start a <- mean over ranks of y on comm. d steps later compute
 * waits for that average and merges it:
 *     blended     x <- xi x + (1 - xi) a       DaSGD; xi = 0, d = 0 is Local-SGD
 *     corrected   x <- x + (1 - xi) (a - y)    no local progress is lost; CoCoD-SGD: xi = 0, d = k
 * Averages in flight are numbered by their start. Each lies in a slot of its own, so that a delay
 * may exceed a period.
 *
 * Slow momentum (exchange.h): what comes back from comm, and is merged in the place of a, is the
 * outer model z that a has moved. SlowMo is that with d = 0: x <- z. With a delay it is our
 * composition: z moves as soon as the average is made, and the merge is as before with z for a.
 * Each snapshot then begins at the last z but for what was found since (and, blended, what xi
 * keeps), so that every rank's progress moves u once. It takes one average in flight: a snapshot
 * that was taken before the last outer step would count that step as a step back.
 *
 * Fragments: the flat buffers are cut into P slices, which travel one after another. Momentum and
 * statistics, where they are averaged, are cut alike and go with their fragment of the parameters,
 * so a merge of a fragment is a whole merge of its part of the buffers. */
#ifndef TS_ALGORITHMS_AVERAGING_H
#define TS_ALGORITHMS_AVERAGING_H

#include "runtime/algorithms/algorithm.h"

/* What is 0 is off. */
typedef struct ts_averaging_rule {
    int64_t period, delay; /* k; d, 0: merged at once */
    bool at_start;         /* the first average is of the models before the first step */
    float keep;            /* xi */
    bool corrected;
    int fragments;                  /* P; 0: 1 */
    float slow_momentum, slow_rate; /* beta, alpha; 0 and 0, or 0 and 1: none */
} ts_averaging_rule;
/* Averages of a fragment that are under way at once. */
int64_t ts_averaging_in_flight(const ts_averaging_rule *rule);

typedef struct ts_averaging ts_averaging;
ts_status ts_averaging_open(const ts_worker *worker, const ts_averaging_rule *rule,
                            ts_averaging **averaging_p);
void ts_averaging_close(ts_averaging *averaging);

/* Enqueue: the parameters were changed since open, before the first start. */
ts_status ts_averaging_begin(ts_averaging *averaging);
/* Enqueue: snapshot of the next fragment on compute, its average on comm; `step` local steps are
 * done. Where as many are under way as there are slots, which only a run resumed with another
 * period comes to, the oldest is merged first. */
ts_status ts_averaging_start(ts_averaging *averaging, int64_t step, float learning_rate);
/* Enqueue: compute waits for each average that was started with `step` or earlier, in their order,
 * and merges it, momentum and statistics by their policies. */
ts_status ts_averaging_merge(ts_averaging *averaging, int64_t step);
/* Would that have to wait? Never blocks. */
bool ts_averaging_late(const ts_averaging *averaging, int64_t step);
int ts_averaging_state(ts_averaging *averaging, ts_part *parts, int max);

#endif
