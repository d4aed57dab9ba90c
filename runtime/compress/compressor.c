/* compressor.c - compressors by name, their options, and the tables that say where the parts of a
 * message lie in its encoding:
 *     quantised   for each piece: its norms, its codes
 *     sparse      all indices (where ranks choose their own), all values
 *     raw         behind either, in fp32
 * Parts begin on 16 bytes. */
#include "runtime/compress/compressor.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compress/code.h"

enum { ALIGN = 16, UNIT = 64 };
#define MOST_ELEMENTS ((size_t)1 << 28) /* so that bytes of an encoding fit 32 bits */

const ts_compressor_ops *const ts_compressors[] = {&ts_compressor_bf16,
                                                   &ts_compressor_qsgd,
                                                   &ts_compressor_terngrad,
                                                   &ts_compressor_topk,
                                                   &ts_compressor_randomk,
                                                   &ts_compressor_dgc,
                                                   NULL};

#define AT(field) offsetof(ts_compression, field)

const ts_option ts_compression_options[] = {
    {"compress", TS_OPTION_CHOICE, AT(name), "none", "none|bf16|qsgd|terngrad|topk|randomk|dgc", 0,
     0,
     "what travels in place of fp32: gradients (ssgd, pipe, od), changes since the last average "
     "(local, cocod, dasgd, overlap-local); dgc is for gradients alone"},
    {"levels", TS_OPTION_INT, AT(levels), "7", NULL, 1, 127,
     "steps from 0 to a block's largest element, in codes of 2 bits (1), 4 (to 7) or 8", "qsgd"},
    {"block", TS_OPTION_INT, AT(block), "512", NULL, UNIT, TS_CHUNK_MAX,
     "elements that share a norm, a multiple of 64", "qsgd"},
    {"density", TS_OPTION_REAL, AT(density), "0.01", NULL, 1e-6, 1,
     "share of the elements that travels", "topk|randomk|dgc"},
    {"density-warmup", TS_OPTION_REAL, AT(density_warmup), "5", NULL, 0, 1000,
     "epochs in which the density comes down to its value, in five stages; may be 0.5", "dgc"},
    {"error-feedback", TS_OPTION_CHOICE, AT(feedback), "auto", "auto|yes|no", 0, 0,
     "add what an encoding left out to the next one; auto: unless the compressor is unbiased, or "
     "an average with momentum is merged into a model of which a part is kept (overlap-local, "
     "dasgd with slow-momentum)",
     "bf16|qsgd|terngrad|topk|randomk|dgc"},
    {"scope", TS_OPTION_CHOICE, AT(scope), "layer", "layer|global", 0, 0,
     "encode each layer's weights apart, and biases and batch norm as fp32; or all as one vector",
     "bf16|qsgd|terngrad|topk|randomk|dgc"},
    {0}};

static bool is(const char *text, const char *word)
{
    return text && !strcmp(text, word);
}

ts_status ts_compressor_find(const ts_compression *settings, const ts_compressor_ops **ops_p)
{
    ts_format format;
    *ops_p = NULL;
    if (!settings->name || is(settings->name, "none")) return TS_OK;
    const ts_compressor_ops *const *ops = ts_compressors;
    while (*ops && !is((*ops)->name, settings->name)) ops++;
    TS_NEED(*ops, TS_EUSAGE, "no compressor \"%s\"", settings->name);
    TS_TRY((*ops)->format(settings, &format));
    *ops_p = *ops;
    return TS_OK;
}

bool ts_compression_feedback(const ts_compression *settings, const ts_compressor_ops *ops)
{
    if (is(settings->feedback, "yes")) return true;
    return !ops->unbiased && !is(settings->feedback, "no");
}

/* ---- tables ---- */

struct ts_compressor {
    const ts_compressor_ops *ops;
    ts_device *device;
    ts_compression settings;
    ts_format format;
    size_t n, bytes;
    uint32_t n_pieces, n_chunks, n_raw, entries, most_k;
    ts_piece *pieces; /* these and the scratch are device memory */
    ts_chunk *chunks, *raw;
    void *scratch;
    size_t scratch_bytes;
};

