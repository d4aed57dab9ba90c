/* dense.cu - bf16 and raw on CUDA: a block a chunk, a thread four elements. Loops over ranks are
 * not unrolled: ptxas would spill. */
#include "runtime/compress/cuda/code.cuh"

#define FOR_QUADS(q, n) for (uint32_t q = threadIdx.x; q < (n) / QUAD; q += THREADS)

__global__ static void __launch_bounds__(THREADS) raw_encode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    float4 *to = (float4 *)ts_code_floats(&c, 0, k.codes);
    FOR_QUADS(q, k.n) to[q] = take4(c, k.at / QUAD + q);
}

__global__ static void __launch_bounds__(THREADS) raw_decode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    FOR_QUADS(q, k.n)
    {
        float4 sum = begin_sum4(c, k.at / QUAD + q);
#pragma unroll 1
        for (int r = 0; r < c.of.ranks; r++)
            sum = add4(ts_code_weight(&c, r), ((const float4 *)ts_code_floats(&c, r, k.codes))[q],
                       sum);
        end_sum4(c, k.at / QUAD + q, sum);
    }
}

__device__ static float4 widened(ushort4 h)
{
    return make_float4(ts_bf16_to_float(h.x), ts_bf16_to_float(h.y), ts_bf16_to_float(h.z),
                       ts_bf16_to_float(h.w));
}

__global__ static void __launch_bounds__(THREADS) bf16_encode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    ushort4 *to = (ushort4 *)(void *)ts_code_floats(&c, 0, k.codes);
    FOR_QUADS(q, k.n)
    {
        float4 p = take4(c, k.at / QUAD + q);
        ushort4 h = make_ushort4(ts_bf16_from_float(p.x), ts_bf16_from_float(p.y),
                                 ts_bf16_from_float(p.z), ts_bf16_from_float(p.w));
        to[q] = h;
        float4 x = widened(h);
        if (c.of.feedback)
            ((float4 *)c.of.residual)[k.at / QUAD + q] =
                make_float4(p.x - x.x, p.y - x.y, p.z - x.z, p.w - x.w);
    }
}

__global__ static void __launch_bounds__(THREADS) bf16_decode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    FOR_QUADS(q, k.n)
    {
        float4 sum = begin_sum4(c, k.at / QUAD + q);
#pragma unroll 1
        for (int r = 0; r < c.of.ranks; r++)
            sum = add4(ts_code_weight(&c, r),
                       widened(((const ushort4 *)(void *)ts_code_floats(&c, r, k.codes))[q]), sum);
        end_sum4(c, k.at / QUAD + q, sum);
    }
}

ts_status ts_raw_encode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    raw_encode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("raw_encode");
}

ts_status ts_raw_decode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    raw_decode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("raw_decode");
}

ts_status ts_bf16_encode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    bf16_encode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("bf16_encode");
}

ts_status ts_bf16_decode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    bf16_decode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("bf16_decode");
}
