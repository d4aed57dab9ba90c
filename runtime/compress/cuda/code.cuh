/* code.cuh - what the compressors' CUDA kernels share: four elements at a time, and the last block
 * of a piece, which goes on with what all its blocks have found. */
#ifndef TS_COMPRESS_CUDA_CODE_CUH
#define TS_COMPRESS_CUDA_CODE_CUH

#include "runtime/compress/code.h"
#include "runtime/device/cuda/cuda.h"

enum { THREADS = TS_LANES, QUAD = 4 };

/* What is to be encoded of elements [4 q, 4 q + 4) of the message; with a velocity only once. */
__device__ static inline float4 take4(const ts_code &c, size_t q)
{
    float4 p = ((const float4 *)c.of.from)[q];
    if (c.of.anchor) {
        float4 a = ((const float4 *)c.of.anchor)[q];
        p = make_float4(p.x - a.x, p.y - a.y, p.z - a.z, p.w - a.w);
    }
    if (c.of.velocity) {
        float4 v = ((const float4 *)c.of.velocity)[q];
        p.x = ts_code_momentum(p.x, &v.x, c.of.momentum, c.of.nesterov);
        p.y = ts_code_momentum(p.y, &v.y, c.of.momentum, c.of.nesterov);
        p.z = ts_code_momentum(p.z, &v.z, c.of.momentum, c.of.nesterov);
        p.w = ts_code_momentum(p.w, &v.w, c.of.momentum, c.of.nesterov);
        ((float4 *)c.of.velocity)[q] = v;
    }
    if (c.of.feedback) {
        float4 e = ((const float4 *)c.of.residual)[q];
        p = make_float4(p.x + e.x, p.y + e.y, p.z + e.z, p.w + e.w);
    }
    return p;
}

/* Where a sum begins, and where it ends. */
__device__ static inline float4 begin_sum4(const ts_code &c, size_t q)
{
    return c.of.anchor ? ((const float4 *)c.of.anchor)[q] : make_float4(0, 0, 0, 0);
}
__device__ static inline void end_sum4(const ts_code &c, size_t q, float4 sum)
{
    ((float4 *)c.of.to)[q] = sum;
    if (c.of.anchor) ((float4 *)c.of.anchor)[q] = sum;
}
__device__ static inline float4 add4(float weight, float4 x, float4 sum)
{
    return make_float4(fmaf(weight, x.x, sum.x), fmaf(weight, x.y, sum.y), fmaf(weight, x.z, sum.z),
                       fmaf(weight, x.w, sum.w));
}

/* For all threads: is this the last of the piece's blocks to come here? It then sees what the
 * others have written before. `done` counts from 0 and is left there. */
__device__ static inline bool is_last(uint32_t *done, uint32_t blocks)
{
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(done, 1u) == blocks - 1;
        if (last) *done = 0;
    }
    __syncthreads();
    bool answer = last;
    __syncthreads();
    __threadfence();
    return answer;
}

/* For all threads: the sum of `value` over the threads before this one; *sum_p over all. */
__device__ static inline uint32_t scan(uint32_t value, uint32_t *sum_p)
{
    __shared__ uint32_t sums[2][THREADS];
    uint32_t t = threadIdx.x, mine = value;
    int side = 0;
    sums[0][t] = mine;
    for (uint32_t by = 1; by < THREADS; by *= 2) {
        __syncthreads();
        if (t >= by) mine += sums[side][t - by];
        side = 1 - side;
        sums[side][t] = mine;
    }
    __syncthreads();
    *sum_p = sums[side][THREADS - 1];
    __syncthreads();
    return mine - value;
}

#endif
