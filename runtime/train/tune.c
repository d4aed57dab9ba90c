/* tune.c - see tune.h.
 *
 * An average is timed beside local steps, as it will run, because on some machines the two slow
 * each other down; Local-SGD's, which blocks, is timed alone. The slowest rank's steps count. Of
 * an average the rank that came to it last tells the time, since it alone waited for nobody; of
 * several the longest counts, because they vary and what just hides the middle one exposes half. */
#include "runtime/train/tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/algorithms/averaging.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/plan/plan.h"
#include "runtime/train/checkpoint.h"
#include "runtime/train/rehearsal.h"

/* The first average opens connections. Beside one no more steps than the trace has room for. */
enum { AVERAGES = 3, STEPS_BESIDE = 1024 };

typedef struct tuner {
    ts_trainer *t;
    ts_rehearsal *rehearsal;
    ts_averaging *averaging;
    double comm; /* seconds of the last average */
} tuner;

typedef struct measure {
    double step_s, spread, average_s;
} measure;

/* ---- measuring ---- */

static ts_status open_tuner(tuner *u)
{
    static const ts_averaging_rule once = {.period = 1, .delay = 1};
    ts_worker worker = ts_trainer_worker(u->t);
    TS_TRY(ts_rehearsal_open(u->t, &u->rehearsal));
    return ts_averaging_open(&worker, &once, &u->averaging);
}

/* Nothing is queued any more. */
static void close_tuner(tuner *u)
{
    ts_rehearsal_close(u->rehearsal);
    ts_averaging_close(u->averaging);
}

static void on_comm(void *context, const ts_span *span)
{
    if (span->kind == TS_SPAN_COMM)
        ((tuner *)context)->comm = (double)(span->end_ns - span->begin_ns) * 1e-9;
}

/* Seconds of an average with `beside` local steps, on the rank that came last. */
static ts_status time_average(tuner *u, double *all, int64_t beside, double *seconds_p)
{
    ts_trainer *t = u->t;
    TS_TRY(t->world->ops->barrier(t->world));
    TS_TRY(ts_averaging_start(u->averaging, 0, 1));
    for (int64_t i = 0; i < beside; i++) TS_TRY(ts_step_run(t->local_step));
    TS_TRY(ts_averaging_merge(u->averaging, 0));
    TS_TRY(ts_stream_sync(t->compute));
    TS_TRY(ts_stream_sync(t->comm));
    ts_trace_drain(t->trace, on_comm, u);
    TS_TRY(t->world->ops->all_gather(t->world, &u->comm, all, sizeof *all));
    double longest = 0;
    *seconds_p = all[0];
    for (int r = 0; r < t->world->size; r++) {
        *seconds_p = fmin(*seconds_p, all[r]);
        longest = fmax(longest, all[r]);
    }
    ts_log(TS_LOG_DEBUG,
           "an average beside %lld local steps: %.4g s, on the rank that came first %.4g s",
           (long long)beside, *seconds_p, longest);
    return TS_OK;
}

/* Collective; `all` and `spreads` have a place for every rank. */
static ts_status measure_all(tuner *u, double *all, double *spreads, measure *m)
{
    ts_trainer *t = u->t;
    double guess = 0, average = 0;
    ts_step_times own = {0};
    bool blocks = !strcmp(t->config->algorithm, "local");
    ts_status status = open_tuner(u);
    if (!status) status = ts_rehearsal_time(u->rehearsal, &own);
    TS_TRY(ts_world_agree(t->world, status));
    TS_TRY(t->world->ops->all_gather(t->world, &own.step_s, all, sizeof own.step_s));
    TS_TRY(t->world->ops->all_gather(t->world, &own.spread, spreads, sizeof own.spread));
    for (int r = 0; r < t->world->size; r++)
        if (all[r] > m->step_s) *m = (measure){.step_s = all[r], .spread = spreads[r]};
    TS_TRY(time_average(u, all, 0, &guess));
    int64_t beside = blocks ? 0 : (int64_t)fmin(STEPS_BESIDE, ceil(guess / m->step_s));
    for (int i = 0; i < AVERAGES; i++) {
        TS_TRY(time_average(u, all, beside, &average));
        m->average_s = fmax(m->average_s, average);
    }
    return ts_rehearsal_undo(u->rehearsal);
}

/* ---- deciding ---- */

typedef struct choice {
    int64_t period;
    double excess, before; /* at this period, and at one less where that may be; in steps */
    bool hides;
} choice;

static ts_status choose(const ts_trainer *t, const measure *m, choice *c)
{
    int n = t->world->size;
    const char *name = t->config->algorithm;
    int64_t delay = !strcmp(name, "dasgd") ? t->config->algorithm_config.delay : 0;
    ts_plan_link link = {1, 0}; /* 1 byte/s: an all-reduce of these bytes takes average_s */
    ts_plan_cluster cluster = {.ranks = n,
                               .per_host = 1,
                               .inner = link,
                               .outer = link,
                               .step_s = m->step_s,
                               .spread = m->spread,
                               .bytes = m->average_s * n / (2.0 * (n - 1)),
                               .buckets = 1,
                               .seed = 1};
    int64_t least = ts_algorithm_least_period(name, &t->config->algorithm_config);
    TS_TRY(
        ts_plan_period(&cluster, name, delay, TS_PLAN_HIDDEN, least, TS_PLAN_LONGEST, &c->period));
    c->hides = c->period > 0;
    if (!c->hides) c->period = TS_PLAN_LONGEST;
    TS_TRY(ts_plan_excess(&cluster, name, c->period, delay, &c->excess));
    if (c->period > least) TS_TRY(ts_plan_excess(&cluster, name, c->period - 1, delay, &c->before));
    return TS_OK;
}

