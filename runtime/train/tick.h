/* tick.h - the kernel that ends a local step in the control block, on host and CUDA. */
#ifndef TS_TRAIN_TICK_H
#define TS_TRAIN_TICK_H

#include "runtime/train/schedule.h"

typedef struct ts_tick {
    ts_schedule schedule;
    int64_t batch, share;
    ts_control *control;
} ts_tick;

TS_HD void ts_tick_run(const ts_tick *t)
{
    ts_control *c = t->control;
    c->step++;
    c->position += t->batch;
    if (c->position + t->batch > t->share) {
        c->epoch++;
        c->position = 0;
    }
    c->learning_rate = ts_schedule_rate(&t->schedule, c->step);
}

#ifdef __cplusplus
extern "C"
#endif
    ts_status
    ts_tick_enqueue(const void *tick, void *cuda_stream);

#endif
