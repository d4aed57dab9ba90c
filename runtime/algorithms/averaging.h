/* averaging.h - the one mechanism of the overlapping family: snapshot, average, merge.
 *
 * At some local step: y <- x, and start a <- mean over ranks of y on comm. d steps later compute
 * waits for that average and merges it:
 *     corrected   x <- x + (a - y)            nothing is lost: CoCoD-SGD
 *     blended     x <- xi x + (1 - xi) a      DaSGD; xi = 0, d = 0 is Local-SGD
 * or what is averaged is an anchor that follows the models (Overlap-Local-SGD).
 * The named algorithms are schedules (period, delay) and factors over it. Averages in flight are
 * numbered by round; each lies in a slot of its own, so that a delay may exceed a period. */
#ifndef TS_ALGORITHMS_AVERAGING_H
#define TS_ALGORITHMS_AVERAGING_H

#include "runtime/algorithms/algorithm.h"

typedef struct ts_averaging ts_averaging;

/* `in_flight`: averages that may be under way at once. `corrected`: keep the snapshot that a
 * corrected merge needs. */
ts_status ts_averaging_open(const ts_worker *worker, int in_flight, bool corrected,
                            ts_averaging **averaging_p);
void ts_averaging_close(ts_averaging *averaging);

/* Average an anchor z instead of the models (one in flight, not corrected): the first start sends
 * x; a later one, after the merge, v <- momentum v + (x - z) ; z <- z + v, and the mean over ranks
 * of that z is what the next merge blends in. Only parameters have momentum; what else is averaged
 * goes as without an anchor. */
ts_status ts_averaging_anchor(ts_averaging *averaging, float momentum);

/* Enqueue: snapshot on compute, average on comm. At most `in_flight` may be started and not yet
 * merged. */
ts_status ts_averaging_start(ts_averaging *averaging);
/* Enqueue: compute waits for the oldest average in flight and merges it: x <- keep x +
 * (1 - keep) a, or with `corrected` x <- x + (a - y), momentum and statistics by their policies.
 * Without one in flight: nothing. */
ts_status ts_averaging_merge(ts_averaging *averaging, float keep);
/* Merge all that is in flight. */
ts_status ts_averaging_drain(ts_averaging *averaging, float keep);
int ts_averaging_state(ts_averaging *averaging, ts_part *parts, int max);

#endif
