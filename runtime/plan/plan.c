/* plan.c - see plan.h. Every algorithm is a schedule over the same two questions: when does an
 * average start and which later step waits for it. The ranks' clocks advance a step at a time. */
#include "runtime/plan/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/random.h"

enum { FLIGHTS = 1024, WARM_ROUNDS = 2, SEARCH_WORK = 1 << 18 /* steps of all ranks in a try */ };

/* ---- one all-reduce ---- */

static double ring(int n, double bytes, ts_plan_link link)
{
    return n < 2 ? 0
                 : 2.0 * (n - 1) / n * bytes / link.bytes_per_s + 2.0 * (n - 1) * link.latency_s;
}

double ts_plan_all_reduce(const ts_plan_cluster *c, double bytes)
{
    int n = c->ranks, hosts = (n + c->per_host - 1) / c->per_host;
    int inside = n < c->per_host ? n : c->per_host;
    double slowest = c->outer.bytes_per_s, hops = 2.0 * (n - 1), across = hops * hosts / n;
    if (hosts == 1) return ring(n, bytes, c->inner);
    if (inside > 1) slowest = fmin(slowest, c->inner.bytes_per_s);
    switch (c->shape) {
    case TS_PLAN_TREE:
        return 2 * bytes / slowest + 2 * (inside - 1) * c->inner.latency_s +
               2 * ceil(log2(hosts)) * c->outer.latency_s;
    case TS_PLAN_HIERARCHICAL: /* the ranks of a host share its link, each with a part of bytes */
        return ring(inside, bytes, c->inner) + ring(hosts, bytes, c->outer);
    case TS_PLAN_RING:
        break;
    }
    return hops / n * bytes / slowest + across * c->outer.latency_s +
           (hops - across) * c->inner.latency_s;
}

/* ---- the algorithms ---- */

/* Some have the schedule of another: what is averaged differs, not when. */
static const struct {
    const char *name, *like;
    bool every_step; /* whatever the period */
} known[] = {{"ssgd", "ssgd", true},           {"pipe", "cocod", true},   {"od", "cocod", true},
             {"local", "local", false},        {"cocod", "cocod", false}, {"dasgd", "dasgd", false},
             {"overlap-local", "cocod", false}};
enum { KNOWN = sizeof known / sizeof *known };

static ts_status find_schedule(const ts_plan_method *m, ts_plan_method *like)
{
    char names[128] = "";
    *like = *m;
    if (!like->fragments) like->fragments = 1;
    for (int i = 0; i < KNOWN; i++) {
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "",
                 known[i].name);
        if (strcmp(m->algorithm, known[i].name)) continue;
        like->algorithm = known[i].like;
        if (known[i].every_step) like->period = like->fragments = 1;
        return TS_OK;
    }
    return TS_ERROR(TS_EUSAGE, "no forecast for algorithm \"%s\"; there are %s", m->algorithm,
                    names);
}

/* ---- the simulation ---- */

typedef struct flight { /* one collective */
    double begin, end;
} flight;

typedef struct simulation {
    const ts_plan_cluster *c;
    const ts_plan_method *m;
    double *clock, *work;    /* [ranks] when compute is free; seconds of the step it is in */
    flight flights[FLIGHTS]; /* ring, in order */
    int64_t flown;
    double comm, exposed; /* sums; exposed over all ranks */
} simulation;

/* Mean 1; a function of (seed, rank, step). */
static double stretch(const ts_plan_cluster *c, int rank, int64_t step)
{
    if (c->spread <= 0) return 1;
    ts_random4 r = ts_random(c->seed, (uint64_t)rank, (uint64_t)step);
    double u = ((double)r.v[0] + 1) / 4294967297.0, v = (double)r.v[1] / 4294967296.0;
    double normal = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
    double variance = log1p(c->spread * c->spread); /* of the logarithm */
    return exp(sqrt(variance) * normal - variance / 2);
}

static void draw_work(simulation *s, int64_t step)
{
    for (int r = 0; r < s->c->ranks; r++)
        s->work[r] = s->c->step_s * stretch(s->c, r, step) / (s->c->speeds ? s->c->speeds[r] : 1);
}

