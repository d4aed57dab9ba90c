/* vector.c - the kernels of vector.h on the host.
 *
 * Work is cut into chunks of a fixed size, small enough for the first-level cache: a chunk's
 * fp32 result is rounded to bf16 while it is still there, so memory is read and written once.
 * Threads take whole chunks, so their number never shows in a result. */
#include "runtime/device/vector.h"

#include "runtime/device/vector_element.h"
#include "runtime/device/vector_kernels.h"

enum {
    CHUNK = 4096,    /* elements */
    SERIAL = 1 << 15 /* elements below which waking other threads costs more than it gains */
};

/* What gcc needs to specialise a loop for constant flags. */
#define INLINE static inline __attribute__((always_inline))

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

INLINE void round_chunk(size_t n, uint16_t *restrict to, const float *restrict from)
{
    for (size_t i = 0; i < n; i++) to[i] = ts_bf16_from_float(from[i]);
}

/* ---- sgd ------------------------------------------------------------------------------------ */

INLINE void sgd_chunk(const ts_sgd *s, size_t begin, size_t n, int nesterov, int carried)
{
    float rate = s->control->learning_rate, momentum = s->momentum;
    float *restrict x = s->x + begin, *restrict m = s->m + begin;
    const float *restrict g = s->g + begin;
    for (size_t block = 0; block < n; block += TS_VECTOR_BLOCK) {
        bool decays = !s->decays || s->decays[(begin + block) / TS_VECTOR_BLOCK];
        float decay = decays ? s->weight_decay : 0.0f;
#pragma omp simd
        for (size_t i = block; i < block + TS_VECTOR_BLOCK; i++)
            x[i] = carried
                       ? ts_sgd_carried_element(x[i], &m[i], g[i], rate, momentum, decay, nesterov)
                       : ts_sgd_element(x[i], &m[i], g[i], rate, momentum, decay, nesterov);
    }
    if (s->shadow) round_chunk(n, s->shadow + begin, x);
}

static ts_status sgd_run(const void *args)
{
    const ts_sgd *s = args;
#pragma omp parallel for schedule(static) if (s->n >= SERIAL)
    for (size_t begin = 0; begin < s->n; begin += CHUNK) {
        size_t n = smaller(CHUNK, s->n - begin);
        if (s->carried)
            sgd_chunk(s, begin, n, s->nesterov, 1);
        else if (s->nesterov)
            sgd_chunk(s, begin, n, 1, 0);
        else
            sgd_chunk(s, begin, n, 0, 0);
    }
    return TS_OK;
}

static int sgd_accesses(const void *args, ts_access *list)
{
    const ts_sgd *s = args;
    int n = 0;
    list[n++] = (ts_access){s->x, s->n * sizeof *s->x, true};
    list[n++] = (ts_access){s->m, s->n * sizeof *s->m, true};
    list[n++] = (ts_access){s->g, s->n * sizeof *s->g, false};
    list[n++] = (ts_access){&s->control->learning_rate, sizeof s->control->learning_rate, false};
    if (s->shadow) list[n++] = (ts_access){s->shadow, s->n * sizeof *s->shadow, true};
    if (s->decays) list[n++] = (ts_access){s->decays, s->n / TS_VECTOR_BLOCK, false};
    return n;
}

static const ts_kernel sgd_kernel = {"vector_sgd", sgd_run, sgd_accesses, ts_sgd_enqueue};

ts_status ts_vector_sgd(ts_stream *stream, const ts_sgd *sgd)
{
    TS_NEED(sgd->n % TS_VECTOR_BLOCK == 0, TS_EUSAGE,
            "sgd over %zu elements: pad the buffers to a multiple of %d", sgd->n, TS_VECTOR_BLOCK);
    TS_TRY(ts_stream_launch(stream, &sgd_kernel, sgd, sizeof *sgd));
    return TS_OK;
}

/* ---- merge ---------------------------------------------------------------------------------- */

