/* pace.c - see pace.h. A kernel that sleeps stands behind each layer. */
#include "runtime/train/pace.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"

#define FORWARD_SHARE (1.0 / 3) /* backward makes two products where forward makes one */

struct ts_pace {
    double picture_s, macs;
    const ts_model *model;
    int64_t begin_ns; /* of the step that runs; only the compute stream touches it */
    /* of the backward that is being enqueued */
    double complete_s; /* when the layer's weight gradients are complete */
    ts_ready *ready;
    void *context;
    ts_stream *stream;
};

typedef struct mark {
    ts_pace *pace;
    double after_s; /* the step's begin; 0: it begins */
} mark;

static ts_status run_mark(const void *args)
{
    const mark *m = args;
    if (m->after_s <= 0) {
        m->pace->begin_ns = ts_clock_ns();
        return TS_OK;
    }
    int64_t due = m->pace->begin_ns + (int64_t)(m->after_s * 1e9);
    int64_t left = due - ts_clock_ns();
    if (left > 0) ts_clock_sleep_ns(left);
    return TS_OK;
}

static const ts_kernel mark_kernel = {.name = "pace", .run = run_mark};

static ts_status reach(ts_pace *p, double after_s, ts_stream *stream)
{
    mark m = {p, after_s};
    return ts_stream_launch(stream, &mark_kernel, &m, sizeof m);
}

ts_status ts_pace_open(ts_device *device, const ts_model *model, double seconds, int64_t pictures,
                       ts_pace **pace_p)
{
    TS_NEED(!strcmp(device->ops->name, "host"), TS_EUSAGE,
            "--pace is for the host device; this is %s, which has a speed of its own",
            device->ops->name);
    ts_pace *p = calloc(1, sizeof *p);
    TS_NEED(p, TS_ENOMEM, "no memory for a pace");
    p->picture_s = seconds / (double)pictures;
    p->model = model;
    p->macs = ts_model_forward_macs(model, 0, ts_model_nodes(model));
    *pace_p = p;
    return TS_OK;
}

void ts_pace_close(ts_pace *pace)
{
    free(pace);
}

ts_status ts_pace_begin(ts_pace *p, ts_stream *stream)
{
    return p ? reach(p, 0, stream) : TS_OK;
}

/* Of a whole step of this workspace. */
static double step_s(const ts_pace *p, const ts_workspace *w)
{
    return p->picture_s * ts_workspace_batch(w).shape.n;
}

ts_status ts_pace_forward(ts_pace *p, ts_workspace *w, int nodes, ts_stream *stream)
{
    if (!p) return ts_workspace_forward(w, 0, nodes, stream);
    double done = 0, whole_s = step_s(p, w);
    for (int i = 1; i < nodes; i++) {
        double macs = ts_model_forward_macs(p->model, i, i + 1);
        TS_TRY(ts_workspace_forward(w, i, i + 1, stream));
        done += macs;
        if (macs > 0) TS_TRY(reach(p, FORWARD_SHARE * done / p->macs * whole_s, stream));
    }
    return TS_OK;
}

/* Share of the step's time when backward has done so many multiply-adds of forward. */
static double backward_share(const ts_pace *p, double macs)
{
    return FORWARD_SHARE + (1 - FORWARD_SHARE) * macs / p->macs;
}

static ts_status bucket_ready(void *context, int bucket)
{
    ts_pace *p = context;
    TS_TRY(reach(p, p->complete_s, p->stream));
    return p->ready(p->context, bucket);
}

ts_status ts_pace_backward(ts_pace *p, ts_workspace *w, int nodes, float *gradients,
                           ts_ready *ready, void *context, ts_stream *stream)
{
    if (!p) return ts_workspace_backward(w, 0, nodes, gradients, ready, context, stream);
    p->ready = ready;
    p->context = context;
    p->stream = stream;
    double done = 0, whole_s = step_s(p, w);
    for (int i = nodes - 1; i > 0; i--) {
        double macs = ts_model_forward_macs(p->model, i, i + 1);
        /* weight gradients come first and cost half */
        p->complete_s = backward_share(p, done + macs / 2) * whole_s;
        TS_TRY(
            ts_workspace_backward(w, i, i + 1, gradients, ready ? bucket_ready : NULL, p, stream));
        done += macs;
        if (macs > 0) TS_TRY(reach(p, backward_share(p, done) * whole_s, stream));
    }
    return TS_OK;
}
