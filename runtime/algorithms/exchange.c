/* exchange.c - see exchange.h. */
#include "runtime/algorithms/exchange.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WEIGHT_BYTES = 16, /* behind an encoding, where ranks have weights */
    WARM_STAGES = 5,   /* of the density, before its own */
    GATHER_MOST = 4,   /* ranks whose encodings are gathered, if nothing else is asked for */
};

/* How encodings travel (exchange.h). */
typedef enum way { REDUCED, GATHERED, SCATTERED } way;

struct ts_exchange {
    ts_worker worker;
    const ts_compressor_ops *ops; /* NULL: none */
    const ts_slice *slices;
    int n_slices, n_stages;
    way way;
    bool feedback, sparse;
    ts_compressor **compressors; /* [n_slices][n_stages], a stage for each density */
    ts_compressor **of_own;      /* [n_slices] where scattered: of this rank's part; or NULL */
    int64_t warmup;              /* steps until the density is its own; 0: it is from the start */
    bool models;
    ts_exchange_models merge;            /* of models; of gradients it keeps nothing */
    float *residual, *velocity, *anchor; /* flat vectors, or NULL; anchor is z */
    /* e, and e(s), where residual, [merge.in_flight] flat vectors of r(s), is not e; or NULL */
    float *owed, *owed_then;
    float *wires;  /* encodings: of all ranks where gathered; sent and received where scattered */
    int64_t calls; /* of compressed exchanges */
    float *slow;   /* v, a flat vector; NULL: z is the last average */
    float *rates;  /* [n_slices] learning rate of a slice's v */
};

/* ---- open ---- */

/* Weights are pieces; or, with nothing told apart, all is one. */
static int cut(const ts_exchange *x, ts_slice s, bool apart, ts_stretch *pieces)
{
    const ts_flat *f = x->worker.flat;
    size_t end = s.at + s.n;
    int n = 0;
    if (!apart) pieces[n++] = (ts_stretch){0, s.n};
    for (int i = 0; apart && i < f->n_weights; i++) {
        ts_slice w = f->weights[i];
        size_t from = w.at > s.at ? w.at : s.at, to = w.at + w.n < end ? w.at + w.n : end;
        if (from < to) pieces[n++] = (ts_stretch){from - s.at, to - from};
    }
    return n;
}

/* The elements of a slice that a rank adds up where it is scattered. */
static ts_slice part_of(ts_slice s, int rank, int size)
{
    size_t most = ts_compressor_part(s.n, size), at = most * (size_t)rank;
    if (at > s.n) at = s.n;
    return (ts_slice){s.at + at, most < s.n - at ? most : s.n - at};
}

/* DGC: from many elements to few, by the same factor at each stage. In the authors' code each of
 * the five is an epoch: on the way to 0.001 they are .316, .1, .0316, .01, .00316. */
static double density_of(const ts_compression *c, int stage, int n_stages)
{
    return pow(c->density, (double)(stage + 1) / n_stages);
}

static ts_status open_compressors(ts_exchange *x, bool apart, size_t *bytes_p)
{
    const ts_worker *w = &x->worker;
    ts_stretch *pieces = calloc((size_t)w->flat->n_weights + 1, sizeof *pieces);
    TS_NEED(pieces, TS_ENOMEM, "no memory to cut %d layers", w->flat->n_weights);
    ts_status status = TS_OK;
    int parts = x->way == SCATTERED ? w->size : 1;
    for (int i = 0; i < x->n_slices * x->n_stages && !status; i++) {
        ts_slice slice = x->slices[i / x->n_stages], own = part_of(slice, w->rank, w->size);
        ts_compression settings = w->compression;
        settings.density = density_of(&settings, i % x->n_stages, x->n_stages);
        status = ts_compressor_open(w->compute, x->ops, &settings, slice.n, pieces,
                                    cut(x, slice, apart, pieces), parts, &x->compressors[i]);
        if (status) break;
        size_t bytes = ts_compressor_bytes(x->compressors[i]);
        if (bytes > *bytes_p) *bytes_p = bytes;
        if (x->way == SCATTERED && own.n)
            status = ts_compressor_open(w->compute, x->ops, &settings, own.n, pieces,
                                        cut(x, own, apart, pieces), 1, &x->of_own[i]);
    }
    free(pieces);
    return status;
}

