/* batch_norm.c - batch norm in two passes each way, whatever else is fused into it.
 *
 * forward: (1) sums of x - s and (x - s)^2, s a sample of the channel, so that a mean far from
 * zero costs no digits; (2) normalise, add the residual, ReLU. backward: (1) sums of the gradient
 * and of gradient times x - mean; (2) dx, and the residual's gradient. The gradient is dy + dy2
 * where y > 0, which without a residual is read off x and not y: time here goes to memory. Sums are
 * fp32 over runs of RUN pixels and double above, picture by picture in a fixed order: the same bits
 * for any number of threads.
 *
 * An activation is seen as [n][blocks][pixels][lanes]: NHWC has one block of all channels. */
#include <math.h>

#include "ops/host/host_op.h"
#include "ops/norm_element.h"

enum { RUN = 64, LANES_MAX = 64 };

typedef struct view {
    int n, blocks, pixels, lanes, channels;
} view;

static view view_of(const ts_op_desc *d)
{
    int block = ts_layout_block(d->in_layout);
    view v = {.n = d->in.n, .pixels = d->in.h * d->in.w, .channels = d->in.c};
    if (d->in_layout == TS_NHWC || (d->in_layout == TS_NCHW && v.pixels == 1)) {
        v.blocks = 1;
        v.lanes = d->in.c;
    } else {
        v.lanes = block;
        v.blocks = (d->in.c + block - 1) / block;
    }
    return v;
}

static bool norm_serves(const ts_op_desc *d)
{
    return d->in_layout == d->layout && (d->in_layout != TS_NCHW || d->in.h * d->in.w == 1);
}

/* Scratch: for each picture two sums of each (padded) channel, in double. */
static double *sums_of(const ts_op_run *r)
{
    return r->args.scratch;
}

static size_t padded_channels(const view *v)
{
    return (size_t)v->blocks * (size_t)v->lanes;
}

static void norm_size(ts_op *op)
{
    view v = view_of(&op->desc);
    if (!op->desc.training) { /* scale and shift */
        op->scratch_bytes = 2 * padded_channels(&v) * sizeof(float);
        return;
    }
    op->saved_bytes = 2 * ((size_t)v.channels + padded_channels(&v)) * sizeof(float);
    /* the sums, and behind them three factors of each channel */
    op->scratch_bytes =
        padded_channels(&v) * (2 * (size_t)v.n * sizeof(double) + 3 * sizeof(float));
}

/* ---- pass 1: sums over the pixels of one picture, in slices of at most LANES_MAX lanes ---- */

typedef struct sources { /* what a pass reads, at the start of a block */
    const void *x, *y, *dy, *dy2;
    const float *gain, *bias; /* of the block's lanes: y was gain x + bias before the ReLU */
} sources;

/* The gradient at element i of lane b, whose x is given. */
TS_INLINE float gradient_at(const sources *s, size_t i, int b, float x, bool bf16, ts_norm_mask m,
                            bool two)
{
    float g = ts_host_load(s->dy, i, bf16);
    if (two) g += ts_host_load(s->dy2, i, bf16);
    float y = m == TS_MASK_Y ? ts_host_load(s->y, i, bf16) : 0;
    return ts_norm_masked(g, m, x, m == TS_MASK_X ? s->gain[b] : 0, m == TS_MASK_X ? s->bias[b] : 0,
                          y);
}

static sources shifted(sources s, size_t elements, size_t lanes, bool bf16)
{
    size_t bytes = elements * (bf16 ? 2 : 4);
    if (s.x) s.x = (const char *)s.x + bytes;
    if (s.y) s.y = (const char *)s.y + bytes;
    if (s.dy) s.dy = (const char *)s.dy + bytes;
    if (s.dy2) s.dy2 = (const char *)s.dy2 + bytes;
    if (s.gain) s.gain += lanes;
    if (s.bias) s.bias += lanes;
    return s;
}

/* sums[0..lanes) and sums[channels ..) of one stretch of `width` lanes. */
TS_INLINE void sum_stretch(const sources *s, const float *center, int pixels, int lanes, int width,
                           double *first, double *second, bool bf16, bool backward, ts_norm_mask m,
                           bool two)
{
    double total[LANES_MAX] = {0}, total2[LANES_MAX] = {0};
    for (int from = 0; from < pixels; from += RUN) {
        float sum[LANES_MAX] = {0}, sum2[LANES_MAX] = {0};
        int to = from + RUN < pixels ? from + RUN : pixels;
        for (int p = from; p < to; p++) {
            size_t at = (size_t)p * (size_t)lanes;
#pragma omp simd
            for (int b = 0; b < width; b++) {
                float x = ts_host_load(s->x, at + (size_t)b, bf16), e = x - center[b];
                float g = backward ? gradient_at(s, at + (size_t)b, b, x, bf16, m, two) : e;
                sum[b] += g;
                sum2[b] = fmaf(g, e, sum2[b]);
            }
        }
        for (int b = 0; b < width; b++) {
            total[b] += sum[b];
            total2[b] += sum2[b];
        }
    }
    for (int b = 0; b < width; b++) {
        first[b] = total[b];
        second[b] = total2[b];
    }
}

