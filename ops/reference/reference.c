/* reference.c - every op, every pass, in plain loops with double accumulation.
 *
 * The oracle of the tests, and what runs where nothing faster serves. Any layout, fp32 or bf16
 * activations; weights in PyTorch's order, rounded to bf16 first when activations are bf16,
 * as convolutions on every fast backend are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/element.h"

/* ---- activations by index ---- */

typedef struct view {
    void *at;
    ts_type type;
    ts_layout layout;
    ts_shape s;
} view;

static double get(const view *v, int n, int c, int h, int w)
{
    size_t i = ts_layout_at(v->layout, v->s, n, c, h, w);
    return v->type == TS_BF16 ? ts_bf16_to_float(((const uint16_t *)v->at)[i])
                              : ((const float *)v->at)[i];
}

static void set(const view *v, int n, int c, int h, int w, double x)
{
    size_t i = ts_layout_at(v->layout, v->s, n, c, h, w);
    if (v->type == TS_BF16)
        ((uint16_t *)v->at)[i] = ts_bf16_from_float((float)x);
    else
        ((float *)v->at)[i] = (float)x;
}

/* Zeros everywhere, so that the padding of blocked layouts is zero whatever is set after. */
static void clear(const view *v)
{
    memset(v->at, 0, ts_layout_count(v->layout, v->s) * ts_type_bytes(v->type));
}

static view in_view(const ts_op_desc *d, const void *at)
{
    return (view){(void *)(uintptr_t)at, d->type, d->in_layout, d->in};
}

static view out_view(const ts_op_desc *d, const void *at)
{
    ts_type type = d->kind == TS_OP_LINEAR ? d->out_type : d->type;
    return (view){(void *)(uintptr_t)at, type, d->layout, d->out};
}

#define EACH(v, n_, c_, h_, w_)                                                                    \
    for (int n_ = 0; n_ < (v).s.n; n_++)                                                           \
        for (int c_ = 0; c_ < (v).s.c; c_++)                                                       \
            for (int h_ = 0; h_ < (v).s.h; h_++)                                                   \
                for (int w_ = 0; w_ < (v).s.w; w_++)

static double weight_at(const ts_op_desc *d, const float *weight, size_t i)
{
    return d->type == TS_BF16 ? ts_bf16_to_float(ts_bf16_from_float(weight[i])) : weight[i];
}

/* The gradient of y: one or two parts. */
static double gradient(const view *dy, const view *dy2, int n, int c, int h, int w)
{
    return get(dy, n, c, h, w) + (dy2->at ? get(dy2, n, c, h, w) : 0);
}

/* ---- convolution ---- */

/* Calls the statement for every (output, input) pair that weight (o, i, kh, kw) joins. */
#define EACH_TAP(d, n_, o_, i_, kh_, kw_, oh_, ow_, ih_, iw_)                                      \
    for (int n_ = 0; n_ < (d)->in.n; n_++)                                                         \
        for (int o_ = 0; o_ < (d)->out.c; o_++)                                                    \
            for (int i_ = 0; i_ < (d)->in.c; i_++)                                                 \
                for (int kh_ = 0; kh_ < (d)->kernel; kh_++)                                        \
                    for (int kw_ = 0; kw_ < (d)->kernel; kw_++)                                    \
                        for (int oh_ = 0; oh_ < (d)->out.h; oh_++)                                 \
                            for (int ow_ = 0, ih_ = oh_ * (d)->stride - (d)->padding + kh_,        \
                                     iw_ = kw_ - (d)->padding;                                     \
                                 ow_ < (d)->out.w; ow_++, iw_ += (d)->stride)                      \
                                if (ih_ >= 0 && ih_ < (d)->in.h && iw_ >= 0 && iw_ < (d)->in.w)

static size_t tap_at(const ts_op_desc *d, int o, int i, int kh, int kw)
{
    size_t k = (size_t)d->kernel;
    return (((size_t)o * (size_t)d->in.c + (size_t)i) * k + (size_t)kh) * k + (size_t)kw;
}

/* Sums in double, then stores: `sums` has an element for each of the view's, n c h w. */
static size_t sum_at(ts_shape s, int n, int c, int h, int w)
{
    return (((size_t)n * (size_t)s.c + (size_t)c) * (size_t)s.h + (size_t)h) * (size_t)s.w +
           (size_t)w;
}

static ts_status sums_open(size_t n, double **sums_p)
{
    *sums_p = calloc(n, sizeof **sums_p);
    TS_NEED(*sums_p, TS_ENOMEM, "no memory for %zu sums of the reference", n);
    return TS_OK;
}

