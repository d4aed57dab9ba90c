/* vector.cu - the kernels of vector.h on CUDA: 16-byte accesses, one pass, the host's bits.
 *
 * A thread takes four elements at a time; a quad never crosses a block of TS_VECTOR_BLOCK, so it
 * has one answer to "does it decay". SGD's n is whole blocks; the others finish the last elements
 * one by one. */
#include "runtime/device/cuda/cuda.h"
#include "runtime/device/vector_element.h"
#include "runtime/device/vector_kernels.h"

enum { THREADS = 256, QUAD = 4 };

#define FOR_QUADS(q, n)                                                                            \
    for (size_t q = (size_t)blockIdx.x * THREADS + threadIdx.x; q < (n) / QUAD;                    \
         q += (size_t)gridDim.x * THREADS)

__device__ static ushort4 rounded(float4 x)
{
    return make_ushort4(ts_bf16_from_float(x.x), ts_bf16_from_float(x.y), ts_bf16_from_float(x.z),
                        ts_bf16_from_float(x.w));
}

__device__ static float updated(const ts_sgd &s, float x, float *m, float g, float rate,
                                float decay)
{
    return s.carried ? ts_sgd_carried_element(x, m, g, rate, s.momentum, decay, s.nesterov)
                     : ts_sgd_element(x, m, g, rate, s.momentum, decay, s.nesterov);
}

__global__ static void __launch_bounds__(THREADS) sgd(ts_sgd s)
{
    float rate = s.control->learning_rate;
    FOR_QUADS(q, s.n)
    {
        float4 x = ((const float4 *)s.x)[q], m = ((const float4 *)s.m)[q];
        float4 g = ((const float4 *)s.g)[q];
        bool decays = !s.decays || s.decays[q * QUAD / TS_VECTOR_BLOCK];
        float decay = decays ? s.weight_decay : 0.0f;
        x.x = updated(s, x.x, &m.x, g.x, rate, decay);
        x.y = updated(s, x.y, &m.y, g.y, rate, decay);
        x.z = updated(s, x.z, &m.z, g.z, rate, decay);
        x.w = updated(s, x.w, &m.w, g.w, rate, decay);
        ((float4 *)s.x)[q] = x;
        ((float4 *)s.m)[q] = m;
        if (s.shadow) ((ushort4 *)s.shadow)[q] = rounded(x);
    }
}

/* What the terms leave out is not read. */
__global__ static void __launch_bounds__(THREADS) merge(ts_merge k, int terms)
{
    FOR_QUADS(q, k.n)
    {
        float4 none = make_float4(0, 0, 0, 0), x = none, y = none, s = none;
        if (terms & TS_MERGE_X) x = ((const float4 *)k.x)[q];
        if (terms & TS_MERGE_AVERAGE) y = ((const float4 *)k.average)[q];
        if (terms & TS_MERGE_SNAPSHOT) s = ((const float4 *)k.snapshot)[q];
        x.x = ts_merge_element(terms, x.x, y.x, s.x, k.a, k.b, k.c);
        x.y = ts_merge_element(terms, x.y, y.y, s.y, k.a, k.b, k.c);
        x.z = ts_merge_element(terms, x.z, y.z, s.z, k.a, k.b, k.c);
        x.w = ts_merge_element(terms, x.w, y.w, s.w, k.a, k.b, k.c);
        ((float4 *)k.x)[q] = x;
        if (k.shadow) ((ushort4 *)k.shadow)[q] = rounded(x);
    }
    size_t rest = k.n / QUAD * QUAD + threadIdx.x;
    if (blockIdx.x || rest >= k.n) return;
    float x = ts_merge_element(terms, terms & TS_MERGE_X ? k.x[rest] : 0,
                               terms & TS_MERGE_AVERAGE ? k.average[rest] : 0,
                               terms & TS_MERGE_SNAPSHOT ? k.snapshot[rest] : 0, k.a, k.b, k.c);
    k.x[rest] = x;
    if (k.shadow) k.shadow[rest] = ts_bf16_from_float(x);
}

__device__ static float stepped(const ts_outer &k, float z, float *v, float average)
{
    return ts_outer_element(z, v, average, k.momentum, k.rate, k.change);
}

