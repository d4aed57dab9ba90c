/* weight_gradient.h - a convolution's weight gradient from bf16 activations, for processors with
 * bf16 dot products (AVX512-BF16) but no matrix tiles.
 *
 *     dw[o][i][r][s] = sum over n, y, x of dy[n][o][y][x] x[n][i][y stride + r - padding][...]
 */
#ifndef TS_OPS_HOST_WEIGHT_GRADIENT_H
#define TS_OPS_HOST_WEIGHT_GRADIENT_H

#include "ops/host/dnnl.h"

/* `order`: in which dw is wanted; served is OIhw16i16o, with x and dy in TS_NCHW16C. */
bool ts_weight_gradient_serves(const ts_op_desc *desc, const ts_md *order);
/* Bytes of scratch for a run from this thread. */
size_t ts_weight_gradient_scratch(const ts_op_desc *desc);
/* dw is fp32, written. The same bits for any number of threads. */
void ts_weight_gradient_run(const ts_op_desc *desc, const uint16_t *x, const uint16_t *dy,
                            float *dw, void *scratch);

#endif