/* All stretches of one (picture, block); a full 16 lanes is what the compiler sees as a constant.
 */
TS_INLINE void sum_block(sources s, const float *center, const view *v, double *first,
                         double *second, bool bf16, bool backward, ts_norm_mask m, bool two)
{
    for (int lane = 0; lane < v->lanes; lane += 16) {
        int width = v->lanes - lane < 16 ? v->lanes - lane : 16;
        sources t = shifted(s, (size_t)lane, (size_t)lane, bf16);
        if (width == 16)
            sum_stretch(&t, center + lane, v->pixels, v->lanes, 16, first + lane, second + lane,
                        bf16, backward, m, two);
        else
            sum_stretch(&t, center + lane, v->pixels, v->lanes, width, first + lane, second + lane,
                        bf16, backward, m, two);
    }
}

/* One loop for each combination of type and fusion. */
static void sum_any(sources s, const float *center, const view *v, double *first, double *second,
                    bool bf16, bool backward, ts_norm_mask m)
{
    bool two = s.dy2 != NULL;
#define CASE(B, K, M, T)                                                                           \
    if (bf16 == B && backward == K && m == M && two == T) {                                        \
        sum_block(s, center, v, first, second, B, K, M, T);                                        \
        return;                                                                                    \
    }
#define CASES(B)                                                                                   \
    CASE(B, false, TS_MASK_NONE, false)                                                            \
    CASE(B, true, TS_MASK_NONE, false)                                                             \
    CASE(B, true, TS_MASK_NONE, true)                                                              \
    CASE(B, true, TS_MASK_Y, false)                                                                \
    CASE(B, true, TS_MASK_Y, true)                                                                 \
    CASE(B, true, TS_MASK_X, false)                                                                \
    CASE(B, true, TS_MASK_X, true)
    CASES(false)
    CASES(true)
#undef CASES
#undef CASE
}

/* What the forward pass saved: mean, 1 / deviation, then gain and bias of the padded channels. */
static sources backward_sources(const ts_op_run *r, const view *v)
{
    const ts_op_args *a = &r->args;
    const float *gain = (const float *)a->saved + 2 * v->channels;
    return (sources){a->x, a->y, a->dy, a->dy2, gain, gain + padded_channels(v)};
}

/* The two sums of every (picture, channel) into scratch; `center` has the padded channels. */
static void sum_pictures(const ts_op_run *r, const view *v, const float *center, bool backward)
{
    bool bf16 = r->op->desc.type == TS_BF16;
    ts_norm_mask m = backward ? ts_norm_mask_of(&r->op->desc) : TS_MASK_NONE;
    size_t channels = padded_channels(v), block = (size_t)v->pixels * (size_t)v->lanes;
    double *sums = sums_of(r);
    sources all = backward ? backward_sources(r, v) : (sources){.x = r->args.x};
#pragma omp parallel for collapse(2) schedule(static)
    for (int n = 0; n < v->n; n++)
        for (int c = 0; c < v->blocks; c++) {
            size_t index = (size_t)n * (size_t)v->blocks + (size_t)c;
            size_t lane = (size_t)c * (size_t)v->lanes;
            double *first = sums + 2 * (size_t)n * channels + lane;
            sum_any(shifted(all, index * block, lane, bf16), center + lane, v, first,
                    first + channels, bf16, backward, m);
        }
}

static void add_pictures(const ts_op_run *r, const view *v, int channel, double *first,
                         double *second)
{
    size_t channels = padded_channels(v);
    const double *at = sums_of(r) + channel;
    *first = *second = 0;
    for (int n = 0; n < v->n; n++, at += 2 * channels) {
        *first += at[0];
        *second += at[channels];
    }
}

/* ---- pass 2 ---- */

/* y = relu(scale x + shift + residual) over one stretch. */
TS_INLINE void apply_stretch(const void *x, const void *residual, void *y, const float *scale,
                             const float *shift, int pixels, int lanes, int width, bool bf16,
                             bool add, bool relu)
{
    for (int p = 0; p < pixels; p++) {
        size_t at = (size_t)p * (size_t)lanes;
#pragma omp simd
        for (int b = 0; b < width; b++) {
            float r = add ? ts_host_load(residual, at + (size_t)b, bf16) : 0;
            float v =
                ts_norm_apply(ts_host_load(x, at + (size_t)b, bf16), scale[b], shift[b], r, relu);
            ts_host_store(y, at + (size_t)b, v, bf16);
        }
    }
}

