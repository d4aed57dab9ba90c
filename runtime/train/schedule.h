/* schedule.h - the learning rate as a function of the local step, evaluated on the device.
 *
 * The tick kernel ends every local step: it advances the control block and sets the learning
 * rate of the next step, so a captured step needs nothing from the host. */
#ifndef TS_TRAIN_SCHEDULE_H
#define TS_TRAIN_SCHEDULE_H

#include <math.h>

#include "runtime/base/random.h" /* TS_HD */
#include "runtime/data/echo.h"
#include "runtime/device/control.h"
#include "runtime/device/device.h"

enum { TS_MILESTONES_MAX = 8 };
typedef enum ts_schedule_kind {
    TS_SCHEDULE_CONSTANT,
    TS_SCHEDULE_STEP,
    TS_SCHEDULE_COSINE,
    TS_SCHEDULE_ONE_CYCLE
} ts_schedule_kind;

typedef struct ts_schedule {
    ts_schedule_kind kind;
    float peak, final_ratio, gamma;
    int64_t total, warmup; /* local steps */
    int n_milestones;
    int64_t milestones[TS_MILESTONES_MAX]; /* local steps, ascending */
} ts_schedule;

/* cos(pi t) for t in [0, 1], to 1e-7, by one polynomial: the same bits on host and CUDA. */
TS_HD float ts_schedule_cosine(float t)
{
    float u = 0.5f - t, v = u * u, sum = -0.00737043f; /* sin(pi u) */
    sum = fmaf(sum, v, 0.0821458866f);
    sum = fmaf(sum, v, -0.599264529f);
    sum = fmaf(sum, v, 2.55016404f);
    sum = fmaf(sum, v, -5.16771278f);
    sum = fmaf(sum, v, 3.14159265f);
    return sum * u;
}

/* Learning rate of local step `step` (from 0). Warm-up is linear and reaches the peak at step
 * `warmup`; steps at and after `total` have the last rate. */
TS_HD float ts_schedule_rate(const ts_schedule *s, int64_t step)
{
    if (step < s->warmup) {
        /* one-cycle starts from its final rate, the others from one step's worth */
        float low = s->kind == TS_SCHEDULE_ONE_CYCLE ? s->final_ratio : 0.0f;
        float share = (float)(step + 1) / (float)(s->warmup + 1);
        return s->peak * (low + (1.0f - low) * share);
    }
    int64_t rest = s->total - s->warmup;
    float t = rest > 0 ? (float)(step - s->warmup) / (float)rest : 1.0f;
    if (t > 1.0f) t = 1.0f;
    float rate = s->peak;
    if (s->kind == TS_SCHEDULE_STEP) {
        for (int i = 0; i < s->n_milestones; i++)
            if (step >= s->milestones[i]) rate *= s->gamma;
    } else if (s->kind == TS_SCHEDULE_COSINE) {
        float half = 0.5f * (1.0f + ts_schedule_cosine(t));
        rate *= s->final_ratio + (1.0f - s->final_ratio) * half;
    } else if (s->kind == TS_SCHEDULE_ONE_CYCLE) {
        rate *= 1.0f - (1.0f - s->final_ratio) * t;
    }
    return rate;
}

/* Enqueue the tick: one local step of `batch` samples out of `share` that a rank sees in an epoch
 * has ended; the position goes on by the fresh samples that `echo` gives a step; the next learning
 * rate is set. */
ts_status ts_schedule_tick(ts_stream *stream, const ts_schedule *schedule, int64_t batch,
                           int64_t share, const ts_echo *echo, ts_control *control);
/* Enqueue, before a step of an automatic echo, and after one that is not counted: the next is local
 * step `step`; its batch begins `by` samples after the last one, 0 or `batch`, and has been used
 * `repeats` times. */
ts_status ts_schedule_move(ts_stream *stream, const ts_schedule *schedule, int64_t step, int64_t by,
                           int64_t repeats, int64_t batch, int64_t share, ts_control *control);

#endif
