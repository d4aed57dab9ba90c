/* clock.cuh - the GPU's clock in kernels; the emulation has its own. */
#ifndef TS_DEVICE_CUDA_CLOCK_CUH
#define TS_DEVICE_CUDA_CLOCK_CUH

#include <stdint.h>

#ifdef __CUDACC__
/* %globaltimer, ns. */
__device__ static inline int64_t ts_cuda_now_ns(void)
{
    int64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}
#endif

#endif
