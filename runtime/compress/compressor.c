/* compressor.c - compressors by name, their options, and the tables that say where the parts of a
 * message lie in its encoding, or in each part of it:
 *     quantised   for each piece: its norms, its codes
 *     sparse      all indices (where ranks choose their own), all values
 *     raw         behind either, in fp32
 * All of these begin on 16 bytes. */
#include "runtime/compress/compressor.h"

#include <stddef.h>
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
     "add what an encoding left out to the next one; auto: yes, but not for unbiased compressors, "
     "nor for bf16 where an average with momentum is merged into a model of which a part is kept "
     "(overlap-local, dasgd with slow-momentum): it does not go with that",
     "bf16|qsgd|terngrad|topk|randomk|dgc"},
    {"scope", TS_OPTION_CHOICE, AT(scope), "layer", "layer|global", 0, 0,
     "encode each layer's weights apart, and biases and batch norm as fp32; or all as one vector",
     "bf16|qsgd|terngrad|topk|randomk|dgc"},
    {"exchange", TS_OPTION_CHOICE, AT(exchange), "auto", "auto|gather|scatter", 0, 0,
     "gather: a rank gets all encodings; scatter: it gets all of an N-th of the elements, encodes "
     "their mean, and these are gathered: 2 (N - 1) / N of an encoding sent instead of N - 1, but "
     "rounded twice; auto: scatter qsgd without error feedback on more than 4 ranks of equal "
     "weight",
     "qsgd|terngrad"},
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
    int parts;
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
    uint32_t n_pieces, n_chunks, n_raw;
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

static void lay_out_piece(ts_compressor *c, ts_stretch s, tables *t)
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
    ts_chunk like = {.piece = t->n_pieces, .codes = (uint32_t)c->bytes, .norm = p.norm};
    uint32_t first = t->n_chunks;
    cut(s, f->chunk, like, (uint32_t)f->bits, t->chunks, &t->n_chunks);
    if (f->norm == TS_NORM_CHUNK && t->chunks)
        for (uint32_t i = 0; i < chunks; i++)
            t->chunks[first + i].norm += i * (uint32_t)sizeof(float);
    c->bytes += aligned(s.n * (size_t)f->bits / 8);
    if (t->pieces) t->pieces[t->n_pieces] = p;
    t->n_pieces++;
}

static void lay_out_raw(ts_compressor *c, size_t begin, size_t end, tables *t)
{
    ts_chunk like = {.codes = (uint32_t)c->bytes};
    cut((ts_stretch){begin, end - begin}, TS_CHUNK_MAX, like, 8 * sizeof(float), t->raw, &t->n_raw);
    c->bytes += aligned((end - begin) * sizeof(float));
}

ts_stretch ts_stretch_within(ts_stretch within, size_t at, size_t n)
{
    size_t begin = at > within.at ? at : within.at;
    size_t end = at + n < within.at + within.n ? at + n : within.at + within.n;
    return (ts_stretch){begin, begin < end ? end - begin : 0};
}

static void lay_out_part(ts_compressor *c, const ts_stretch *pieces, int n_pieces, ts_stretch part,
                         tables *t)
{
    size_t begin = part.at;
    for (int i = 0; i < n_pieces; i++) {
        ts_stretch piece = ts_stretch_within(part, pieces[i].at, pieces[i].n);
        if (piece.n) lay_out_piece(c, piece, t);
    }
    c->bytes += aligned((size_t)c->entries * (size_t)c->format.entry);
    for (int i = 0; i < n_pieces; i++) {
        ts_stretch piece = ts_stretch_within(part, pieces[i].at, pieces[i].n);
        if (!piece.n) continue;
        lay_out_raw(c, begin, piece.at, t);
        begin = piece.at + piece.n;
    }
    lay_out_raw(c, begin, part.at + part.n, t);
}

