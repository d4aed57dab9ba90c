/* quantise.c - QSGD and TernGrad: an element becomes a sign and a whole number of steps, rounded up
 * or down at random so that its mean is right.
 *
 * QSGD (Alistarh, Grubic, Li, Tomioka, Vojnovic, NeurIPS 2017): s levels of a block's norm. The
 * norm here is the largest magnitude, not the L2 norm of the paper's analysis: a step is several
 * times smaller for the same bits, and a maximum has no order of summation. Codes have a fixed
 * width; there is no Elias coding.
 *
 * TernGrad (Wen et al., NeurIPS 2017): one level, one norm a layer, elements clipped to 2.5
 * standard deviations first, which biases the largest. The deviation is taken about 0, where
 * gradients' mean lies, so that a constant layer is not clipped away. Host and CUDA add up in the
 * same lanes and chunks, so the norms have the same bits. */
#include "runtime/compress/code.h"

/* ---- codes of four elements ---- */

/* Codes lie in the order of the elements, the first in the lowest bits. */
static void pack(const uint8_t *restrict codes, size_t n, int bits, uint8_t *restrict to)
{
    if (bits == 8) {
        memcpy(to, codes, n);
    } else if (bits == 4) {
        for (size_t i = 0; i < n / 2; i++) to[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
    } else {
        for (size_t i = 0; i < n / 4; i++)
            to[i] = (uint8_t)(codes[4 * i] | codes[4 * i + 1] << 2 | codes[4 * i + 2] << 4 |
                              codes[4 * i + 3] << 6);
    }
}

static void unpack(const uint8_t *restrict from, size_t n, int bits, uint8_t *restrict codes)
{
    if (bits == 8) {
        memcpy(codes, from, n);
    } else if (bits == 4) {
        for (size_t i = 0; i < n / 2; i++) {
            codes[2 * i] = from[i] & 15;
            codes[2 * i + 1] = from[i] >> 4;
        }
    } else {
        for (size_t i = 0; i < n / 4; i++)
            for (int j = 0; j < 4; j++) codes[4 * i + (size_t)j] = from[i] >> 2 * j & 3;
    }
}

/* Words of all elements of a chunk, in their order. */
static void draw(const ts_code *c, const ts_chunk *k, uint32_t *restrict words)
{
    uint64_t quad = (c->of.first + k->at) / 4;
    for (uint32_t q = 0; q < k->n / 4; q++) {
        ts_random4 r = ts_code_random(c->of.seed, c->of.call, (uint32_t)c->of.rank, quad + q);
        for (uint32_t j = 0; j < 4; j++) words[4 * q + j] = r.v[j];
    }
}

static void quantise_chunk(const ts_code *c, const ts_chunk *k, const float *restrict p, float norm)
{
    ts_steps s = ts_code_steps(norm, c->levels);
    uint32_t words[TS_CHUNK_MAX];
    uint8_t codes[TS_CHUNK_MAX];
    int levels = c->levels, bits = c->bits;
    draw(c, k, words);
    for (uint32_t i = 0; i < k->n; i++)
        codes[i] = (uint8_t)ts_code_quantise(p[i], s.scale, levels, bits, words[i]);
    pack(codes, k->n, bits, c->of.encoding + k->codes);
    if (!c->of.feedback) return;
    float *restrict residual = c->of.residual + k->at;
    for (uint32_t i = 0; i < k->n; i++) residual[i] = p[i] - ts_code_value(codes[i], s.unit, bits);
}

static uint32_t largest(const float *p, uint32_t n)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t m = ts_code_magnitude(p[i]);
        most = m > most ? m : most;
    }
    return most;
}

static ts_status decode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < c->n_chunks; i++) {
        const ts_chunk *k = &c->chunks[i];
        float sum[TS_CHUNK_MAX];
        uint8_t codes[TS_CHUNK_MAX];
        int bits = c->bits;
        ts_code_begin_sum(c, k, sum);
        for (int r = 0; r < c->of.ranks; r++) {
            float unit = ts_code_steps(*ts_code_floats(c, r, k->norm), c->levels).unit;
            float weight = ts_code_weight(c, r);
            unpack((const uint8_t *)ts_code_floats(c, r, k->codes), k->n, bits, codes);
            for (uint32_t j = 0; j < k->n; j++)
                sum[j] = fmaf(weight, ts_code_value(codes[j], unit, bits), sum[j]);
        }
        ts_code_end_sum(c, k, sum);
    }
    return TS_OK;
}

/* ---- QSGD ---- */