/* `terms` is a constant wherever this is inlined; what it leaves out is never read. */
INLINE void merge_chunk(const ts_merge *merge, size_t begin, size_t n, int terms)
{
    float a = merge->a, b = merge->b, c = merge->c;
    float *restrict x = merge->x + begin;
    const float *restrict average = terms & TS_MERGE_AVERAGE ? merge->average + begin : NULL;
    const float *restrict snapshot = terms & TS_MERGE_SNAPSHOT ? merge->snapshot + begin : NULL;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] = ts_merge_element(terms, terms & TS_MERGE_X ? x[i] : 0, average ? average[i] : 0,
                                snapshot ? snapshot[i] : 0, a, b, c);
    if (merge->shadow) round_chunk(n, merge->shadow + begin, x);
}

static ts_status merge_run(const void *args)
{
    const ts_merge *m = args;
    int terms = ts_merge_terms(m->a, m->b, m->c);
#pragma omp parallel for schedule(static) if (m->n >= SERIAL)
    for (size_t begin = 0; begin < m->n; begin += CHUNK) {
        size_t n = smaller(CHUNK, m->n - begin);
        switch (terms) {
        case 0:
            merge_chunk(m, begin, n, 0);
            break;
        case 1:
            merge_chunk(m, begin, n, 1);
            break;
        case 2:
            merge_chunk(m, begin, n, 2);
            break;
        case 3:
            merge_chunk(m, begin, n, 3);
            break;
        case 4:
            merge_chunk(m, begin, n, 4);
            break;
        case 5:
            merge_chunk(m, begin, n, 5);
            break;
        case 6:
            merge_chunk(m, begin, n, 6);
            break;
        case 7:
            merge_chunk(m, begin, n, 7);
            break;
        }
    }
    return TS_OK;
}

static int merge_accesses(const void *args, ts_access *list)
{
    const ts_merge *m = args;
    int n = 0;
    list[n++] = (ts_access){m->x, m->n * sizeof *m->x, true};
    if (m->shadow) list[n++] = (ts_access){m->shadow, m->n * sizeof *m->shadow, true};
    if (m->b != 0) list[n++] = (ts_access){m->average, m->n * sizeof *m->average, false};
    if (m->c != 0) list[n++] = (ts_access){m->snapshot, m->n * sizeof *m->snapshot, false};
    return n;
}

static const ts_kernel merge_kernel = {"vector_merge", merge_run, merge_accesses, ts_merge_enqueue};

ts_status ts_vector_merge(ts_stream *stream, const ts_merge *merge)
{
    TS_NEED(merge->average || merge->b == 0, TS_EUSAGE,
            "merge: the factor of the average is %g but there is no average", (double)merge->b);
    TS_NEED(merge->snapshot || merge->c == 0, TS_EUSAGE,
            "merge: the factor of the snapshot is %g but there is no snapshot", (double)merge->c);
    TS_TRY(ts_stream_launch(stream, &merge_kernel, merge, sizeof *merge));
    return TS_OK;
}

/* ---- outer step ----------------------------------------------------------------------------- */

INLINE void outer_chunk(const ts_outer *k, size_t begin, size_t n, int change)
{
    float momentum = k->momentum, rate = k->rate;
    float *restrict z = k->z + begin, *restrict v = k->v + begin;
    float *restrict average = k->average + begin;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        average[i] = z[i] = ts_outer_element(z[i], &v[i], average[i], momentum, rate, change);
}

static ts_status outer_run(const void *args)
{
    const ts_outer *k = args;
#pragma omp parallel for schedule(static) if (k->n >= SERIAL)
    for (size_t begin = 0; begin < k->n; begin += CHUNK) {
        size_t n = smaller(CHUNK, k->n - begin);
        if (k->change)
            outer_chunk(k, begin, n, 1);
        else
            outer_chunk(k, begin, n, 0);
    }
    return TS_OK;
}

static int outer_accesses(const void *args, ts_access *list)
{
    const ts_outer *k = args;
    list[0] = (ts_access){k->z, k->n * sizeof *k->z, true};
    list[1] = (ts_access){k->v, k->n * sizeof *k->v, true};
    list[2] = (ts_access){k->average, k->n * sizeof *k->average, true};
    return 3;
}

