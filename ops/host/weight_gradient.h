/* weight_gradient.h - a convolution's weight gradient from bf16 activations, for processors with
 * matrix tiles (AMX) or else bf16 dot products (AVX512-BF16).
 *
 *     dw[o][i][r][s] = sum over n, y, x of dy[n][o][y][x] x[n][i][y stride + r - padding][...]
 */
#ifndef TS_OPS_HOST_WEIGHT_GRADIENT_H
#define TS_OPS_HOST_WEIGHT_GRADIENT_H

#include "ops/host/dnnl.h"

typedef struct ts_weight_gradient {
    /* `order`: in which dw is wanted; served is OIhw16i16o, with x and dy in TS_NHWC (tiles) or
     * TS_NCHW16C (dot products), the layouts of the library's other passes there. */
    bool (*serves)(const ts_op_desc *desc, const ts_md *order);
    /* Of scratch for a run from this thread. */
    size_t (*scratch_bytes)(const ts_op_desc *desc);
    /* dw is fp32, written. The same bits for any number of threads. */
    void (*run)(const ts_op_desc *desc, const uint16_t *x, const uint16_t *dy, float *dw,
                void *scratch);
} ts_weight_gradient;

#if defined(__x86_64__)
extern const ts_weight_gradient ts_weight_gradient_tiles, ts_weight_gradient_dots;
#endif

/* The one that serves; NULL: none. */
const ts_weight_gradient *ts_weight_gradient_find(const ts_op_desc *desc, const ts_md *order);

#endif