static size_t wire_bytes(const ts_exchange *x, size_t bytes)
{
    if (x->way == GATHERED) return (bytes + WEIGHT_BYTES) * (size_t)x->worker.size;
    return x->way == SCATTERED ? 2 * bytes : bytes;
}

static ts_status alloc_vectors(ts_exchange *x, size_t bytes)
{
    const ts_worker *w = &x->worker;
    const ts_exchange_models *m = &x->merge;
    size_t n = w->flat->n;
    size_t left_out = x->feedback ? n * (size_t)m->in_flight : x->sparse ? n : 0;
    bool owed = x->feedback && (m->keep > 0 || m->in_flight > 1);
    if (left_out) TS_TRY(ts_worker_zeros(w, left_out, &x->residual));
    if (owed) TS_TRY(ts_worker_zeros(w, n, &x->owed));
    if (owed && m->corrected && m->in_flight > 1)
        TS_TRY(ts_worker_zeros(w, left_out, &x->owed_then));
    if (x->ops->corrects_momentum) TS_TRY(ts_worker_zeros(w, n, &x->velocity));
    if (x->models) TS_TRY(ts_worker_zeros(w, n, &x->anchor));
    return ts_worker_zeros(w, wire_bytes(x, bytes) / sizeof(float), &x->wires);
}

bool ts_exchange_is_slow(float slow_momentum, float slow_rate)
{
    return slow_momentum != 0 || (slow_rate != 0 && slow_rate != 1);
}

static bool is_slow(const ts_exchange *x)
{
    return ts_exchange_is_slow(x->merge.slow_momentum, x->merge.slow_rate);
}

static ts_status choose_feedback(ts_exchange *x)
{
    const ts_compression *c = &x->worker.compression;
    bool possible = !is_slow(x) || x->merge.keep == 0;
    x->feedback = x->ops->corrects_momentum || ts_compression_feedback(c, x->ops);
    TS_NEED(!x->feedback || possible || !c->feedback || strcmp(c->feedback, "yes") != 0, TS_EUSAGE,
            "error feedback does not go with momentum of the average where a merge keeps a part of "
            "the model (here %g): --error-feedback no, or --mix 0 for dasgd, --pull 1 for "
            "overlap-local",
            (double)x->merge.keep);
    if (!possible) x->feedback = false;
    return TS_OK;
}

static ts_status choose_way(ts_exchange *x)
{
    const ts_worker *w = &x->worker;
    const char *asked = w->compression.exchange;
    bool scatter = asked && !strcmp(asked, "scatter"), gather = asked && !strcmp(asked, "gather");
    bool bf16 = x->ops->reduces == TS_REDUCES_BF16 && w->communicator->ops->all_reduce_bf16;
    TS_NEED(!scatter || x->ops->unbiased, TS_EUSAGE,
            "--exchange scatter is for qsgd and terngrad, not %s", x->ops->name);
    TS_NEED(!scatter || !w->weight, TS_EUSAGE,
            "--exchange scatter is for ranks of equal weight: with --shares take gather");
    if (x->ops->reduces == TS_REDUCES_F32 || (bf16 && !w->weight))
        x->way = REDUCED;
    else if (scatter || (x->ops->unbiased && !gather && !w->weight && w->size > GATHER_MOST))
        x->way = SCATTERED;
    else
        x->way = GATHERED;
    return TS_OK;
}

static ts_status open_slow(ts_exchange *x)
{
    const ts_worker *w = &x->worker;
    x->rates = calloc((size_t)x->n_slices, sizeof *x->rates);
    TS_NEED(x->rates, TS_ENOMEM, "no memory for %d slices", x->n_slices);
    TS_TRY(ts_worker_zeros(w, w->flat->n, &x->slow));
    return x->anchor ? TS_OK : ts_worker_zeros(w, w->flat->n, &x->anchor);
}

