/* code.h - what compressors' kernels share: their argument, per-element functions that host and
 * CUDA both call, and the CUDA launchers. For this room only.
 *
 * Products that are added are explicit fmafs or rounded (neither compiler may contract), and sums
 * have a fixed order, so host and CUDA give the same bits. */
#ifndef TS_COMPRESS_CODE_H
#define TS_COMPRESS_CODE_H

#include <math.h>

#include "runtime/compress/compressor.h"

enum { TS_CHUNK_MAX = 4096, TS_LANES = 256 /* partial sums of a chunk */ };

/* Stretches of a message as kernels see them: tables in device memory. */
typedef struct ts_piece {
    uint32_t at, n;
    uint32_t norm;     /* byte of the encoding where its norms begin */
    uint32_t k, first; /* elements that travel, and the number of the first of them */
    uint32_t chunk, n_chunks;
} ts_piece;
typedef struct ts_chunk {
    uint32_t piece, at, n;
    uint32_t codes, norm; /* bytes of the encoding: its codes or raw elements, its norm */
} ts_chunk;

/* The argument of every kernel here. */
typedef struct ts_code {
    ts_coding of;
    size_t n, bytes; /* elements of the message, bytes of an encoding */
    const ts_piece *pieces;
    const ts_chunk *chunks;
    uint32_t n_pieces, n_chunks, entries;
    uint32_t most_k; /* of a piece */
    int levels, bits;
    void *scratch;
    size_t scratch_bytes;
} ts_code;

/* ---- per element ---- */

/* One step of momentum; returns what it adds to the residual. */
TS_HD float ts_code_momentum(float g, float *velocity, float momentum, bool nesterov)
{
    if (nesterov) {
        *velocity = momentum * (*velocity + g);
        return *velocity + g;
    }
    *velocity = fmaf(momentum, *velocity, g);
    return *velocity;
}

TS_HD uint32_t ts_code_magnitude(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u & 0x7fffffffu;
}

TS_HD float ts_code_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Four elements' random words: of this rank's own, or the same on all ranks. */
TS_HD ts_random4 ts_code_random(uint64_t seed, uint64_t call, uint32_t rank, uint64_t quad)
{
    return ts_random(seed ^ 0x636f6d7072657373u, quad, call << 16 | rank);
}
enum { TS_CODE_ALL_RANKS = TS_COMPRESS_RANKS_MAX };

/* `levels` steps of `unit` reach the norm; scale = 1 / unit. A norm that is not finite leaves no
 * number finite; one so small that 1 / unit overflows counts as 0. */
typedef struct ts_steps {
    float unit, scale;
} ts_steps;
TS_HD ts_steps ts_code_steps(float norm, int levels)
{
    ts_steps s = {norm / (float)levels, (float)levels / norm};
    if (!(s.scale < INFINITY)) s.scale = 0;
    return s;
}

/* Sign and magnitude: |p| * scale rounded up or down at random, so that its mean stays; at most
 * `levels`. */
TS_HD uint32_t ts_code_quantise(float p, float scale, int levels, int bits, uint32_t word)
{
    float x = fabsf(p) * scale;
    if (!(x < (float)levels)) x = (float)levels;
    int level = (int)x;
    level += ts_random_unit(word) < x - (float)level;
    return (uint32_t)level | (uint32_t)(p < 0) << (bits - 1);
}

TS_HD float ts_code_value(uint32_t code, float unit, int bits)
{
    uint32_t sign = 1u << (bits - 1);
    float x = (float)(int)(code & (sign - 1)) * unit;
    return code & sign ? -x : x;
}

/* TernGrad's largest number: the largest there is or 2.5 root mean squares. */
TS_HD float ts_code_clip(uint32_t largest, double squares, uint32_t n)
{
    float most = ts_code_float(largest), clip = (float)(2.5 * sqrt(squares / (double)n));
    return clip < most ? clip : most;
}

/* Random-k takes one element of each of k parts of the piece; ends of part j of n elements. */
TS_HD uint32_t ts_code_part(uint32_t j, uint32_t k, uint32_t n)
{
    return (uint32_t)((uint64_t)j * n / k);
}
TS_HD uint32_t ts_code_within(uint32_t word, uint32_t size)
{
    return (uint32_t)((uint64_t)word * size >> 32);
}

/* ---- the encoding's parts ---- */

