/* wire.c - see wire.h. */
#include "runtime/algorithms/wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"

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
    bool apart;                  /* layers are told apart */
    ts_compressor **compressors; /* [n_slices][n_stages], a stage for each density */
    ts_compressor **of_own;      /* [n_slices] where scattered: of this rank's part; or NULL */
    int64_t warmup;              /* steps until the density is its own; 0: it is from the start */
    float *encodings;            /* of all ranks; where scattered what is sent, what is received */
};

/* ---- open, close ---- */

/* Weights are pieces; or, with nothing told apart, all is one. */
static int cut(const ts_wire *wire, ts_slice s, ts_stretch *pieces)
{
    const ts_flat *f = wire->worker.flat;
    int n = 0;
    if (!wire->apart) pieces[n++] = (ts_stretch){0, s.n};
    for (int i = 0; wire->apart && i < f->n_weights; i++) {
        ts_stretch w =
            ts_stretch_within((ts_stretch){s.at, s.n}, f->weights[i].at, f->weights[i].n);
        if (w.n) pieces[n++] = (ts_stretch){w.at - s.at, w.n};
    }
    return n;
}

/* The elements of a slice that this rank adds up where it is scattered. */
static ts_slice own_part(const ts_wire *wire, int slice)
{
    ts_slice s = wire->slices[slice];
    ts_stretch own = ts_compressor_part(s.n, wire->worker.size, wire->worker.rank);
    return (ts_slice){s.at + own.at, own.n};
}

/* DGC: from many elements to few, by the same factor at each stage. In the authors' code each of
 * the five is an epoch: on the way to 0.001 they are .316, .1, .0316, .01, .00316. */
static double density_of(const ts_compression *c, int stage, int n_stages)
{
    return pow(c->density, (double)(stage + 1) / n_stages);
}

/* `pieces` has room for all layers. */
static ts_status open_compressors(ts_wire *wire, ts_stretch *pieces, size_t *bytes_p)
{
    const ts_worker *w = &wire->worker;
    int parts = wire->way == SCATTERED ? w->size : 1;
    for (int i = 0; i < wire->n_slices * wire->n_stages; i++) {
        ts_slice slice = wire->slices[i / wire->n_stages];
        ts_compression settings = w->compression;
        settings.density = density_of(&settings, i % wire->n_stages, wire->n_stages);
        TS_TRY(ts_compressor_open(w->compute, wire->ops, &settings, slice.n, pieces,
                                  cut(wire, slice, pieces), parts, &wire->compressors[i]));
        size_t bytes = ts_compressor_bytes(wire->compressors[i]);
        if (bytes > *bytes_p) *bytes_p = bytes;
    }
    return TS_OK;
}

static ts_status open_own(ts_wire *wire, ts_stretch *pieces)
{
    const ts_worker *w = &wire->worker;
    for (int i = 0; wire->way == SCATTERED && i < wire->n_slices; i++) {
        ts_slice own = own_part(wire, i);
        if (own.n)
            TS_TRY(ts_compressor_open(w->compute, wire->ops, &w->compression, own.n, pieces,
                                      cut(wire, own, pieces), 1, &wire->of_own[i]));
    }
    return TS_OK;
}

static size_t all_bytes(const ts_wire *wire, size_t bytes)
{
    if (wire->way == GATHERED) return (bytes + WEIGHT_BYTES) * (size_t)wire->worker.size;
    return wire->way == SCATTERED ? 2 * bytes : bytes;
}

/* A second rounding is for those who ask for it, or for whom it is known to cost little. */
static ts_status choose_way(ts_wire *wire)
{
    const ts_worker *w = &wire->worker;
    const ts_compressor_ops *ops = wire->ops;
    const ts_compression *c = &w->compression;
    bool asked = c->exchange && !strcmp(c->exchange, "scatter");
    bool automatic = (!c->exchange || !strcmp(c->exchange, "auto")) && w->size > GATHER_MOST &&
                     ops->scatters && !w->weight && !ts_compression_feedback(c, ops);
    bool bf16 = ops->reduces == TS_REDUCES_BF16 && w->communicator->ops->all_reduce_bf16;
    TS_NEED(!asked || ops->unbiased, TS_EUSAGE,
            "--exchange scatter is for qsgd and terngrad, not %s", ops->name);
    TS_NEED(
        !asked || !w->weight, TS_EUSAGE,
        "--exchange scatter is for ranks of equal weight: with --shares or --rebalance yes take "
        "gather");
    if (ops->reduces == TS_REDUCES_F32 || (bf16 && !w->weight))
        wire->way = REDUCED;
    else
        wire->way = asked || automatic ? SCATTERED : GATHERED;
    return TS_OK;
}