static void store(const view *v, const double *sums)
{
    clear(v);
    EACH(*v, n, c, h, w) set(v, n, c, h, w, sums[sum_at(v->s, n, c, h, w)]);
}

/* A convolution's operands in double, in PyTorch's order: a pass fills two and sums the third. */
typedef struct operands {
    double *x, *y, *weight; /* x owns the memory */
} operands;

static ts_status operands_open(const ts_op_desc *d, operands *o)
{
    size_t x = ts_shape_count(d->in), y = ts_shape_count(d->out);
    TS_TRY(sums_open(x + y + ts_op_plain_weight_count(d), &o->x));
    o->y = o->x + x;
    o->weight = o->y + y;
    return TS_OK;
}

/* What is read; `also` may have no memory. */
static void fetch(const view *v, const view *also, double *to)
{
    EACH(*v, n, c, h, w) to[sum_at(v->s, n, c, h, w)] = gradient(v, also, n, c, h, w);
}

static void fetch_weight(const ts_op_desc *d, const float *weight, double *to)
{
    for (size_t i = 0; i < ts_op_plain_weight_count(d); i++) to[i] = weight_at(d, weight, i);
}

static ts_status conv_forward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), y = out_view(d, a->y);
    operands v;
    TS_TRY(operands_open(d, &v));
    fetch(&x, &(view){0}, v.x);
    fetch_weight(d, a->weight, v.weight);
    EACH_TAP(d, n, o, i, kh, kw, oh, ow, ih, iw)
    v.y[sum_at(d->out, n, o, oh, ow)] +=
        v.weight[tap_at(d, o, i, kh, kw)] * v.x[sum_at(d->in, n, i, ih, iw)];
    store(&y, v.y);
    free(v.x);
    return TS_OK;
}

static ts_status conv_backward_data(const ts_op_desc *d, const ts_op_args *a)
{
    view dx = in_view(d, a->dx), dy = out_view(d, a->dy), dy2 = out_view(d, a->dy2);
    operands v;
    TS_TRY(operands_open(d, &v));
    fetch(&dy, &dy2, v.y);
    fetch_weight(d, a->weight, v.weight);
    EACH_TAP(d, n, o, i, kh, kw, oh, ow, ih, iw)
    v.x[sum_at(d->in, n, i, ih, iw)] +=
        v.weight[tap_at(d, o, i, kh, kw)] * v.y[sum_at(d->out, n, o, oh, ow)];
    store(&dx, v.x);
    free(v.x);
    return TS_OK;
}

static ts_status conv_backward_weights(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), dy = out_view(d, a->dy), dy2 = out_view(d, a->dy2);
    operands v;
    TS_TRY(operands_open(d, &v));
    fetch(&x, &(view){0}, v.x);
    fetch(&dy, &dy2, v.y);
    EACH_TAP(d, n, o, i, kh, kw, oh, ow, ih, iw)
    v.weight[tap_at(d, o, i, kh, kw)] +=
        v.x[sum_at(d->in, n, i, ih, iw)] * v.y[sum_at(d->out, n, o, oh, ow)];
    for (size_t i = 0; i < ts_op_plain_weight_count(d); i++) a->dweight[i] = (float)v.weight[i];
    free(v.x);
    return TS_OK;
}

/* ---- batch norm; saved: mean and inverse deviation of each channel ---- */

static ts_status norm_forward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), y = out_view(d, a->y), residual = out_view(d, a->residual);
    double count = (double)d->in.n * d->in.h * d->in.w;
    float *saved = a->saved;
    clear(&y);
    for (int c = 0; c < d->in.c; c++) {
        double mean = a->running[c], variance = a->running[d->in.c + c];
        if (d->training) {
            double sum = 0, squares = 0;
            for (int n = 0; n < d->in.n; n++)
                for (int h = 0; h < d->in.h; h++)
                    for (int w = 0; w < d->in.w; w++) sum += get(&x, n, c, h, w);
            mean = sum / count;
            for (int n = 0; n < d->in.n; n++)
                for (int h = 0; h < d->in.h; h++)
                    for (int w = 0; w < d->in.w; w++) {
                        double e = get(&x, n, c, h, w) - mean;
                        squares += e * e;
                    }
            variance = squares / count;
            double unbiased = count > 1 ? squares / (count - 1) : variance;
            float *running = a->running;
            running[c] = (float)((1 - d->momentum) * running[c] + d->momentum * mean);
            running[d->in.c + c] =
                (float)((1 - d->momentum) * running[d->in.c + c] + d->momentum * unbiased);
        }
        double inverse = 1 / sqrt(variance + d->epsilon);
        if (d->training) {
            saved[c] = (float)mean;
            saved[d->in.c + c] = (float)inverse;
        }
        for (int n = 0; n < d->in.n; n++)
            for (int h = 0; h < d->in.h; h++)
                for (int w = 0; w < d->in.w; w++) {
                    double v = (get(&x, n, c, h, w) - mean) * inverse * a->weight[c] + a->bias[c];
                    if (d->add) v += get(&residual, n, c, h, w);
                    set(&y, n, c, h, w, d->relu && v < 0 ? 0 : v);
                }
    }
    return TS_OK;
}