static void tell(const ts_trainer *t, const measure *m, const choice *c, double seconds)
{
    const ts_algorithm_config *a = &t->config->algorithm_config;
    bool dasgd = !strcmp(t->config->algorithm, "dasgd");
    char times[128], who[64], shorter[64] = "";
    snprintf(times, sizeof times,
             "a local step takes %.3g s (spread %.0f %%), an average %.3g s (measured in %.1f s)",
             m->step_s, 100 * m->spread, m->average_s, seconds);
    snprintf(who, sizeof who, "%s", ts_algorithm_find(t->config->algorithm)->title);
    if (dasgd)
        snprintf(who + strlen(who), sizeof who - strlen(who), ", d %lld,",
                 (long long)(a->delay ? a->delay : ts_plan_delay(c->period)));
    if (c->before > 0)
        snprintf(shorter, sizeof shorter, ", with k %lld for %.2g %%", (long long)(c->period - 1),
                 100 * c->before);
    if (c->hides)
        ts_info("period auto: %s; with k %lld %s waits for less than %g %% of a step%s", times,
                (long long)c->period, who, 100 * TS_PLAN_HIDDEN, shorter);
    else
        ts_warn("period auto: %s; even with k %lld, the longest, %s waits for %.2g %% of a step",
                times, (long long)c->period, who, 100 * c->excess);
    if (dasgd && a->delay && m->average_s > (double)a->delay * m->step_s)
        ts_warn("period auto: an average takes %.2g local steps and is waited for after %lld; only "
                "a long period makes that rare: give a larger --delay, or auto",
                m->average_s / m->step_s, (long long)a->delay);
    if (c->period > t->total)
        ts_warn("period auto: k %lld exceeds the run's %lld local steps, so nothing is averaged "
                "before its end",
                (long long)c->period, (long long)t->total);
}

static ts_status measure_and_choose(ts_trainer *t, int64_t *period_p)
{
    int size = t->world->size;
    int64_t begin = ts_clock_ns();
    tuner u = {.t = t};
    measure m = {0};
    choice c = {0};
    double *all = calloc(2 * (size_t)size, sizeof *all);
    ts_status status =
        ts_world_agree(t->world, all ? TS_OK : TS_ERROR(TS_ENOMEM, "no memory for %d ranks", size));
    if (!status) status = measure_all(&u, all, all + size, &m);
    free(all);
    /* as in ts_train: a rank that failed alone cannot wait for its streams */
    if (status && !t->world->agreed) return status;
    close_tuner(&u);
    TS_TRY(status);
    TS_TRY(ts_world_agree(t->world, t->world->rank ? TS_OK : choose(t, &m, &c)));
    TS_TRY(t->world->ops->broadcast(t->world, &c, sizeof c, 0));
    if (!t->world->rank) tell(t, &m, &c, (double)(ts_clock_ns() - begin) * 1e-9);
    *period_p = c.period;
    return TS_OK;
}

static ts_status set(const ts_trainer *t, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return ts_option_set_value(t->options, key, text, "auto");
}

static ts_status check_whole(const ts_trainer *t)
{
    int64_t fragments = t->config->algorithm_config.fragments;
    TS_NEED(fragments == 1 || !ts_algorithm_find(t->config->algorithm)->periodic, TS_EUSAGE,
            "--period auto measures averages of the whole model, not of %lld fragments: give "
            "--period, as it is found without --fragments",
            (long long)fragments);
    return TS_OK;
}

ts_status ts_tune(ts_trainer *t, const char *from)
{
    int64_t period = t->config->algorithm_config.period, delay = t->config->algorithm_config.delay;
    if (period && delay) return TS_OK;
    if (!period && !from) TS_TRY(ts_world_agree(t->world, check_whole(t)));
    if (!period && from) {
        int64_t its_delay;
        TS_TRY(ts_checkpoint_schedule(t, from, &period, &its_delay));
        if (!delay) delay = its_delay;
        ts_info("period auto: k %lld, as the checkpoint's run", (long long)period);
    } else if (!period && !ts_algorithm_find(t->config->algorithm)->periodic) {
        period = 1;
    } else if (!period && t->world->size == 1) {
        period = 1;
        ts_info("period auto: one rank has nothing to average: k 1");
    } else if (!period) {
        ts_log_set_phase("measuring for --period auto");
        TS_TRY(measure_and_choose(t, &period));
        ts_log_set_phase("start-up");
    }
    if (!delay) delay = ts_plan_delay(period);
    TS_TRY(set(t, "period", period));
    return set(t, "delay", delay);
}
