/* sparse.cu - top-k, DGC and random-k on CUDA.
 *
 * The selection of sparse.c in five kernels, a block a chunk: three count the digits of magnitudes,
 * a fourth what each chunk has above the threshold and at it, the fifth writes, in the order of the
 * elements. Counts are whole numbers, so the order of the blocks never shows. The last block of a
 * piece goes on with the counts, so the host is not asked. */
#include "runtime/compress/cuda/code.cuh"

enum { EACH = TS_CHUNK_MAX / THREADS /* elements of a thread where their order matters */ };

__device__ static ts_selection *selection_of(const ts_code &c, uint32_t piece)
{
    return (ts_selection *)c.scratch + piece;
}

__device__ static ts_counts *counts_of(const ts_code &c)
{
    return (ts_counts *)(void *)((ts_selection *)c.scratch + c.n_pieces);
}

/* ---- the threshold ---- */

__device__ static void count_digit(uint32_t *bins, float x, uint32_t before, int digit)
{
    uint32_t m = ts_code_magnitude(x);
    if (ts_digits_before(m, digit) == before) atomicAdd(&bins[ts_digit(m, digit)], 1u);
}

/* The bin that holds the k-th largest: thread t has the t-th highest TS_BINS / THREADS of them. */
__device__ static void pick(ts_selection *s, uint32_t left, uint32_t before, int digit)
{
    const uint32_t each = TS_BINS / THREADS;
    uint32_t high = TS_BINS - 1 - threadIdx.x * each, sum = 0, all;
    volatile uint32_t *bins = s->bins;
    for (uint32_t i = 0; i < each; i++) sum += bins[high - i];
    uint32_t above = scan(sum, &all);
    if (above < left && left <= above + sum) {
        uint32_t bin = high;
        while (above + bins[bin] < left) above += bins[bin--];
        s->before = before << (digit ? ts_digit_shift(digit - 1) - ts_digit_shift(digit) : 0) | bin;
        s->left = left - above;
    }
    __syncthreads();
    for (uint32_t i = 0; i < each; i++) s->bins[high - i] = 0;
}

__global__ static void __launch_bounds__(THREADS)
    count_digits(const __grid_constant__ ts_code c, int digit)
{
    __shared__ uint32_t bins[TS_BINS];
    ts_chunk k = c.chunks[blockIdx.x];
    ts_piece piece = c.pieces[k.piece];
    ts_selection *s = selection_of(c, k.piece);
    uint32_t before = digit ? s->before : 0, left = digit ? s->left : piece.k;
    for (uint32_t i = threadIdx.x; i < TS_BINS; i += THREADS) bins[i] = 0;
    __syncthreads();
    for (uint32_t q = threadIdx.x; q < k.n / QUAD; q += THREADS) {
        float4 *p = (float4 *)c.of.residual + k.at / QUAD + q;
        float4 x = digit ? *p : take4(c, k.at / QUAD + q);
        if (!digit) *p = x;
        count_digit(bins, x.x, before, digit);
        count_digit(bins, x.y, before, digit);
        count_digit(bins, x.z, before, digit);
        count_digit(bins, x.w, before, digit);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < TS_BINS; i += THREADS)
        if (bins[i]) atomicAdd(&s->bins[i], bins[i]);
    if (is_last(&s->done, piece.n_chunks)) pick(s, left, before, digit);
}

/* ---- the set ---- */

__device__ static void count_one(ts_counts *n, float x, uint32_t threshold)
{
    uint32_t m = ts_code_magnitude(x);
    n->above += m > threshold;
    n->at += m == threshold;
}

/* This thread's elements of the chunk above the threshold, and at it. */
__device__ static ts_counts count_own(const ts_code &c, const ts_chunk &k, uint32_t threshold)
{
    ts_counts n = {0, 0};
    if (threadIdx.x * EACH >= k.n) return n;
    const float4 *p = (const float4 *)(c.of.residual + k.at) + threadIdx.x * (EACH / QUAD);
    for (uint32_t q = 0; q < EACH / QUAD; q++) {
        float4 x = p[q];
        count_one(&n, x.x, threshold);
        count_one(&n, x.y, threshold);
        count_one(&n, x.z, threshold);
        count_one(&n, x.w, threshold);
    }
    return n;
}

/* The last block turns the piece's counts into those of the chunks before each. */
__global__ static void __launch_bounds__(THREADS) count_chunks(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    ts_piece piece = c.pieces[k.piece];
    ts_selection *s = selection_of(c, k.piece);
    ts_counts own = count_own(c, k, s->before), all, before = {0, 0};
    scan(own.above, &all.above);
    scan(own.at, &all.at);
    if (threadIdx.x == 0) counts_of(c)[blockIdx.x] = all;
    if (!is_last(&s->done, piece.n_chunks)) return;
    for (uint32_t i = 0; i < piece.n_chunks; i += THREADS) {
        bool mine = i + threadIdx.x < piece.n_chunks;
        volatile ts_counts *n = counts_of(c) + piece.chunk + i + threadIdx.x;
        uint32_t above = scan(mine ? n->above : 0, &all.above);
        uint32_t at = scan(mine ? n->at : 0, &all.at);
        if (mine) {
            n->above = before.above + above;
            n->at = before.at + at;
        }
        before.above += all.above;
        before.at += all.at;
    }
}

__device__ static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

