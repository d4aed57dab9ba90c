/* wire.h - how encodings travel: the mean over ranks of slices of a flat vector. For exchange.c.
 *
 * reduced     what may be summed on its way (random-k's values, bf16) is, as fp32 would be
 * gathered    every rank gets all encodings, size - 1 are sent by each; always possible
 * scattered   rank j gets part j of all encodings, encodes the mean
 *                 d_j = decode(encode(mean over ranks of c_i))
 *             and these are gathered: 2 (size - 1) of the largest part is sent, about 2 encodings.
 *             For compressors that are unbiased, as d_j then is (TernGrad clips twice); what the
 *             second encoding leaves out is not fed back, and its noise is not divided by size */
#ifndef TS_ALGORITHMS_WIRE_H
#define TS_ALGORITHMS_WIRE_H

#include "runtime/algorithms/algorithm.h"

typedef struct ts_wire ts_wire;

/* `slices` are borrowed. TS_EUSAGE when the worker's --exchange or --scope does not suit.
 * Allocates and blocks; later calls do neither. */
ts_status ts_wire_open(const ts_worker *worker, const ts_compressor_ops *ops,
                       const ts_slice *slices, int n_slices, ts_wire **wire_p);
void ts_wire_close(ts_wire *wire);

/* Enqueue on comm: encode as `coding` says (its encode half, seed, call, first, anchor and to),
 * send, and decode into coding->to; with `moves_anchor` into the anchor, too. All ranks get the
 * same bits. Changes the rest of `coding`. */
ts_status ts_wire_mean(ts_wire *wire, int slice, ts_coding *coding, bool moves_anchor);

#endif
