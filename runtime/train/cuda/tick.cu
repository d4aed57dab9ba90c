/* tick.cu - the tick kernel on CUDA: one thread. */
#include "runtime/device/cuda/cuda.h"
#include "runtime/train/tick.h"

__global__ static void tick(const __grid_constant__ ts_tick t)
{
    ts_tick_run(&t);
}

ts_status ts_tick_enqueue(const void *args, void *cuda_stream)
{
    tick<<<1, 1, 0, (cudaStream_t)cuda_stream>>>(*(const ts_tick *)args);
    return TS_CUDA_LAUNCHED("tick");
}