TS_INLINE void apply_block(const char *x, const char *residual, char *y, const float *scale,
                           const float *shift, const view *v, bool bf16, bool add, bool relu)
{
    for (int lane = 0; lane < v->lanes; lane += 16) {
        int width = v->lanes - lane < 16 ? v->lanes - lane : 16;
        size_t skip = (size_t)lane * (bf16 ? 2 : 4);
        const char *r = add ? residual + skip : NULL;
        if (width == 16)
            apply_stretch(x + skip, r, y + skip, scale + lane, shift + lane, v->pixels, v->lanes,
                          16, bf16, add, relu);
        else
            apply_stretch(x + skip, r, y + skip, scale + lane, shift + lane, v->pixels, v->lanes,
                          width, bf16, add, relu);
    }
}

static void apply(const ts_op_run *r, const view *v, const float *scale, const float *shift)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_op_args *a = &r->args;
    bool bf16 = d->type == TS_BF16;
    size_t block = (size_t)v->pixels * (size_t)v->lanes * (bf16 ? 2 : 4);
#pragma omp parallel for collapse(2) schedule(static)
    for (int n = 0; n < v->n; n++)
        for (int c = 0; c < v->blocks; c++) {
            size_t at = ((size_t)n * (size_t)v->blocks + (size_t)c) * block;
            size_t lane = (size_t)c * (size_t)v->lanes;
            const char *x = (const char *)a->x + at;
            const char *residual = d->add ? (const char *)a->residual + at : NULL;
            char *y = (char *)a->y + at;
#define CASE(B, A, R)                                                                              \
    if (bf16 == B && d->add == A && d->relu == R)                                                  \
        apply_block(x, residual, y, scale + lane, shift + lane, v, B, A, R);
            CASE(false, false, false)
            CASE(false, false, true)
            CASE(false, true, false)
            CASE(false, true, true)
            CASE(true, false, false)
            CASE(true, false, true)
            CASE(true, true, false)
            CASE(true, true, true)
#undef CASE
        }
}

/* dx = scale g + slope x + shift, with slope and shift holding the sums' part. A dx that nobody
 * wants lies where dresidual does, which is stored after it. */
TS_INLINE void unapply_stretch(const sources *s, void *dx, void *dresidual, const float *scale,
                               const float *slope, const float *shift, int pixels, int lanes,
                               int width, bool bf16, ts_norm_mask m, bool two, bool residual)
{
    for (int p = 0; p < pixels; p++) {
        size_t at = (size_t)p * (size_t)lanes;
#pragma omp simd
        for (int b = 0; b < width; b++) {
            size_t i = at + (size_t)b;
            float x = ts_host_load(s->x, i, bf16), g = gradient_at(s, i, b, x, bf16, m, two);
            ts_host_store(dx, i, ts_norm_dx(g, x, scale[b], slope[b], shift[b]), bf16);
            if (residual) ts_host_store(dresidual, i, g, bf16);
        }
    }
}

TS_INLINE void unapply_block(sources s, char *dx, char *dresidual, const float *scale,
                             const float *slope, const float *shift, const view *v, bool bf16,
                             ts_norm_mask m, bool two, bool residual)
{
    for (int lane = 0; lane < v->lanes; lane += 16) {
        int width = v->lanes - lane < 16 ? v->lanes - lane : 16;
        size_t skip = (size_t)lane * (bf16 ? 2 : 4);
        sources t = shifted(s, (size_t)lane, (size_t)lane, bf16);
        char *dr = residual ? dresidual + skip : NULL;
        if (width == 16)
            unapply_stretch(&t, dx + skip, dr, scale + lane, slope + lane, shift + lane, v->pixels,
                            v->lanes, 16, bf16, m, two, residual);
        else
            unapply_stretch(&t, dx + skip, dr, scale + lane, slope + lane, shift + lane, v->pixels,
                            v->lanes, width, bf16, m, two, residual);
    }
}

static void unapply(const ts_op_run *r, const view *v, const float *scale, const float *slope,
                    const float *shift)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_op_args *a = &r->args;
    bool bf16 = d->type == TS_BF16, two = a->dy2 != NULL, residual = a->dresidual != NULL;
    size_t block = (size_t)v->pixels * (size_t)v->lanes, bytes = bf16 ? 2 : 4;
    ts_norm_mask m = ts_norm_mask_of(d);
    sources all = backward_sources(r, v);