static double norm_gradient(const ts_op_desc *d, const view *y, const view *dy, const view *dy2,
                            int n, int c, int h, int w)
{
    if (d->relu && !(get(y, n, c, h, w) > 0)) return 0;
    return gradient(dy, dy2, n, c, h, w);
}

static ts_status norm_backward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), y = out_view(d, a->y), dx = in_view(d, a->dx);
    view dy = out_view(d, a->dy), dy2 = out_view(d, a->dy2), dres = out_view(d, a->dresidual);
    double count = (double)d->in.n * d->in.h * d->in.w;
    const float *saved = a->saved;
    if (a->dx) clear(&dx);
    if (a->dresidual) clear(&dres);
    for (int c = 0; c < d->in.c; c++) {
        double mean = saved[c], inverse = saved[d->in.c + c], sum = 0, dot = 0;
        for (int n = 0; n < d->in.n; n++)
            for (int h = 0; h < d->in.h; h++)
                for (int w = 0; w < d->in.w; w++) {
                    double g = norm_gradient(d, &y, &dy, &dy2, n, c, h, w);
                    sum += g;
                    dot += g * (get(&x, n, c, h, w) - mean) * inverse;
                }
        a->dweight[c] = (float)dot;
        a->dbias[c] = (float)sum;
        for (int n = 0; n < d->in.n; n++)
            for (int h = 0; h < d->in.h; h++)
                for (int w = 0; w < d->in.w; w++) {
                    double g = norm_gradient(d, &y, &dy, &dy2, n, c, h, w);
                    double hat = (get(&x, n, c, h, w) - mean) * inverse;
                    if (a->dx)
                        set(&dx, n, c, h, w,
                            a->weight[c] * inverse * (g - sum / count - hat * dot / count));
                    if (a->dresidual) set(&dres, n, c, h, w, g);
                }
    }
    return TS_OK;
}

/* ---- pooling; saved: for max, the place of each maximum in its picture ---- */

static void window(const ts_op_desc *d, int out, int in, int *from, int *to)
{
    int kernel = d->kernel ? d->kernel : in, stride = d->kernel ? d->stride : in;
    *from = out * stride - d->padding;
    *to = *from + kernel < in ? *from + kernel : in;
    if (*from < 0) *from = 0;
}

static ts_status pool_forward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), y = out_view(d, a->y);
    int32_t *place = a->saved;
    clear(&y);
    EACH(y, n, c, h, w)
    {
        int h0, h1, w0, w1, best = -1;
        double sum = 0, most = -INFINITY;
        window(d, h, d->in.h, &h0, &h1);
        window(d, w, d->in.w, &w0, &w1);
        for (int i = h0; i < h1; i++)
            for (int j = w0; j < w1; j++) {
                double v = get(&x, n, c, i, j);
                sum += v;
                if (v > most || isnan(v) || best < 0) {
                    most = v;
                    best = i * d->in.w + j;
                }
            }
        bool max = d->kind == TS_OP_MAX_POOL;
        set(&y, n, c, h, w, max ? most : sum / ((double)(h1 - h0) * (w1 - w0)));
        if (max && d->training) place[sum_at(d->out, n, c, h, w)] = best;
    }
    return TS_OK;
}

static ts_status pool_backward(const ts_op_desc *d, const ts_op_args *a)
{
    view dx = in_view(d, a->dx), dy = out_view(d, a->dy), dy2 = out_view(d, a->dy2);
    const int32_t *place = a->saved;
    double *sums;
    TS_TRY(sums_open(ts_shape_count(d->in), &sums));
    EACH(dy, n, c, h, w)
    {
        double g = gradient(&dy, &dy2, n, c, h, w);
        int h0, h1, w0, w1;
        if (d->kind == TS_OP_MAX_POOL) {
            int at = place[sum_at(d->out, n, c, h, w)];
            sums[sum_at(d->in, n, c, at / d->in.w, at % d->in.w)] += g;
            continue;
        }
        window(d, h, d->in.h, &h0, &h1);
        window(d, w, d->in.w, &w0, &w1);
        for (int i = h0; i < h1; i++)
            for (int j = w0; j < w1; j++)
                sums[sum_at(d->in, n, c, i, j)] += g / ((double)(h1 - h0) * (w1 - w0));
    }
    store(&dx, sums);
    free(sums);
    return TS_OK;
}

