/* averaging.c - see averaging.h.
 *
 * An average is made out of place when the snapshot must survive it, else in place in the
 * average's own buffer. No stream waits more than once for the same thing: the snapshot of a slot
 * cannot meet its last average still being read by comm, because compute waited for that average
 * when it merged it, and a slot's fragment is used again only after its merge. The fragments of a
 * slot share its buffers, which are as long as the flat ones. */
#include "runtime/algorithms/averaging.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/algorithms/exchange.h"
#include "runtime/device/vector.h"

/* One vector that is averaged: parameters, momentum or statistics. */
typedef struct vector {
    const char *name;
    float *x;
    size_t n;
    ts_part_kind kind;
    bool corrected; /* by its snapshot */
} vector;

typedef struct slot {
    float *snapshot[3], *average[3]; /* of each vector; snapshot NULL where not corrected */
    ts_event **arrived;              /* [fragments] */
} slot;

/* What a checkpoint must know beside the vectors. */
typedef struct counts {
    int64_t started, merged;
} counts;

struct ts_averaging {
    ts_worker worker;
    ts_averaging_rule rule;
    vector vectors[3];
    int n_vectors, n_slots, n_fragments;
    slot *slots;
    ts_event *snapped;
    ts_slice *fragments;   /* of the parameters */
    ts_exchange *exchange; /* of the parameters; what else is averaged travels as it is */
    counts counts;
};

/* One average, from its start to its merge. */
typedef struct flight {
    int64_t number;
    int fragment;
    slot *slot;
    ts_event *arrived;
} flight;

/* Fragments take turns; the last one is the first whose turn is over at the end of a period. */
static flight flight_of(const ts_averaging *a, int64_t number)
{
    int fragment = (int)((number + 1) % a->n_fragments);
    slot *s = &a->slots[number / a->n_fragments % a->n_slots];
    return (flight){number, fragment, s, s->arrived[fragment]};
}

/* Fragment p of a vector of n elements: whole blocks, the last one takes what is left. */
static ts_slice cut(const ts_averaging *a, size_t n, int p)
{
    size_t blocks = n / TS_VECTOR_BLOCK, all = (size_t)a->n_fragments;
    size_t at = blocks * (size_t)p / all * TS_VECTOR_BLOCK;
    size_t end = blocks * ((size_t)p + 1) / all * TS_VECTOR_BLOCK;
    return (ts_slice){at, (p + 1 == a->n_fragments ? n : end) - at};
}

int64_t ts_averaging_in_flight(const ts_averaging_rule *r)
{
    return r->delay ? (r->delay + r->period - 1) / r->period : 1;
}

bool ts_averaging_slow(const ts_averaging_rule *r)
{
    return r->slow_momentum != 0 || (r->slow_rate != 0 && r->slow_rate != 1);
}

/* ---- open, close ---- */

static void list_vectors(ts_averaging *a)
{
    const ts_flat *f = a->worker.flat;
    bool corrected = a->rule.corrected;
    a->vectors[a->n_vectors++] =
        (vector){"parameters", f->parameters, f->n, TS_PART_PARAMETERS, corrected};
    if (a->worker.momentum_policy == TS_MOMENTUM_AVERAGE)
        a->vectors[a->n_vectors++] =
            (vector){"momentum", f->momentum, f->n, TS_PART_PARAMETERS, corrected};
    /* Statistics are replaced by their average: a correction could make a variance negative, and
     * training does not read them. */
    if (a->worker.average_statistics && f->n_statistics)
        a->vectors[a->n_vectors++] =
            (vector){"statistics", f->statistics, f->n_statistics, TS_PART_STATISTICS, false};
}

static ts_status open_slot(ts_averaging *a, slot *s)
{
    s->arrived = calloc((size_t)a->n_fragments, sizeof(ts_event *));
    TS_NEED(s->arrived, TS_ENOMEM, "no memory for %d events", a->n_fragments);
    for (int p = 0; p < a->n_fragments; p++)
        TS_TRY(ts_event_open(a->worker.device, &s->arrived[p]));
    for (int v = 0; v < a->n_vectors; v++) {
        const vector *x = &a->vectors[v];
        TS_TRY(ts_worker_zeros(&a->worker, x->n, &s->average[v]));
        if (x->corrected) TS_TRY(ts_worker_zeros(&a->worker, x->n, &s->snapshot[v]));
    }
    return TS_OK;
}

