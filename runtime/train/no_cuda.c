/* no_cuda.c - see runtime/device/no_cuda.h. */
#include "runtime/device/no_cuda.h"
#include "runtime/train/tick.h"

TS_NO_CUDA(ts_tick_enqueue)
TS_NO_CUDA(ts_move_enqueue)