/* ---- linear ---- */

static ts_status linear_forward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), y = out_view(d, a->y);
    clear(&y);
    for (int n = 0; n < d->in.n; n++)
        for (int o = 0; o < d->out.c; o++) {
            size_t at = (size_t)o * (size_t)d->in.c * (size_t)d->in.h * (size_t)d->in.w;
            double sum = a->bias[o];
            for (int c = 0; c < d->in.c; c++)
                for (int h = 0; h < d->in.h; h++)
                    for (int w = 0; w < d->in.w; w++)
                        sum += weight_at(d, a->weight, at++) * get(&x, n, c, h, w);
            set(&y, n, o, 0, 0, d->relu && sum < 0 ? 0 : sum);
        }
    return TS_OK;
}

static double linear_gradient(const ts_op_desc *d, const ts_op_args *a, int n, int o)
{
    view y = out_view(d, a->y), dy = out_view(d, a->dy), dy2 = out_view(d, a->dy2);
    return d->relu && !(get(&y, n, o, 0, 0) > 0) ? 0 : gradient(&dy, &dy2, n, o, 0, 0);
}

static ts_status linear_backward_data(const ts_op_desc *d, const ts_op_args *a)
{
    view dx = in_view(d, a->dx);
    clear(&dx);
    EACH(dx, n, c, h, w)
    {
        double sum = 0;
        for (int o = 0; o < d->out.c; o++) {
            ts_shape s = {d->out.c, d->in.c, d->in.h, d->in.w};
            sum += weight_at(d, a->weight, sum_at(s, o, c, h, w)) * linear_gradient(d, a, n, o);
        }
        set(&dx, n, c, h, w, sum);
    }
    return TS_OK;
}

static ts_status linear_backward_weights(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x);
    size_t at = 0;
    for (int o = 0; o < d->out.c; o++) {
        double bias = 0;
        for (int n = 0; n < d->in.n; n++) bias += linear_gradient(d, a, n, o);
        a->dbias[o] = (float)bias;
        for (int c = 0; c < d->in.c; c++)
            for (int h = 0; h < d->in.h; h++)
                for (int w = 0; w < d->in.w; w++) {
                    double sum = 0;
                    for (int n = 0; n < d->in.n; n++)
                        sum += linear_gradient(d, a, n, o) * get(&x, n, c, h, w);
                    a->dweight[at++] = (float)sum;
                }
    }
    return TS_OK;
}

/* ---- dropout ---- */

/* to = from where kept, scaled; the mask counts elements in n, c, h, w order. */
static ts_status drop(const ts_op_desc *d, const ts_op_args *a, const view *to, const view *from,
                      const view *from2)
{
    double scale = 1 / (1 - (double)d->probability);
    clear(to);
    EACH(*to, n, c, h, w)
    {
        size_t i = sum_at(d->in, n, c, h, w);
        bool kept = !d->training || ts_dropout_keeps(a->control->seed, a->control->step, d->node, i,
                                                     d->probability);
        double g = gradient(from, from2, n, c, h, w);
        set(to, n, c, h, w, !kept ? 0 : d->training ? g * scale : g);
    }
    return TS_OK;
}

/* ---- cross-entropy ---- */

static double log_sum(const view *x, int n, int *best)
{
    double most = -INFINITY, sum = 0;
    *best = 0;
    for (int c = 0; c < x->s.c; c++) {
        double v = get(x, n, c, 0, 0);
        if (v > most) {
            most = v;
            *best = c;
        }
    }
    for (int c = 0; c < x->s.c; c++) sum += exp(get(x, n, c, 0, 0) - most);
    return most + log(sum);
}

static ts_status entropy_forward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x);
    float *losses = a->y;
    for (int n = 0; n < d->in.n; n++) {
        int best, label = a->labels[n];
        double log_total = log_sum(&x, n, &best), mean = 0;
        if (losses) losses[n] = 0;
        if (label < 0) continue;
        for (int c = 0; c < d->in.c; c++) mean += get(&x, n, c, 0, 0) / d->in.c;
        double loss =
            log_total - (1 - d->smoothing) * get(&x, n, label, 0, 0) - d->smoothing * mean;
        if (losses) losses[n] = (float)loss;
        a->control->samples++;
        if (isfinite(loss)) {
            a->control->loss_sum += loss;
            a->control->correct += best == label;
        } else {
            a->control->not_finite++;
        }
    }
    return TS_OK;
}

