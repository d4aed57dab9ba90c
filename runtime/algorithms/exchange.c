/* exchange.c - see exchange.h. */
#include "runtime/algorithms/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/algorithms/wire.h"

struct ts_exchange {
    ts_worker worker;
    const ts_compressor_ops *ops; /* NULL: none */
    const ts_slice *slices;
    int n_slices;
    ts_wire *wire; /* for encodings */
    bool feedback, models;
    ts_exchange_models merge;            /* of models; of gradients it keeps nothing */
    float *residual, *velocity, *anchor; /* flat vectors, or NULL; anchor is z */
    /* e, and e(s), where residual, [merge.in_flight] flat vectors of r(s), is not e; or NULL */
    float *owed, *owed_then;
    int64_t calls; /* of compressed exchanges */
    float *slow;   /* v, a flat vector; NULL: z is the last average */
    float *rates;  /* [n_slices] learning rate of a slice's v */
};

/* ---- open ---- */

static ts_status alloc_vectors(ts_exchange *x, bool sparse)
{
    const ts_worker *w = &x->worker;
    const ts_exchange_models *m = &x->merge;
    size_t n = w->flat->n;
    size_t left_out = x->feedback ? n * (size_t)m->in_flight : sparse ? n : 0;
    bool owed = x->feedback && (m->keep > 0 || m->in_flight > 1);
    if (left_out) TS_TRY(ts_worker_zeros(w, left_out, &x->residual));
    if (owed) TS_TRY(ts_worker_zeros(w, n, &x->owed));
    if (owed && m->corrected && m->in_flight > 1)
        TS_TRY(ts_worker_zeros(w, left_out, &x->owed_then));
    if (x->ops->corrects_momentum) TS_TRY(ts_worker_zeros(w, n, &x->velocity));
    return x->models ? ts_worker_zeros(w, n, &x->anchor) : TS_OK;
}

bool ts_exchange_is_slow(float slow_momentum, float slow_rate)
{
    return slow_momentum != 0 || (slow_rate != 0 && slow_rate != 1);
}

static bool is_slow(const ts_exchange *x)
{
    return ts_exchange_is_slow(x->merge.slow_momentum, x->merge.slow_rate);
}

/* Where it is not possible, elements that are left out (`sparse`) would be lost for good. */
static ts_status choose_feedback(ts_exchange *x, bool sparse)
{
    const ts_compression *c = &x->worker.compression;
    bool possible = !is_slow(x) || x->merge.keep == 0;
    bool asked = c->feedback && !strcmp(c->feedback, "yes");
    x->feedback = x->ops->corrects_momentum || ts_compression_feedback(c, x->ops);
    TS_NEED(!x->feedback || possible || !(asked || sparse), TS_EUSAGE,
            "error feedback does not go with momentum of the average where a merge keeps a part of "
            "the model (here %g): --error-feedback no, or --slow-momentum 0 and --slow-rate 1, or "
            "--merge corrected --mix 0, for dasgd, --anchor-momentum 0 for overlap-local",
            (double)x->merge.keep);
    if (!possible) x->feedback = false;
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
    ts_format format;
    TS_TRY(x->ops->format(&w->compression, &format));
    TS_NEED(!x->models || !x->ops->corrects_momentum, TS_EUSAGE,
            "%s corrects the momentum of gradients, but what is averaged here are models: take "
            "--algorithm ssgd, or --compress topk",
            x->ops->name);
    TS_TRY(choose_feedback(x, format.entry > 0));
    TS_TRY(ts_wire_open(w, x->ops, x->slices, x->n_slices, &x->wire));
    return alloc_vectors(x, format.entry > 0);
}

static ts_status open_all(ts_exchange *x)
{
    TS_TRY(ts_compressor_find(&x->worker.compression, &x->ops));
    if (x->worker.size == 1) x->ops = NULL; /* nobody to tell */
    if (x->ops) TS_TRY(open_compression(x));
    if (is_slow(x)) TS_TRY(open_slow(x));
    TS_TRY(ts_exchange_begin(x));
    return ts_stream_sync(x->worker.compute); /* comm does not wait for the anchor */
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
    void *memory[] = {x->slow, x->anchor, x->velocity, x->residual, x->owed, x->owed_then};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ts_device_release(x->worker.device, TS_MEMORY_DEVICE, memory[i]);
    ts_wire_close(x->wire);
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
                   .to = to + s.at};
    /* with slow momentum ts_exchange_agree moves the anchor */
    return ts_wire_mean(x->wire, slice, &c, !x->slow);
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
        n = ts_part_add(parts, n, max, part);
    }
    return n;
}

int ts_exchange_state(ts_exchange *x, ts_part *parts, int n, int max)
{
    size_t bytes = x->worker.flat->n * sizeof(float);
    int m = x->merge.in_flight;
    ts_part calls = {"exchange", TS_PART_HOST, &x->calls, sizeof x->calls};
    if (x->ops && x->ops->corrects_momentum) /* the stages of its density are told by them */
        snprintf(calls.name, sizeof calls.name, "exchange.slices%d", x->n_slices);
    if (x->ops) n = ts_part_add(parts, n, max, calls);
    if (x->feedback) n = add_all(parts, n, max, "residual", x->residual, m, bytes);
    n = add_all(parts, n, max, "owed", x->owed, 1, bytes);
    n = add_all(parts, n, max, "owed-then", x->owed_then, m, bytes);
    n = add_all(parts, n, max, "velocity", x->velocity, 1, bytes);
    n = add_all(parts, n, max, "anchor", x->anchor, 1, bytes);
    if (!x->slow) return n;
    n = add_all(parts, n, max, "slow", x->slow, 1, bytes);
    return ts_part_add(parts, n, max,
                       (ts_part){"exchange.rates", TS_PART_HOST, x->rates,
                                 (size_t)x->n_slices * sizeof *x->rates});
}