TS_HD float ts_code_weight(const ts_code *c, int rank)
{
    return c->of.weighted ? *(const float *)(const void *)(c->of.encoding +
                                                           (size_t)rank * c->of.stride + c->bytes)
                          : c->of.weight;
}
/* Of rank r's encoding, at a byte of it. */
TS_HD float *ts_code_floats(const ts_code *c, int rank, size_t at)
{
    return (float *)(void *)(c->of.encoding + (size_t)rank * c->of.stride + at);
}
/* Sparse encodings: all indices, then all values. */
TS_HD uint32_t *ts_code_indices(const ts_code *c, int rank)
{
    return (uint32_t *)(void *)ts_code_floats(c, rank, 0);
}
TS_HD float *ts_code_values(const ts_code *c, int rank)
{
    return ts_code_floats(c, rank, (size_t)c->entries * sizeof(uint32_t));
}
/* Where sparse encodings are added up. */
TS_HD float *ts_code_target(const ts_code *c)
{
    return c->of.anchor ? c->of.anchor : c->of.to;
}

/* ---- selection of the k largest: the bits of a magnitude in three digits ---- */

enum { TS_BINS = 2048, TS_DIGITS = 3 };
TS_HD int ts_digit_shift(int digit)
{
    return digit == 0 ? 20 : digit == 1 ? 9 : 0;
}
TS_HD uint32_t ts_digit(uint32_t magnitude, int digit)
{
    return magnitude >> ts_digit_shift(digit) & (TS_BINS - 1) >> (digit == 2 ? 2 : 0);
}
/* The digits before this one. */
TS_HD uint32_t ts_digits_before(uint32_t magnitude, int digit)
{
    return digit == 0 ? 0 : magnitude >> ts_digit_shift(digit - 1);
}

/* ---- CUDA's scratch memory: a table of pieces, a table of chunks ---- */

/* Magnitudes by digit, the digits of the k-th largest found so far, how many with these are still
 * to be taken, and how many blocks have come so far. */
typedef struct ts_selection {
    uint32_t bins[TS_BINS];
    uint32_t before, left, done, padding;
} ts_selection;
/* Elements of a chunk above the threshold and at it; then those of the piece's chunks before. */
typedef struct ts_counts {
    uint32_t above, at;
} ts_counts;
/* TernGrad's: a chunk's sum of squares and its largest magnitude; of a piece only a counter. */
typedef struct ts_found {
    float squares;
    uint32_t largest;
} ts_found;

/* ---- kernels ---- */

/* `p` <- what is to be encoded of [at, at + n): n <= TS_CHUNK_MAX. On the host. */
void ts_code_take(const ts_code *c, size_t at, size_t n, float *p);
/* The sum of a chunk begins at the anchor, or 0, and ends in `to` and the anchor. On the host. */
void ts_code_begin_sum(const ts_code *c, const ts_chunk *chunk, float *sum);
void ts_code_end_sum(const ts_code *c, const ts_chunk *chunk, const float *sum);
int ts_encode_accesses(const void *code, ts_access *list);
int ts_decode_accesses(const void *code, ts_access *list);
extern const ts_kernel ts_raw_encode, ts_raw_decode;
extern const ts_compressor_ops ts_compressor_bf16, ts_compressor_qsgd, ts_compressor_terngrad,
    ts_compressor_topk, ts_compressor_randomk, ts_compressor_dgc;

#ifdef __cplusplus
extern "C" {
#endif
ts_status ts_raw_encode_enqueue(const void *code, void *cuda_stream);
ts_status ts_raw_decode_enqueue(const void *code, void *cuda_stream);
ts_status ts_bf16_encode_enqueue(const void *code, void *cuda_stream);
ts_status ts_bf16_decode_enqueue(const void *code, void *cuda_stream);
ts_status ts_qsgd_encode_enqueue(const void *code, void *cuda_stream);
ts_status ts_terngrad_encode_enqueue(const void *code, void *cuda_stream);
ts_status ts_quantised_decode_enqueue(const void *code, void *cuda_stream);
ts_status ts_topk_encode_enqueue(const void *code, void *cuda_stream);
ts_status ts_topk_decode_enqueue(const void *code, void *cuda_stream);
ts_status ts_randomk_encode_enqueue(const void *code, void *cuda_stream);
ts_status ts_randomk_decode_enqueue(const void *code, void *cuda_stream);
#ifdef __cplusplus
}
#endif

#endif