__global__ static void __launch_bounds__(THREADS) outer(ts_outer k)
{
    FOR_QUADS(q, k.n)
    {
        float4 z = ((const float4 *)k.z)[q], v = ((const float4 *)k.v)[q];
        float4 a = ((const float4 *)k.average)[q];
        z.x = stepped(k, z.x, &v.x, a.x);
        z.y = stepped(k, z.y, &v.y, a.y);
        z.z = stepped(k, z.z, &v.z, a.z);
        z.w = stepped(k, z.w, &v.w, a.w);
        ((float4 *)k.z)[q] = z;
        ((float4 *)k.v)[q] = v;
        ((float4 *)k.average)[q] = z;
    }
    size_t rest = k.n / QUAD * QUAD + threadIdx.x;
    if (blockIdx.x || rest >= k.n) return;
    k.average[rest] = k.z[rest] = stepped(k, k.z[rest], &k.v[rest], k.average[rest]);
}

__global__ static void __launch_bounds__(THREADS) to_bf16(ts_cast k)
{
    FOR_QUADS(q, k.n)((ushort4 *)k.narrow)[q] = rounded(((const float4 *)k.wide)[q]);
    size_t rest = k.n / QUAD * QUAD + threadIdx.x;
    if (blockIdx.x == 0 && rest < k.n) k.narrow[rest] = ts_bf16_from_float(k.wide[rest]);
}

__global__ static void __launch_bounds__(THREADS) from_bf16(ts_cast k)
{
    FOR_QUADS(q, k.n)
    {
        ushort4 h = ((const ushort4 *)k.narrow)[q];
        ((float4 *)k.wide)[q] = make_float4(ts_bf16_to_float(h.x), ts_bf16_to_float(h.y),
                                            ts_bf16_to_float(h.z), ts_bf16_to_float(h.w));
    }
    size_t rest = k.n / QUAD * QUAD + threadIdx.x;
    if (blockIdx.x == 0 && rest < k.n) k.wide[rest] = ts_bf16_to_float(k.narrow[rest]);
}

__global__ static void __launch_bounds__(THREADS) scale(ts_scale k)
{
    FOR_QUADS(q, k.n)
    {
        float4 x = ((const float4 *)k.x)[q];
        ((float4 *)k.x)[q] =
            make_float4(x.x * k.factor, x.y * k.factor, x.z * k.factor, x.w * k.factor);
    }
    size_t rest = k.n / QUAD * QUAD + threadIdx.x;
    if (blockIdx.x == 0 && rest < k.n) k.x[rest] *= k.factor;
}

#define BLOCKS(n) ts_cuda_blocks(n, (size_t)THREADS *QUAD)

ts_status ts_sgd_enqueue(const void *args, void *cuda_stream)
{
    const ts_sgd *k = (const ts_sgd *)args;
    sgd<<<BLOCKS(k->n), THREADS, 0, (cudaStream_t)cuda_stream>>>(*k);
    return TS_CUDA_LAUNCHED("sgd");
}

ts_status ts_merge_enqueue(const void *args, void *cuda_stream)
{
    const ts_merge *k = (const ts_merge *)args;
    merge<<<BLOCKS(k->n), THREADS, 0, (cudaStream_t)cuda_stream>>>(
        *k, ts_merge_terms(k->a, k->b, k->c));
    return TS_CUDA_LAUNCHED("merge");
}

ts_status ts_outer_enqueue(const void *args, void *cuda_stream)
{
    const ts_outer *k = (const ts_outer *)args;
    outer<<<BLOCKS(k->n), THREADS, 0, (cudaStream_t)cuda_stream>>>(*k);
    return TS_CUDA_LAUNCHED("outer");
}

ts_status ts_to_bf16_enqueue(const void *args, void *cuda_stream)
{
    const ts_cast *k = (const ts_cast *)args;
    to_bf16<<<BLOCKS(k->n), THREADS, 0, (cudaStream_t)cuda_stream>>>(*k);
    return TS_CUDA_LAUNCHED("to_bf16");
}

ts_status ts_from_bf16_enqueue(const void *args, void *cuda_stream)
{
    const ts_cast *k = (const ts_cast *)args;
    from_bf16<<<BLOCKS(k->n), THREADS, 0, (cudaStream_t)cuda_stream>>>(*k);
    return TS_CUDA_LAUNCHED("from_bf16");
}

ts_status ts_scale_enqueue(const void *args, void *cuda_stream)
{
    const ts_scale *k = (const ts_scale *)args;
    scale<<<BLOCKS(k->n), THREADS, 0, (cudaStream_t)cuda_stream>>>(*k);
    return TS_CUDA_LAUNCHED("scale");
}
