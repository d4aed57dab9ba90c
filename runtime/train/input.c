/* input.c - see input.h. The host keeps the number of the batch's first sample beside the control
 * block: of a fixed echo both follow from the step, an automatic one decides here and tells it.
 *
 * The decision falls when the host enqueues a step, up to run-ahead steps before compute comes to
 * it. So a batch that arrives in between is used that much later; none is lost by it, and nobody
 * waits. */
#include "runtime/train/input.h"

#include <stdlib.h>
#include <string.h>

struct ts_input {
    ts_trainer *t;
    ts_loader *loader;
    ts_echo echo;
    int64_t batch;
    int64_t base, from;     /* a fixed echo's first sample in local step `from` is `base` */
    int64_t first, repeats; /* of the batch in use: its first sample, uses before this one */
    bool moves;             /* an automatic echo's next step takes another batch at any rate */
    bool again;             /* it takes the same, whatever is there */
};

/* May compute come to wait for an average? */
static bool averages_late(const ts_trainer *t)
{
    if (t->world->size == 1) return false;
    const ts_algorithm_ops *ops = ts_algorithm_find(t->config->algorithm);
    return ops && ops->late;
}

ts_echo ts_input_echo(const ts_trainer *t)
{
    const ts_config *c = t->config;
    bool automatic = !(c->echo > 0);
    return (ts_echo){.factor = automatic ? 1 : c->echo,
                     .automatic = automatic && (t->feed || averages_late(t)),
                     .place = !strcmp(c->echo_at, "batch")       ? TS_ECHO_BATCH
                              : !strcmp(c->echo_at, "augmented") ? TS_ECHO_AUGMENTED
                                                                 : TS_ECHO_EXAMPLE};
}

ts_feed_options ts_input_reading(const ts_config *c, const ts_world *world)
{
    return (ts_feed_options){.threads = (int)c->loader_threads,
                             .ranks = world->sharers,
                             .prefetch = (int)c->prefetch,
                             .rate = c->input_rate};
}

ts_status ts_input_feed(ts_trainer *t)
{
    const ts_augment augment = ts_trainer_augment(t);
    const ts_feed_options reading = ts_input_reading(t->config, t->world);
    ts_feed_close(t->feed);
    t->feed = NULL;
    return ts_feed_train(t->dataset, &t->shard, &augment, (uint64_t)t->config->seed, &reading,
                         &t->feed);
}

ts_status ts_input_open(ts_trainer *t, ts_input **input_p)
{
    ts_control control;
    *input_p = NULL;
    if (!t->feed && !ts_input_echo(t).automatic) return TS_OK;
    TS_TRY(ts_stream_copy(t->compute, &control, t->control, sizeof control));
    TS_TRY(ts_stream_sync(t->compute));
    ts_input *in = calloc(1, sizeof *in);
    TS_NEED(in, TS_ENOMEM, "no memory for the input");
    in->t = t;
    in->loader = t->feed ? ts_feed_loader(t->feed) : NULL;
    in->echo = ts_input_echo(t);
    in->batch = t->shard.batch;
    in->from = t->step;
    in->base = in->first = control.epoch * t->shard.n + control.position;
    in->moves = t->step > 0; /* a checkpoint of an automatic echo stands at the batch it has used */
    ts_status status = in->loader ? ts_loader_start(in->loader, in->first) : TS_OK;
    if (status) {
        ts_input_close(in);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *input_p = in;
    return TS_OK;
}

void ts_input_close(ts_input *input)
{
    free(input);
}

/* No batch was used by this run yet. */
static bool begins(const ts_input *in)
{
    return in->t->step == in->from;
}

static bool used_up(const ts_input *in)
{
    return in->repeats + 1 >= in->t->config->echo_most;
}

bool ts_input_can_repeat(const ts_input *in)
{
    return in && in->echo.automatic && !begins(in) && !used_up(in);
}

void ts_input_repeat(ts_input *in)
{
    in->again = true;
}

/* To trainer->step, with the window moved. */
static ts_status move_window(const ts_input *in, int64_t by)
{
    const ts_trainer *t = in->t;
    return ts_schedule_move(t->compute, &t->schedule, t->step, by, in->repeats, in->batch,
                            t->shard.n, t->control);
}

ts_status ts_input_repeated(ts_input *in)
{
    return move_window(in, 0);
}

/* The next batch when it is there, or when this one was used often enough; else this one again. */
static ts_status decide(ts_input *in)
{
    bool first = begins(in), there = first ? in->moves : true;
    if (!first && in->loader) TS_TRY(ts_loader_has(in->loader, in->first + 2 * in->batch, &there));
    bool move = !in->again && (there || (!first && used_up(in)));
    int64_t by = move ? in->batch : 0;
    in->repeats = move || first ? 0 : in->repeats + 1;
    in->first += by;
    in->again = false;
    return move_window(in, by);
}

ts_status ts_input_step(ts_input *in)
{
    const ts_trainer *t = in->t;
    if (in->echo.automatic)
        TS_TRY(decide(in));
    else
        in->first = in->base + ts_echo_first(&in->echo, t->step, in->batch) -
                    ts_echo_first(&in->echo, in->from, in->batch);
    if (!in->loader) return TS_OK;
    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_INPUT, -1));
    TS_TRY(ts_loader_take(in->loader, in->first, in->first + in->batch, t->compute));
    return ts_trace_end(t->trace, t->compute, TS_SPAN_INPUT);
}

int64_t ts_input_fresh(const ts_trainer *t, const ts_control *control, int64_t step)
{
    const int64_t batch = t->shard.batch;
    ts_echo echo = ts_input_echo(t);
    if (step < 1) return 0;
    /* where the last step's batch began, and the batch */
    return control->epoch * t->shard.n + control->position -
           (ts_echo_first(&echo, step, batch) - ts_echo_first(&echo, step - 1, batch)) + batch;
}
