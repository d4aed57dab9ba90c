/* tick.h - the kernels that advance the control block, on host and CUDA: tick ends a local step,
 * move begins one of an automatic echo. */
#ifndef TS_TRAIN_TICK_H
#define TS_TRAIN_TICK_H

#include "runtime/train/schedule.h"

typedef struct ts_tick {
    ts_schedule schedule;
    int64_t batch, share;
    ts_echo echo;
    ts_control *control;
} ts_tick;

/* The batch after this one begins `by` fresh samples later. */
TS_HD void ts_move_on(ts_control *c, int64_t by, int64_t batch, int64_t share)
{
    int64_t whole = share / batch * batch; /* the rest of an epoch is dropped */
    c->position += by;
    if (c->position >= whole) {
        c->epoch++;
        c->position -= whole;
    }
}

TS_HD void ts_tick_run(const ts_tick *t)
{
    ts_control *c = t->control;
    int64_t first = ts_echo_first(&t->echo, c->step, t->batch);
    c->step++;
    ts_move_on(c, ts_echo_first(&t->echo, c->step, t->batch) - first, t->batch, t->share);
    c->learning_rate = ts_schedule_rate(&t->schedule, c->step);
}

/* What an automatic echo decides before a step; and after one that is not counted. */
typedef struct ts_move {
    ts_schedule schedule;
    int64_t by, repeats, step, batch, share;
    ts_control *control;
} ts_move;

TS_HD void ts_move_run(const ts_move *m)
{
    ts_control *c = m->control;
    ts_move_on(c, m->by, m->batch, m->share);
    c->repeats = m->repeats;
    c->echoed += c->step > m->step; /* the last one is not counted */
    c->step = m->step;
    c->learning_rate = ts_schedule_rate(&m->schedule, c->step);
}

#ifdef __cplusplus
extern "C" {
#endif
ts_status ts_tick_enqueue(const void *tick, void *cuda_stream);
ts_status ts_move_enqueue(const void *move, void *cuda_stream);
#ifdef __cplusplus
}
#endif

#endif
