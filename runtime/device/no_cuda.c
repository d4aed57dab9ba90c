/* no_cuda.c - what stands for the CUDA device in a build without the CUDA Toolkit. */
#include <stdio.h>

#include "runtime/device/no_cuda.h"
#include "runtime/device/trace_ring.h"
#include "runtime/device/vector_kernels.h"

static ts_status refuse(int ordinal, ts_device **device_p)
{
    (void)ordinal;
    *device_p = NULL;
    return TS_ERROR(TS_EUNSUPPORTED,
                    "this build is without CUDA; missing: %s (cmake looks in "
                    "TWINSTREAM_NVIDIA_ROOT too)",
                    TS_CUDA_MISSING);
}

const ts_device_ops ts_device_cuda = {.name = "cuda", .open = refuse};

void ts_device_cuda_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "absent; this build is without: %s", TS_CUDA_MISSING);
}

TS_NO_CUDA(ts_sgd_enqueue)
TS_NO_CUDA(ts_merge_enqueue)
TS_NO_CUDA(ts_outer_enqueue)
TS_NO_CUDA(ts_to_bf16_enqueue)
TS_NO_CUDA(ts_from_bf16_enqueue)
TS_NO_CUDA(ts_scale_enqueue)
TS_NO_CUDA(ts_stamp_enqueue)
