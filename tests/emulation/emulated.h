/* emulated.h - CUDA C on the processor: what a .cu file needs to be compiled as C++ and run, a
 * thread of a block after the other, in the stream's order. For tests without a GPU: it shows what
 * a kernel computes, not how fast, nor races between blocks.
 *
 * The build replaces kernel<<<grid, block, shared, stream>>>(...) by EMULATED(...)(...). Threads of
 * a file with barriers are fibers, which change at __syncthreads and at warp shuffles. */
#ifndef TS_TESTS_EMULATED_H
#define TS_TESTS_EMULATED_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <vector_functions.h>

#include <functional>
#include <tuple>
#include <type_traits>

#undef __global__
#undef __device__
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define __grid_constant__

namespace emulated
{
extern thread_local uint3 thread_index, block_index;
extern thread_local dim3 grid_size, block_size;

void barrier(void);
/* The word that lane `lane` gave. */
uint64_t exchange(uint64_t word, int lane);
int lane(void);
int64_t clock_ns(void);

/* In the stream's order: `thread` once for each thread of each block. */
void enqueue(cudaStream_t stream, dim3 grid, dim3 block, bool barriers,
             std::function<void()> thread);

template <typename... P> struct launch {
    void (*kernel)(P...);
    dim3 grid, block;
    cudaStream_t stream;
    bool barriers;

    template <typename... A> void operator()(A &&...a) const
    {
        auto arguments = std::make_tuple(static_cast<std::decay_t<P>>(a)...);
        auto function = kernel;
        enqueue(stream, grid, block, barriers, [=]() { std::apply(function, arguments); });
    }
};

template <typename... P>
launch<P...> make_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t, cudaStream_t stream,
                         bool barriers)
{
    return {kernel, grid, block, stream, barriers};
}

template <typename T> T shuffle_xor(T value, int mask)
{
    uint64_t word = 0;
    static_assert(sizeof value <= sizeof word, "at most a word");
    memcpy(&word, &value, sizeof value);
    word = exchange(word, lane() ^ mask);
    memcpy(&value, &word, sizeof value);
    return value;
}
} // namespace emulated

#define EMULATED(kernel, grid, block, shared, stream)                                              \
    emulated::make_launch(kernel, grid, block, shared, stream, EMULATED_BARRIERS)
#define threadIdx emulated::thread_index
#define blockIdx emulated::block_index
#define gridDim emulated::grid_size
#define blockDim emulated::block_size
#define __syncthreads emulated::barrier
#define ts_cuda_now_ns emulated::clock_ns
#define __threadfence_system() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __shfl_xor_sync(mask, value, by) emulated::shuffle_xor(value, by)
#define __threadfence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
/* Fibers take turns. */
template <typename T> T atomicAdd(T *at, T value)
{
    T before = *at;
    *at += value;
    return before;
}

#endif
