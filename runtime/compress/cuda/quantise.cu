/* quantise.cu - QSGD and TernGrad on CUDA: a block of threads a chunk, a thread four elements,
 * whose random words are one Philox block. */
#include "runtime/compress/cuda/code.cuh"

/* For all threads: the largest of all their values. */
__device__ static uint32_t block_max(uint32_t value)
{
    __shared__ uint32_t lanes[THREADS];
    lanes[threadIdx.x] = value;
    for (uint32_t half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half && lanes[threadIdx.x + half] > lanes[threadIdx.x])
            lanes[threadIdx.x] = lanes[threadIdx.x + half];
    }
    __syncthreads();
    uint32_t most = lanes[0];
    __syncthreads();
    return most;
}

__device__ static uint32_t larger(uint32_t a, float x)
{
    uint32_t b = ts_code_magnitude(x);
    return a > b ? a : b;
}

__device__ static void put(uint8_t *to, uint32_t q, uint32_t word, int bits)
{
    if (bits == 8)
        ((uint32_t *)(void *)to)[q] = word;
    else if (bits == 4)
        ((uint16_t *)(void *)to)[q] = (uint16_t)word;
    else
        to[q] = (uint8_t)word;
}

__device__ static uint32_t get(const uint8_t *from, uint32_t q, int bits)
{
    return bits == 8   ? ((const uint32_t *)(const void *)from)[q]
           : bits == 4 ? ((const uint16_t *)(const void *)from)[q]
                       : from[q];
}

__device__ static float4 values(uint32_t word, float unit, int bits)
{
    uint32_t mask = (1u << bits) - 1;
    return make_float4(ts_code_value(word & mask, unit, bits),
                       ts_code_value(word >> bits & mask, unit, bits),
                       ts_code_value(word >> 2 * bits & mask, unit, bits),
                       ts_code_value(word >> 3 * bits & mask, unit, bits));
}

__device__ static void quantise_quad(const ts_code &c, const ts_chunk &k, uint32_t q, float4 p,
                                     ts_steps s)
{
    size_t at = k.at / QUAD + q;
    ts_random4 r =
        ts_code_random(c.of.seed, c.of.call, (uint32_t)c.of.rank, c.of.first / QUAD + at);
    uint32_t word = ts_code_quantise(p.x, s.scale, c.levels, c.bits, r.v[0]) |
                    ts_code_quantise(p.y, s.scale, c.levels, c.bits, r.v[1]) << c.bits |
                    ts_code_quantise(p.z, s.scale, c.levels, c.bits, r.v[2]) << 2 * c.bits |
                    ts_code_quantise(p.w, s.scale, c.levels, c.bits, r.v[3]) << 3 * c.bits;
    put(c.of.encoding + k.codes, q, word, c.bits);
    if (!c.of.feedback) return;
    float4 x = values(word, s.unit, c.bits);
    ((float4 *)c.of.residual)[at] = make_float4(p.x - x.x, p.y - x.y, p.z - x.z, p.w - x.w);
}

/* A chunk's elements are read twice, the second time from a cache, but for blocks that the threads
 * hold. */
__global__ static void __launch_bounds__(THREADS) qsgd_encode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    uint32_t most = 0, t = threadIdx.x, quads = k.n / QUAD;
    float4 mine = make_float4(0, 0, 0, 0);
    for (uint32_t q = t; q < quads; q += THREADS) {
        float4 p = take4(c, k.at / QUAD + q);
        most = larger(larger(larger(larger(most, p.x), p.y), p.z), p.w);
        if (q == t) mine = p;
    }
    float norm = ts_code_float(block_max(most));
    if (t == 0) *ts_code_floats(&c, 0, k.norm) = norm;
    ts_steps s = ts_code_steps(norm, c.levels);
    if (t < quads) quantise_quad(c, k, t, mine, s);
    for (uint32_t q = t + THREADS; q < quads; q += THREADS)
        quantise_quad(c, k, q, take4(c, k.at / QUAD + q), s);
}

/* Thread t adds up lane t of a chunk; the piece's last block the chunks, and finds the norm. */
__global__ static void __launch_bounds__(THREADS) terngrad_norm(const __grid_constant__ ts_code c)
{
    __shared__ float lanes[THREADS];
    __shared__ double wide[THREADS];
    ts_chunk k = c.chunks[blockIdx.x];
    ts_piece piece = c.pieces[k.piece];
    uint32_t *done = (uint32_t *)c.scratch;
    ts_found *list = (ts_found *)(void *)(done + c.n_pieces);
    uint32_t most = 0, t = threadIdx.x;
    float squares = 0;
    for (uint32_t q = t; q < k.n / QUAD; q += THREADS) {
        float4 p = take4(c, k.at / QUAD + q);
        squares = fmaf(p.x, p.x, squares);
        squares = fmaf(p.y, p.y, squares);
        squares = fmaf(p.z, p.z, squares);
        squares = fmaf(p.w, p.w, squares);
        most = larger(larger(larger(larger(most, p.x), p.y), p.z), p.w);
    }
    most = block_max(most);
    lanes[t] = squares;
    for (uint32_t half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) lanes[t] += lanes[t + half];
    }
    if (t == 0) {
        list[blockIdx.x].squares = lanes[0];
        list[blockIdx.x].largest = most;
    }
    if (!is_last(&done[k.piece], piece.n_chunks)) return;
    double sum = 0;
    most = 0;
    for (uint32_t i = t; i < piece.n_chunks; i += THREADS) {
        volatile const ts_found *f = &list[piece.chunk + i];
        sum += (double)f->squares;
        most = f->largest > most ? f->largest : most;
    }
    most = block_max(most);
    wide[t] = sum;
    for (uint32_t half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) wide[t] += wide[t + half];
    }
    if (t == 0) *ts_code_floats(&c, 0, piece.norm) = ts_code_clip(most, wide[0], piece.n);
}

__global__ static void __launch_bounds__(THREADS) terngrad_encode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    ts_steps s = ts_code_steps(*ts_code_floats(&c, 0, k.norm), c.levels);
    for (uint32_t q = threadIdx.x; q < k.n / QUAD; q += THREADS)
        quantise_quad(c, k, q, take4(c, k.at / QUAD + q), s);
}

__global__ static void __launch_bounds__(THREADS)
    quantised_decode(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    for (uint32_t q = threadIdx.x; q < k.n / QUAD; q += THREADS) {
        float4 sum = begin_sum4(c, k.at / QUAD + q);
#pragma unroll 1
        for (int r = 0; r < c.of.ranks; r++) {
            const uint8_t *codes = (const uint8_t *)ts_code_floats(&c, r, k.codes);
            float unit = ts_code_steps(*ts_code_floats(&c, r, k.norm), c.levels).unit;
            sum = add4(ts_code_weight(&c, r), values(get(codes, q, c.bits), unit, c.bits), sum);
        }
        end_sum4(c, k.at / QUAD + q, sum);
    }
}

ts_status ts_qsgd_encode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    qsgd_encode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("qsgd_encode");
}

ts_status ts_terngrad_encode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    terngrad_norm<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    terngrad_encode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("terngrad_encode");
}

ts_status ts_quantised_decode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    quantised_decode<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("quantised_decode");
}
