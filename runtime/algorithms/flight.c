/* flight.c - see flight.h. */
#include "runtime/algorithms/flight.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/device/vector.h"

/* Fragment p of n elements; the last one takes what is left beside whole blocks. */
static ts_slice cut(const ts_flights *f, size_t n, int p)
{
    size_t blocks = n / TS_VECTOR_BLOCK, all = (size_t)f->n_fragments;
    size_t at = blocks * (size_t)p / all * TS_VECTOR_BLOCK;
    size_t end = blocks * ((size_t)p + 1) / all * TS_VECTOR_BLOCK;
    return (ts_slice){at, (p + 1 == f->n_fragments ? n : end) - at};
}

/* Fragment 0 is the last of a period's: its average starts with the period's last step. */
ts_flight ts_flights_of(const ts_flights *f, int64_t number)
{
    int p = (int)((number + 1) % f->n_fragments);
    const ts_slot *s = &f->slots[number / f->n_fragments % f->n_slots];
    ts_flight flight = {.number = number, .fragment = p, .arrived = s->arrived[p]};
    for (int v = 0; v < f->n_vectors; v++) {
        flight.slices[v] = cut(f, f->vectors[v].n, p);
        flight.average[v] = s->average[v];
        flight.snapshot[v] = s->snapshot[v] ? s->snapshot[v] : s->average[v];
    }
    return flight;
}

static void list_vectors(ts_flights *f, const ts_worker *w, bool corrected)
{
    const ts_flat *flat = w->flat;
    f->vectors[f->n_vectors++] =
        (ts_averaged){"parameters", flat->parameters, flat->n, TS_PART_PARAMETERS, corrected};
    if (w->momentum_policy == TS_MOMENTUM_AVERAGE)
        f->vectors[f->n_vectors++] =
            (ts_averaged){"momentum", flat->momentum, flat->n, TS_PART_PARAMETERS, corrected};
    /* Statistics are replaced by their average: a correction could make a variance negative, and
     * training does not read them. */
    if (w->average_statistics && flat->n_statistics)
        f->vectors[f->n_vectors++] = (ts_averaged){"statistics", flat->statistics,
                                                   flat->n_statistics, TS_PART_STATISTICS, false};
}

static ts_status open_slot(ts_flights *f, const ts_worker *w, ts_slot *s)
{
    s->arrived = calloc((size_t)f->n_fragments, sizeof(ts_event *));
    TS_NEED(s->arrived, TS_ENOMEM, "no memory for %d events", f->n_fragments);
    for (int p = 0; p < f->n_fragments; p++) TS_TRY(ts_event_open(w->device, &s->arrived[p]));
    for (int v = 0; v < f->n_vectors; v++) {
        const ts_averaged *x = &f->vectors[v];
        TS_TRY(ts_worker_zeros(w, x->n, &s->average[v]));
        if (x->corrected) TS_TRY(ts_worker_zeros(w, x->n, &s->snapshot[v]));
    }
    return TS_OK;
}

ts_status ts_flights_open(const ts_worker *w, bool corrected, int n_slots, int n_fragments,
                          ts_flights *f)
{
    f->device = w->device;
    f->n_slots = n_slots;
    f->n_fragments = n_fragments;
    list_vectors(f, w, corrected);
    f->slots = calloc((size_t)n_slots, sizeof *f->slots);
    f->fragments = calloc((size_t)n_fragments, sizeof *f->fragments);
    TS_NEED(f->slots && f->fragments, TS_ENOMEM, "no memory for %d averages of %d fragments",
            n_slots, n_fragments);
    for (int p = 0; p < n_fragments; p++) f->fragments[p] = cut(f, w->flat->n, p);
    for (int i = 0; i < n_slots; i++) TS_TRY(open_slot(f, w, &f->slots[i]));
    return TS_OK;
}

void ts_flights_close(ts_flights *f)
{
    for (int i = 0; f->slots && i < f->n_slots; i++) {
        ts_slot *s = &f->slots[i];
        for (int v = 0; v < f->n_vectors; v++) {
            ts_device_release(f->device, TS_MEMORY_DEVICE, s->snapshot[v]);
            ts_device_release(f->device, TS_MEMORY_DEVICE, s->average[v]);
        }
        for (int p = 0; s->arrived && p < f->n_fragments; p++) ts_event_close(s->arrived[p]);
        free(s->arrived);
    }
    free(f->fragments);
    free(f->slots);
}

int ts_flights_state(ts_flights *f, ts_part *parts, int n, int max)
{
    for (int i = 0; i < f->n_slots; i++)
        for (int v = 0; v < f->n_vectors; v++)
            for (int snapshot = 0; snapshot < 2; snapshot++) {
                const ts_averaged *x = &f->vectors[v];
                float *at = snapshot ? f->slots[i].snapshot[v] : f->slots[i].average[v];
                if (!at) continue;
                ts_part part = {"", x->kind, at, x->n * sizeof(float)};
                snprintf(part.name, sizeof part.name, "%s%d.%s", snapshot ? "snapshot" : "average",
                         i, x->name);
                n = ts_part_add(parts, n, max, part);
            }
    return n;
}
