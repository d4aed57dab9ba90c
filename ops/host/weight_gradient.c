/* weight_gradient.c - see weight_gradient.h.
 *
 * A bf16 dot product takes pairs along the sum; here a pair is the same pixel of two pictures, so
 * a tap's shift, stride and border move whole pairs and no tap multiplies padding. A task is up to
 * 64 inputs x 32 outputs that one thread sums over all pictures, in an order that does not depend
 * on the threads. It works in chunks of pictures or rows that stay in its core's cache: pairs are
 * made once a chunk, then every tap runs over them with 8 x 32 sums in registers.
 * oneDNN 2.6 takes 1.1 (64 channels, 32x32) to 2.2 times (512 channels, 4x4) as long. */
#include "ops/host/weight_gradient.h"

#include <omp.h>

#include "ops/host/host_op.h"

enum { B = 16, IN_TILE = 8, IN_BLOCKS = 4, CHUNK_BYTES = 256 * 1024, PIXEL_BYTES = B * 4 };

/* A chunk: `pairs` of pictures from `pair`, outputs' rows [first, last), inputs' rows [top, ..). */
typedef struct chunk {
    int pairs, first, last, top;
    size_t x_pixels, y_pixels; /* of one pair */
    const uint32_t *x, *dy[2];
} chunk;

/* [first, last); of outputs in one direction: the input is at y * stride + shift. */
typedef struct range {
    int first, last, shift;
} range;

/* Those of outputs [first, last) whose input is not padding. */
static range valid(const ts_op_desc *d, int tap, int ins, int first, int last)
{
    int shift = tap - d->padding;
    int least = shift < 0 ? (-shift + d->stride - 1) / d->stride : 0;
    int end = ins - 1 < shift ? 0 : (ins - 1 - shift) / d->stride + 1;
    return (range){first > least ? first : least, last < end ? last : end, shift};
}

/* How many pairs of pictures a chunk takes; where not even one fits, how many rows of one. */
static void chunk_size(const ts_op_desc *d, int *pairs, int *rows)
{
    int all = (d->in.n + 1) / 2;
    size_t row = (size_t)(d->stride * d->in.w + 2 * d->out.w) * PIXEL_BYTES;
    size_t pair = (size_t)(d->in.h * d->in.w + 2 * d->out.h * d->out.w) * PIXEL_BYTES;
    bool whole = pair <= CHUNK_BYTES;
    *pairs = whole ? (int)(CHUNK_BYTES / pair) : 1;
    *rows = whole ? d->out.h : (int)(CHUNK_BYTES / row);
    if (*pairs > all) *pairs = all;
    if (*rows < 1) *rows = 1;
    if (*rows > d->out.h) *rows = d->out.h;
}

static size_t chunk_bytes(const ts_op_desc *d)
{
    int pairs, rows;
    chunk_size(d, &pairs, &rows);
    int tops = (rows - 1) * d->stride + d->kernel;
    if (tops > d->in.h) tops = d->in.h;
    return (size_t)pairs * PIXEL_BYTES *
           ((size_t)tops * (size_t)d->in.w + 2 * (size_t)rows * (size_t)d->out.w);
}

size_t ts_weight_gradient_scratch(const ts_op_desc *desc)
{
    return (size_t)ts_host_threads() * chunk_bytes(desc);
}

#if defined(__x86_64__)
#include <immintrin.h>

#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

bool ts_weight_gradient_serves(const ts_op_desc *d, const ts_md *order)
{
    const int64_t dims[] = {d->out.c, d->in.c, d->kernel, d->kernel};
    return d->type == TS_BF16 && d->kernel > 1 && d->in.c % B == 0 && d->out.c % (2 * B) == 0 &&
           d->in_layout == TS_NCHW16C && d->layout == TS_NCHW16C && ts_dnnl_bf16_without_tiles() &&
           ts_md_has_tag(order, 4, dims, TS_F32, dnnl_OIhw16i16o);
}

