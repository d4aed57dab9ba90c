/* step.cu - see step.h: one thread. */
#include "tests/step.h"

#include "runtime/device/cuda/clock.cuh"
#include "runtime/device/cuda/cuda.h"

__global__ static void step(step_args a)
{
    if (a.sleep_ns) {
        int64_t end = ts_cuda_now_ns() + a.sleep_ns;
        while (ts_cuda_now_ns() < end) continue;
    }
    if (a.at) *a.at = *a.at * a.factor + a.add;
}

ts_status step_enqueue(const void *args, void *cuda_stream)
{
    step<<<1, 1, 0, (cudaStream_t)cuda_stream>>>(*(const step_args *)args);
    return TS_CUDA_LAUNCHED("step");
}