static ts_status open_compression(ts_exchange *x)
{
    const ts_worker *w = &x->worker;
    const ts_compression *c = &w->compression;
    bool global = c->scope && !strcmp(c->scope, "global");
    bool apart = !global && !x->ops->layerless && w->flat->weights;
    ts_format format;
    size_t bytes = 0;
    TS_TRY(x->ops->format(c, &format));
    TS_NEED(!x->models || !x->ops->corrects_momentum, TS_EUSAGE,
            "%s corrects the momentum of gradients, but what is averaged here are models: take "
            "--algorithm ssgd, or --compress topk",
            x->ops->name);
    TS_NEED(
        !global || x->ops->layerless || x->n_slices == 1, TS_EUSAGE,
        "--scope global encodes all as one vector, but here it travels in %d parts: add --overlap "
        "no to ssgd, or --fragments 1",
        x->n_slices);
    TS_NEED(w->size < TS_COMPRESS_RANKS_MAX, TS_EUSAGE, "compression on %d ranks; at most %d",
            w->size, TS_COMPRESS_RANKS_MAX - 1);
    TS_TRY(choose_feedback(x));
    x->sparse = format.entry;
    TS_TRY(choose_way(x));
    if (x->ops->corrects_momentum) x->warmup = llround(c->density_warmup * (double)c->epoch);
    x->n_stages = x->warmup ? WARM_STAGES + 1 : 1;
    x->compressors = calloc((size_t)(x->n_slices * x->n_stages), sizeof(ts_compressor *));
    TS_NEED(x->compressors, TS_ENOMEM, "no memory for %d compressors", x->n_slices * x->n_stages);
    x->of_own = calloc((size_t)x->n_slices, sizeof(ts_compressor *));
    TS_NEED(x->of_own, TS_ENOMEM, "no memory for %d compressors", x->n_slices);
    TS_TRY(open_compressors(x, apart, &bytes));
    return alloc_vectors(x, bytes);
}

static ts_status open_all(ts_exchange *x)
{
    TS_TRY(ts_compressor_find(&x->worker.compression, &x->ops));
    if (x->worker.size == 1) x->ops = NULL; /* nobody to tell */
    if (x->ops) TS_TRY(open_compression(x));
    if (is_slow(x) && x->worker.size > 1) TS_TRY(open_slow(x));
    TS_TRY(ts_exchange_begin(x));
    return ts_stream_sync(x->worker.compute); /* comm does not wait for compute's fills */
}

