/* no_cuda.c - see runtime/device/no_cuda.c. */
#include "runtime/data/batch_job.h"

ts_status ts_batch_enqueue(const void *batch_job, void *cuda_stream)
{
    (void)batch_job;
    (void)cuda_stream;
    return TS_ERROR(TS_EUNSUPPORTED, "this build is without CUDA");
}