static ts_status qsgd_encode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < c->n_chunks; i++) {
        const ts_chunk *k = &c->chunks[i];
        float p[TS_CHUNK_MAX];
        ts_code_take(c, k->at, k->n, p);
        float norm = ts_code_float(largest(p, k->n));
        *ts_code_floats(c, 0, k->norm) = norm;
        quantise_chunk(c, k, p, norm);
    }
    return TS_OK;
}

static ts_status qsgd_format(const ts_compression *s, ts_format *format_p)
{
    TS_NEED(s->levels >= 1 && s->levels <= 127, TS_EUSAGE,
            "qsgd: %lld levels; 1 to 127 fit a code of 8 bits", (long long)s->levels);
    TS_NEED(s->block >= 64 && s->block <= TS_CHUNK_MAX && s->block % 64 == 0, TS_EUSAGE,
            "qsgd: blocks of %lld elements; give a multiple of 64 up to %d", (long long)s->block,
            TS_CHUNK_MAX);
    *format_p = (ts_format){.chunk = (uint32_t)s->block,
                            .bits = s->levels == 1   ? 2
                                    : s->levels <= 7 ? 4
                                                     : 8,
                            .levels = (int)s->levels,
                            .norm = TS_NORM_CHUNK};
    return TS_OK;
}

/* ---- TernGrad ---- */

/* Sums of squares of a chunk in TS_LANES lanes of four elements, then by halves. */
static float squares_of(const float *p, uint32_t n)
{
    float lanes[TS_LANES] = {0};
    for (uint32_t at = 0; at < n; at += 4 * TS_LANES) {
        uint32_t used = n - at < 4 * TS_LANES ? (n - at) / 4 : TS_LANES;
        for (uint32_t l = 0; l < used; l++) {
            const float *x = p + at + 4 * l;
            for (int j = 0; j < 4; j++) lanes[l] = fmaf(x[j], x[j], lanes[l]);
        }
    }
    for (uint32_t half = TS_LANES / 2; half; half /= 2)
        for (uint32_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

/* One piece: chunk i's sum goes to lane i % TS_LANES. */
static void terngrad_encode(const ts_code *c, const ts_piece *piece)
{
    const ts_chunk *chunks = c->chunks + piece->chunk;
    double lanes[TS_LANES] = {0};
    uint32_t most = 0;
    float p[TS_CHUNK_MAX];
    for (uint32_t i = 0; i < piece->n_chunks; i++) {
        ts_code_take(c, chunks[i].at, chunks[i].n, p);
        uint32_t m = largest(p, chunks[i].n);
        most = m > most ? m : most;
        lanes[i % TS_LANES] += (double)squares_of(p, chunks[i].n);
    }
    for (uint32_t half = TS_LANES / 2; half; half /= 2)
        for (uint32_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
    float norm = ts_code_clip(most, lanes[0], piece->n);
    *ts_code_floats(c, 0, piece->norm) = norm;
    for (uint32_t i = 0; i < piece->n_chunks; i++) {
        ts_code_take(c, chunks[i].at, chunks[i].n, p);
        quantise_chunk(c, &chunks[i], p, norm);
    }
}

static ts_status terngrad_encode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(dynamic)
    for (uint32_t i = 0; i < c->n_pieces; i++) terngrad_encode(c, &c->pieces[i]);
    return TS_OK;
}

static ts_status terngrad_format(const ts_compression *settings, ts_format *format_p)
{
    (void)settings;
    *format_p = (ts_format){.chunk = TS_CHUNK_MAX, .bits = 2, .levels = 1, .norm = TS_NORM_PIECE};
    return TS_OK;
}

static const ts_kernel qsgd_encode = {"qsgd_encode", qsgd_encode_run, ts_encode_accesses,
                                      ts_qsgd_encode_enqueue};
static const ts_kernel terngrad_encode_kernel = {"terngrad_encode", terngrad_encode_run,
                                                 ts_encode_accesses, ts_terngrad_encode_enqueue};
static const ts_kernel quantised_decode = {"quantised_decode", decode_run, ts_decode_accesses,
                                           ts_quantised_decode_enqueue};

const ts_compressor_ops ts_compressor_qsgd = {
    .name = "qsgd",
    .title = "QSGD",
    .paper = "arXiv:1610.02132",
    .travels = "a sign and one of s levels for each element, a norm for each block",
    .unbiased = true,
    .scatters = true,
    .format = qsgd_format,
    .encode = &qsgd_encode,
    .decode = &quantised_decode,
};

const ts_compressor_ops ts_compressor_terngrad = {
    .name = "terngrad",
    .title = "TernGrad",
    .paper = "arXiv:1705.07878",
    .travels = "a sign or 0 for each element, a norm for each layer",
    .unbiased = true,
    .format = terngrad_format,
    .encode = &terngrad_encode_kernel,
    .decode = &quantised_decode,
};