static ts_status open_all(ts_averaging *a)
{
    const ts_averaging_rule *r = &a->rule;
    const ts_worker *w = &a->worker;
    a->slots = calloc((size_t)a->n_slots, sizeof *a->slots);
    a->fragments = calloc((size_t)a->n_fragments, sizeof *a->fragments);
    TS_NEED(a->slots && a->fragments, TS_ENOMEM, "no memory for %d averages of %d fragments",
            a->n_slots, a->n_fragments);
    for (int p = 0; p < a->n_fragments; p++) a->fragments[p] = cut(a, w->flat->n, p);
    TS_TRY(ts_event_open(w->device, &a->snapped));
    TS_TRY(ts_exchange_open(w, a->fragments, a->n_fragments, true, &a->exchange));
    if (ts_averaging_slow(r) && w->size > 1)
        TS_TRY(ts_exchange_slow(a->exchange, r->slow_momentum, r->slow_rate));
    for (int i = 0; i < a->n_slots; i++) TS_TRY(open_slot(a, &a->slots[i]));
    return TS_OK;
}

ts_status ts_averaging_open(const ts_worker *worker, const ts_averaging_rule *rule,
                            ts_averaging **averaging_p)
{
    ts_averaging *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for averaging");
    a->worker = *worker;
    a->rule = *rule;
    a->n_slots = (int)ts_averaging_in_flight(rule);
    a->n_fragments = rule->fragments ? rule->fragments : 1;
    list_vectors(a);
    ts_status status = open_all(a);
    if (status) {
        ts_averaging_close(a);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *averaging_p = a;
    return TS_OK;
}

void ts_averaging_close(ts_averaging *a)
{
    if (!a) return;
    for (int i = 0; a->slots && i < a->n_slots; i++) {
        slot *s = &a->slots[i];
        for (int v = 0; v < a->n_vectors; v++) {
            ts_device_release(a->worker.device, TS_MEMORY_DEVICE, s->snapshot[v]);
            ts_device_release(a->worker.device, TS_MEMORY_DEVICE, s->average[v]);
        }
        for (int p = 0; s->arrived && p < a->n_fragments; p++) ts_event_close(s->arrived[p]);
        free(s->arrived);
    }
    ts_exchange_close(a->exchange);
    ts_event_close(a->snapped);
    free(a->fragments);
    free(a->slots);
    free(a);
}

ts_status ts_averaging_begin(ts_averaging *a)
{
    return ts_exchange_begin(a->exchange);
}

/* ---- start ---- */

/* Where vector v's snapshot is taken to. */
static float *snapshot_of(const flight *f, int v)
{
    return f->slot->snapshot[v] ? f->slot->snapshot[v] : f->slot->average[v];
}

static ts_status take_snapshot(ts_averaging *a, const flight *f)
{
    for (int v = 0; v < a->n_vectors; v++) {
        ts_slice s = cut(a, a->vectors[v].n, f->fragment);
        TS_TRY(ts_stream_copy(a->worker.compute, snapshot_of(f, v) + s.at, a->vectors[v].x + s.at,
                              s.n * sizeof(float)));
    }
    return TS_OK;
}

static ts_status average(ts_averaging *a, const flight *f, float learning_rate)
{
    TS_TRY(ts_exchange_agree(a->exchange, f->fragment, f->slot->average[0], snapshot_of(f, 0),
                             learning_rate));
    for (int v = 1; v < a->n_vectors; v++) {
        ts_slice s = cut(a, a->vectors[v].n, f->fragment);
        if (s.n)
            TS_TRY(ts_worker_mean(&a->worker, f->slot->average[v] + s.at, snapshot_of(f, v) + s.at,
                                  s.n));
    }
    return TS_OK;
}

ts_status ts_averaging_start(ts_averaging *a, float learning_rate)
{
    const ts_worker *w = &a->worker;
    flight f = flight_of(a, a->counts.started++);
    TS_NEED(a->counts.started - a->counts.merged <= (int64_t)a->n_slots * a->n_fragments, TS_EUSAGE,
            "average %lld: more than %d in flight", (long long)f.number,
            a->n_slots * a->n_fragments);
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, f.number));
    TS_TRY(take_snapshot(a, &f));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE));
    TS_TRY(ts_stream_after(a->snapped, w->compute, w->comm));
    TS_TRY(ts_trace_begin(w->trace, w->comm, TS_SPAN_COMM, f.number));
    TS_TRY(average(a, &f, learning_rate));
    TS_TRY(ts_trace_end(w->trace, w->comm, TS_SPAN_COMM));
    return ts_event_record(f.arrived, w->comm);
}

