/* step.c - one local step: data, forward, backward, update, tick, with the algorithm's hooks.
 *
 * The step is a program: segments of device work, with the algorithm's hooks between them. A
 * device that captures runs the first step as it is, because libraries make their handles then,
 * records each segment of the second and launches it ever after; hooks stay eager, because a round
 * differs from step to step and a step does not. Everything that changes inside a segment is read
 * from the control block. */
#include "runtime/train/input.h"

#include <stdlib.h>

#include "runtime/device/vector.h"

typedef enum hook {
    HOOK_NONE,
    HOOK_INPUT, /* not the algorithm's: input.h */
    HOOK_BUCKET,
    HOOK_BEFORE_UPDATE,
    HOOK_AFTER_UPDATE
} hook;

/* Device work, then a hook. */
typedef struct segment {
    ts_graph *graph;
    hook then;
    int bucket;
} segment;

struct ts_step {
    ts_trainer *t;
    segment *segments;
    int n_segments, capacity;
    enum { FIRST, EAGER, READY, RECORDING, RECORDED } state;
    ts_event **behind; /* [run_ahead] ends of the last steps */
    int64_t run_ahead, runs;
    bool merges_later; /* this step: what follows its update */
    bool alone;        /* this body: the algorithm does not know of it */
};

static ts_status call_hook(ts_step *s, hook which, int bucket)
{
    static const char *const names[] = {"", "input", "bucket ready", "before update",
                                        "after update"};
    ts_algorithm *a = s->t->algorithm;
    if (which == HOOK_NONE || (s->alone && which != HOOK_INPUT)) return TS_OK;
    if (s->merges_later && which == HOOK_AFTER_UPDATE) return TS_OK;
    ts_range_push(s->t->device, names[which]);
    ts_status status = which == HOOK_INPUT           ? ts_input_step(s->t->input)
                       : which == HOOK_BUCKET        ? a->ops->bucket_ready(a, bucket)
                       : which == HOOK_BEFORE_UPDATE ? a->ops->before_update(a, s->t->step)
                                                     : a->ops->after_update(a, s->t->step);
    ts_range_pop(s->t->device);
    return status;
}

/* The end of a segment: while capturing, close the graph and open the next; else call. */
static ts_status reach(ts_step *s, hook which, int bucket)
{
    if (s->state != RECORDING) return call_hook(s, which, bucket);
    if (s->n_segments == s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 16;
        segment *grown = realloc(s->segments, (size_t)capacity * sizeof *grown);
        TS_NEED(grown, TS_ENOMEM, "no memory for %d segments of a step", capacity);
        s->segments = grown;
        s->capacity = capacity;
    }
    segment *last = &s->segments[s->n_segments];
    *last = (segment){.then = which, .bucket = bucket};
    TS_TRY(ts_stream_capture_end(s->t->compute, &last->graph));
    s->n_segments++;
    return which == HOOK_NONE ? TS_OK : ts_stream_capture_begin(s->t->compute);
}

static ts_status bucket_ready(void *context, int bucket)
{
    return reach(context, HOOK_BUCKET, bucket);
}

/* Enqueue (or record) a step's work, with the hooks in it. */
static ts_status body(ts_step *s)
{
    ts_trainer *t = s->t;
    const ts_algorithm_ops *hooks = t->algorithm->ops;
    ts_flat *flat = ts_model_flat(t->model);
    ts_batch batch = ts_workspace_batch(t->workspace);
    int nodes = ts_model_nodes(t->model);
    ts_augment augment = ts_trainer_augment(t);

    if (t->input) TS_TRY(reach(s, HOOK_INPUT, -1));
    TS_TRY(ts_pace_begin(t->pace, t->compute));
    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_DATA, -1));
    TS_TRY(ts_data_train_batch(t->dataset, &t->shard, &augment, t->control, &batch, t->compute));
    TS_TRY(ts_trace_end(t->trace, t->compute, TS_SPAN_DATA));
    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_FORWARD, -1));
    TS_TRY(ts_workspace_refresh(t->workspace, flat->parameters, flat->shadow, flat->statistics,
                                t->compute));
    TS_TRY(ts_pace_forward(t->pace, t->workspace, nodes, t->compute));
    TS_TRY(ts_trace_end(t->trace, t->compute, TS_SPAN_FORWARD));
    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_BACKWARD, -1));
    TS_TRY(ts_pace_backward(t->pace, t->workspace, nodes, flat->gradients,
                            hooks->bucket_ready ? bucket_ready : NULL, s, t->compute));
    TS_TRY(ts_trace_end(t->trace, t->compute, TS_SPAN_BACKWARD));
    if (hooks->before_update) TS_TRY(reach(s, HOOK_BEFORE_UPDATE, -1));

    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_UPDATE, -1));
    TS_TRY(ts_vector_sgd(t->compute, &t->algorithm->worker.update));
    TS_TRY(ts_trace_end(t->trace, t->compute, TS_SPAN_UPDATE));
    if (hooks->after_update) TS_TRY(reach(s, HOOK_AFTER_UPDATE, -1));
    return ts_schedule_tick(t->compute, &t->schedule, t->shard.batch, t->shard.n, &augment.echo,
                            t->control);
}

