/* linear.c - linear layers by oneDNN's sgemm, weights in PyTorch's order. bf16 activations are
 * widened first; the product is fp32 either way. The weight is that of the flat buffer: CUDA's and
 * the oracle's layers read it rounded to bf16, which no test's tolerance tells apart. */
#include <dnnl.h>

#include "ops/element.h"
#include "ops/host/dnnl.h"
#include "ops/host/host_op.h"

static bool linear_serves(const ts_op_desc *d)
{
    return ts_layout_is_flat(d->in_layout, d->in) && ts_layout_is_flat(d->layout, d->out);
}

typedef struct sizes {
    dnnl_dim_t n, in, out;
} sizes;

static sizes sizes_of(const ts_op_desc *d)
{
    return (sizes){d->in.n, (dnnl_dim_t)d->in.c * d->in.h * d->in.w, d->out.c};
}

/* Scratch: x or dx, and y's gradient, widened. */
static void linear_size(ts_op *op)
{
    sizes s = sizes_of(&op->desc);
    op->scratch_bytes = (size_t)(s.n * (s.in + s.out)) * sizeof(float);
}

static const float *widen(const void *from, dnnl_dim_t n, ts_type type, float *scratch)
{
    if (type == TS_F32) return from;
    ts_host_widen(scratch, from, (size_t)n);
    return scratch;
}

static ts_status linear_forward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    sizes s = sizes_of(d);
    float *scratch = r->args.scratch;
    const float *x = widen(r->args.x, s.n * s.in, d->type, scratch);
    bool bf16 = d->out_type == TS_BF16;
    float *y = bf16 ? scratch + s.n * s.in : r->args.y;
    /* y [n][out] = x [n][in] w [out][in]^T */
    TS_TRY(ts_dnnl_check(
        dnnl_sgemm('N', 'T', s.n, s.out, s.in, 1, x, s.in, r->args.weight, s.in, 0, y, s.out),
        "sgemm"));
    for (dnnl_dim_t n = 0; n < s.n; n++)
        for (dnnl_dim_t o = 0; o < s.out; o++) {
            size_t i = (size_t)(n * s.out + o);
            float v = y[i] + r->args.bias[o];
            ts_host_store(r->args.y, i, d->relu ? ts_relu(v) : v, bf16);
        }
    return TS_OK;
}

/* dy + dy2 where y > 0, fp32. */
static const float *gradient_of(const ts_op_run *r, sizes s, float *to)
{
    const ts_op_args *a = &r->args;
    const ts_op_desc *d = &r->op->desc;
    bool bf16 = d->out_type == TS_BF16;
    if (!bf16 && !a->dy2 && !d->relu) return a->dy;
    for (size_t i = 0; i < (size_t)(s.n * s.out); i++) {
        float g = ts_host_load(a->dy, i, bf16);
        if (a->dy2) g += ts_host_load(a->dy2, i, bf16);
        to[i] = d->relu && !(ts_host_load(a->y, i, bf16) > 0) ? 0 : g;
    }
    return to;
}

static ts_status linear_backward_data(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    sizes s = sizes_of(d);
    float *scratch = r->args.scratch, *dx = d->type == TS_F32 ? r->args.dx : scratch;
    const float *g = gradient_of(r, s, scratch + s.n * s.in);
    /* dx [n][in] = g [n][out] w [out][in] */
    TS_TRY(ts_dnnl_check(
        dnnl_sgemm('N', 'N', s.n, s.in, s.out, 1, g, s.out, r->args.weight, s.in, 0, dx, s.in),
        "sgemm"));
    if (d->type == TS_BF16) ts_host_narrow(r->args.dx, dx, (size_t)(s.n * s.in));
    return TS_OK;
}

static ts_status linear_backward_weights(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    sizes s = sizes_of(d);
    float *scratch = r->args.scratch;
    const float *x = widen(r->args.x, s.n * s.in, d->type, scratch);
    const float *g = gradient_of(r, s, scratch + s.n * s.in);
    for (dnnl_dim_t o = 0; o < s.out; o++) {
        double sum = 0;
        for (dnnl_dim_t n = 0; n < s.n; n++) sum += g[n * s.out + o];
        r->args.dbias[o] = (float)sum;
    }
    /* dw [out][in] = g [n][out]^T x [n][in] */
    return ts_dnnl_check(
        dnnl_sgemm('T', 'N', s.out, s.in, s.n, 1, g, s.out, x, s.in, 0, r->args.dweight, s.in),
        "sgemm");
}

const ts_host_kind ts_host_linear = {
    .serves = linear_serves,
    .size = linear_size,
    .forward = linear_forward,
    .backward_data = linear_backward_data,
    .backward_weights = linear_backward_weights,
};