static const ts_kernel outer_kernel = {"vector_outer", outer_run, outer_accesses, ts_outer_enqueue};

ts_status ts_vector_outer(ts_stream *stream, const ts_outer *outer)
{
    TS_TRY(ts_stream_launch(stream, &outer_kernel, outer, sizeof *outer));
    return TS_OK;
}

/* ---- bf16 ----------------------------------------------------------------------------------- */

static ts_status to_bf16_run(const void *args)
{
    const ts_cast *k = args;
#pragma omp parallel for schedule(static) if (k->n >= SERIAL)
    for (size_t begin = 0; begin < k->n; begin += CHUNK)
        round_chunk(smaller(CHUNK, k->n - begin), k->narrow + begin, k->wide + begin);
    return TS_OK;
}

static int to_bf16_accesses(const void *args, ts_access *list)
{
    const ts_cast *k = args;
    list[0] = (ts_access){k->narrow, k->n * sizeof *k->narrow, true};
    list[1] = (ts_access){k->wide, k->n * sizeof *k->wide, false};
    return 2;
}

INLINE void widen_chunk(size_t n, float *restrict to, const uint16_t *restrict from)
{
    for (size_t i = 0; i < n; i++) to[i] = ts_bf16_to_float(from[i]);
}

static ts_status from_bf16_run(const void *args)
{
    const ts_cast *k = args;
#pragma omp parallel for schedule(static) if (k->n >= SERIAL)
    for (size_t begin = 0; begin < k->n; begin += CHUNK)
        widen_chunk(smaller(CHUNK, k->n - begin), k->wide + begin, k->narrow + begin);
    return TS_OK;
}

static int from_bf16_accesses(const void *args, ts_access *list)
{
    const ts_cast *k = args;
    list[0] = (ts_access){k->wide, k->n * sizeof *k->wide, true};
    list[1] = (ts_access){k->narrow, k->n * sizeof *k->narrow, false};
    return 2;
}

static const ts_kernel to_bf16_kernel = {"vector_to_bf16", to_bf16_run, to_bf16_accesses,
                                         ts_to_bf16_enqueue};
static const ts_kernel from_bf16_kernel = {"vector_from_bf16", from_bf16_run, from_bf16_accesses,
                                           ts_from_bf16_enqueue};

ts_status ts_vector_to_bf16(ts_stream *stream, size_t n, uint16_t *to, const float *from)
{
    ts_cast k = {.n = n, .wide = (float *)from, .narrow = to};
    TS_TRY(ts_stream_launch(stream, &to_bf16_kernel, &k, sizeof k));
    return TS_OK;
}

ts_status ts_vector_from_bf16(ts_stream *stream, size_t n, float *to, const uint16_t *from)
{
    ts_cast k = {.n = n, .wide = to, .narrow = (uint16_t *)from};
    TS_TRY(ts_stream_launch(stream, &from_bf16_kernel, &k, sizeof k));
    return TS_OK;
}

/* ---- scale ---------------------------------------------------------------------------------- */

static ts_status scale_run(const void *args)
{
    const ts_scale *k = args;
#pragma omp parallel for schedule(static) if (k->n >= SERIAL)
    for (size_t begin = 0; begin < k->n; begin += CHUNK) {
        size_t end = begin + smaller(CHUNK, k->n - begin);
        for (size_t i = begin; i < end; i++) k->x[i] *= k->factor;
    }
    return TS_OK;
}

static int scale_accesses(const void *args, ts_access *list)
{
    const ts_scale *k = args;
    list[0] = (ts_access){k->x, k->n * sizeof *k->x, true};
    return 1;
}

static const ts_kernel scale_kernel = {"vector_scale", scale_run, scale_accesses, ts_scale_enqueue};

ts_status ts_vector_scale(ts_stream *stream, size_t n, float *x, float factor)
{
    ts_scale k = {.n = n, .x = x, .factor = factor};
    TS_TRY(ts_stream_launch(stream, &scale_kernel, &k, sizeof k));
    return TS_OK;
}
