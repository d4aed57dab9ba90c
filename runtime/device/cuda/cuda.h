/* cuda.h - what the CUDA parts of all rooms share: handles behind the device's objects, errors,
 * grid sizes. Only files of cuda/ folders include it. */
#ifndef TS_DEVICE_CUDA_CUDA_H
#define TS_DEVICE_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include "runtime/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A CUDA call's failure in our words: what was done, CUDA's name and text for it. */
ts_status ts_cuda_check(cudaError_t error, const char *what);
#define TS_CUDA_TRY(call) TS_TRY(ts_cuda_check((call), #call))
/* The launch before this: bad sizes and earlier asynchronous errors. */
#define TS_CUDA_LAUNCHED(kernel) ts_cuda_check(cudaPeekAtLastError(), "launch of " kernel)

cudaStream_t ts_cuda_stream(ts_stream *stream);
/* Streaming multiprocessors of the device that this process uses. */
int ts_cuda_processors(void);
/* Blocks for a grid-stride loop over n elements, `each` a block: at most 8 a processor. */
unsigned ts_cuda_blocks(size_t n, size_t each);
/* ts_clock_ns() = %globaltimer + offset. Blocks. */
ts_status ts_cuda_clock_offset(int64_t *offset_ns_p);

#ifdef __cplusplus
}
#endif

#endif
