/* winograd.h - 3x3 convolutions in fp32 by Winograd's method F(4x4, 3x3) (Lavin, Gray: "Fast
 * algorithms for convolutional neural networks", CVPR 2016), for processors with AVX-512 or AVX2.
 *
 *     y = A^T [ (G w G^T) * (B^T x B) ] A                forward; backward data with w turned round
 *     dw = sum over tiles G^T [ (A dy A^T) * (B^T x B) ] G
 *
 * The library has it for AVX-512 only, and keeps all transformed tiles in memory between its three
 * steps, which with few channels is most of its time. Here a few tiles go through all steps in a
 * core's cache (winograd_few.h), or with many channels, by AVX2, the transformed tiles of some
 * pictures stay in the cache that cores share (winograd_wide.h). */
#ifndef TS_OPS_HOST_WINOGRAD_H
#define TS_OPS_HOST_WINOGRAD_H

#include "ops/host/dnnl.h"

typedef struct ts_winograd {
    /* `order`: of the weight. Served is fp32, with x and y in blocks of B channels and the weight
     * in OIhw<B>i<B>o, B floats being a vector. (bf16 by AVX-512 is no faster than direct
     * convolution by dot products, which do twice as much at once.) */
    bool (*serves)(const ts_op_desc *desc, const ts_md *order);
    /* Of scratch for a run of this pass from this thread. */
    size_t (*scratch_bytes)(const ts_op_desc *desc, ts_conv_pass pass);
    /* Forward: x to y; backward data: dy to dx. The same bits for any number of threads. */
    void (*run)(const ts_op_desc *desc, ts_conv_pass pass, const float *from, const float *weight,
                float *to, void *scratch);
    /* dw is fp32, written. The same bits for any number of threads. */
    void (*gradient)(const ts_op_desc *desc, const float *x, const float *dy, float *dw,
                     void *scratch);
} ts_winograd;

#if defined(__x86_64__)
extern const ts_winograd ts_winograd_avx512_few, ts_winograd_avx2_few, ts_winograd_avx2_wide;
#endif

/* The one that serves; NULL: none. */
const ts_winograd *ts_winograd_find(const ts_op_desc *desc, const ts_md *order);

#endif
