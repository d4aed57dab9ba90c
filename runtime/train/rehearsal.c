/* rehearsal.c - see rehearsal.h. */
#include "runtime/train/rehearsal.h"

#include <math.h>
#include <stdlib.h>

enum { STEPS = 12 };

typedef struct kept { /* what a local step changes */
    void *at, *copy;
    size_t bytes;
} kept;

struct ts_rehearsal {
    ts_trainer *t;
    ts_algorithm nothing; /* local steps without hooks */
    kept state[5];
    int n_state;
    int64_t step, seen, last_end;
    double sum, squares, batch; /* seconds */
};

static ts_status copy_state(ts_rehearsal *r, bool back)
{
    for (int i = 0; i < r->n_state; i++) {
        kept *k = &r->state[i];
        TS_TRY(ts_stream_copy(r->t->compute, back ? k->at : k->copy, back ? k->copy : k->at,
                              k->bytes));
    }
    return ts_stream_sync(r->t->compute);
}

static ts_status open_parts(ts_rehearsal *r)
{
    ts_trainer *t = r->t;
    const ts_flat *f = ts_model_flat(t->model);
    const kept all[] = {{f->parameters, NULL, f->n * sizeof(float)},
                        {f->momentum, NULL, f->n * sizeof(float)},
                        {f->statistics, NULL, f->n_statistics * sizeof(float)},
                        {f->shadow, NULL, f->n * sizeof(uint16_t)},
                        {t->control, NULL, sizeof *t->control}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i].at || !all[i].bytes) continue;
        kept *k = &r->state[r->n_state++];
        *k = all[i];
        TS_TRY(ts_device_alloc(t->device, TS_MEMORY_DEVICE, k->bytes, &k->copy));
    }
    TS_TRY(ts_step_open(t, &t->local_step));
    return copy_state(r, false);
}

ts_status ts_rehearsal_open(ts_trainer *t, ts_rehearsal **rehearsal_p)
{
    static const ts_algorithm_ops no_hooks = {.name = "none"};
    ts_rehearsal *r = calloc(1, sizeof *r);
    TS_NEED(r, TS_ENOMEM, "no memory to measure local steps");
    r->t = t;
    r->step = t->step;
    r->nothing = (ts_algorithm){.ops = &no_hooks, .worker = ts_trainer_worker(t)};
    t->algorithm = &r->nothing;
    ts_status status = open_parts(r);
    if (status) {
        ts_rehearsal_close(r);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *rehearsal_p = r;
    return TS_OK;
}

static void on_span(void *context, const ts_span *span)
{
    ts_rehearsal *r = context;
    double seconds = (double)(span->end_ns - span->begin_ns) * 1e-9;
    bool counts = r->seen >= TS_LAZY_STEPS;
    if (counts && (span->kind == TS_SPAN_DATA || span->kind == TS_SPAN_FORWARD ||
                   span->kind == TS_SPAN_BACKWARD))
        r->batch += seconds;
    if (span->kind != TS_SPAN_STEP) return;
    if (counts) {
        seconds = (double)(span->end_ns - r->last_end) * 1e-9;
        r->sum += seconds;
        r->squares += seconds * seconds;
    }
    r->seen++;
    r->last_end = span->end_ns;
}

ts_status ts_rehearsal_time(ts_rehearsal *r, ts_step_times *times)
{
    ts_trainer *t = r->t;
    for (int i = 0; i < TS_LAZY_STEPS + STEPS; i++) TS_TRY(ts_step_run(t->local_step));
    TS_TRY(ts_stream_sync(t->compute));
    ts_trace_drain(t->trace, on_span, r);
    TS_NEED(r->seen == TS_LAZY_STEPS + STEPS, TS_EDEVICE, "the stamps of %d local steps were lost",
            TS_LAZY_STEPS + STEPS);
    double mean = r->sum / STEPS;
    *times = (ts_step_times){.step_s = mean,
                             .spread = sqrt(fmax(0, r->squares / STEPS - mean * mean)) / mean,
                             .batch_s = r->batch / STEPS};
    return TS_OK;
}

ts_status ts_rehearsal_undo(ts_rehearsal *r)
{
    TS_TRY(copy_state(r, true));
    r->t->step = r->step;
    return TS_OK;
}

void ts_rehearsal_close(ts_rehearsal *r)
{
    if (!r) return;
    ts_trainer *t = r->t;
    ts_stream_sync(t->compute);
    ts_stream_sync(t->comm);
    ts_step_close(t->local_step);
    t->local_step = NULL;
    t->algorithm = NULL;
    for (int i = 0; i < r->n_state; i++)
        ts_device_release(t->device, TS_MEMORY_DEVICE, r->state[i].copy);
    free(r);
}
