/* plan.h - how long a local step takes with communication: the two streams of every rank,
 * simulated.
 *
 * A rank's step takes step_s, log-normally spread and divided by the rank's speed. A collective
 * begins when the last rank has come to it and the one before has ended, and all ranks leave it
 * together: what a ring does. Compute runs slower by `contention` while a collective runs beside
 * it. Times are seconds, sizes bytes. */
#ifndef TS_PLAN_PLAN_H
#define TS_PLAN_PLAN_H

#include "runtime/base/status.h"

/* What counts as hidden: compute waits for less than this share of a step. */
#define TS_PLAN_HIDDEN 0.01
enum { TS_PLAN_LONGEST = 4096 }; /* period that is looked at: a longer one drifts too far */

/* One direction of what a rank or a host is connected by. */
typedef struct ts_plan_link {
    double bytes_per_s, latency_s;
} ts_plan_link;

/* How an all-reduce goes when there are several hosts; inside one it is a ring. */
typedef enum ts_plan_shape {
    TS_PLAN_RING,        /* one ring over all ranks, host by host: what this runtime asks for */
    TS_PLAN_TREE,        /* chains inside hosts, two binary trees across: NCCL_ALGO=Tree */
    TS_PLAN_HIERARCHICAL /* reduce-scatter inside, a ring across for each part, all-gather inside */
} ts_plan_shape;

typedef struct ts_plan_cluster {
    int ranks, per_host;       /* ranks of a host talk over `inner`, hosts over `outer` */
    ts_plan_link inner, outer; /* outer: of a host, which its ranks share */
    ts_plan_shape shape;
    double step_s;        /* a local step of one rank alone */
    double forward_share; /* of it before the first gradients are complete */
    double spread;        /* standard deviation of a step's time / its mean */
    double contention;    /* 0.05: compute takes 5 % longer beside a collective */
    const double *speeds; /* [ranks] relative; NULL: all 1 */
    double bytes;         /* that an all-reduce averages */
    int buckets;          /* overlapped S-SGD: pieces that leave during backward */
    uint64_t seed;
} ts_plan_cluster;

typedef struct ts_plan_method {
    const char *algorithm; /* by its name in runtime/algorithms */
    bool overlap;          /* ssgd: buckets leave during backward */
    int64_t period, delay; /* what an algorithm does not read is ignored, but above 0 */
    int64_t fragments;     /* cocod, dasgd: at most period; 0: 1 */
} ts_plan_method;

typedef struct ts_plan_forecast {
    double step_s;    /* a local step, waits included; the mean over ranks */
    double comm_s;    /* of collectives, for each local step */
    double exposed_s; /* that compute waits, for each local step; stragglers' waits included */
    double hidden;    /* 1 - exposed / comm, not below 0; NAN without communication */
    double speedup;   /* samples per second over those of one rank alone */
} ts_plan_forecast;

/* Seconds of one all-reduce of `bytes`.
 *   ring: 2 (n - 1) / n bytes at the slowest link's bandwidth, and 2 (n - 1) hops, of which a
 *     piece makes one between hosts for each host it passes (Patarasuk and Yuan, 2009)
 *   tree: 2 bytes at the slowest link's bandwidth, and up and down through a chain of the ranks of
 *     a host and log2 of the hosts (Sanders, Speck and Traeff, 2009, whose two trees keep links
 *     busy both ways)
 *   hierarchical: the sum of a ring of a host's ranks and one of hosts, whose ranks share the link
 */
double ts_plan_all_reduce(const ts_plan_cluster *cluster, double bytes);

/* `steps` local steps after a warm-up of as many rounds as settle; more give a steadier mean.
 * TS_EUSAGE for what is no cluster or no method. */
ts_status ts_plan_run(const ts_plan_cluster *cluster, const ts_plan_method *method, int64_t steps,
                      ts_plan_forecast *forecast_p);

/* dasgd's delay where none is given: half of the period, at least 1. */
int64_t ts_plan_delay(int64_t period);
/* How much longer, in steps, communication makes compute wait in each local step than stragglers
 * alone do, with this period; `delay` is dasgd's, 0 for ts_plan_delay's. */
ts_status ts_plan_excess(const ts_plan_cluster *cluster, const char *algorithm, int64_t period,
                         int64_t delay, double *excess_p);
/* The smallest period from `least` on whose excess is below `share`; 0 when none up to `most`. */
ts_status ts_plan_period(const ts_plan_cluster *cluster, const char *algorithm, int64_t delay,
                         double share, int64_t least, int64_t most, int64_t *period_p);

#endif
