/* tick.cu - the tick and move kernels on CUDA: one thread. */
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

__global__ static void move(const __grid_constant__ ts_move m)
{
    ts_move_run(&m);
}

ts_status ts_move_enqueue(const void *args, void *cuda_stream)
{
    move<<<1, 1, 0, (cudaStream_t)cuda_stream>>>(*(const ts_move *)args);
    return TS_CUDA_LAUNCHED("move");
}
