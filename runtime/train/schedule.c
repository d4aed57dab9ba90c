/* schedule.c - the tick and move kernels on the host. */
#include "runtime/train/tick.h"

static ts_status tick_run(const void *args)
{
    ts_tick_run(args);
    return TS_OK;
}

static int tick_accesses(const void *args, ts_access *list)
{
    const ts_tick *t = args;
    list[0] = (ts_access){t->control, sizeof *t->control, true};
    return 1;
}

static const ts_kernel tick_kernel = {
    .name = "tick",
    .run = tick_run,
    .accesses = tick_accesses,
    .enqueue = ts_tick_enqueue,
};

static ts_status move_run(const void *args)
{
    ts_move_run(args);
    return TS_OK;
}

static int move_accesses(const void *args, ts_access *list)
{
    const ts_move *m = args;
    list[0] = (ts_access){m->control, sizeof *m->control, true};
    return 1;
}

static const ts_kernel move_kernel = {
    .name = "move",
    .run = move_run,
    .accesses = move_accesses,
    .enqueue = ts_move_enqueue,
};

ts_status ts_schedule_tick(ts_stream *stream, const ts_schedule *schedule, int64_t batch,
                           int64_t share, const ts_echo *echo, ts_control *control)
{
    ts_tick t = {*schedule, batch, share, *echo, control};
    return ts_stream_launch(stream, &tick_kernel, &t, sizeof t);
}

ts_status ts_schedule_move(ts_stream *stream, const ts_schedule *schedule, int64_t step, int64_t by,
                           int64_t repeats, int64_t batch, int64_t share, ts_control *control)
{
    ts_move m = {*schedule, by, repeats, step, batch, share, control};
    return ts_stream_launch(stream, &move_kernel, &m, sizeof m);
}
