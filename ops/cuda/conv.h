/* conv.h - what the convolution's C part asks of its kernels and of its choice of plans. */
#ifndef TS_OPS_CUDA_CONV_H
#define TS_OPS_CUDA_CONV_H

#include "ops/cuda/cudnn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A plan with a larger workspace is not taken. */
#define TS_CUDNN_WORKSPACE ((size_t)64 << 20)

/* The fastest plan of a pass, timed on this GPU beside a kernel that holds what comm will hold, or
 * remembered from a run that timed it. */
ts_status ts_cudnn_choose(ts_cudnn *cudnn, ts_cudnn_graph *graph, const ts_op_desc *desc,
                          ts_op_pass pass, ts_cudnn_plan *plan_p);

/* to <- a + b, `n` elements, a multiple of 8. */
ts_status ts_cuda_sum(void *to, const void *a, const void *b, size_t n, ts_type type,
                      void *cuda_stream);

#ifdef __cplusplus
}
#endif

#endif