/* Gathered encodings may be more than the sums of fp32. */
static void warn_of_more(const ts_wire *wire)
{
    const ts_worker *w = &wire->worker;
    double sent = 0, plain = 0, n = w->size;
    if (wire->way != GATHERED || w->rank) return;
    for (int i = 0; i < wire->n_slices; i++) {
        sent +=
            (n - 1) * (double)ts_compressor_bytes(wire->compressors[(i + 1) * wire->n_stages - 1]);
        plain += 2 * (n - 1) / n * (double)(wire->slices[i].n * sizeof(float));
    }
    if (sent > plain)
        ts_warn("%s: %d ranks send all their encodings to each other, %.2g times what fp32 sends: "
                "take --compress none%s",
                wire->ops->name, w->size, sent / plain,
                wire->ops->unbiased && !w->weight ? ", or --exchange scatter" : "");
}

static ts_status open_all(ts_wire *wire)
{
    const ts_worker *w = &wire->worker;
    const ts_compression *c = &w->compression;
    bool global = c->scope && !strcmp(c->scope, "global");
    size_t bytes = 0, n = (size_t)wire->n_slices;
    TS_NEED(
        !global || wire->ops->layerless || wire->n_slices == 1, TS_EUSAGE,
        "--scope global encodes all as one vector, but here it travels in %d parts: add --overlap "
        "no to ssgd, or --fragments 1",
        wire->n_slices);
    TS_NEED(w->size < TS_COMPRESS_RANKS_MAX, TS_EUSAGE, "compression on %d ranks; at most %d",
            w->size, TS_COMPRESS_RANKS_MAX - 1);
    wire->apart = !global && !wire->ops->layerless && w->flat->weights;
    TS_TRY(choose_way(wire));
    if (wire->ops->corrects_momentum) wire->warmup = llround(c->density_warmup * (double)c->epoch);
    wire->n_stages = wire->warmup ? WARM_STAGES + 1 : 1;
    wire->compressors = calloc(n * (size_t)wire->n_stages, sizeof(ts_compressor *));
    wire->of_own = calloc(n, sizeof(ts_compressor *));
    TS_NEED(wire->compressors && wire->of_own, TS_ENOMEM, "no memory for %d compressors",
            wire->n_slices * wire->n_stages);
    ts_stretch *pieces = calloc((size_t)w->flat->n_weights + 1, sizeof *pieces);
    TS_NEED(pieces, TS_ENOMEM, "no memory to cut %d layers", w->flat->n_weights);
    ts_status status = open_compressors(wire, pieces, &bytes);
    if (!status) status = open_own(wire, pieces);
    free(pieces);
    TS_TRY(status);
    warn_of_more(wire);
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
        uint16_t *halves = (uint16_t *)(void *)c->encoding;
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
    if (w->weight)
        TS_TRY(ts_stream_copy(w->comm, c->encoding + bytes, w->weight, sizeof *w->weight));
    TS_TRY(
        w->communicator->ops->all_gather(w->communicator, wire->encodings, c->encoding, c->stride));
    c->encoding = (unsigned char *)wire->encodings;
    return TS_OK;
}

/* Part r goes to rank r, which encodes the mean of what it gets: it lies in c->to for a while. */
static ts_status scatter(ts_wire *wire, ts_coding *c, size_t bytes, int slice)
{
    const ts_worker *w = &wire->worker;
    ts_communicator *k = w->communicator;
    ts_slice own = own_part(wire, slice);
    size_t from = own.at - wire->slices[slice].at; /* where it begins in the message */
    size_t part = bytes / (size_t)w->size;
    unsigned char *sent = c->encoding, *mine = sent + part * (size_t)w->rank, *got = sent + bytes;
    ts_coding mean = {.seed = ~c->seed, /* other numbers than those of what it is a mean of */
                      .call = c->call,
                      .first = own.at,
                      .from = c->to + from,
                      .rank = w->rank,
                      .encoding = mine};
    ts_coding sum = {.encoding = got,
                     .to = c->to + from,
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
    c->encoding = (unsigned char *)wire->encodings;
    c->stride = bytes + (w->weight ? WEIGHT_BYTES : 0);
    if (wire->way == GATHERED) c->encoding += c->stride * (size_t)w->rank;
    TS_TRY(ts_compressor_encode(compressor, c, w->comm));
    TS_TRY(travel(wire, c, bytes, slice));
    if (!moves_anchor) c->anchor = NULL;
    return ts_compressor_decode(compressor, c, w->comm);
}
