/* wire.c - see wire.h. */
#include "runtime/algorithms/wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WEIGHT_BYTES = 16, /* behind an encoding, where ranks have weights */
    WARM_STAGES = 5,   /* of the density, before its own */
    GATHER_MOST = 4,   /* ranks whose encodings are gathered, if nothing else is asked for */
};

typedef enum way { REDUCED, GATHERED, SCATTERED } way;

struct ts_wire {
    ts_worker worker;
    const ts_compressor_ops *ops;
    const ts_slice *slices;
    int n_slices, n_stages;
    way way;
    ts_compressor **compressors; /* [n_slices][n_stages], a stage for each density */
    ts_compressor **of_own;      /* [n_slices] where scattered: of this rank's part; or NULL */
    int64_t warmup;              /* steps until the density is its own; 0: it is from the start */
    float *encodings;            /* of all ranks; where scattered what is sent, what is received */
};

/* ---- open, close ---- */

/* Weights are pieces; or, with nothing told apart, all is one. */
static int cut(const ts_wire *wire, ts_slice s, bool apart, ts_stretch *pieces)
{
    const ts_flat *f = wire->worker.flat;
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

static ts_status open_compressors(ts_wire *wire, bool apart, size_t *bytes_p)
{
    const ts_worker *w = &wire->worker;
    ts_stretch *pieces = calloc((size_t)w->flat->n_weights + 1, sizeof *pieces);
    TS_NEED(pieces, TS_ENOMEM, "no memory to cut %d layers", w->flat->n_weights);
    ts_status status = TS_OK;
    int parts = wire->way == SCATTERED ? w->size : 1;
    for (int i = 0; i < wire->n_slices * wire->n_stages && !status; i++) {
        ts_slice slice = wire->slices[i / wire->n_stages], own = part_of(slice, w->rank, w->size);
        ts_compression settings = w->compression;
        settings.density = density_of(&settings, i % wire->n_stages, wire->n_stages);
        status = ts_compressor_open(w->compute, wire->ops, &settings, slice.n, pieces,
                                    cut(wire, slice, apart, pieces), parts, &wire->compressors[i]);
        if (status) break;
        size_t bytes = ts_compressor_bytes(wire->compressors[i]);
        if (bytes > *bytes_p) *bytes_p = bytes;
        if (wire->way == SCATTERED && own.n)
            status = ts_compressor_open(w->compute, wire->ops, &settings, own.n, pieces,
                                        cut(wire, own, apart, pieces), 1, &wire->of_own[i]);
    }
    free(pieces);
    return status;
}

static size_t all_bytes(const ts_wire *wire, size_t bytes)
{
    if (wire->way == GATHERED) return (bytes + WEIGHT_BYTES) * (size_t)wire->worker.size;
    return wire->way == SCATTERED ? 2 * bytes : bytes;
}

static ts_status choose_way(ts_wire *wire)
{
    const ts_worker *w = &wire->worker;
    const char *asked = w->compression.exchange;
    bool scatter = asked && !strcmp(asked, "scatter"), gather = asked && !strcmp(asked, "gather");
    bool bf16 = wire->ops->reduces == TS_REDUCES_BF16 && w->communicator->ops->all_reduce_bf16;
    TS_NEED(!scatter || wire->ops->unbiased, TS_EUSAGE,
            "--exchange scatter is for qsgd and terngrad, not %s", wire->ops->name);
    TS_NEED(!scatter || !w->weight, TS_EUSAGE,
            "--exchange scatter is for ranks of equal weight: with --shares take gather");
    if (wire->ops->reduces == TS_REDUCES_F32 || (bf16 && !w->weight))
        wire->way = REDUCED;
    else if (scatter || (wire->ops->unbiased && !gather && !w->weight && w->size > GATHER_MOST))
        wire->way = SCATTERED;
    else
        wire->way = GATHERED;
    return TS_OK;
}

static ts_status open_all(ts_wire *wire)
{
    const ts_worker *w = &wire->worker;
    const ts_compression *c = &w->compression;
    bool global = c->scope && !strcmp(c->scope, "global");
    bool apart = !global && !wire->ops->layerless && w->flat->weights;
    size_t bytes = 0, n = (size_t)wire->n_slices;
    TS_TRY(choose_way(wire));
    if (wire->ops->corrects_momentum) wire->warmup = llround(c->density_warmup * (double)c->epoch);
    wire->n_stages = wire->warmup ? WARM_STAGES + 1 : 1;
    wire->compressors = calloc(n * (size_t)wire->n_stages, sizeof(ts_compressor *));
    wire->of_own = calloc(n, sizeof(ts_compressor *));
    TS_NEED(wire->compressors && wire->of_own, TS_ENOMEM, "no memory for %d compressors",
            wire->n_slices * wire->n_stages);
    TS_TRY(open_compressors(wire, apart, &bytes));
    return ts_worker_zeros(w, all_bytes(wire, bytes) / sizeof(float), &wire->encodings);
}

ts_status ts_wire_open(const ts_worker *worker, const ts_compressor_ops *ops,
                       const ts_slice *slices, int n_slices, ts_wire **wire_p)
{
    ts_wire *wire = calloc(1, sizeof *wire);
    TS_NEED(wire, TS_ENOMEM, "no memory for a wire");
    wire->worker = *worker;
    wire->ops = ops;
    wire->slices = slices;
    wire->n_slices = n_slices;
    ts_status status = open_all(wire);
    if (status) {
        ts_wire_close(wire);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *wire_p = wire;
    return TS_OK;
}

void ts_wire_close(ts_wire *wire)
{
    if (!wire) return;
    for (int i = 0; wire->compressors && i < wire->n_slices * wire->n_stages; i++)
        ts_compressor_close(wire->compressors[i]);
    for (int i = 0; wire->of_own && i < wire->n_slices; i++) ts_compressor_close(wire->of_own[i]);
    ts_device_release(wire->worker.device, TS_MEMORY_DEVICE, wire->encodings);
    free(wire->of_own);
    free(wire->compressors);
    free(wire);
}

/* ---- travel ---- */

/* The encoding of a slice goes out; after it `c` says where what has come lies and how to decode
 * it. */
static ts_status reduce(ts_wire *wire, ts_coding *c, size_t bytes)
{
    const ts_worker *w = &wire->worker;
    ts_communicator *k = w->communicator;
    c->ranks = 1;
    if (wire->ops->reduces == TS_REDUCES_BF16) {
        uint16_t *halves = (uint16_t *)(void *)c->wire;
        c->weight = 1 / (float)w->size;
        return k->ops->all_reduce_bf16(k, halves, halves, bytes / sizeof *halves);
    }
    c->weight = 1;
    return ts_worker_mean(w, wire->encodings, wire->encodings, bytes / sizeof *wire->encodings);
}

static ts_status gather(ts_wire *wire, ts_coding *c, size_t bytes)
{
    const ts_worker *w = &wire->worker;
    c->ranks = w->size;
    c->weight = 1 / (float)w->size;
    c->weighted = w->weight != NULL;
    if (w->weight) TS_TRY(ts_stream_copy(w->comm, c->wire + bytes, w->weight, sizeof *w->weight));
    TS_TRY(w->communicator->ops->all_gather(w->communicator, wire->encodings, c->wire, c->stride));
    c->wire = (unsigned char *)wire->encodings;
    return TS_OK;
}

/* Part r goes to rank r, which encodes the mean of what it gets: it lies in c->to for a while. */
static ts_status scatter(ts_wire *wire, ts_coding *c, size_t bytes, int slice)
{
    const ts_worker *w = &wire->worker;
    ts_communicator *k = w->communicator;
    ts_slice s = wire->slices[slice], own = part_of(s, w->rank, w->size);
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
    if (own.n) TS_TRY(ts_compressor_decode(wire->of_own[slice], &sum, w->comm));
    if (own.n) TS_TRY(ts_compressor_encode(wire->of_own[slice], &mean, w->comm));
    TS_TRY(k->ops->all_gather(k, sent, mine, part));
    c->ranks = 1;
    c->weight = 1;
    return TS_OK;
}

static ts_status travel(ts_wire *wire, ts_coding *c, size_t bytes, int slice)
{
    if (wire->way == REDUCED) return reduce(wire, c, bytes);
    return wire->way == GATHERED ? gather(wire, c, bytes) : scatter(wire, c, bytes, slice);
}

static int stage_of(const ts_wire *wire, uint64_t call)
{
    int64_t step = (int64_t)call / wire->n_slices;
    return step < wire->warmup ? (int)(step * WARM_STAGES / wire->warmup) : wire->n_stages - 1;
}

ts_status ts_wire_mean(ts_wire *wire, int slice, ts_coding *c, bool moves_anchor)
{
    const ts_worker *w = &wire->worker;
    ts_compressor *compressor = wire->compressors[slice * wire->n_stages + stage_of(wire, c->call)];
    size_t bytes = ts_compressor_bytes(compressor);
    c->rank = w->rank;
    c->wire = (unsigned char *)wire->encodings;
    c->stride = bytes + (w->weight ? WEIGHT_BYTES : 0);
    if (wire->way == GATHERED) c->wire += c->stride * (size_t)w->rank;
    TS_TRY(ts_compressor_encode(compressor, c, w->comm));
    TS_TRY(travel(wire, c, bytes, slice));
    if (!moves_anchor) c->anchor = NULL;
    return ts_compressor_decode(compressor, c, w->comm);
}
