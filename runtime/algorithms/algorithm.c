/* algorithm.c - algorithms by name, their options, and the consensus model. */
#include "runtime/algorithms/algorithm.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "runtime/algorithms/periodic.h"
#include "runtime/base/log.h"

const ts_algorithm_ops *const ts_algorithms[] = {&ts_algorithm_ssgd,
                                                 &ts_algorithm_pipe,
                                                 &ts_algorithm_od,
                                                 &ts_algorithm_local,
                                                 &ts_algorithm_cocod,
                                                 &ts_algorithm_dasgd,
                                                 &ts_algorithm_overlap_local,
                                                 NULL};

const ts_option ts_algorithm_options[] = {
    {"period", TS_OPTION_INT, offsetof(ts_algorithm_config, period), "4", "auto", 1, 1e9,
     "k, local steps between two averages; auto measures a step and an average at the start and "
     "takes the fewest at which compute hardly waits",
     "local|cocod|dasgd|overlap-local"},
    {"delay", TS_OPTION_INT, offsetof(ts_algorithm_config, delay), "1", "auto", 1, 1e9,
     "d, local steps from starting an average to merging it, may exceed k; auto: half of the "
     "period",
     "dasgd"},
    {"mix", TS_OPTION_REAL, offsetof(ts_algorithm_config, mix), "0.25", NULL, 0, 1,
     "xi, share of the local model that a merge keeps", "dasgd"},
    {"merge", TS_OPTION_CHOICE, offsetof(ts_algorithm_config, merge), "blend", "blend|corrected", 0,
     0,
     "how the average a of the snapshots y gets into the model x: xi x + (1 - xi) a, or "
     "x + (1 - xi) (a - y), which loses no local progress",
     "dasgd"},
    {"fragments", TS_OPTION_INT, offsetof(ts_algorithm_config, fragments), "1", NULL, 1, 64,
     "P, slices of the model that are averaged in turn, each every k steps: the link is used "
     "evenly; at most k",
     "cocod|dasgd"},
    {"slow-momentum", TS_OPTION_REAL, offsetof(ts_algorithm_config, slow_momentum), "0", NULL, 0,
     0.99999, "beta, SlowMo: momentum of an outer model that the averages move; 0: none",
     "local|cocod|dasgd"},
    {"slow-rate", TS_OPTION_REAL, offsetof(ts_algorithm_config, slow_rate), "1", NULL, 1e-6, 10,
     "alpha, how far the outer model moves, 1: to the average and by the momentum",
     "local|cocod|dasgd"},
    {"pull", TS_OPTION_REAL, offsetof(ts_algorithm_config, pull), "0.6", NULL, 1e-6, 0.99999,
     "alpha, share of the way to the anchor that a rank is pulled", "overlap-local"},
    {"anchor-momentum", TS_OPTION_REAL, offsetof(ts_algorithm_config, anchor_momentum), "0.7", NULL,
     0, 0.99999, "beta, momentum of the anchor, as slow-momentum", "overlap-local"},
    {"post-local", TS_OPTION_REAL, offsetof(ts_algorithm_config, post_local), "0", NULL, 0, 1,
     "share of the run, like a milestone, that is S-SGD before models are averaged",
     "local|cocod|dasgd|overlap-local"},
    {"overlap", TS_OPTION_BOOL, offsetof(ts_algorithm_config, overlap), "yes", NULL, 0, 0,
     "all-reduce buckets of gradients during backward, else all of them after it; in the others "
     "than ssgd with --post-local",
     "ssgd|local|cocod|dasgd|overlap-local"},
    {"synchronous-steps", TS_OPTION_INT, offsetof(ts_algorithm_config, synchronous_steps), "200",
     NULL, 0, 1e15,
     "local steps at the start that wait for their own mean gradient, before the pipeline of two",
     "pipe|od"},
    {"local-rate", TS_OPTION_REAL, offsetof(ts_algorithm_config, local_rate), "1", NULL, 0, 1e6,
     "lambda, of the step that a rank makes by its own gradient, as a factor of the learning rate",
     "od"},
    {0}};