/* Every part gets the bytes of the largest, which an earlier call has found out. */
static void lay_out(ts_compressor *c, const ts_stretch *pieces, int n_pieces, tables *t)
{
    size_t bytes = c->bytes / (size_t)c->parts, most = 0;
    c->entries = c->most_k = t->n_pieces = t->n_chunks = t->n_raw = 0;
    for (int i = 0; i < c->parts; i++) {
        size_t begin = (size_t)i * bytes;
        c->bytes = begin;
        lay_out_part(c, pieces, n_pieces, ts_compressor_part(c->n, c->parts, i), t);
        if (c->bytes - begin > most) most = c->bytes - begin;
    }
    c->bytes = most * (size_t)c->parts;
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
                             int n_pieces)
{
    tables t = {0};
    ts_status status;
    lay_out(c, pieces, n_pieces, &t);
    t.pieces = calloc((size_t)t.n_pieces + 1, sizeof *t.pieces);
    t.chunks = calloc((size_t)t.n_chunks + 1, sizeof *t.chunks);
    t.raw = calloc((size_t)t.n_raw + 1, sizeof *t.raw);
    if (!t.pieces || !t.chunks || !t.raw) {
        status = TS_ERROR(TS_ENOMEM, "no memory for the tables of %d pieces", n_pieces);
        goto out;
    }
    lay_out(c, pieces, n_pieces, &t);
    c->n_pieces = t.n_pieces;
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

static ts_status check(const ts_compressor_ops *ops, const ts_format *format, size_t n,
                       const ts_stretch *pieces, int n_pieces, int parts)
{
    size_t at = 0;
    TS_NEED(n <= MOST_ELEMENTS, TS_EUSAGE,
            "a message of %zu elements; at most %zu are encoded as one: let them travel in several "
            "(--overlap yes, --fragments)",
            n, MOST_ELEMENTS);
    TS_NEED(n % UNIT == 0, TS_EUSAGE, "a message of %zu elements; give a multiple of %d", n, UNIT);
    TS_NEED(parts == 1 || !format->entry, TS_EUSAGE, "an encoding by %s is in one part, not %d",
            ops->name, parts);
    for (int i = 0; i < n_pieces; i++) {
        ts_stretch p = pieces[i];
        TS_NEED(p.n && p.at % UNIT == 0 && p.n % UNIT == 0 && p.at >= at && p.at + p.n <= n,
                TS_EUSAGE,
                "a piece of %zu elements from %zu of %zu cannot be encoded: pieces ascend, and "
                "both numbers are multiples of %d",
                p.n, p.at, n, UNIT);
        at = p.at + p.n;
    }
    return TS_OK;
}

ts_stretch ts_compressor_part(size_t n, int parts, int i)
{
    size_t units = n / UNIT, most = (units + (size_t)parts - 1) / (size_t)parts * UNIT;
    size_t at = most * (size_t)i < n ? most * (size_t)i : n;
    return (ts_stretch){at, most < n - at ? most : n - at};
}

ts_status ts_compressor_open(ts_stream *stream, const ts_compressor_ops *ops,
                             const ts_compression *settings, size_t n, const ts_stretch *pieces,
                             int n_pieces, int parts, ts_compressor **compressor_p)
{
    ts_format format;
    TS_TRY(ops->format(settings, &format));
    TS_TRY(check(ops, &format, n, pieces, n_pieces, parts));
    ts_compressor *c = calloc(1, sizeof *c);
    TS_NEED(c, TS_ENOMEM, "no memory for compressor %s", ops->name);
    c->ops = ops;
    c->device = stream->device;
    c->settings = *settings;
    c->format = format;
    c->n = n;
    c->parts = parts;
    ts_status status = make_tables(c, stream, pieces, n_pieces);
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
    TS_NEED(coding->residual || !(c->format.entry || coding->feedback), TS_EUSAGE,
            "%s without a residual", c->ops->name);
    TS_NEED(coding->velocity || !c->ops->corrects_momentum, TS_EUSAGE, "%s without a velocity",
            c->ops->name);
    return launch(c, code_of(c, coding), c->ops->encode, &ts_raw_encode, stream);
}

/* What nobody has sent is 0, or stays as the anchor is. */
ts_status ts_compressor_decode(ts_compressor *c, const ts_coding *coding, ts_stream *stream)
{
    bool sparse = c->format.entry; /* decoding touches only what has travelled */
    if (sparse && !coding->anchor)
        TS_TRY(ts_stream_fill(stream, coding->to, 0, c->n * sizeof(float)));
    TS_TRY(launch(c, code_of(c, coding), c->ops->decode, &ts_raw_decode, stream));
    if (!sparse || !coding->anchor) return TS_OK;
    return ts_stream_copy(stream, coding->to, coding->anchor, c->n * sizeof(float));
}