/* When `work` seconds that begin at `from` are done, slower while collectives fly. */
static double finish(const simulation *s, double from, double work)
{
    double now = from, slow = 1 + s->c->contention;
    int64_t first = s->flown > FLIGHTS ? s->flown - FLIGHTS : 0, i = s->flown;
    if (slow <= 1) return from + work;
    while (i > first && s->flights[(i - 1) % FLIGHTS].end > now) i--;
    for (; i < s->flown; i++) {
        const flight *f = &s->flights[i % FLIGHTS];
        double free_time = f->begin > now ? f->begin - now : 0;
        if (work <= free_time) break;
        work -= free_time;
        now += free_time;
        if (work * slow <= f->end - now) return now + work * slow;
        work -= (f->end - now) / slow;
        now = f->end;
    }
    return now + work;
}

/* A collective that every rank has come to by `ready`. */
static int64_t fly(simulation *s, double ready, double seconds)
{
    double before = s->flown ? s->flights[(s->flown - 1) % FLIGHTS].end : 0;
    double begin = ready > before ? ready : before;
    s->flights[s->flown % FLIGHTS] = (flight){begin, begin + seconds};
    s->comm += seconds;
    return s->flown++;
}

static double latest(const simulation *s)
{
    double t = s->clock[0];
    for (int r = 1; r < s->c->ranks; r++)
        if (s->clock[r] > t) t = s->clock[r];
    return t;
}

static void wait_for(simulation *s, int64_t which)
{
    double end = s->flights[which % FLIGHTS].end;
    for (int r = 0; r < s->c->ranks; r++) {
        if (end <= s->clock[r]) continue;
        s->exposed += end - s->clock[r];
        s->clock[r] = end;
    }
}

static void compute(simulation *s)
{
    for (int r = 0; r < s->c->ranks; r++) s->clock[r] = finish(s, s->clock[r], s->work[r]);
}

/* Overlapped S-SGD: bucket b of n is ready after forward and (b + 1) / n of the rest. The flights
 * of a step are found without their own contention, which the step then pays. */
static void step_of_buckets(simulation *s)
{
    const ts_plan_cluster *c = s->c;
    for (int b = 0; b < c->buckets; b++) {
        double share = c->forward_share + (1 - c->forward_share) * (b + 1) / c->buckets, ready = 0;
        for (int r = 0; r < c->ranks; r++) ready = fmax(ready, s->clock[r] + share * s->work[r]);
        fly(s, ready, ts_plan_all_reduce(c, c->bytes / c->buckets));
    }
    compute(s);
    /* contention may have moved the last gradients: no average ends before they exist */
    int64_t last = s->flown - 1;
    double tail = latest(s) + ts_plan_all_reduce(c, c->bytes / c->buckets);
    if (s->flights[last % FLIGHTS].end < tail) s->flights[last % FLIGHTS].end = tail;
    wait_for(s, last);
}

/* Averages that have started by the end of local step t, the first is 1: of each fragment p one
 * every k steps, the whole part of p k / P steps after those of fragment 0 (periodic.c). */
static int64_t started(const ts_plan_method *m, int64_t t)
{
    int64_t k = m->period, all = m->fragments;
    if (t < 1) return 0;
    int64_t later = ((t % k + 1) * all - 1) / k; /* fragments with p k < (t % k + 1) P */
    return t / k * all + (later < all ? later : all - 1);
}

/* Local step `step`, 0 the first; the hooks are those of runtime/algorithms. */
static void advance(simulation *s, int64_t step)
{
    const char *name = s->m->algorithm;
    int64_t k = s->m->period, done = step + 1;
    double whole = ts_plan_all_reduce(s->c, s->c->bytes);
    draw_work(s, step);
    if (!strcmp(name, "ssgd") && s->m->overlap) {
        step_of_buckets(s);
        return;
    }
    compute(s);
    if (!strcmp(name, "ssgd") || (!strcmp(name, "local") && done % k == 0)) {
        wait_for(s, fly(s, latest(s), whole));
    } else if (!strcmp(name, "cocod") || !strcmp(name, "dasgd")) {
        /* the average of step a is merged after step a + d; the a that are due come in order */
        int64_t then = done - (!strcmp(name, "cocod") ? k : s->m->delay);
        if (started(s->m, then) > started(s->m, then - 1)) wait_for(s, started(s->m, then) - 1);
        if (started(s->m, done) > started(s->m, done - 1))
            fly(s, latest(s), ts_plan_all_reduce(s->c, s->c->bytes / (double)s->m->fragments));
    }
}