/* The tables in host memory; with NULL tables only their lengths. */
typedef struct tables {
    ts_piece *pieces;
    ts_chunk *chunks, *raw;
    uint32_t n_chunks, n_raw;
} tables;

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static uint32_t smaller(size_t a, size_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* Chunks of `most` elements of a stretch; `bits` of an element lie from byte `codes` on. */
static void cut(ts_stretch s, uint32_t most, ts_chunk like, uint32_t bits, ts_chunk *list,
                uint32_t *n)
{
    for (size_t at = 0; at < s.n; at += most, (*n)++) {
        if (!list) continue;
        ts_chunk *k = &list[*n];
        *k = like;
        k->at = (uint32_t)(s.at + at);
        k->n = smaller(most, s.n - at);
        k->codes += (uint32_t)(at * bits / 8);
    }
}

static void lay_out_piece(ts_compressor *c, ts_stretch s, uint32_t index, tables *t)
{
    const ts_format *f = &c->format;
    uint32_t chunks = (uint32_t)((s.n + f->chunk - 1) / f->chunk);
    uint32_t norms = f->norm == TS_NORM_CHUNK ? chunks : f->norm == TS_NORM_PIECE;
    ts_piece p = {.at = (uint32_t)s.at,
                  .n = (uint32_t)s.n,
                  .norm = (uint32_t)c->bytes,
                  .first = c->entries,
                  .chunk = t->n_chunks,
                  .n_chunks = chunks};
    c->bytes += aligned(norms * sizeof(float));
    if (f->entry) {
        double k = c->settings.density * (double)s.n;
        p.k = k < 1 ? 1 : (uint32_t)k;
        c->entries += p.k;
        if (p.k > c->most_k) c->most_k = p.k;
    }
    ts_chunk like = {.piece = index, .codes = (uint32_t)c->bytes, .norm = p.norm};
    uint32_t first = t->n_chunks;
    cut(s, f->chunk, like, (uint32_t)f->bits, t->chunks, &t->n_chunks);
    if (f->norm == TS_NORM_CHUNK && t->chunks)
        for (uint32_t i = 0; i < chunks; i++)
            t->chunks[first + i].norm += i * (uint32_t)sizeof(float);
    c->bytes += aligned(s.n * (size_t)f->bits / 8);
    if (t->pieces) t->pieces[index] = p;
}

static void lay_out(ts_compressor *c, const ts_stretch *pieces, int n_pieces, const ts_stretch *raw,
                    int n_raw, tables *t)
{
    c->bytes = 0;
    c->entries = c->most_k = t->n_chunks = t->n_raw = 0;
    for (int i = 0; i < n_pieces; i++) lay_out_piece(c, pieces[i], (uint32_t)i, t);
    c->bytes += aligned((size_t)c->entries * (size_t)c->format.entry);
    for (int i = 0; i < n_raw; i++) {
        ts_chunk like = {.codes = (uint32_t)c->bytes};
        cut(raw[i], TS_CHUNK_MAX, like, 8 * sizeof(float), t->raw, &t->n_raw);
        c->bytes += aligned(raw[i].n * sizeof(float));
    }
}

/* ---- open, close ---- */

static ts_status upload(ts_stream *stream, const void *from, size_t bytes, void *to_p)
{
    ts_device *device = stream->device;
    void *to, *pinned;
    if (!bytes) return TS_OK;
    TS_TRY(ts_device_alloc(device, TS_MEMORY_DEVICE, bytes, &to));
    *(void **)to_p = to;
    TS_TRY(ts_device_alloc(device, TS_MEMORY_PINNED, bytes, &pinned));
    memcpy(pinned, from, bytes);
    ts_status status = ts_stream_copy(stream, to, pinned, bytes);
    if (!status) status = ts_stream_sync(stream);
    ts_device_release(device, TS_MEMORY_PINNED, pinned);
    return status;
}

static ts_status make_tables(ts_compressor *c, ts_stream *stream, const ts_stretch *pieces,
                             int n_pieces, const ts_stretch *raw, int n_raw)
{
    tables t = {0};
    ts_status status;
    lay_out(c, pieces, n_pieces, raw, n_raw, &t);
    t.pieces = calloc((size_t)n_pieces + 1, sizeof *t.pieces);
    t.chunks = calloc((size_t)t.n_chunks + 1, sizeof *t.chunks);
    t.raw = calloc((size_t)t.n_raw + 1, sizeof *t.raw);
    if (!t.pieces || !t.chunks || !t.raw) {
        status = TS_ERROR(TS_ENOMEM, "no memory for the tables of %d pieces", n_pieces);
        goto out;
    }
    lay_out(c, pieces, n_pieces, raw, n_raw, &t);
    c->n_pieces = (uint32_t)n_pieces;
    c->n_chunks = t.n_chunks;
    c->n_raw = t.n_raw;
    TS_TRY_TO(status, out, upload(stream, t.pieces, c->n_pieces * sizeof *t.pieces, &c->pieces));
    TS_TRY_TO(status, out, upload(stream, t.chunks, t.n_chunks * sizeof *t.chunks, &c->chunks));
    status = upload(stream, t.raw, t.n_raw * sizeof *t.raw, &c->raw);
out:
    free(t.raw);
    free(t.chunks);
    free(t.pieces);
    return status;
}

static size_t scratch_bytes(const ts_compressor *c)
{
    if (c->format.norm == TS_NORM_PIECE)
        return c->n_pieces * sizeof(uint32_t) + c->n_chunks * sizeof(ts_found);
    if (c->format.entry)
        return c->n_pieces * sizeof(ts_selection) + c->n_chunks * sizeof(ts_counts);
    return 0;
}

/* Counters in it begin at 0, and every kernel leaves them there. */
static ts_status make_scratch(ts_compressor *c, ts_stream *stream)
{
    c->scratch_bytes = scratch_bytes(c);
    if (!c->scratch_bytes) return TS_OK;
    TS_TRY(ts_device_alloc(c->device, TS_MEMORY_DEVICE, c->scratch_bytes, &c->scratch));
    TS_TRY(ts_stream_fill(stream, c->scratch, 0, c->scratch_bytes));
    return ts_stream_sync(stream);
}

static ts_status check_stretches(size_t n, const ts_stretch *list, int count, size_t *sum)
{
    for (int i = 0; i < count; i++) {
        TS_NEED(list[i].n && list[i].at % UNIT == 0 && list[i].n % UNIT == 0 &&
                    list[i].at + list[i].n <= n,
                TS_EUSAGE,
                "a stretch of %zu elements from %zu of %zu cannot be encoded: both must be "
                "multiples of %d",
                list[i].n, list[i].at, n, UNIT);
        *sum += list[i].n;
    }
    return TS_OK;
}

ts_status ts_compressor_open(ts_stream *stream, const ts_compressor_ops *ops,
                             const ts_compression *settings, size_t n, const ts_stretch *pieces,
                             int n_pieces, const ts_stretch *raw, int n_raw,
                             ts_compressor **compressor_p)
{
    size_t sum = 0;
    TS_TRY(check_stretches(n, pieces, n_pieces, &sum));
    TS_TRY(check_stretches(n, raw, n_raw, &sum));
    TS_NEED(sum == n && n <= MOST_ELEMENTS, TS_EUSAGE,
            "stretches of %zu elements in a message of %zu; at most %zu fit one message", sum, n,
            MOST_ELEMENTS);
    ts_compressor *c = calloc(1, sizeof *c);
    TS_NEED(c, TS_ENOMEM, "no memory for compressor %s", ops->name);
    c->ops = ops;
    c->device = stream->device;
    c->settings = *settings;
    c->n = n;
    ts_status status = ops->format(settings, &c->format);
    if (!status) status = make_tables(c, stream, pieces, n_pieces, raw, n_raw);
    if (!status) status = make_scratch(c, stream);
    if (status) {
        ts_compressor_close(c);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *compressor_p = c;
    return TS_OK;
}

void ts_compressor_close(ts_compressor *c)
{
    if (!c) return;
    ts_device_release(c->device, TS_MEMORY_DEVICE, c->scratch);
    ts_device_release(c->device, TS_MEMORY_DEVICE, c->raw);
    ts_device_release(c->device, TS_MEMORY_DEVICE, c->chunks);
    ts_device_release(c->device, TS_MEMORY_DEVICE, c->pieces);
    free(c);
}

size_t ts_compressor_bytes(const ts_compressor *c)
{
    return c->bytes;
}

/* ---- encode, decode ---- */

static ts_code code_of(const ts_compressor *c, const ts_coding *coding)
{
    return (ts_code){.of = *coding,
                     .n = c->n,
                     .bytes = c->bytes,
                     .pieces = c->pieces,
                     .chunks = c->chunks,
                     .n_pieces = c->n_pieces,
                     .n_chunks = c->n_chunks,
                     .entries = c->entries,
                     .most_k = c->most_k,
                     .levels = c->format.levels,
                     .bits = c->format.bits,
                     .scratch = c->scratch,
                     .scratch_bytes = c->scratch_bytes};
}

/* A kernel over the pieces, and its like over the raw stretches. */
static ts_status launch(const ts_compressor *c, ts_code code, const ts_kernel *kernel,
                        const ts_kernel *raw, ts_stream *stream)
{
    if (c->n_chunks) TS_TRY(ts_stream_launch(stream, kernel, &code, sizeof code));
    code.chunks = c->raw;
    code.n_chunks = c->n_raw;
    return c->n_raw ? ts_stream_launch(stream, raw, &code, sizeof code) : TS_OK;
}

ts_status ts_compressor_encode(ts_compressor *c, const ts_coding *coding, ts_stream *stream)
{
    TS_NEED(coding->residual || !(c->format.scatters || coding->feedback), TS_EUSAGE,
            "%s without a residual", c->ops->name);
    TS_NEED(coding->velocity || !c->ops->corrects_momentum, TS_EUSAGE, "%s without a velocity",
            c->ops->name);
    return launch(c, code_of(c, coding), c->ops->encode, &ts_raw_encode, stream);
}

/* What nobody has sent is 0, or stays as the anchor is. */
ts_status ts_compressor_decode(ts_compressor *c, const ts_coding *coding, ts_stream *stream)
{
    bool scatters = c->format.scatters;
    if (scatters && !coding->anchor)
        TS_TRY(ts_stream_fill(stream, coding->to, 0, c->n * sizeof(float)));
    TS_TRY(launch(c, code_of(c, coding), c->ops->decode, &ts_raw_decode, stream));
    if (!scatters || !coding->anchor) return TS_OK;
    return ts_stream_copy(stream, coding->to, coding->anchor, c->n * sizeof(float));
}
