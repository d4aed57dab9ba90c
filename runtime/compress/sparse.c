/* sparse.c - top-k, random-k and DGC: a few elements travel in fp32, the rest waits.
 *
 * top-k takes the k largest magnitudes of a piece, of equal ones those with the lowest index. The
 * digits of the k-th largest are found by counting, from the highest on, so the set is exact and
 * the same on host and CUDA.
 *
 * Random-k takes one element of each of k equal parts, at a place that all ranks draw alike: values
 * travel alone, are summed on their way, and lie in memory's order. Every element has the chance
 * k / n, as if k were drawn from all. Without feedback a value stands for its whole part, so that
 * the mean is right; with it, for itself.
 *
 * DGC (Lin, Han, Mao, Wang, Dally, ICLR 2018): u <- mu u + g ; v <- v + u ; the k largest of v
 * travel; u and v become 0 there (momentum correction, factor masking). The paper looks for its
 * threshold in a sample, because sorting is dear; counting is not, so here it is exact. It also
 * clips local gradients; here nothing is clipped. */
#include "runtime/compress/code.h"

/* What is to be encoded goes to the residual. */
static void take_piece(const ts_code *c, const ts_piece *piece)
{
    const ts_chunk *chunks = c->chunks + piece->chunk;
    for (uint32_t i = 0; i < piece->n_chunks; i++) {
        float p[TS_CHUNK_MAX];
        ts_code_take(c, chunks[i].at, chunks[i].n, p);
        memcpy(c->of.residual + chunks[i].at, p, chunks[i].n * sizeof *p);
    }
}

/* Element i has travelled. */
static void forget(const ts_code *c, uint32_t i)
{
    c->of.residual[i] = 0;
    if (c->of.velocity) c->of.velocity[i] = 0;
}

/* ---- top-k ---- */

/* The magnitude of the k-th largest, and how many of that magnitude are among the k. */
static uint32_t find_threshold(const float *p, uint32_t n, uint32_t k, uint32_t *ties_p)
{
    uint32_t before = 0, left = k;
    for (int digit = 0; digit < TS_DIGITS; digit++) {
        uint32_t bins[TS_BINS] = {0}, bin = TS_BINS - 1;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t m = ts_code_magnitude(p[i]);
            if (ts_digits_before(m, digit) == before) bins[ts_digit(m, digit)]++;
        }
        while (bins[bin] < left) left -= bins[bin--];
        before = before << (digit ? ts_digit_shift(digit - 1) - ts_digit_shift(digit) : 0) | bin;
    }
    *ties_p = left;
    return before;
}

static void topk_encode(const ts_code *c, const ts_piece *piece)
{
    const float *p = c->of.residual + piece->at;
    uint32_t ties, *index = ts_code_indices(c, 0) + piece->first;
    float *value = ts_code_values(c, 0) + piece->first;
    take_piece(c, piece);
    uint32_t threshold = find_threshold(p, piece->n, piece->k, &ties), found = 0;
    for (uint32_t i = 0; i < piece->n && found < piece->k; i++) {
        uint32_t m = ts_code_magnitude(p[i]);
        if (m < threshold || (m == threshold && !ties)) continue;
        ties -= m == threshold;
        index[found] = piece->at + i;
        value[found++] = p[i];
        forget(c, piece->at + i);
    }
}

static ts_status topk_encode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(dynamic)
    for (uint32_t i = 0; i < c->n_pieces; i++) topk_encode(c, &c->pieces[i]);
    return TS_OK;
}

static ts_status topk_decode_run(const void *args)
{
    const ts_code *c = args;
    float *restrict to = ts_code_target(c);
    for (int r = 0; r < c->of.ranks; r++) {
        const uint32_t *index = ts_code_indices(c, r);
        const float *value = ts_code_values(c, r);
        float weight = ts_code_weight(c, r);
        for (uint32_t e = 0; e < c->entries; e++)
            to[index[e]] = fmaf(weight, value[e], to[index[e]]);
    }
    return TS_OK;
}

/* ---- random-k ---- */

/* Elements of part j of the piece, from the first on, and which of them travels. */
typedef struct part {
    uint32_t size, index;
} part;

static part find_part(const ts_piece *piece, uint32_t j, const ts_random4 *random)
{
    uint32_t begin = ts_code_part(j, piece->k, piece->n);
    uint32_t size = ts_code_part(j + 1, piece->k, piece->n) - begin;
    return (part){size, piece->at + begin + ts_code_within(random->v[j % 4], size)};
}