static ts_status check(const ts_plan_cluster *c, const ts_plan_method *m)
{
    TS_NEED(c->ranks > 0 && c->per_host > 0 && c->step_s > 0 && c->bytes >= 0 && c->buckets > 0 &&
                c->inner.bytes_per_s > 0 && c->outer.bytes_per_s > 0 && c->spread >= 0,
            TS_EUSAGE,
            "a cluster has ranks, ranks on a host, a step's time, buckets and bandwidths above 0");
    TS_NEED(m->period > 0 && m->delay > 0 && m->delay / m->period < FLIGHTS - 1, TS_EUSAGE,
            "period %lld and delay %lld must be above 0, and the delay below %d periods",
            (long long)m->period, (long long)m->delay, FLIGHTS - 1);
    TS_NEED(m->fragments > 0 && m->fragments <= m->period &&
                (m->delay / m->period + 2) * m->fragments < FLIGHTS,
            TS_EUSAGE, "%lld fragments do not fit into a period of %lld local steps, one step each",
            (long long)m->fragments, (long long)m->period);
    return TS_OK;
}

ts_status ts_plan_run(const ts_plan_cluster *c, const ts_plan_method *method, int64_t steps,
                      ts_plan_forecast *f)
{
    ts_plan_method like, *m = &like;
    TS_TRY(find_schedule(method, m));
    TS_TRY(check(c, m));
    simulation *s = calloc(1, sizeof *s);
    double *clock = calloc(2 * (size_t)c->ranks, sizeof *clock);
    if (!s || !clock) {
        free(s);
        free(clock);
        return TS_ERROR(TS_ENOMEM, "no memory for %d ranks", c->ranks);
    }
    s->c = c;
    s->m = m;
    s->clock = clock;
    s->work = clock + c->ranks;
    int64_t span = m->period > m->delay ? m->period : m->delay, warm = WARM_ROUNDS * span;
    steps = (steps + m->period - 1) / m->period * m->period; /* whole periods */
    for (int64_t t = 0; t < warm; t++) advance(s, t);
    double begin = latest(s), comm = s->comm, exposed = s->exposed;
    for (int64_t t = warm; t < warm + steps; t++) advance(s, t);
    double n = (double)steps;
    *f = (ts_plan_forecast){.step_s = (latest(s) - begin) / n,
                            .comm_s = (s->comm - comm) / n,
                            .exposed_s = (s->exposed - exposed) / n / c->ranks,
                            .hidden = NAN};
    if (f->comm_s > 0) f->hidden = fmax(0, 1 - f->exposed_s / f->comm_s);
    f->speedup = c->ranks * c->step_s / f->step_s;
    free(clock);
    free(s);
    return TS_OK;
}

int64_t ts_plan_delay(int64_t period)
{
    return period > 1 ? period / 2 : 1;
}

ts_status ts_plan_excess(const ts_plan_cluster *c, const char *algorithm, int64_t k, int64_t delay,
                         double *excess_p)
{
    ts_plan_method m = {algorithm, true, k, delay ? delay : ts_plan_delay(k), 1};
    ts_plan_cluster free_links = *c;
    ts_plan_forecast with, without;
    free_links.bytes = 0;
    free_links.inner.latency_s = free_links.outer.latency_s = 0;
    int64_t rounds = SEARCH_WORK / c->ranks / k;
    rounds = rounds < 4 ? 4 : rounds > 32 ? 32 : rounds;
    TS_TRY(ts_plan_run(c, &m, rounds * k, &with));
    TS_TRY(ts_plan_run(&free_links, &m, rounds * k, &without));
    *excess_p = (with.exposed_s - without.exposed_s) / c->step_s;
    return TS_OK;
}

/* Longer periods hide more, so the search halves. */
ts_status ts_plan_period(const ts_plan_cluster *c, const char *algorithm, int64_t delay,
                         double share, int64_t least, int64_t most, int64_t *period_p)
{
    /* low exposes (or cannot be), high hides */
    int64_t low = least - 1, high = least;
    double x = 0;
    *period_p = 0;
    for (;;) {
        if (high > most) high = most;
        TS_TRY(ts_plan_excess(c, algorithm, high, delay, &x));
        if (x < share) break;
        if (high == most) return TS_OK;
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        TS_TRY(ts_plan_excess(c, algorithm, middle, delay, &x));
        if (x < share)
            high = middle;
        else
            low = middle;
    }
    *period_p = high;
    return TS_OK;
}
