/* no_cuda.h - launchers of CUDA kernels in a build without CUDA. They are never reached: no stream of
 * a CUDA device is ever open. */
#ifndef TS_DEVICE_NO_CUDA_H
#define TS_DEVICE_NO_CUDA_H

#include "runtime/base/status.h"

#define TS_NO_CUDA(name)                                                                           \
    ts_status name(const void *args, void *cuda_stream)                                            \
    {                                                                                              \
        (void)args;                                                                                \
        (void)cuda_stream;                                                                         \
        return TS_ERROR(TS_EUNSUPPORTED, "this build is without CUDA");                            \
    }

#endif