/* A pixel's 16 channels of picture a beside those of picture b; b NULL: zeros. */
BF16 static void make_pairs(const uint16_t *a, const uint16_t *b, uint32_t *to, size_t pixels)
{
    for (size_t p = 0; p < pixels * B; p += B) {
        __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)(a + p)));
        __m512i high = _mm512_setzero_si512();
        if (b) high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)(b + p)));
        _mm512_storeu_si512(to + p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* One tap: 8 inputs, from channel `lane` of the block on, by 2 blocks of 16 outputs. */
BF16 static void add_tap(const ts_op_desc *d, const chunk *c, int lane, range ys, range xs,
                         bool first, float *dw0, float *dw1)
{
    __m512 sum0[IN_TILE], sum1[IN_TILE];
    size_t step = (size_t)d->stride * B;
    for (int i = 0; i < IN_TILE; i++) {
        sum0[i] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(dw0 + i * B);
        sum1[i] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(dw1 + i * B);
    }
    for (int p = 0; p < c->pairs; p++)
        for (int y = ys.first; y < ys.last; y++) {
            int row = y * d->stride + ys.shift - c->top, column = xs.first * d->stride + xs.shift;
            const uint32_t *x =
                c->x + lane +
                ((size_t)p * c->x_pixels + (size_t)row * (size_t)d->in.w + (size_t)column) * B;
            size_t at = ((size_t)p * c->y_pixels + (size_t)(y - c->first) * (size_t)d->out.w +
                         (size_t)xs.first) *
                        B;
            const uint32_t *dy0 = c->dy[0] + at, *dy1 = c->dy[1] + at;
            for (int i = xs.first; i < xs.last; i++, x += step, dy0 += B, dy1 += B) {
                __m512bh g0 = (__m512bh)_mm512_loadu_si512(dy0);
                __m512bh g1 = (__m512bh)_mm512_loadu_si512(dy1);
#pragma GCC unroll 8
                for (int j = 0; j < IN_TILE; j++) {
                    __m512bh v = (__m512bh)_mm512_set1_epi32((int)x[j]);
                    sum0[j] = _mm512_dpbf16_ps(sum0[j], g0, v);
                    sum1[j] = _mm512_dpbf16_ps(sum1[j], g1, v);
                }
            }
        }
    for (int i = 0; i < IN_TILE; i++) {
        _mm512_storeu_ps(dw0 + i * B, sum0[i]);
        _mm512_storeu_ps(dw1 + i * B, sum1[i]);
    }
}

/* What one thread works on. */
typedef struct task {
    const uint16_t *x, *dy; /* its first blocks of the first picture */
    float *dw[2];
    int blocks; /* of 16 inputs */
    range taps; /* rows of the kernel */
    uint32_t *buffer;
} task;

/* The pairs of a chunk's rows [first, first + pixels / w) of one block; returns where they end. */
static uint32_t *fill(const ts_op_desc *d, ts_shape s, const uint16_t *block, int first,
                      size_t pixels, int pair, int pairs, uint32_t *to)
{
    size_t picture = (size_t)s.c * (size_t)s.h * (size_t)s.w;
    const uint16_t *from = block + (size_t)first * (size_t)s.w * B;
    for (int p = pair; p < pair + pairs; p++, to += pixels * B) {
        const uint16_t *a = from + 2 * (size_t)p * picture;
        make_pairs(a, 2 * p + 1 < d->in.n ? a + picture : NULL, to, pixels);
    }
    return to;
}

static void add_chunk(const ts_op_desc *d, const chunk *c, range taps, bool first, float *dw0,
                      float *dw1)
{
    for (int r = taps.first; r < taps.last; r++)
        for (int s = 0; s < d->kernel; s++) {
            range ys = valid(d, r, d->in.h, c->first, c->last);
            range xs = valid(d, s, d->in.w, 0, d->out.w);
            for (int lane = 0; lane < B; lane += IN_TILE) {
                size_t at = (size_t)((r * d->kernel + s) * B + lane) * B;
                add_tap(d, c, lane, ys, xs, first, dw0 + at, dw1 + at);
            }
        }
}

static size_t block_elements(ts_shape s)
{
    return (size_t)s.h * (size_t)s.w * B;
}

static void run_chunk(const ts_op_desc *d, const task *t, chunk *c, int pair, bool first)
{
    size_t block = (size_t)(d->kernel * d->kernel) * B * B;
    uint32_t *end = t->buffer;
    for (int half = 0; half < 2; half++) {
        c->dy[half] = end;
        end = fill(d, d->out, t->dy + (size_t)half * block_elements(d->out), c->first, c->y_pixels,
                   pair, c->pairs, end);
    }
    c->x = end;
    for (size_t i = 0; i < (size_t)t->blocks; i++) {
        fill(d, d->in, t->x + i * block_elements(d->in), c->top, c->x_pixels, pair, c->pairs, end);
        add_chunk(d, c, t->taps, first, t->dw[0] + i * block, t->dw[1] + i * block);
    }
}

static void run_task(const ts_op_desc *d, const task *t)
{
    int pairs, rows, all = (d->in.n + 1) / 2;
    chunk_size(d, &pairs, &rows);
    for (int pair = 0; pair < all; pair += pairs)
        for (int row = 0; row < d->out.h; row += rows) {
            chunk c = {.pairs = all - pair < pairs ? all - pair : pairs,
                       .first = row,
                       .last = d->out.h - row < rows ? d->out.h : row + rows};
            int top = row * d->stride - d->padding;
            int bottom = (c.last - 1) * d->stride - d->padding + d->kernel;
            if (bottom > d->in.h) bottom = d->in.h;
            c.top = top > 0 ? top : 0;
            c.x_pixels = (size_t)(bottom - c.top) * (size_t)d->in.w;
            c.y_pixels = (size_t)(c.last - c.first) * (size_t)d->out.w;
            run_chunk(d, t, &c, pair, pair == 0 && row == 0);
        }
}

void ts_weight_gradient_run(const ts_op_desc *d, const uint16_t *x, const uint16_t *dy, float *dw,
                            void *scratch)
{
    int ins = d->in.c / B, outs = d->out.c / B, threads = ts_host_threads();
    size_t block = (size_t)(d->kernel * d->kernel) * B * B, bytes = chunk_bytes(d);
    /* large tasks make fewer pairs; with few blocks for many threads a row of taps is a task */
    int blocks = ins < IN_BLOCKS ? ins : IN_BLOCKS;
    while (blocks > 1 && outs / 2 * (ins / blocks) < threads) blocks /= 2;
    int rows = outs / 2 * ins < threads ? 1 : d->kernel;
#pragma omp parallel for collapse(3) schedule(static) num_threads(ts_host_threads())
    for (int o = 0; o < outs; o += 2)
        for (int i = 0; i < ins; i += blocks)
            for (int r = 0; r < d->kernel; r += rows) {
                size_t at = (size_t)(o * ins + i), below = (size_t)((o + 1) * ins + i);
                char *buffer = (char *)scratch + (size_t)omp_get_thread_num() * bytes;
                task t = {x + (size_t)i * block_elements(d->in),
                          dy + (size_t)o * block_elements(d->out),
                          {dw + at * block, dw + below * block},
                          ins - i < blocks ? ins - i : blocks,
                          {r, r + rows, 0},
                          (uint32_t *)(void *)buffer};
                run_task(d, &t);
            }
}

#else /* no such processor */

bool ts_weight_gradient_serves(const ts_op_desc *desc, const ts_md *order)
{
    (void)desc;
    (void)order;
    return false;
}

void ts_weight_gradient_run(const ts_op_desc *desc, const uint16_t *x, const uint16_t *dy,
                            float *dw, void *scratch)
{
    (void)desc;
    (void)x;
    (void)dy;
    (void)dw;
    (void)scratch;
}

#endif
