/* dense.c - what every element of a message travels by: as bf16, or raw; and what all compressors'
 * kernels share on the host. Where bf16 is summed on its way, each sum is rounded again; error
 * feedback has the rounding of a rank's own elements, not those. */
#include "runtime/compress/code.h"

/* ---- shared ---- */

void ts_code_take(const ts_code *c, size_t at, size_t n, float *restrict p)
{
    const float *restrict from = c->of.from + at;
    memcpy(p, from, n * sizeof *p);
    if (c->of.anchor) {
        const float *restrict anchor = c->of.anchor + at;
        for (size_t i = 0; i < n; i++) p[i] -= anchor[i];
    }
    if (c->of.velocity) {
        float *restrict velocity = c->of.velocity + at;
        float momentum = c->of.momentum;
        if (c->of.nesterov)
            for (size_t i = 0; i < n; i++)
                p[i] = ts_code_momentum(p[i], &velocity[i], momentum, true);
        else
            for (size_t i = 0; i < n; i++)
                p[i] = ts_code_momentum(p[i], &velocity[i], momentum, false);
    }
    if (c->of.feedback) {
        const float *restrict residual = c->of.residual + at;
        for (size_t i = 0; i < n; i++) p[i] += residual[i];
    }
}

int ts_encode_accesses(const void *args, ts_access *list)
{
    const ts_code *c = args;
    size_t bytes = c->n * sizeof(float);
    int n = 0;
    list[n++] = (ts_access){c->of.from, bytes, false};
    list[n++] = (ts_access){c->of.encoding, c->bytes, true};
    list[n++] = (ts_access){c->scratch, c->scratch_bytes, true};
    if (c->of.anchor) list[n++] = (ts_access){c->of.anchor, bytes, false};
    if (c->of.residual) list[n++] = (ts_access){c->of.residual, bytes, true};
    if (c->of.velocity) list[n++] = (ts_access){c->of.velocity, bytes, true};
    return n;
}

int ts_decode_accesses(const void *args, ts_access *list)
{
    const ts_code *c = args;
    size_t bytes = c->n * sizeof(float), weight = c->of.weighted ? sizeof(float) : 0;
    int n = 0;
    list[n++] = (ts_access){c->of.encoding,
                            (size_t)(c->of.ranks - 1) * c->of.stride + c->bytes + weight, false};
    list[n++] = (ts_access){c->of.to, bytes, true};
    if (c->of.anchor) list[n++] = (ts_access){c->of.anchor, bytes, true};
    return n;
}

void ts_code_begin_sum(const ts_code *c, const ts_chunk *k, float *sum)
{
    if (c->of.anchor)
        memcpy(sum, c->of.anchor + k->at, k->n * sizeof *sum);
    else
        memset(sum, 0, k->n * sizeof *sum);
}

void ts_code_end_sum(const ts_code *c, const ts_chunk *k, const float *sum)
{
    memcpy(c->of.to + k->at, sum, k->n * sizeof *sum);
    if (c->of.anchor) memcpy(c->of.anchor + k->at, sum, k->n * sizeof *sum);
}

/* Inlined, with the type known. */
static inline ts_status decode(const ts_code *c, bool bf16)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < c->n_chunks; i++) {
        const ts_chunk *k = &c->chunks[i];
        float sum[TS_CHUNK_MAX];
        ts_code_begin_sum(c, k, sum);
        for (int r = 0; r < c->of.ranks; r++) {
            float weight = ts_code_weight(c, r);
            const float *raw = ts_code_floats(c, r, k->codes);
            const uint16_t *half = (const uint16_t *)(const void *)raw;
            for (uint32_t j = 0; j < k->n; j++)
                sum[j] = fmaf(weight, bf16 ? ts_bf16_to_float(half[j]) : raw[j], sum[j]);
        }
        ts_code_end_sum(c, k, sum);
    }
    return TS_OK;
}

/* ---- raw ---- */

static ts_status raw_encode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < c->n_chunks; i++) {
        const ts_chunk *k = &c->chunks[i];
        ts_code_take(c, k->at, k->n, ts_code_floats(c, 0, k->codes));
    }
    return TS_OK;
}

static ts_status raw_decode_run(const void *args)
{
    return decode(args, false);
}

const ts_kernel ts_raw_encode = {"raw_encode", raw_encode_run, ts_encode_accesses,
                                 ts_raw_encode_enqueue};
const ts_kernel ts_raw_decode = {"raw_decode", raw_decode_run, ts_decode_accesses,
                                 ts_raw_decode_enqueue};

/* ---- bf16 ---- */

static ts_status bf16_encode_run(const void *args)
{
    const ts_code *c = args;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < c->n_chunks; i++) {
        const ts_chunk *k = &c->chunks[i];
        float p[TS_CHUNK_MAX];
        uint16_t *restrict to = (uint16_t *)(void *)(c->of.encoding + k->codes);
        ts_code_take(c, k->at, k->n, p);
        for (uint32_t j = 0; j < k->n; j++) to[j] = ts_bf16_from_float(p[j]);
        if (!c->of.feedback) continue;
        float *restrict residual = c->of.residual + k->at;
        for (uint32_t j = 0; j < k->n; j++) residual[j] = p[j] - ts_bf16_to_float(to[j]);
    }
    return TS_OK;
}

static ts_status bf16_decode_run(const void *args)
{
    return decode(args, true);
}

static ts_status bf16_format(const ts_compression *settings, ts_format *format_p)
{
    (void)settings;
    *format_p = (ts_format){.chunk = TS_CHUNK_MAX, .bits = 16};
    return TS_OK;
}

static const ts_kernel bf16_encode = {"bf16_encode", bf16_encode_run, ts_encode_accesses,
                                      ts_bf16_encode_enqueue};
static const ts_kernel bf16_decode = {"bf16_decode", bf16_decode_run, ts_decode_accesses,
                                      ts_bf16_decode_enqueue};

const ts_compressor_ops ts_compressor_bf16 = {
    .name = "bf16",
    .title = "bf16",
    .paper = "none",
    .travels = "every element, rounded to bf16",
    .layerless = true,
    .reduces = TS_REDUCES_BF16,
    .format = bf16_format,
    .encode = &bf16_encode,
    .decode = &bf16_decode,
};