__global__ static void __launch_bounds__(THREADS) write_largest(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    ts_piece piece = c.pieces[k.piece];
    const ts_selection *s = selection_of(c, k.piece);
    uint32_t threshold = s->before, ties = s->left, all;
    ts_counts own = count_own(c, k, threshold), n = counts_of(c)[blockIdx.x];
    n.above += scan(own.above, &all);
    n.at += scan(own.at, &all);
    for (uint32_t i = threadIdx.x * EACH; i < (threadIdx.x + 1) * EACH && i < k.n; i++) {
        float x = c.of.residual[k.at + i];
        uint32_t m = ts_code_magnitude(x), entry = piece.first + n.above + smaller(n.at, ties);
        bool goes = m > threshold || (m == threshold && n.at < ties);
        n.above += m > threshold;
        n.at += m == threshold;
        if (!goes) continue;
        ts_code_indices(&c, 0)[entry] = k.at + i;
        ts_code_values(&c, 0)[entry] = x;
        c.of.residual[k.at + i] = 0;
        if (c.of.velocity) c.of.velocity[k.at + i] = 0;
    }
}

/* An encoding's indices differ from each other, so one rank's elements may be added in any order.
 */
__global__ static void __launch_bounds__(THREADS)
    topk_decode(const __grid_constant__ ts_code c, int rank)
{
    uint32_t e = blockIdx.x * THREADS + threadIdx.x;
    if (e >= c.entries) return;
    float *to = ts_code_target(&c) + ts_code_indices(&c, rank)[e];
    *to = fmaf(ts_code_weight(&c, rank), ts_code_values(&c, rank)[e], *to);
}

/* ---- random-k ---- */

__global__ static void __launch_bounds__(THREADS) take_all(const __grid_constant__ ts_code c)
{
    ts_chunk k = c.chunks[blockIdx.x];
    for (uint32_t q = threadIdx.x; q < k.n / QUAD; q += THREADS)
        ((float4 *)c.of.residual)[k.at / QUAD + q] = take4(c, k.at / QUAD + q);
}

/* The element of part j of the piece; *size_p: the elements of the part. */
__device__ static uint32_t element_of(const ts_code &c, const ts_piece &piece, uint32_t j,
                                      uint32_t *size_p)
{
    ts_random4 r =
        ts_code_random(c.of.seed, c.of.call, TS_CODE_ALL_RANKS, (uint64_t)piece.at + j / QUAD);
    uint32_t begin = ts_code_part(j, piece.k, piece.n);
    uint32_t word = j & 2 ? (j & 1 ? r.v[3] : r.v[2]) : (j & 1 ? r.v[1] : r.v[0]);
    *size_p = ts_code_part(j + 1, piece.k, piece.n) - begin;
    return piece.at + begin + ts_code_within(word, *size_p);
}

__global__ static void __launch_bounds__(THREADS) randomk_encode(const __grid_constant__ ts_code c)
{
    ts_piece piece = c.pieces[blockIdx.y];
    uint32_t j = blockIdx.x * THREADS + threadIdx.x, size;
    if (j >= piece.k) return;
    uint32_t i = element_of(c, piece, j, &size);
    ts_code_floats(&c, 0, 0)[piece.first + j] =
        c.of.residual[i] * (c.of.feedback ? 1.0f : (float)size);
    c.of.residual[i] = 0;
    if (c.of.velocity) c.of.velocity[i] = 0;
}

__global__ static void __launch_bounds__(THREADS) randomk_decode(const __grid_constant__ ts_code c)
{
    ts_piece piece = c.pieces[blockIdx.y];
    uint32_t j = blockIdx.x * THREADS + threadIdx.x, size;
    if (j >= piece.k) return;
    float *to = ts_code_target(&c) + element_of(c, piece, j, &size);
    *to = fmaf(c.of.weight, ts_code_floats(&c, 0, 0)[piece.first + j], *to);
}

/* ---- launchers ---- */

static unsigned blocks_for(uint32_t n)
{
    return (n + THREADS - 1) / THREADS;
}

ts_status ts_topk_encode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    cudaStream_t stream = (cudaStream_t)cuda_stream;
    for (int digit = 0; digit < TS_DIGITS; digit++)
        count_digits<<<c->n_chunks, THREADS, 0, stream>>>(*c, digit);
    count_chunks<<<c->n_chunks, THREADS, 0, stream>>>(*c);
    write_largest<<<c->n_chunks, THREADS, 0, stream>>>(*c);
    return TS_CUDA_LAUNCHED("write_largest");
}

ts_status ts_topk_decode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    for (int r = 0; r < c->of.ranks; r++)
        topk_decode<<<blocks_for(c->entries), THREADS, 0, (cudaStream_t)cuda_stream>>>(*c, r);
    return TS_CUDA_LAUNCHED("topk_decode");
}

ts_status ts_randomk_encode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    dim3 grid(blocks_for(c->most_k), c->n_pieces);
    take_all<<<c->n_chunks, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    randomk_encode<<<grid, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("randomk_encode");
}

ts_status ts_randomk_decode_enqueue(const void *args, void *cuda_stream)
{
    const ts_code *c = (const ts_code *)args;
    dim3 grid(blocks_for(c->most_k), c->n_pieces);
    randomk_decode<<<grid, THREADS, 0, (cudaStream_t)cuda_stream>>>(*c);
    return TS_CUDA_LAUNCHED("randomk_decode");
}
