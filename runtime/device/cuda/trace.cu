/* trace.cu - the stamp kernel: one thread writes the GPU's %globaltimer into a ring in pinned
 * memory, also when a graph replays it; and how that clock lies to the host's. */
#include "runtime/base/clock.h"
#include "runtime/device/cuda/clock.cuh"
#include "runtime/device/cuda/cuda.h"
#include "runtime/device/trace_ring.h"

enum { TRIES = 9 };

__global__ static void stamp(ts_stamp_args a)
{
    ts_stamp_ring *ring = a.ring;
    uint64_t number = ring->written + 1;
    ts_stamp *s = &ring->stamps[number & ring->mask];
    s->holds = 0;
    __threadfence_system();
    s->time_ns = ts_cuda_now_ns();
    s->detail = a.detail;
    s->kind = a.kind;
    s->begins = a.begins;
    __threadfence_system();
    s->holds = number;
    __threadfence_system();
    ring->written = number;
}

ts_status ts_stamp_enqueue(const void *args, void *cuda_stream)
{
    stamp<<<1, 1, 0, (cudaStream_t)cuda_stream>>>(*(const ts_stamp_args *)args);
    return TS_CUDA_LAUNCHED("stamp");
}

__global__ static void read_clock(int64_t *to)
{
    *to = ts_cuda_now_ns();
}

/* Of several tries the one with the shortest way there and back; the reading lies half way. */
ts_status ts_cuda_clock_offset(int64_t *offset_ns_p)
{
    int64_t *reading = NULL, shortest = INT64_MAX;
    TS_CUDA_TRY(cudaHostAlloc((void **)&reading, sizeof *reading, cudaHostAllocPortable));
    ts_status status = TS_OK;
    for (int i = 0; i < TRIES && !status; i++) {
        int64_t before = ts_clock_ns();
        read_clock<<<1, 1, 0, cudaStreamPerThread>>>(reading);
        status =
            ts_cuda_check(cudaStreamSynchronize(cudaStreamPerThread), "reading the GPU's clock");
        int64_t way = ts_clock_ns() - before;
        if (status || way >= shortest) continue;
        shortest = way;
        *offset_ns_p = before + way / 2 - *reading;
    }
    (void)cudaFreeHost(reading);
    return status;
}
