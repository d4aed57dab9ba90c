/* sum.cu - the gradient of an output that two nodes read: the sum of what they send. */
#include "ops/cuda/conv.h"
#include "ops/cuda/element.cuh"

enum { THREADS = 256 };

__global__ static void __launch_bounds__(THREADS)
    sum(void *to, const void *a, const void *b, size_t vectors, bool bf16)
{
    for (size_t v = (size_t)blockIdx.x * THREADS + threadIdx.x; v < vectors;
         v += (size_t)gridDim.x * THREADS) {
        ts_vec x = ts_load8(a, v, bf16), y = ts_load8(b, v, bf16);
#pragma unroll
        for (int i = 0; i < TS_VEC; i++) x.f[i] += y.f[i];
        ts_store8(to, v, x, bf16);
    }
}

ts_status ts_cuda_sum(void *to, const void *a, const void *b, size_t n, ts_type type,
                      void *cuda_stream)
{
    size_t vectors = n / TS_VEC;
    sum<<<ts_cuda_blocks(vectors, THREADS), THREADS, 0, (cudaStream_t)cuda_stream>>>(
        to, a, b, vectors, type == TS_BF16);
    return TS_CUDA_LAUNCHED("sum");
}