static ts_status capture(ts_step *s)
{
    s->state = RECORDING;
    TS_TRY(ts_stream_capture_begin(s->t->compute));
    TS_TRY(body(s));
    TS_TRY(reach(s, HOOK_NONE, -1));
    s->state = RECORDED;
    return TS_OK;
}

static ts_status replay(ts_step *s)
{
    for (int i = 0; i < s->n_segments; i++) {
        TS_TRY(ts_graph_launch(s->segments[i].graph, s->t->compute));
        TS_TRY(call_hook(s, s->segments[i].then, s->segments[i].bucket));
    }
    return TS_OK;
}

/* Once the body, as far as it is not silent. */
static ts_status run_body(ts_step *s)
{
    ts_trainer *t = s->t;
    ts_event *end = s->behind[s->runs++ % s->run_ahead];
    TS_TRY(ts_event_sync(end));
    ts_range_push(t->device, "local step");
    ts_status status = TS_OK;
    if (s->state == READY) status = capture(s);
    if (!status) status = s->state == RECORDED ? replay(s) : body(s);
    ts_range_pop(t->device);
    TS_TRY(status);
    if (s->state == FIRST)
        s->state = ts_device_can_capture(t->device) && t->config->graphs ? READY : EAGER;
    return ts_event_record(end, t->compute);
}

/* The end of the last body but `n`, of which the host is at most run_ahead ahead. */
static ts_event *end_of_body(const ts_step *s, int64_t n)
{
    int64_t ahead = s->run_ahead;
    return s->behind[(s->runs - 1 - (n < ahead ? n : ahead - 1) + ahead) % ahead];
}

/* Will this step end with a wait for an average, while the last batch may be used again? Whether an
 * average is late shows only when compute has nearly come to it. */
static ts_status find_late(const ts_step *s, bool *late_p)
{
    ts_trainer *t = s->t;
    ts_algorithm *a = t->algorithm;
    *late_p = (s->state == RECORDED || s->state == EAGER) && a->ops->late &&
              t->step + 1 < t->total && ts_input_can_repeat(t->input) && a->ops->late(a, t->step);
    if (!*late_p) return TS_OK;
    TS_TRY(ts_event_sync(end_of_body(s, 1)));
    *late_p = a->ops->late(a, t->step);
    return TS_OK;
}

/* The body has left out its merge. Once more with the last batch and without the algorithm, until
 * the average is there; then the merge. The host waits for each of them, so compute stands still
 * for as long as it takes to enqueue the next. */
static ts_status merge_when_there(ts_step *s)
{
    ts_trainer *t = s->t;
    ts_algorithm *a = t->algorithm;
    const int64_t step = t->step - 1;
    for (;;) {
        TS_TRY(ts_event_sync(end_of_body(s, 0)));
        ts_metrics_drain(t->metrics);
        if (!a->ops->late(a, step) || !ts_input_can_repeat(t->input)) break;
        ts_input_repeat(t->input);
        s->alone = true;
        ts_status status = run_body(s);
        s->alone = false;
        TS_TRY(status);
        TS_TRY(ts_input_repeated(t->input));
    }
    return a->ops->after_update(a, step);
}

ts_status ts_step_run(ts_step *s)
{
    ts_trainer *t = s->t;
    TS_TRY(find_late(s, &s->merges_later));
    t->algorithm->learning_rate = ts_schedule_rate(&t->schedule, t->step);
    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_STEP, -1));
    TS_TRY(run_body(s));
    t->step++;
    if (s->merges_later) TS_TRY(merge_when_there(s));
    return ts_trace_end(t->trace, t->compute, TS_SPAN_STEP);
}

ts_status ts_step_open(ts_trainer *trainer, ts_step **step_p)
{
    ts_status status;
    ts_step *s = calloc(1, sizeof *s);
    TS_NEED(s, TS_ENOMEM, "no memory for the step");
    s->t = trainer;
    s->run_ahead = trainer->config->run_ahead;
    s->behind = calloc((size_t)s->run_ahead, sizeof *s->behind);
    if (!s->behind) {
        status = TS_ERROR(TS_ENOMEM, "no memory for %lld events", (long long)s->run_ahead);
        goto fail;
    }
    for (int64_t i = 0; i < s->run_ahead; i++)
        TS_TRY_TO(status, fail, ts_event_open(trainer->device, &s->behind[i]));
    *step_p = s;
    return TS_OK;
fail:
    ts_step_close(s);
    return status;
}

void ts_step_close(ts_step *s)
{
    if (!s) return;
    for (int i = 0; i < s->n_segments; i++) ts_graph_close(s->segments[i].graph);
    free(s->segments);
    for (int64_t i = 0; s->behind && i < s->run_ahead; i++) ts_event_close(s->behind[i]);
    free(s->behind);
    free(s);
}
