/* element.cuh - typed loads and stores for CUDA ops: eight channels at a time, 16 bytes of bf16. */
#ifndef TS_OPS_CUDA_ELEMENT_CUH
#define TS_OPS_CUDA_ELEMENT_CUH

#include "ops/element.h"
#include "runtime/device/cuda/cuda.h"

enum { TS_VEC = 8 };

typedef struct ts_vec {
    float f[TS_VEC];
} ts_vec;

__device__ static inline float ts_load(const void *from, size_t i, bool bf16)
{
    return bf16 ? ts_bf16_to_float(((const uint16_t *)from)[i]) : ((const float *)from)[i];
}

__device__ static inline void ts_store(void *to, size_t i, float x, bool bf16)
{
    if (bf16)
        ((uint16_t *)to)[i] = ts_bf16_from_float(x);
    else
        ((float *)to)[i] = x;
}

/* Elements [8 v, 8 v + 8). */
__device__ static inline ts_vec ts_load8(const void *from, size_t v, bool bf16)
{
    ts_vec x;
    if (bf16) {
        uint4 p = ((const uint4 *)from)[v];
        const uint32_t pairs[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x.f[2 * i] = ts_bf16_to_float((uint16_t)pairs[i]);
            x.f[2 * i + 1] = ts_bf16_to_float((uint16_t)(pairs[i] >> 16));
        }
    } else {
        float4 a = ((const float4 *)from)[2 * v], b = ((const float4 *)from)[2 * v + 1];
        x = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    }
    return x;
}

__device__ static inline void ts_store8(void *to, size_t v, ts_vec x, bool bf16)
{
    if (bf16) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            pairs[i] = (uint32_t)ts_bf16_from_float(x.f[2 * i]) |
                       (uint32_t)ts_bf16_from_float(x.f[2 * i + 1]) << 16;
        ((uint4 *)to)[v] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    } else {
        ((float4 *)to)[2 * v] = make_float4(x.f[0], x.f[1], x.f[2], x.f[3]);
        ((float4 *)to)[2 * v + 1] = make_float4(x.f[4], x.f[5], x.f[6], x.f[7]);
    }
}

#endif
