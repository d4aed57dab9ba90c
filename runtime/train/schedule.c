/* schedule.c - the tick kernel on the host. */
#include "runtime/train/schedule.h"

typedef struct tick {
    ts_schedule schedule;
    int64_t batch, share;
    ts_control *control;
} tick;

static ts_status tick_run(const void *args)
{
    const tick *t = args;
    ts_control *c = t->control;
    c->step++;
    c->position += t->batch;
    if (c->position + t->batch > t->share) {
        c->epoch++;
        c->position = 0;
    }
    c->learning_rate = ts_schedule_rate(&t->schedule, c->step);
    return TS_OK;
}

static int tick_accesses(const void *args, ts_access *list)
{
    const tick *t = args;
    list[0] = (ts_access){t->control, sizeof *t->control, true};
    return 1;
}

static const ts_kernel tick_kernel = {
    .name = "tick",
    .run = tick_run,
    .accesses = tick_accesses,
};

ts_status ts_schedule_tick(ts_stream *stream, const ts_schedule *schedule, int64_t batch,
                           int64_t share, ts_control *control)
{
    tick t = {*schedule, batch, share, control};
    return ts_stream_launch(stream, &tick_kernel, &t, sizeof t);
}
