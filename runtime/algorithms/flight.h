/* flight.h - where averages lie while they are under way: a part of averaging.h.
 *
 * Vectors (parameters; momentum and statistics where they are averaged) are cut into P fragments of
 * whole blocks, as equal as they can be. Averages are numbered by their start, fragments take
 * turns, and a fragment's averages take turns in the slots. The fragments of a slot share its
 * buffers, which are as long as the flat ones. */
#ifndef TS_ALGORITHMS_FLIGHT_H
#define TS_ALGORITHMS_FLIGHT_H

#include "runtime/algorithms/algorithm.h"

/* One vector that is averaged. */
typedef struct ts_averaged {
    const char *name;
    float *x;
    size_t n;
    ts_part_kind kind;
    bool corrected; /* by its snapshot */
} ts_averaged;

typedef struct ts_slot {
    float *snapshot[3], *average[3]; /* of each vector; snapshot NULL where not corrected */
    ts_event **arrived;              /* [fragments] */
} ts_slot;

typedef struct ts_flights {
    ts_device *device;
    ts_averaged vectors[3]; /* the first are the parameters */
    int n_vectors, n_slots, n_fragments;
    ts_slice *fragments; /* of the parameters */
    ts_slot *slots;
} ts_flights;

/* Fills a zeroed struct; close also what failed to open. */
ts_status ts_flights_open(const ts_worker *worker, bool corrected, int n_slots, int n_fragments,
                          ts_flights *flights);
void ts_flights_close(ts_flights *flights);
/* Appends what a checkpoint must hold; returns how many there are now. */
int ts_flights_state(ts_flights *flights, ts_part *parts, int n, int max);

/* One average, from its start to its merge. */
typedef struct ts_flight {
    int64_t number;
    int fragment;
    ts_event *arrived;
    ts_slice slices[3]; /* of each vector this fragment */
    /* Whole vectors; where the snapshot need not survive it is taken into the average's own. */
    float *snapshot[3], *average[3];
} ts_flight;
ts_flight ts_flights_of(const ts_flights *flights, int64_t number);

#endif