static ts_status entropy_backward(const ts_op_desc *d, const ts_op_args *a)
{
    view x = in_view(d, a->x), dx = in_view(d, a->dx);
    int count = 0;
    for (int n = 0; n < d->in.n; n++) count += a->labels[n] >= 0;
    clear(&dx);
    for (int n = 0; n < d->in.n; n++) {
        int best, label = a->labels[n];
        double log_total = log_sum(&x, n, &best);
        for (int c = 0; c < d->in.c && label >= 0; c++) {
            double target = (c == label ? 1 - d->smoothing : 0) + d->smoothing / d->in.c;
            set(&dx, n, c, 0, 0, (exp(get(&x, n, c, 0, 0) - log_total) - target) / count);
        }
    }
    return TS_OK;
}

/* ---- one kernel for each pass ---- */

static ts_status run_forward(const void *args)
{
    const ts_op_run *r = args;
    const ts_op_desc *d = &r->op->desc;
    view x = in_view(d, r->args.x), y = out_view(d, r->args.y), none = {0};
    switch (d->kind) {
    case TS_OP_CONV:
        return conv_forward(d, &r->args);
    case TS_OP_BATCH_NORM:
        return norm_forward(d, &r->args);
    case TS_OP_MAX_POOL:
    case TS_OP_AVERAGE_POOL:
        return pool_forward(d, &r->args);
    case TS_OP_LINEAR:
        return linear_forward(d, &r->args);
    case TS_OP_DROPOUT:
        return drop(d, &r->args, &y, &x, &none);
    case TS_OP_CROSS_ENTROPY:
        return entropy_forward(d, &r->args);
    }
    return TS_OK;
}

static ts_status run_backward_data(const void *args)
{
    const ts_op_run *r = args;
    const ts_op_desc *d = &r->op->desc;
    view dx = in_view(d, r->args.dx), dy = out_view(d, r->args.dy), dy2 = out_view(d, r->args.dy2);
    switch (d->kind) {
    case TS_OP_CONV:
        return conv_backward_data(d, &r->args);
    case TS_OP_BATCH_NORM:
        return norm_backward(d, &r->args);
    case TS_OP_MAX_POOL:
    case TS_OP_AVERAGE_POOL:
        return pool_backward(d, &r->args);
    case TS_OP_LINEAR:
        return linear_backward_data(d, &r->args);
    case TS_OP_DROPOUT:
        return drop(d, &r->args, &dx, &dy, &dy2);
    case TS_OP_CROSS_ENTROPY:
        return entropy_backward(d, &r->args);
    }
    return TS_OK;
}

static ts_status run_backward_weights(const void *args)
{
    const ts_op_run *r = args;
    const ts_op_desc *d = &r->op->desc;
    return d->kind == TS_OP_CONV ? conv_backward_weights(d, &r->args)
                                 : linear_backward_weights(d, &r->args);
}

/* Kernels that run on the host serve every device that runs host kernels. */
static bool reference_serves(const ts_device *device, const ts_op_desc *desc, const char **why_p)
{
    (void)desc;
    bool host = strcmp(device->ops->name, "cuda") != 0;
    if (!host && why_p) *why_p = "it runs on the host only";
    return host;
}

static ts_status reference_plan(ts_device *device, const ts_op_desc *desc, ts_op **op_p)
{
    (void)device;
    _Static_assert(sizeof(ts_op_run) <= TS_KERNEL_ARGS_MAX, "an op's arguments fit a kernel's");
    TS_TRY(ts_op_open_plain(&ts_op_reference, desc, op_p));
    if (desc->kind == TS_OP_BATCH_NORM && desc->training)
        (*op_p)->saved_bytes = 2 * (size_t)desc->in.c * sizeof(float);
    if (desc->kind == TS_OP_MAX_POOL && desc->training)
        (*op_p)->saved_bytes = ts_shape_count(desc->out) * sizeof(int32_t);
    return TS_OK;
}

const ts_op_ops ts_op_reference = {
    .name = "reference",
    .serves = reference_serves,
    .plan = reference_plan,
    .release = ts_op_close_plain,
    .kernels = {[TS_FORWARD] = {.name = "reference forward",
                                .run = run_forward,
                                .accesses = ts_op_forward_accesses},
                [TS_BACKWARD_DATA] = {.name = "reference backward data",
                                      .run = run_backward_data,
                                      .accesses = ts_op_backward_data_accesses},
                [TS_BACKWARD_WEIGHTS] = {.name = "reference backward weights",
                                         .run = run_backward_weights,
                                         .accesses = ts_op_backward_weights_accesses}},
};
