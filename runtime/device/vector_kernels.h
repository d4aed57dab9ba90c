/* vector_kernels.h - the arguments of vector.h's kernels where vector.h has no struct for them, and
 * their CUDA launchers. */
#ifndef TS_DEVICE_VECTOR_KERNELS_H
#define TS_DEVICE_VECTOR_KERNELS_H

#include "runtime/device/vector.h"

typedef struct ts_cast {
    size_t n;
    float *wide;
    uint16_t *narrow;
} ts_cast;

typedef struct ts_scale {
    size_t n;
    float *x;
    float factor;
} ts_scale;

#ifdef __cplusplus
extern "C" {
#endif
ts_status ts_sgd_enqueue(const void *sgd, void *cuda_stream);
ts_status ts_merge_enqueue(const void *merge, void *cuda_stream);
ts_status ts_outer_enqueue(const void *outer, void *cuda_stream);
ts_status ts_to_bf16_enqueue(const void *cast, void *cuda_stream);
ts_status ts_from_bf16_enqueue(const void *cast, void *cuda_stream);
ts_status ts_scale_enqueue(const void *scale, void *cuda_stream);
#ifdef __cplusplus
}
#endif

#endif
