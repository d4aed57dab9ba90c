/* averaging.c - see averaging.h.
 *
 * An average is made out of place when the snapshot must survive it, else in place in the
 * average's own buffer. No stream waits more than once for the same thing: the snapshot of a slot
 * cannot meet its last average still being read by comm, because compute waited for that average
 * when it merged it, and a slot is used again only after its merge. */
#include "runtime/algorithms/averaging.h"

#include <stdio.h>
#include <stdlib.h>

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
    ts_event *arrived;
} slot;

/* What a checkpoint must know beside the vectors. */
typedef struct counts {
    int64_t started, merged;
} counts;

struct ts_averaging {
    ts_worker worker;
    vector vectors[3];
    int n_vectors, n_slots;
    slot *slots;
    ts_event *snapped;
    counts counts;
    float *velocity,
        anchor_momentum; /* of the anchor, which lies in the average; NULL: no anchor */
};

static void list_vectors(ts_averaging *a, bool corrected)
{
    const ts_flat *f = a->worker.flat;
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
    TS_TRY(ts_event_open(a->worker.device, &s->arrived));
    for (int v = 0; v < a->n_vectors; v++) {
        const vector *x = &a->vectors[v];
        TS_TRY(ts_worker_zeros(&a->worker, x->n, &s->average[v]));
        if (x->corrected) TS_TRY(ts_worker_zeros(&a->worker, x->n, &s->snapshot[v]));
    }
    return TS_OK;
}

ts_status ts_averaging_open(const ts_worker *worker, int in_flight, bool corrected,
                            ts_averaging **averaging_p)
{
    ts_status status;
    ts_averaging *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for averaging");
    a->worker = *worker;
    list_vectors(a, corrected);
    a->slots = calloc((size_t)in_flight, sizeof *a->slots);
    if (!a->slots) {
        status = TS_ERROR(TS_ENOMEM, "no memory for %d averages in flight", in_flight);
        goto fail;
    }
    a->n_slots = in_flight;
    TS_TRY_TO(status, fail, ts_event_open(worker->device, &a->snapped));
    for (int i = 0; i < in_flight; i++) TS_TRY_TO(status, fail, open_slot(a, &a->slots[i]));
    *averaging_p = a;
    return TS_OK;
fail:
    ts_averaging_close(a);
    return status;
}

ts_status ts_averaging_anchor(ts_averaging *a, float momentum)
{
    a->anchor_momentum = momentum;
    return ts_worker_zeros(&a->worker, a->vectors[0].n, &a->velocity);
}

void ts_averaging_close(ts_averaging *a)
{
    if (!a) return;
    ts_device_release(a->worker.device, TS_MEMORY_DEVICE, a->velocity);
    for (int i = 0; i < a->n_slots; i++) {
        for (int v = 0; v < a->n_vectors; v++) {
            ts_device_release(a->worker.device, TS_MEMORY_DEVICE, a->slots[i].snapshot[v]);
            ts_device_release(a->worker.device, TS_MEMORY_DEVICE, a->slots[i].average[v]);
        }
        ts_event_close(a->slots[i].arrived);
    }
    ts_event_close(a->snapped);
    free(a->slots);
    free(a);
}

static ts_status move_anchor(ts_averaging *a, float *anchor)
{
    const vector *x = &a->vectors[0];
    ts_merge velocity = {.n = x->n,
                         .x = a->velocity,
                         .average = x->x,
                         .snapshot = anchor,
                         .a = a->anchor_momentum,
                         .b = 1,
                         .c = -1};
    ts_merge move = {.n = x->n, .x = anchor, .average = a->velocity, .a = 1, .b = 1};
    TS_TRY(ts_vector_merge(a->worker.compute, &velocity));
    return ts_vector_merge(a->worker.compute, &move);
}

static ts_status take_snapshot(ts_averaging *a, const slot *s, int64_t round)
{
    for (int v = 0; v < a->n_vectors; v++) {
        const vector *x = &a->vectors[v];
        float *to = s->snapshot[v] ? s->snapshot[v] : s->average[v];
        if (v == 0 && a->velocity && round)
            TS_TRY(move_anchor(a, to));
        else
            TS_TRY(ts_stream_copy(a->worker.compute, to, x->x, x->n * sizeof(float)));
    }
    return TS_OK;
}

ts_status ts_averaging_start(ts_averaging *a)
{
    const ts_worker *w = &a->worker;
    int64_t round = a->counts.started++;
    slot *s = &a->slots[round % a->n_slots];
    TS_NEED(a->counts.started - a->counts.merged <= a->n_slots, TS_EUSAGE,
            "round %lld: more than %d averages in flight", (long long)round, a->n_slots);
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, round));
    TS_TRY(take_snapshot(a, s, round));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE));
    TS_TRY(ts_stream_after(a->snapped, w->compute, w->comm));
    TS_TRY(ts_trace_begin(w->trace, w->comm, TS_SPAN_COMM, round));
    for (int v = 0; v < a->n_vectors; v++) {
        const float *from = s->snapshot[v] ? s->snapshot[v] : s->average[v];
        TS_TRY(ts_worker_mean(w, s->average[v], from, a->vectors[v].n));
    }
    TS_TRY(ts_trace_end(w->trace, w->comm, TS_SPAN_COMM));
    return ts_event_record(s->arrived, w->comm);
}

static ts_status merge_vector(ts_averaging *a, const slot *s, int v, float keep)
{
    const ts_worker *w = &a->worker;
    const vector *x = &a->vectors[v];
    if (x->kind == TS_PART_STATISTICS) keep = 0;
    ts_merge merge = {.n = x->n,
                      .x = x->x,
                      .shadow = x->x == w->flat->parameters ? w->flat->shadow : NULL,
                      .average = s->average[v],
                      .snapshot = s->snapshot[v],
                      .a = x->corrected ? 1 : keep,
                      .b = x->corrected ? 1 : 1 - keep,
                      .c = x->corrected ? -1 : 0};
    return ts_vector_merge(w->compute, &merge);
}

ts_status ts_averaging_merge(ts_averaging *a, float keep)
{
    const ts_worker *w = &a->worker;
    if (a->counts.merged == a->counts.started) return TS_OK;
    int64_t round = a->counts.merged++;
    slot *s = &a->slots[round % a->n_slots];
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_WAIT, round));
    TS_TRY(ts_event_wait(s->arrived, w->compute));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_WAIT));
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, round));
    for (int v = 0; v < a->n_vectors; v++) TS_TRY(merge_vector(a, s, v, keep));
    if (w->momentum_policy == TS_MOMENTUM_ZERO)
        TS_TRY(ts_stream_fill(w->compute, w->flat->momentum, 0, w->flat->n * sizeof(float)));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE);
}

ts_status ts_averaging_drain(ts_averaging *a, float keep)
{
    while (a->counts.merged < a->counts.started) TS_TRY(ts_averaging_merge(a, keep));
    return TS_OK;
}

int ts_averaging_state(ts_averaging *a, ts_part *parts, int max)
{
    int n = 0;
    parts[n++] = (ts_part){"counts", TS_PART_HOST, &a->counts, sizeof a->counts};
    if (a->velocity)
        parts[n++] =
            (ts_part){"velocity", TS_PART_PARAMETERS, a->velocity, a->vectors[0].n * sizeof(float)};
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