ts_status ts_exchange_open(const ts_worker *worker, const ts_slice *slices, int n_slices,
                           const ts_exchange_models *models, ts_exchange **exchange_p)
{
    ts_exchange *x = calloc(1, sizeof *x);
    TS_NEED(x, TS_ENOMEM, "no memory for an exchange");
    x->worker = *worker;
    x->slices = slices;
    x->n_slices = n_slices;
    x->models = models != NULL;
    x->merge = models ? *models : (ts_exchange_models){.in_flight = 1};
    ts_status status = open_all(x);
    if (status) {
        ts_exchange_close(x);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *exchange_p = x;
    return TS_OK;
}

void ts_exchange_close(ts_exchange *x)
{
    if (!x) return;
    void *memory[] = {x->slow,     x->wires, x->anchor,   x->velocity,
                      x->residual, x->owed,  x->owed_then};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ts_device_release(x->worker.device, TS_MEMORY_DEVICE, memory[i]);
    for (int i = 0; x->compressors && i < x->n_slices * x->n_stages; i++)
        ts_compressor_close(x->compressors[i]);
    for (int i = 0; x->of_own && i < x->n_slices; i++) ts_compressor_close(x->of_own[i]);
    free(x->of_own);
    free(x->compressors);
    free(x->rates);
    free(x);
}

ts_status ts_exchange_begin(ts_exchange *x)
{
    const ts_flat *f = x->worker.flat;
    if (!x->anchor) return TS_OK;
    return ts_stream_copy(x->worker.compute, x->anchor, f->parameters, f->n * sizeof(float));
}

/* ---- exchange ---- */

/* The encoding of a slice goes out; after it `c` says where what has come lies and how to decode
 * it. */
static ts_status reduce(ts_exchange *x, ts_coding *c, size_t bytes)
{
    const ts_worker *w = &x->worker;
    ts_communicator *k = w->communicator;
    c->ranks = 1;
    if (x->ops->reduces == TS_REDUCES_BF16) {
        uint16_t *halves = (uint16_t *)(void *)c->wire;
        c->weight = 1 / (float)w->size;
        return k->ops->all_reduce_bf16(k, halves, halves, bytes / sizeof *halves);
    }
    c->weight = 1;
    return ts_worker_mean(w, x->wires, x->wires, bytes / sizeof *x->wires);
}

static ts_status gather(ts_exchange *x, ts_coding *c, size_t bytes)
{
    const ts_worker *w = &x->worker;
    c->ranks = w->size;
    c->weight = 1 / (float)w->size;
    c->weighted = w->weight != NULL;
    if (w->weight) TS_TRY(ts_stream_copy(w->comm, c->wire + bytes, w->weight, sizeof *w->weight));
    TS_TRY(w->communicator->ops->all_gather(w->communicator, x->wires, c->wire, c->stride));
    c->wire = (unsigned char *)x->wires;
    return TS_OK;
}

/* Part r goes to rank r, which encodes the mean of what it gets: it lies in c->to for a while. */
static ts_status scatter(ts_exchange *x, ts_coding *c, size_t bytes, int slice)
{
    const ts_worker *w = &x->worker;
    ts_communicator *k = w->communicator;
    ts_slice s = x->slices[slice], own = part_of(s, w->rank, w->size);
    size_t part = bytes / (size_t)w->size;
    unsigned char *sent = c->wire, *mine = sent + part * (size_t)w->rank, *got = sent + bytes;
    ts_coding mean = {.seed = ~c->seed, /* other numbers than those of what it is a mean of */
                      .call = c->call,
                      .first = own.at,
                      .from = c->to + (own.at - s.at),
                      .rank = w->rank,
                      .wire = mine};
    ts_coding sum = {.wire = got,
                     .to = c->to + (own.at - s.at),
                     .ranks = w->size,
                     .stride = part,
                     .weight = 1 / (float)w->size};
    TS_TRY(k->ops->all_to_all(k, got, sent, part));
    if (own.n) TS_TRY(ts_compressor_decode(x->of_own[slice], &sum, w->comm));
    if (own.n) TS_TRY(ts_compressor_encode(x->of_own[slice], &mean, w->comm));
    TS_TRY(k->ops->all_gather(k, sent, mine, part));
    c->ranks = 1;
    c->weight = 1;
    return TS_OK;
}

static ts_status travel(ts_exchange *x, ts_coding *c, size_t bytes, int slice)
{
    if (x->way == REDUCED) return reduce(x, c, bytes);
    return x->way == GATHERED ? gather(x, c, bytes) : scatter(x, c, bytes, slice);
}

static int stage_of(const ts_exchange *x)
{
    int64_t step = x->calls / x->n_slices;
    return step < x->warmup ? (int)(step * WARM_STAGES / x->warmup) : x->n_stages - 1;
}

static float *at(float *vector, size_t begin)
{
    return vector ? vector + begin : NULL;
}

/* What encoding number s + m, the next of this slice, adds is left in the place of r(s), where its
 * own r comes; the merge of average s is what lies between them and changes e (exchange.h). */
static ts_status settle(ts_exchange *x, ts_slice s, float **residual_p)
{
    const ts_exchange_models *m = &x->merge;
    ts_stream *comm = x->worker.comm;
    size_t bytes = s.n * sizeof(float);
    int64_t slot = x->calls / x->n_slices % m->in_flight;
    float *e = x->owed + s.at,
          *r = *residual_p = x->residual + (size_t)slot * x->worker.flat->n + s.at;
    float *then = x->owed_then ? x->owed_then + (size_t)slot * x->worker.flat->n + s.at : NULL;
    ts_merge merge = {.n = s.n,
                      .x = e,
                      .average = r,
                      .snapshot = then,
                      .a = then ? 1 : m->keep,
                      .b = 1 - m->keep,
                      .c = then ? m->keep - 1 : 0};
    TS_TRY(ts_vector_merge(comm, &merge));
    if (then) TS_TRY(ts_stream_copy(comm, then, e, bytes));
    return ts_stream_copy(comm, r, e, bytes);
}

ts_status ts_exchange_mean(ts_exchange *x, int slice, float *to, const float *from)
{
    const ts_worker *w = &x->worker;
    ts_slice s = x->slices[slice];
    if (!x->ops) return ts_worker_mean(w, to + s.at, from + s.at, s.n);
    ts_compressor *compressor = x->compressors[slice * x->n_stages + stage_of(x)];
    size_t bytes = ts_compressor_bytes(compressor);
    float *residual = at(x->residual, s.at);
    if (x->owed) TS_TRY(settle(x, s, &residual));
    ts_coding c = {.seed = w->compression.seed,
                   .call = (uint64_t)x->calls++,
                   .first = s.at,
                   .anchor = at(x->anchor, s.at),
                   .from = from + s.at,
                   .residual = residual,
                   .feedback = x->feedback,
                   .velocity = at(x->velocity, s.at),
                   .momentum = w->update.momentum,
                   .nesterov = w->update.nesterov,
                   .rank = w->rank,
                   .wire = (unsigned char *)x->wires,
                   .to = to + s.at,
                   .stride = bytes + (w->weight ? WEIGHT_BYTES : 0)};
    if (x->way == GATHERED) c.wire += c.stride * (size_t)w->rank;
    TS_TRY(ts_compressor_encode(compressor, &c, w->comm));
    TS_TRY(travel(x, &c, bytes, slice));
    if (x->slow) c.anchor = NULL; /* ts_exchange_agree moves it */
    return ts_compressor_decode(compressor, &c, w->comm);
}

ts_status ts_exchange_agree(ts_exchange *x, int slice, float *to, const float *from,
                            float learning_rate)
{
    ts_slice s = x->slices[slice];
    TS_TRY(ts_exchange_mean(x, slice, to, from));
    if (!x->slow) return TS_OK;
    float before = x->rates[slice];
    ts_outer outer = {.n = s.n,
                      .z = x->anchor + s.at,
                      .v = x->slow + s.at,
                      .average = to + s.at,
                      .momentum =
                          before > 0 ? x->merge.slow_momentum * (learning_rate / before) : 0,
                      .rate = x->merge.slow_rate,
                      .change = x->ops != NULL};
    x->rates[slice] = learning_rate;
    return ts_vector_outer(x->worker.comm, &outer);
}

bool ts_exchange_carries_momentum(const ts_exchange *x)
{
    return x->ops && x->ops->corrects_momentum;
}

/* ---- state ---- */

static int add(ts_part *parts, int n, int max, ts_part part)
{
    if (n < max) parts[n] = part;
    return n < max ? n + 1 : n;
}

/* Flat vectors one after another, each a part of its own. */
static int add_all(ts_part *parts, int n, int max, const char *name, float *vectors, int count,
                   size_t bytes)
{
    for (int i = 0; vectors && i < count; i++) {
        ts_part part = {"", TS_PART_PARAMETERS, vectors + (size_t)i * bytes / sizeof(float), bytes};
        if (count > 1)
            snprintf(part.name, sizeof part.name, "exchange.%s%d", name, i);
        else
            snprintf(part.name, sizeof part.name, "exchange.%s", name);
        n = add(parts, n, max, part);
    }
    return n;
}

int ts_exchange_state(ts_exchange *x, ts_part *parts, int n, int max)
{
    size_t bytes = x->worker.flat->n * sizeof(float);
    int m = x->merge.in_flight;
    if (x->ops)
        n = add(parts, n, max, (ts_part){"exchange", TS_PART_HOST, &x->calls, sizeof x->calls});
    if (x->feedback) n = add_all(parts, n, max, "residual", x->residual, m, bytes);
    n = add_all(parts, n, max, "owed", x->owed, 1, bytes);
    n = add_all(parts, n, max, "owed-then", x->owed_then, m, bytes);
    n = add_all(parts, n, max, "velocity", x->velocity, 1, bytes);
    n = add_all(parts, n, max, "anchor", x->anchor, 1, bytes);
    if (!x->slow) return n;
    n = add_all(parts, n, max, "slow", x->slow, 1, bytes);
    return add(parts, n, max,
               (ts_part){"exchange.rates", TS_PART_HOST, x->rates,
                         (size_t)x->n_slices * sizeof *x->rates});
}
