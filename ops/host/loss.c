/* loss.c - softmax cross-entropy and dropout: small next to everything else, so plain loops. */
#include <math.h>

#include "ops/element.h"
#include "ops/host/host_op.h"

static void no_size(ts_op *op)
{
    (void)op;
}

/* ---- cross-entropy on fp32 logits [n][classes] ---- */

static bool entropy_serves(const ts_op_desc *d)
{
    return d->type == TS_F32 && d->in.h == 1 && d->in.w == 1 && ts_layout_block(d->in_layout) == 1;
}

static float log_total(const float *x, int classes, int *best)
{
    float most = x[0], sum = 0;
    *best = 0;
    for (int c = 1; c < classes; c++)
        if (x[c] > most) {
            most = x[c];
            *best = c;
        }
    for (int c = 0; c < classes; c++) sum += expf(x[c] - most);
    return most + logf(sum);
}

static ts_status entropy_forward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_op_args *a = &r->args;
    int classes = d->in.c;
    for (int n = 0; n < d->in.n; n++) {
        const float *x = (const float *)a->x + (size_t)n * (size_t)classes;
        int best, label = a->labels[n];
        float total = log_total(x, classes, &best);
        double mean = 0, loss = 0;
        if (label >= 0) {
            for (int c = 0; c < classes; c++) mean += x[c];
            loss = total - (1 - (double)d->smoothing) * x[label] - d->smoothing * mean / classes;
            a->control->samples++;
            if (isfinite(loss)) {
                a->control->loss_sum += loss;
                a->control->correct += best == label;
            } else {
                a->control->not_finite++;
            }
        }
        if (a->y) ((float *)a->y)[n] = (float)loss;
    }
    return TS_OK;
}

static ts_status entropy_backward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_op_args *a = &r->args;
    int classes = d->in.c, count = 0;
    for (int n = 0; n < d->in.n; n++) count += a->labels[n] >= 0;
    for (int n = 0; n < d->in.n; n++) {
        size_t at = (size_t)n * (size_t)classes;
        const float *x = (const float *)a->x + at;
        float *dx = (float *)a->dx + at;
        int best, label = a->labels[n];
        float total = log_total(x, classes, &best);
        for (int c = 0; c < classes; c++) {
            float target = (c == label ? 1 - d->smoothing : 0) + d->smoothing / (float)classes;
            dx[c] = label < 0 ? 0 : (expf(x[c] - total) - target) / (float)count;
        }
    }
    return TS_OK;
}

const ts_host_kind ts_host_cross_entropy = {
    .serves = entropy_serves,
    .size = no_size,
    .forward = entropy_forward,
    .backward_data = entropy_backward,
};

/* ---- dropout; the mask counts elements in n, c, h, w order, so only that order is served ---- */

static bool dropout_serves(const ts_op_desc *d)
{
    bool plain = d->in_layout == TS_NCHW || (d->in.h * d->in.w == 1 && d->in_layout == TS_NHWC);
    return plain && d->layout == d->in_layout;
}

static ts_status drop(const ts_op_run *r, void *to, const void *from, const void *from2)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_control *control = r->args.control;
    bool bf16 = d->type == TS_BF16;
    int64_t n = (int64_t)ts_shape_count(d->in);
    float scale = d->training ? 1 / (1 - d->probability) : 1;
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        float v = ts_host_load(from, (size_t)i, bf16);
        if (from2) v += ts_host_load(from2, (size_t)i, bf16);
        bool kept = !d->training || ts_dropout_keeps(control->seed, control->step, d->node,
                                                     (uint64_t)i, d->probability);
        ts_host_store(to, (size_t)i, kept ? v * scale : 0, bf16);
    }
    return TS_OK;
}

static ts_status dropout_forward(const ts_op_run *r)
{
    return drop(r, r->args.y, r->args.x, NULL);
}

static ts_status dropout_backward(const ts_op_run *r)
{
    return drop(r, r->args.dx, r->args.dy, r->args.dy2);
}

const ts_host_kind ts_host_dropout = {
    .serves = dropout_serves,
    .size = no_size,
    .forward = dropout_forward,
    .backward_data = dropout_backward,
};
