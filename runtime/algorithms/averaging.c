/* averaging.c - see averaging.h.
 *
 * An average is made out of place when the snapshot must survive it, else in place in the
 * average's own buffer. No stream waits more than once for the same thing: the snapshot of a slot
 * cannot meet its last average still being read by comm, because compute waited for that average
 * when it merged it, and a slot's fragment is used again only after its merge. */
#include "runtime/algorithms/averaging.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/algorithms/exchange.h"
#include "runtime/algorithms/flight.h"
#include "runtime/device/vector.h"

struct ts_averaging {
    ts_worker worker;
    ts_averaging_rule rule;
    ts_flights flights;
    ts_event *snapped;
    ts_exchange *exchange; /* of the parameters; what else is averaged travels as it is */
    struct {
        int64_t started, merged;
    } counts;       /* what a checkpoint must know beside the vectors, */
    int64_t *steps; /* and [most_in_flight] the steps of their starts */
};

int64_t ts_averaging_in_flight(const ts_averaging_rule *r)
{
    return r->delay ? (r->delay + r->period - 1) / r->period : 1;
}

/* Of all fragments. */
static int most_in_flight(const ts_averaging *a)
{
    return a->flights.n_slots * a->flights.n_fragments;
}

/* ---- open, close, state ---- */

static ts_status open_all(ts_averaging *a)
{
    const ts_averaging_rule *r = &a->rule;
    const ts_worker *w = &a->worker;
    ts_flights *f = &a->flights;
    TS_TRY(ts_flights_open(w, r->corrected, (int)ts_averaging_in_flight(r),
                           r->fragments ? r->fragments : 1, f));
    a->steps = calloc((size_t)most_in_flight(a), sizeof *a->steps);
    TS_NEED(a->steps, TS_ENOMEM, "no memory for %d averages in flight", most_in_flight(a));
    TS_TRY(ts_event_open(w->device, &a->snapped));
    const ts_exchange_models models = {.keep = r->keep,
                                       .corrected = r->corrected,
                                       .in_flight = (int)ts_averaging_in_flight(r),
                                       .slow_momentum = r->slow_momentum,
                                       .slow_rate = r->slow_rate};
    return ts_exchange_open(w, f->fragments, f->n_fragments, &models, &a->exchange);
}

ts_status ts_averaging_open(const ts_worker *worker, const ts_averaging_rule *rule,
                            ts_averaging **averaging_p)
{
    ts_averaging *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for averaging");
    a->worker = *worker;
    a->rule = *rule;
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
    ts_exchange_close(a->exchange);
    ts_event_close(a->snapped);
    ts_flights_close(&a->flights);
    free(a->steps);
    free(a);
}

ts_status ts_averaging_begin(ts_averaging *a)
{
    return ts_exchange_begin(a->exchange);
}

/* The names tell the numbers of fragments and of averages in flight, so that a run of others does
 * not take them. */
int ts_averaging_state(ts_averaging *a, ts_part *parts, int max)
{
    int n = ts_exchange_state(a->exchange, parts, 0, max);
    if (a->rule.delay == 0) return n; /* nothing is ever in flight */
    ts_part counts = {"counts", TS_PART_HOST, &a->counts, sizeof a->counts};
    if (a->flights.n_fragments > 1)
        snprintf(counts.name, sizeof counts.name, "counts.fragments%d", a->flights.n_fragments);
    n = ts_part_add(parts, n, max, counts);
    ts_part steps = {"", TS_PART_HOST, a->steps, (size_t)most_in_flight(a) * sizeof *a->steps};
    snprintf(steps.name, sizeof steps.name, "steps%d", most_in_flight(a));
    n = ts_part_add(parts, n, max, steps);
    return ts_flights_state(&a->flights, parts, n, max);
}

/* ---- start ---- */

static ts_status take_snapshot(ts_averaging *a, const ts_flight *f)
{
    for (int v = 0; v < a->flights.n_vectors; v++) {
        ts_slice s = f->slices[v];
        TS_TRY(ts_stream_copy(a->worker.compute, f->snapshot[v] + s.at,
                              a->flights.vectors[v].x + s.at, s.n * sizeof(float)));
    }
    return TS_OK;
}

static ts_status average(ts_averaging *a, const ts_flight *f, float learning_rate)
{
    TS_TRY(
        ts_exchange_agree(a->exchange, f->fragment, f->average[0], f->snapshot[0], learning_rate));
    for (int v = 1; v < a->flights.n_vectors; v++) {
        ts_slice s = f->slices[v];
        TS_TRY(ts_worker_mean(&a->worker, f->average[v] + s.at, f->snapshot[v] + s.at, s.n));
    }
    return TS_OK;
}

static ts_status merge_oldest(ts_averaging *a);

ts_status ts_averaging_start(ts_averaging *a, int64_t step, float learning_rate)
{
    const ts_worker *w = &a->worker;
    int most = most_in_flight(a);
    if (a->counts.started - a->counts.merged == most) TS_TRY(merge_oldest(a));
    a->steps[a->counts.started % most] = step;
    ts_flight f = ts_flights_of(&a->flights, a->counts.started++);
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

static ts_status merge_vector(ts_averaging *a, const ts_flight *f, int v)
{
    const ts_worker *w = &a->worker;
    const ts_averaged *x = &a->flights.vectors[v];
    size_t at = f->slices[v].at;
    float keep = x->kind == TS_PART_STATISTICS ? 0 : a->rule.keep;
    bool shadowed = v == 0 && w->flat->shadow;
    ts_merge merge = {.n = f->slices[v].n,
                      .x = x->x + at,
                      .shadow = shadowed ? w->flat->shadow + at : NULL,
                      .average = f->average[v] + at,
                      .snapshot = x->corrected ? f->snapshot[v] + at : NULL,
                      .a = x->corrected ? 1 : keep,
                      .b = 1 - keep,
                      .c = x->corrected ? keep - 1 : 0};
    return ts_vector_merge(w->compute, &merge);
}

static ts_status merge_oldest(ts_averaging *a)
{
    const ts_worker *w = &a->worker;
    ts_flight f = ts_flights_of(&a->flights, a->counts.merged++);
    ts_slice s = f.slices[0];
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_WAIT, f.number));
    TS_TRY(ts_event_wait(f.arrived, w->compute));
    TS_TRY(ts_trace_end(w->trace, w->compute, TS_SPAN_WAIT));
    TS_TRY(ts_trace_begin(w->trace, w->compute, TS_SPAN_MERGE, f.number));
    for (int v = 0; v < a->flights.n_vectors; v++) TS_TRY(merge_vector(a, &f, v));
    if (w->momentum_policy == TS_MOMENTUM_ZERO)
        TS_TRY(ts_stream_fill(w->compute, w->flat->momentum + s.at, 0, s.n * sizeof(float)));
    return ts_trace_end(w->trace, w->compute, TS_SPAN_MERGE);
}

static bool is_due(const ts_averaging *a, int64_t step)
{
    return a->counts.merged < a->counts.started &&
           a->steps[a->counts.merged % most_in_flight(a)] <= step;
}

ts_status ts_averaging_merge(ts_averaging *a, int64_t step)
{
    while (is_due(a, step)) TS_TRY(merge_oldest(a));
    return TS_OK;
}

bool ts_averaging_late(const ts_averaging *a, int64_t step)
{
    return is_due(a, step) && !ts_event_done(ts_flights_of(&a->flights, a->counts.merged).arrived);
}