const ts_algorithm_ops *ts_algorithm_find(const char *name)
{
    for (int i = 0; ts_algorithms[i]; i++)
        if (!strcmp(ts_algorithms[i]->name, name)) return ts_algorithms[i];
    return NULL;
}

/* A run may end before the density has come down to what was asked for. */
static ts_status check_density(const ts_worker *worker, int64_t steps)
{
    const ts_compression *c = &worker->compression;
    const ts_compressor_ops *ops;
    TS_TRY(ts_compressor_find(c, &ops));
    if (ops && ops->corrects_momentum && worker->size > 1 && !worker->rank &&
        c->density_warmup * (double)c->epoch >= (double)steps)
        ts_warn("the density comes down to %g in %g epochs, and this run has no more: lower "
                "--density-warmup",
                c->density, c->density_warmup);
    return TS_OK;
}

ts_status ts_algorithm_open(const char *name, const ts_worker *worker, const ts_algorithm_config *c,
                            int64_t steps, ts_algorithm **algorithm_p)
{
    const ts_algorithm_ops *ops = ts_algorithm_find(name);
    TS_NEED(ops, TS_EUSAGE, "no algorithm \"%s\"", name);
    TS_NEED(c->post_local >= 0 && c->post_local <= 1, TS_EUSAGE,
            "post-local %g is not a share of the run, within 0 and 1", c->post_local);
    int64_t first = llround(c->post_local * (double)steps);
    bool late = !ops->periodic && ops != &ts_algorithm_ssgd;
    TS_NEED(!late || !first, TS_EUSAGE,
            "post-local is for algorithms that average models; %s averages gradients at every "
            "step, and begins with --synchronous-steps",
            name);
    if (late && c->synchronous_steps >= steps && !worker->rank)
        ts_warn("all %lld local steps of this run are synchronous, as S-SGD's: lower "
                "--synchronous-steps",
                (long long)steps);
    TS_TRY(check_density(worker, steps));
    return first && ops->periodic ? ts_post_local_open(worker, c, ops, first, algorithm_p)
                                  : ops->open(worker, c, algorithm_p);
}

int64_t ts_algorithm_least_period(const char *name, const ts_algorithm_config *c)
{
    if (strcmp(name, ts_algorithm_dasgd.name) != 0 || c->delay <= 0) return 1;
    ts_averaging_rule rule = ts_dasgd_rule(c);
    int64_t most = ts_periodic_flights_max(&rule);
    return (c->delay + most - 1) / most;
}

ts_status ts_worker_mean(const ts_worker *w, float *to, const float *from, size_t n)
{
    return w->communicator->ops->all_reduce(
        w->communicator, to, from, n, w->weight ? TS_WEIGHTED_AVERAGE : TS_AVERAGE, w->weight);
}

ts_status ts_worker_zeros(const ts_worker *w, size_t n, float **vector_p)
{
    TS_TRY(ts_device_alloc(w->device, TS_MEMORY_DEVICE, n * sizeof(float), (void **)vector_p));
    TS_TRY(ts_stream_fill(w->compute, *vector_p, 0, n * sizeof(float)));
    return ts_stream_sync(w->compute);
}

int ts_part_add(ts_part *parts, int n, int max, ts_part part)
{
    if (n == max) return n;
    parts[n] = part;
    return n + 1;
}

ts_status ts_consensus(const ts_worker *w, ts_event *event, float *parameters, float *statistics)
{
    const ts_flat *f = w->flat;
    TS_TRY(ts_stream_after(event, w->compute, w->comm));
    TS_TRY(ts_worker_mean(w, parameters, f->parameters, f->n));
    TS_TRY(ts_worker_mean(w, statistics, f->statistics, f->n_statistics));
    return ts_stream_after(event, w->comm, w->compute);
}