static ts_random4 draw(const ts_code *c, const ts_piece *piece, uint32_t j)
{
    return ts_code_random(c->of.seed, c->of.call, TS_CODE_ALL_RANKS, piece->at + j / 4);
}

static ts_status randomk_encode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(dynamic)
    for (uint32_t i = 0; i < c->n_pieces; i++) {
        const ts_piece *piece = &c->pieces[i];
        float *value = ts_code_floats(c, 0, 0) + piece->first;
        ts_random4 random;
        take_piece(c, piece);
        for (uint32_t j = 0; j < piece->k; j++) {
            if (j % 4 == 0) random = draw(c, piece, j);
            part t = find_part(piece, j, &random);
            value[j] = c->of.residual[t.index] * (c->of.feedback ? 1.0f : (float)t.size);
            forget(c, t.index);
        }
    }
    return TS_OK;
}

static ts_status randomk_decode_run(const void *args)
{
    const ts_code *c = args;
    float *to = ts_code_target(c);
#pragma omp parallel for schedule(dynamic)
    for (uint32_t i = 0; i < c->n_pieces; i++) {
        const ts_piece *piece = &c->pieces[i];
        const float *value = ts_code_floats(c, 0, 0) + piece->first;
        ts_random4 random;
        for (uint32_t j = 0; j < piece->k; j++) {
            if (j % 4 == 0) random = draw(c, piece, j);
            part t = find_part(piece, j, &random);
            to[t.index] = fmaf(c->of.weight, value[j], to[t.index]);
        }
    }
    return TS_OK;
}

/* ---- tables ---- */

static ts_status sparse_format(const ts_compression *s, int entry, ts_format *format_p)
{
    TS_NEED(s->density > 0 && s->density <= 1, TS_EUSAGE,
            "%s: a density of %g; the share of elements that travels lies above 0 and at most at 1",
            s->name, s->density);
    *format_p = (ts_format){.chunk = TS_CHUNK_MAX, .entry = entry};
    return TS_OK;
}

static ts_status topk_format(const ts_compression *s, ts_format *format_p)
{
    return sparse_format(s, sizeof(uint32_t) + sizeof(float), format_p);
}

static ts_status randomk_format(const ts_compression *s, ts_format *format_p)
{
    return sparse_format(s, sizeof(float), format_p);
}

static ts_status dgc_format(const ts_compression *s, ts_format *format_p)
{
    TS_NEED(!s->feedback || strcmp(s->feedback, "no"), TS_EUSAGE,
            "dgc is error feedback with momentum; without it: --compress topk --error-feedback no");
    return topk_format(s, format_p);
}

static const ts_kernel topk_encode_kernel = {"topk_encode", topk_encode_run, ts_encode_accesses,
                                             ts_topk_encode_enqueue};
static const ts_kernel topk_decode_kernel = {"topk_decode", topk_decode_run, ts_decode_accesses,
                                             ts_topk_decode_enqueue};
static const ts_kernel randomk_encode_kernel = {"randomk_encode", randomk_encode_run,
                                                ts_encode_accesses, ts_randomk_encode_enqueue};
static const ts_kernel randomk_decode_kernel = {"randomk_decode", randomk_decode_run,
                                                ts_decode_accesses, ts_randomk_decode_enqueue};

const ts_compressor_ops ts_compressor_topk = {
    .name = "topk",
    .title = "top-k",
    .paper = "arXiv:1809.07599",
    .travels = "the k largest elements of each layer, with their places",
    .format = topk_format,
    .encode = &topk_encode_kernel,
    .decode = &topk_decode_kernel,
};

const ts_compressor_ops ts_compressor_randomk = {
    .name = "randomk",
    .title = "random-k",
    .paper = "arXiv:1809.07599",
    .travels = "k elements of each layer at random places, the same on all ranks",
    .reduces = TS_REDUCES_F32,
    .format = randomk_format,
    .encode = &randomk_encode_kernel,
    .decode = &randomk_decode_kernel,
};

const ts_compressor_ops ts_compressor_dgc = {
    .name = "dgc",
    .title = "DGC",
    .paper = "arXiv:1712.01887",
    .travels = "the k largest elements of each layer's momentum-corrected residual, with their "
               "places",
    .corrects_momentum = true,
    .format = dgc_format,
    .encode = &topk_encode_kernel,
    .decode = &topk_decode_kernel,
};
