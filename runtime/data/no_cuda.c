/* no_cuda.c - see runtime/device/no_cuda.h. */
#include "runtime/data/batch_job.h"
#include "runtime/device/no_cuda.h"

TS_NO_CUDA(ts_batch_enqueue)