/* ---- merge ---- */

static ts_status merge_vector(ts_averaging *a, const flight *f, int v)
{
    const ts_worker *w = &a->worker;
    const vector *x = &a->vectors[v];
    ts_slice s = cut(a, x->n, f->fragment);
    float keep = x->kind == TS_PART_STATISTICS ? 0 : a->rule.keep;
    bool shadowed = x->x == w->flat->parameters && w->flat->shadow;
    ts_merge merge = {.n = s.n,
                      .x = x->x + s.at,
                      .shadow = shadowed ? w->flat->shadow + s.at : NULL,
                      .average = f->slot->average[v] + s.at,
                      .snapshot = x->corrected ? f->slot->snapshot[v] + s.at : NULL,
                      .a = x->corrected ? 1 : keep,
                      .b = 1 - keep,
                      .c = x->corrected ? keep - 1 : 0};
    return ts_vector_merge(w->compute, &merge);
}

ts_status ts_averaging_merge(ts_averaging *a)
{
    const ts_worker *w = &a->worker;
    if (a->counts.merged == a->counts.started) return TS_OK;
    flight f = flight_of(a, a->counts.merged++);
    ts_slice s = a->fragments[f.fragment];
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_WAIT, f.number));
    TS_TRY(ts_event_wait(f.arrived, w->compute));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_WAIT));
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, f.number));
    for (int v = 0; v < a->n_vectors; v++) TS_TRY(merge_vector(a, &f, v));
    if (w->momentum_policy == TS_MOMENTUM_ZERO)
        TS_TRY(ts_stream_fill(w->compute, w->flat->momentum + s.at, 0, s.n * sizeof(float)));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE);
}

ts_status ts_averaging_drain(ts_averaging *a)
{
    while (a->counts.merged < a->counts.started) TS_TRY(ts_averaging_merge(a));
    return TS_OK;
}

/* ---- state ---- */

/* The counts' name tells the number of fragments, so that a run of another does not take them. */
int ts_averaging_state(ts_averaging *a, ts_part *parts, int max)
{
    int n = ts_exchange_state(a->exchange, parts, 0, max);
    if (a->rule.delay == 0) return n; /* nothing is ever in flight */
    ts_part *how_many = &parts[n++];
    *how_many = (ts_part){"counts", TS_PART_HOST, &a->counts, sizeof a->counts};
    if (a->n_fragments > 1)
        snprintf(how_many->name, sizeof how_many->name, "counts.fragments%d", a->n_fragments);
    for (int i = 0; i < a->n_slots; i++)
        for (int v = 0; v < a->n_vectors; v++)
            for (int snapshot = 0; snapshot < 2 && n < max; snapshot++) {
                float *at = snapshot ? a->slots[i].snapshot[v] : a->slots[i].average[v];
                if (!at) continue;
                ts_part *p = &parts[n++];
                *p = (ts_part){"", a->vectors[v].kind, at, a->vectors[v].n * sizeof(float)};
                snprintf(p->name, sizeof p->name, "%s%d.%s", snapshot ? "snapshot" : "average", i,
                         a->vectors[v].name);
            }
    return n;
}
