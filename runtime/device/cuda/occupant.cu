/* occupant.cu - see occupant.h. */
#include "runtime/device/cuda/occupant.h"

#include <stdlib.h>

#include "runtime/device/cuda/cuda.h"

enum { THREADS = 640, SLICE = 4 << 20 /* bytes that a block reads and writes, beyond any L1 */ };
#define MOST_BLOCKS 16

struct ts_occupant {
    uint4 *memory;     /* [MOST_BLOCKS][2][SLICE] */
    volatile int *run; /* pinned: 1 while it may go on */
};

__global__ static void __launch_bounds__(THREADS)
    occupy(uint4 *memory, const volatile int *run, size_t passes)
{
    const size_t n = SLICE / sizeof(uint4);
    const uint4 *from = memory + 2 * blockIdx.x * n;
    uint4 *to = memory + (2 * blockIdx.x + 1) * n;
    for (size_t pass = 0; !passes || pass < passes; pass++) {
        for (size_t i = threadIdx.x; i < n; i += THREADS) to[i] = from[i];
        if (!*run) break;
    }
}

ts_status ts_occupant_open(ts_occupant **occupant_p)
{
    ts_occupant *o = (ts_occupant *)calloc(1, sizeof *o);
    *occupant_p = NULL;
    TS_NEED(o, TS_ENOMEM, "no memory for an occupant");
    ts_status status = ts_cuda_check(
        cudaMalloc((void **)&o->memory, (size_t)MOST_BLOCKS * 2 * SLICE), "cudaMalloc");
    if (!status)
        status = ts_cuda_check(cudaHostAlloc((void **)&o->run, sizeof *o->run, cudaHostAllocMapped),
                               "cudaHostAlloc");
    if (status) {
        ts_occupant_close(o);
        return status;
    }
    *occupant_p = o;
    return TS_OK;
}

void ts_occupant_close(ts_occupant *o)
{
    if (!o) return;
    ts_occupant_stop(o);
    (void)cudaFree(o->memory); /* waits for the kernel */
    (void)cudaFreeHost((void *)o->run);
    free(o);
}

ts_status ts_occupant_start(ts_occupant *o, int blocks, size_t bytes, void *cuda_stream)
{
    TS_NEED(blocks >= 0 && blocks <= MOST_BLOCKS, TS_EUSAGE, "an occupant of %d blocks; 0 to %d",
            blocks, MOST_BLOCKS);
    if (!blocks) return TS_OK;
    size_t pass = (size_t)SLICE * (size_t)blocks;
    *o->run = 1;
    occupy<<<(unsigned)blocks, THREADS, 0, (cudaStream_t)cuda_stream>>>(o->memory, o->run,
                                                                        (bytes + pass - 1) / pass);
    return TS_CUDA_LAUNCHED("occupy");
}

void ts_occupant_stop(ts_occupant *o)
{
    if (o->run) *o->run = 0;
}
