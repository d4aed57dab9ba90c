/* no_cuda.c - see runtime/device/no_cuda.c. */
#include "runtime/train/tick.h"

ts_status ts_tick_enqueue(const void *tick, void *cuda_stream)
{
    (void)tick;
    (void)cuda_stream;
    return TS_ERROR(TS_EUNSUPPORTED, "this build is without CUDA");
}

ts_status ts_move_enqueue(const void *move, void *cuda_stream)
{
    return ts_tick_enqueue(move, cuda_stream);
}
