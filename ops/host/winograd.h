/* winograd.h - 3x3 convolutions of few channels by Winograd's method F(4x4, 3x3) (Lavin, Gray:
 * "Fast algorithms for convolutional neural networks", CVPR 2016), for processors with AVX-512.
 *
 *     y = A^T [ (G w G^T) * (B^T x B) ] A                forward; backward data with w turned round
 *     dw = sum over tiles G^T [ (A dy A^T) * (B^T x B) ] G
 *
 * The library's own keeps all transformed tiles in memory between its three steps, which with few
 * channels is most of its time; here a few tiles go through all steps in a core's cache. */
#ifndef TS_OPS_HOST_WINOGRAD_H
#define TS_OPS_HOST_WINOGRAD_H

#include "ops/host/dnnl.h"

/* `order`: of the weight; served is OIhw16i16o, with x and y in TS_NCHW16C, fp32. (In bf16 it is no
 * faster than direct convolution by dot products, which do twice as much at once.) */
bool ts_winograd_serves(const ts_op_desc *desc, const ts_md *order);
/* Bytes of scratch for a run of this pass from this thread. */
size_t ts_winograd_scratch(const ts_op_desc *desc, ts_conv_pass pass);
/* Forward: x to y; backward data: dy to dx. The same bits for any number of threads. */
void ts_winograd_run(const ts_op_desc *desc, ts_conv_pass pass, const float *from,
                     const float *weight, float *to, void *scratch);
/* dw is fp32, written. The same bits for any number of threads. */
void ts_winograd_gradient(const ts_op_desc *desc, const float *x, const float *dy, float *dw,
                          void *scratch);

#endif
