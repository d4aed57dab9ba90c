/* exchange.h - the mean over ranks of a slice of a flat vector, compressed or as it is; of models,
 * what the ranks agree on from it.
 *
 * Without a compressor the mean is ts_worker_mean. With one, every rank encodes what it has to tell
 * (a gradient, or how its model has changed) and what its earlier encodings have left out, the
 * encodings travel, and every rank adds all of them up in the same order:
 *     p_i = v_i - z + e_i ;  c_i = decode(encode(p_i)) ;  e_i <- p_i - c_i
 *     the mean, and for models the new z, is z + mean over ranks of c_j
 * e is error feedback's residual, a rank's own. z is 0 for gradients; for models it is the outer
 * model, what all ranks have agreed on so far, the same bits on each, so that what travels is the
 * change since then. Encoding and decoding are comm's work: compute goes on.
 *
 * Of models, e is what merges have taken away of what encodings have left out. With e <- p - c for
 * every encoding it would be counted twice: a merge keeps a share xi of it in the model, and when m
 * averages are in flight it is still in the next m - 1 snapshots. So, with r = p - c left out by
 * encoding number s, e changes where that average is merged, between encodings s + m - 1 and s + m:
 *     blended     e <- xi e + (1 - xi) r(s)
 *     corrected   e <- e + (1 - xi) (r(s) - e(s))
 * Then the mean over ranks of x + e goes as that of x would go without a compressor. With xi = 0
 * and m = 1 either is e <- r. With slow momentum it would take three more models: there, unless xi
 * is 0, there is no error feedback.
 *
 * z is the last average, or moves towards it by slow momentum (SlowMo, arXiv:1910.00643, algorithm
 * 1; lr is the learning rate when the average began):
 *     u <- beta u + (z - average) / lr ;  z <- z - alpha lr u
 * With beta = 0 and alpha = 1 that is the average. Kept is v = lr u, so that no rate divides a
 * model: where it changes, v does by the same factor, and from a rate of 0 on nothing is left.
 *
 * How encodings travel is told in wire.h. */
#ifndef TS_ALGORITHMS_EXCHANGE_H
#define TS_ALGORITHMS_EXCHANGE_H

#include "runtime/algorithms/algorithm.h"

typedef struct ts_exchange ts_exchange;

/* How models are merged with what they agree on (averaging.h). */
typedef struct ts_exchange_models {
    float keep; /* xi */
    bool corrected;
    int in_flight;                  /* m, averages of a slice under way at once, from 1 */
    float slow_momentum, slow_rate; /* beta, alpha; 0 and 0, or 0 and 1: z is the last average */
} ts_exchange_models;
/* Does the outer model move by slow momentum? */
bool ts_exchange_is_slow(float slow_momentum, float slow_rate);

/* What travels as one (a bucket, a fragment, all) are `slices` of the flat vectors, borrowed; each
 * is exchanged once before any comes again. With `models` (NULL: gradients) z begins as the
 * parameters are now, which must be equal on all ranks. TS_EUSAGE when the worker's compression
 * makes no sense for this. Allocates and blocks; later calls do neither. */
ts_status ts_exchange_open(const ts_worker *worker, const ts_slice *slices, int n_slices,
                           const ts_exchange_models *models, ts_exchange **exchange_p);
void ts_exchange_close(ts_exchange *exchange);

/* Enqueue on compute: z <- the parameters, again equal on all ranks. Before the first exchange. */
ts_status ts_exchange_begin(ts_exchange *exchange);

/* Enqueue on comm: to[slice] <- mean over ranks of from[slice], weighted where the worker has a
 * weight. Both are flat vectors, and may be the same one. All ranks get the same bits. */
ts_status ts_exchange_mean(ts_exchange *exchange, int slice, float *to, const float *from);
/* Enqueue on comm, for models: to[slice] <- z[slice], moved by the mean over ranks of
 * from[slice]. */
ts_status ts_exchange_agree(ts_exchange *exchange, int slice, float *to, const float *from,
                            float learning_rate);

/* Do gradients come back with their momentum in them? The update must then add none (ts_sgd's
 * `carried`). */
bool ts_exchange_carries_momentum(const ts_exchange *exchange);

/* What a checkpoint must hold; appends, returns how many there are now. */
int ts_exchange_state(ts_exchange *exchange, ts_part *parts, int n, int max);

#endif