#pragma omp parallel for collapse(2) schedule(static)
    for (int n = 0; n < v->n; n++)
        for (int c = 0; c < v->blocks; c++) {
            size_t index = ((size_t)n * (size_t)v->blocks + (size_t)c) * block;
            size_t lane = (size_t)c * (size_t)v->lanes;
            sources s = shifted(all, index, lane, bf16);
            char *dx = (char *)(a->dx ? a->dx : a->dresidual) + index * bytes;
            char *dr = residual ? (char *)a->dresidual + index * bytes : NULL;
#define CASE(B, M, T, D)                                                                           \
    if (bf16 == B && m == M && two == T && residual == D)                                          \
        unapply_block(s, dx, dr, scale + lane, slope + lane, shift + lane, v, B, M, T, D);
#define CASES(B)                                                                                   \
    CASE(B, TS_MASK_NONE, false, false)                                                            \
    CASE(B, TS_MASK_NONE, false, true)                                                             \
    CASE(B, TS_MASK_NONE, true, false)                                                             \
    CASE(B, TS_MASK_NONE, true, true)                                                              \
    CASE(B, TS_MASK_Y, false, false)                                                               \
    CASE(B, TS_MASK_Y, false, true)                                                                \
    CASE(B, TS_MASK_Y, true, false)                                                                \
    CASE(B, TS_MASK_Y, true, true)                                                                 \
    CASE(B, TS_MASK_X, false, false)                                                               \
    CASE(B, TS_MASK_X, true, false)
            CASES(false)
            CASES(true)
#undef CASES
#undef CASE
        }
}

/* ---- the passes ---- */

static float *factors_of(const ts_op_run *r, const view *v)
{
    return (float *)(void *)(sums_of(r) + 2 * (size_t)v->n * padded_channels(v));
}

static ts_status norm_inference(const ts_op_run *r, const view *v)
{
    const ts_op_desc *d = &r->op->desc;
    float *scale = r->args.scratch, *shift = scale + padded_channels(v);
    for (size_t c = 0; c < padded_channels(v); c++) {
        scale[c] = shift[c] = 0;
        if (c >= (size_t)v->channels) continue;
        ts_norm_inference_channel(d, r->args.weight[c], r->args.bias[c], r->args.running[c],
                                  r->args.running[v->channels + (int)c], &scale[c], &shift[c]);
    }
    apply(r, v, scale, shift);
    return TS_OK;
}

static ts_status norm_forward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_op_args *a = &r->args;
    view v = view_of(d);
    if (!d->training) return norm_inference(r, &v);
    double count = (double)v.n * v.pixels;
    size_t channels = padded_channels(&v);
    float *center = factors_of(r, &v), *saved = a->saved;
    float *scale = saved + 2 * v.channels, *shift = scale + channels;
    for (size_t c = 0; c < channels; c++) { /* the first pixel of the first picture */
        size_t lanes = (size_t)v.lanes;
        size_t at = c / lanes * (size_t)v.pixels * lanes + c % lanes;
        center[c] = ts_host_load(a->x, at, d->type == TS_BF16);
    }
    sum_pictures(r, &v, center, false);
    for (int c = 0; c < (int)channels; c++) {
        double sum, squares;
        scale[c] = shift[c] = 0;
        if (c >= v.channels) continue; /* padding stays zero */
        add_pictures(r, &v, c, &sum, &squares);
        float *running = a->running;
        ts_norm_channel k =
            ts_norm_forward_channel(d, sum, squares, center[c], count, a->weight[c], a->bias[c],
                                    running[c], running[v.channels + c]);
        running[c] = k.running_mean;
        running[v.channels + c] = k.running_variance;
        saved[c] = k.mean;
        saved[v.channels + c] = k.inverse;
        scale[c] = k.gain;
        shift[c] = k.bias;
    }
    apply(r, &v, scale, shift);
    return TS_OK;
}

static ts_status norm_backward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    const ts_op_args *a = &r->args;
    view v = view_of(d);
    double count = (double)v.n * v.pixels;
    size_t channels = padded_channels(&v);
    float *scale = factors_of(r, &v), *slope = scale + channels, *shift = slope + channels;
    const float *saved = a->saved;
    for (size_t c = 0; c < channels; c++) scale[c] = c < (size_t)v.channels ? saved[c] : 0;
    sum_pictures(r, &v, scale, true);
    for (int c = 0; c < (int)channels; c++) {
        double sum, dot;
        scale[c] = slope[c] = shift[c] = 0;
        if (c >= v.channels) continue;
        add_pictures(r, &v, c, &sum, &dot);
        ts_norm_gradient k = ts_norm_backward_channel(sum, dot, count, saved[c],
                                                      saved[v.channels + c], a->weight[c]);
        a->dweight[c] = k.dweight;
        a->dbias[c] = k.dbias;
        scale[c] = k.scale;
        slope[c] = k.slope;
        shift[c] = k.shift;
    }
    if (a->dx || a->dresidual) unapply(r, &v, scale, slope, shift);
    return TS_OK;
}

const ts_host_kind ts_host_batch_norm = {
    .serves = norm_serves,
    .size = norm_size,
    .forward = norm_forward,
    .backward_data = norm_backward,
};
