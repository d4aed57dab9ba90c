/* periodic.c - see periodic.h. */
#include "runtime/algorithms/periodic.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/algorithms/exchange.h"

enum { IN_FLIGHT_MAX = 16 };

typedef struct periodic {
    ts_algorithm base;
    ts_averaging_rule rule;
    ts_averaging *averaging; /* NULL on one rank */
} periodic;

/* ---- what makes no sense ---- */

/* With m averages in flight a corrected merge takes away a share w = 1 - xi of a difference that
 * the m - 1 averages behind it have seen whole: e(r + 1) = e(r) - w e(r + 1 - m), which dies away
 * when w is below this (Levin and May, 1976, on delayed logistic equations). */
static double share_max(int64_t m)
{
    return 2 * sin(acos(-1) / (double)(4 * m - 2));
}

int64_t ts_periodic_flights_max(const ts_averaging_rule *r)
{
    int64_t m = IN_FLIGHT_MAX;
    if (ts_exchange_is_slow(r->slow_momentum, r->slow_rate)) return 1;
    while (r->corrected && m > 1 && 1 - r->keep >= share_max(m)) m--;
    return m;
}

static ts_status check_flights(const char *name, const ts_averaging_rule *r)
{
    int64_t m = ts_averaging_in_flight(r);
    TS_NEED(m <= IN_FLIGHT_MAX, TS_EUSAGE,
            "%s: delay %lld with period %lld would keep %lld averages in flight, each with a copy "
            "of the model; at most %d: raise --period or lower --delay",
            name, (long long)r->delay, (long long)r->period, (long long)m, IN_FLIGHT_MAX);
    TS_NEED(m == 1 || !ts_exchange_is_slow(r->slow_momentum, r->slow_rate), TS_EUSAGE,
            "%s: slow momentum takes one average in flight at a time, but delay %lld exceeds "
            "period %lld: lower --delay or raise --period",
            name, (long long)r->delay, (long long)r->period);
    TS_NEED(m <= ts_periodic_flights_max(r), TS_EUSAGE,
            "%s: with %lld averages in flight corrected merges of mix %g would correct one "
            "difference again and again, and diverge: raise --mix to %.2f, or --period, or lower "
            "--delay",
            name, (long long)m, (double)r->keep, (floor(100 * (1 - share_max(m))) + 1) / 100);
    return TS_OK;
}

static ts_status check(const char *name, const ts_worker *w, const ts_averaging_rule *r)
{
    TS_NEED(r->period >= 1, TS_EUSAGE, "%s: period %lld is below 1", name, (long long)r->period);
    TS_NEED(r->keep >= 0 && r->keep <= 1, TS_EUSAGE, "%s: mix %g is not within 0 and 1", name,
            (double)r->keep);
    TS_NEED(r->slow_momentum >= 0 && r->slow_momentum < 1, TS_EUSAGE,
            "%s: slow-momentum %g is not within 0 and 1", name, (double)r->slow_momentum);
    TS_NEED(r->slow_rate >= 0 && (r->slow_rate > 0 || r->slow_momentum == 0), TS_EUSAGE,
            "%s: slow-rate %g is not above 0", name, (double)r->slow_rate);
    TS_NEED(r->fragments >= 0 && r->fragments <= r->period, TS_EUSAGE,
            "%s: %d fragments do not fit into a period of %lld local steps, one step each: raise "
            "--period or lower --fragments",
            name, r->fragments, (long long)r->period);
    TS_NEED((size_t)r->fragments <= w->flat->n / TS_VECTOR_BLOCK, TS_EUSAGE,
            "%s: %d fragments of a model of %zu blocks of %d parameters: lower --fragments", name,
            r->fragments, w->flat->n / TS_VECTOR_BLOCK, TS_VECTOR_BLOCK);
    return check_flights(name, r);
}

/* ---- the hooks ---- */

void ts_periodic_close(ts_algorithm *algorithm)
{
    periodic *a = (periodic *)algorithm;
    ts_averaging_close(a->averaging);
    free(a);
}

ts_status ts_periodic_open(const ts_algorithm_ops *ops, const ts_worker *worker,
                           const ts_averaging_rule *rule, ts_algorithm **algorithm_p)
{
    TS_TRY(check(ops->name, worker, rule));
    periodic *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for %s", ops->name);
    a->base.ops = ops;
    a->base.worker = *worker;
    a->rule = *rule;
    ts_status status = worker->size > 1 ? ts_averaging_open(worker, rule, &a->averaging) : TS_OK;
    if (status) {
        ts_periodic_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

ts_status ts_periodic_begin(ts_algorithm *algorithm)
{
    periodic *a = (periodic *)algorithm;
    return a->averaging ? ts_averaging_begin(a->averaging) : TS_OK;
}

/* Does a fragment's average start with the end of local step t? */
static bool starts(const ts_averaging_rule *r, int64_t t)
{
    int64_t all = r->fragments ? r->fragments : 1, since = t % r->period;
    int64_t p = (since * all + r->period - 1) / r->period; /* the first that is not before */
    return t > 0 ? p < all && p * r->period / all == since : t == 0 && r->at_start;
}

ts_status ts_periodic_before_update(ts_algorithm *algorithm, int64_t step)
{
    periodic *a = (periodic *)algorithm;
    if (!a->averaging || step || !a->rule.at_start) return TS_OK;
    return ts_averaging_start(a->averaging, step, algorithm->learning_rate);
}

/* Merge before start: an average of d = k steps ago makes room for the one that starts now. */
ts_status ts_periodic_after_update(ts_algorithm *algorithm, int64_t step)
{
    periodic *a = (periodic *)algorithm;
    const ts_averaging_rule *r = &a->rule;
    int64_t done = step + 1;
    if (!a->averaging) return TS_OK;
    if (r->delay) TS_TRY(ts_averaging_merge(a->averaging, done - r->delay));
    if (starts(r, done)) TS_TRY(ts_averaging_start(a->averaging, done, algorithm->learning_rate));
    return r->delay ? TS_OK : ts_averaging_merge(a->averaging, done);
}

bool ts_periodic_late(ts_algorithm *algorithm, int64_t step)
{
    const periodic *a = (const periodic *)algorithm;
    const ts_averaging_rule *r = &a->rule;
    return a->averaging && r->delay && ts_averaging_late(a->averaging, step + 1 - r->delay);
}

ts_status ts_periodic_drain(ts_algorithm *algorithm)
{
    periodic *a = (periodic *)algorithm;
    return a->averaging ? ts_averaging_merge(a->averaging, INT64_MAX) : TS_OK;
}

int ts_periodic_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    periodic *a = (periodic *)algorithm;
    return a->averaging ? ts_averaging_state(a->averaging, parts, max) : 0;
}
