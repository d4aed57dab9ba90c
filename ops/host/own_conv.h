/* own_conv.h - convolutions by kernels of our own, where they beat the library's: Winograd's method
 * in fp32 (winograd_*.h) for AVX-512 and AVX2, matrix tiles in bf16 (tiles.h) for AMX. */
#ifndef TS_OPS_HOST_OWN_CONV_H
#define TS_OPS_HOST_OWN_CONV_H

#include "ops/host/dnnl.h"

typedef struct ts_own_conv {
    /* `order`: of the weight. */
    bool (*serves)(const ts_op_desc *desc, const ts_md *order);
    /* The weight as forward and backward data want it; NULL: as it lies. */
    size_t (*packed_bytes)(const ts_op_desc *desc);
    void (*pack)(const ts_op_desc *desc, const float *weight, void *packed);
    /* Of scratch for a run of this pass from this thread. */
    size_t (*scratch_bytes)(const ts_op_desc *desc, ts_conv_pass pass);
    /* Forward: x and weight to y; backward data: dy and weight to dx; backward weights: x and dy to
     * dw, which is written. The same bits for any number of threads. */
    void (*run)(const ts_op_desc *desc, ts_conv_pass pass, const void *from, const void *other,
                void *to, void *scratch);
} ts_own_conv;

#if defined(__x86_64__)
extern const ts_own_conv ts_own_conv_tiles, ts_own_conv_avx512_few, ts_own_conv_avx2_few,
    ts_own_conv_avx2_wide;
#endif

/* The one that serves; NULL: none. */
const ts_own_conv *ts_own_conv_find(const ts_op_desc *desc, const ts_md *order);

#endif
