/* post_local.c - post-local SGD (Lin, Stich, Patel, Jaggi: "Don't use large mini-batches, use local
 * SGD", ICLR 2020): S-SGD in the first part of a run, a method that averages models in the rest.
 *
 * Both are what they are alone; this algorithm holds them and passes the hooks on. The method
 * begins with equal models on all ranks and counts its steps from its own first. What compressed
 * gradients have left out until then is never sent. A resumed run that had come to the method stays
 * with it, whatever share of the run it is told (but 0). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/algorithms/algorithm.h"

typedef struct post_local {
    ts_algorithm base;
    ts_algorithm_ops ops; /* the method's name, these hooks */
    char rule[256];
    ts_algorithm *ssgd, *method;
    int64_t first, begun; /* the method's first step: as it should be; as it was, -1 before */
} post_local;

static ts_algorithm *now(post_local *a)
{
    return a->begun < 0 ? a->ssgd : a->method;
}

static ts_status post_local_bucket_ready(ts_algorithm *algorithm, int bucket)
{
    ts_algorithm *at = now((post_local *)algorithm);
    return at->ops->bucket_ready ? at->ops->bucket_ready(at, bucket) : TS_OK;
}

static ts_status post_local_before_update(ts_algorithm *algorithm, int64_t step)
{
    post_local *a = (post_local *)algorithm;
    ts_algorithm *at = now(a);
    at->learning_rate = algorithm->learning_rate;
    int64_t its_step = a->begun < 0 ? step : step - a->begun;
    return at->ops->before_update ? at->ops->before_update(at, its_step) : TS_OK;
}

/* S-SGD has nothing in flight between two steps, so the method may begin. */
static ts_status post_local_after_update(ts_algorithm *algorithm, int64_t step)
{
    post_local *a = (post_local *)algorithm;
    if (a->begun >= 0)
        return a->method->ops->after_update
                   ? a->method->ops->after_update(a->method, step - a->begun)
                   : TS_OK;
    if (step + 1 < a->first) return TS_OK;
    a->begun = step + 1;
    return a->method->ops->begin ? a->method->ops->begin(a->method) : TS_OK;
}

static bool post_local_late(ts_algorithm *algorithm, int64_t step)
{
    post_local *a = (post_local *)algorithm;
    return a->begun >= 0 && a->method->ops->late(a->method, step - a->begun);
}

static ts_status post_local_drain(ts_algorithm *algorithm)
{
    ts_algorithm *method = ((post_local *)algorithm)->method;
    return method->ops->drain ? method->ops->drain(method) : TS_OK;
}

static int post_local_state(ts_algorithm *algorithm, ts_part *parts, int max)
{
    post_local *a = (post_local *)algorithm;
    const ts_algorithm_ops *ops = a->method->ops;
    parts[0] = (ts_part){"begun", TS_PART_HOST, &a->begun, sizeof a->begun};
    int n = 1 + a->ssgd->ops->state(a->ssgd, parts + 1, max - 1);
    for (int i = 1; i < n; i++) { /* the method's may have the same names */
        char name[sizeof parts->name];
        memcpy(name, parts[i].name, sizeof name);
        snprintf(parts[i].name, sizeof parts[i].name, "ssgd.%.26s", name);
    }
    return n + (ops->state ? ops->state(a->method, parts + n, max - n) : 0);
}

static void post_local_close(ts_algorithm *algorithm)
{
    post_local *a = (post_local *)algorithm;
    if (a->method) a->method->ops->close(a->method);
    if (a->ssgd) a->ssgd->ops->close(a->ssgd);
    free(a);
}

ts_status ts_post_local_open(const ts_worker *worker, const ts_algorithm_config *config,
                             const ts_algorithm_ops *method, int64_t first,
                             ts_algorithm **algorithm_p)
{
    ts_status status;
    post_local *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for %s", method->name);
    TS_TRY_TO(status, fail, ts_algorithm_ssgd.open(worker, config, &a->ssgd));
    TS_TRY_TO(status, fail, method->open(worker, config, &a->method));
    snprintf(a->rule, sizeof a->rule, "S-SGD for %lld local steps, then %s", (long long)first,
             method->rule);
    a->first = first;
    a->begun = -1;
    a->ops = *method;
    a->ops.rule = a->rule;
    a->ops.begin = NULL;
    a->ops.close = post_local_close;
    a->ops.bucket_ready =
        a->ssgd->ops->bucket_ready || method->bucket_ready ? post_local_bucket_ready : NULL;
    a->ops.before_update = post_local_before_update;
    a->ops.after_update = post_local_after_update;
    a->ops.late = method->late ? post_local_late : NULL;
    a->ops.drain = post_local_drain;
    a->ops.state = post_local_state;
    a->base.ops = &a->ops;
    a->base.worker = *worker;
    *algorithm_p = &a->base;
    return TS_OK;
fail:
    post_local_close(&a->base);
    return status;
}
