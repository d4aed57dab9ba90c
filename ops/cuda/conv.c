/* conv.c - convolutions on CUDA by cuDNN, NHWC. Weights lie as K, R, S, C with C padded to 8, which
 * cuDNN's kernels want; bf16 convolutions take the bf16 copy of the weight and accumulate in fp32.
 * No compiled kernel of cuDNN writes fp32 weight gradients from bf16 inputs, so those come in bf16
 * and are widened, as PyTorch's autocast does. */
#include "ops/cuda/conv.h"

#include <stdlib.h>

#include "runtime/device/vector_kernels.h"

enum { CHANNELS = 8, PASSES = 3 };

typedef struct conv {
    ts_op base;
    ts_cudnn *cudnn;
    ts_cudnn_graph *graphs[PASSES]; /* by ts_op_pass */
    ts_cudnn_plan plans[PASSES];
    size_t narrow_at, sum_at; /* in scratch, behind the workspace */
} conv;

/* One for the process: its GPU's. */
static ts_status shared(ts_cudnn **cudnn_p)
{
    static ts_cudnn *cudnn;
    if (!cudnn) TS_TRY(ts_cudnn_open(NULL, &cudnn));
    *cudnn_p = cudnn;
    return TS_OK;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* C, padded. */
static size_t channels_of(const ts_op_desc *d)
{
    return ((size_t)d->in.c + CHANNELS - 1) / CHANNELS * CHANNELS;
}

static bool cudnn_serves(const ts_device *device, const ts_op_desc *d, const char **why_p)
{
    const char *why = NULL;
    if (strcmp(device->ops->name, "cuda") != 0 || d->kind != TS_OP_CONV)
        return false; /* not its business */
    if (d->layout != TS_NHWC || (d->in_layout != TS_NHWC && d->in_layout != TS_NHWC8))
        why = "it reads and writes NHWC";
    else if (d->out.c % CHANNELS || (d->in_layout == TS_NHWC && d->in.c % CHANNELS))
        why = "channels must be a multiple of 8, but for a picture's";
    if (why && why_p) *why_p = why;
    return !why;
}

static void cudnn_release(ts_op *op)
{
    conv *c = (conv *)op;
    for (int i = 0; i < PASSES; i++) {
        ts_cudnn_plan_close(&c->plans[i]);
        ts_cudnn_graph_close(c->graphs[i]);
    }
    free(c);
}

static ts_status plan_pass(conv *c, ts_op_pass pass)
{
    TS_TRY(ts_cudnn_graph_open(c->cudnn, &c->base.desc, pass, TS_CUDNN_PLAIN, &c->graphs[pass]));
    TS_TRY(ts_cudnn_choose(c->cudnn, c->graphs[pass], &c->base.desc, pass, &c->plans[pass]));
    size_t bytes = aligned(c->plans[pass].workspace_bytes);
    if (bytes > c->base.scratch_bytes) c->base.scratch_bytes = bytes;
    return TS_OK;
}

static ts_status plan_passes(conv *c)
{
    const ts_op_desc *d = &c->base.desc;
    if (d->nominal) return TS_OK;
    TS_TRY(shared(&c->cudnn));
    TS_TRY(plan_pass(c, TS_FORWARD));
    if (!d->training) return TS_OK;
    TS_TRY(plan_pass(c, TS_BACKWARD_WEIGHTS));
    if (d->needs_dx) TS_TRY(plan_pass(c, TS_BACKWARD_DATA));
    c->narrow_at = c->base.scratch_bytes;
    if (d->type == TS_BF16) c->base.scratch_bytes += aligned(c->base.weight_n * sizeof(uint16_t));
    c->sum_at = c->base.scratch_bytes;
    if (d->two_readers)
        c->base.scratch_bytes += aligned(ts_shape_count(d->out) * ts_type_bytes(d->type));
    return TS_OK;
}

static ts_status cudnn_plan(ts_device *device, const ts_op_desc *d, ts_op **op_p)
{
    (void)device;
    conv *c = calloc(1, sizeof *c);
    TS_NEED(c, TS_ENOMEM, "no memory for a convolution");
    c->base = (ts_op){.ops = &ts_op_cudnn,
                      .desc = *d,
                      .weight_n =
                          (size_t)d->out.c * (size_t)d->kernel * (size_t)d->kernel * channels_of(d),
                      .reads_shadow = d->type == TS_BF16,
                      .weight_order = "KRSC8"};
    ts_status status = plan_passes(c);
    if (status) {
        cudnn_release(&c->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *op_p = &c->base;
    return TS_OK;
}

/* ---- the weight's order ---- */

/* Where element (k, c, r, s), in PyTorch's order the i-th, lies. */
static size_t place_of(const ts_op_desc *d, size_t i)
{
    size_t size = (size_t)d->kernel, taps = size * size, tap = i % taps;
    size_t c = i / taps % (size_t)d->in.c, k = i / taps / (size_t)d->in.c;
    return (k * taps + tap) * channels_of(d) + c;
}

static ts_status cudnn_pack(const ts_op *op, float *to, const float *plain)
{
    size_t n = ts_op_plain_weight_count(&op->desc);
    memset(to, 0, op->weight_n * sizeof *to);
    for (size_t i = 0; i < n; i++) to[place_of(&op->desc, i)] = plain[i];
    return TS_OK;
}

static ts_status cudnn_unpack(const ts_op *op, float *plain, const float *from)
{
    size_t n = ts_op_plain_weight_count(&op->desc);
    for (size_t i = 0; i < n; i++) plain[i] = from[place_of(&op->desc, i)];
    return TS_OK;
}

/* ---- running ---- */

static ts_status run(const conv *c, ts_op_pass pass, const ts_op_args *a, const void *x,
                     const void *w, const void *y, void *cuda_stream)
{
    void *tensors[TS_CUDNN_TENSORS] = {[TS_CUDNN_X] = (void *)(uintptr_t)x,
                                       [TS_CUDNN_W] = (void *)(uintptr_t)w,
                                       [TS_CUDNN_Y] = (void *)(uintptr_t)y};
    return ts_cudnn_run(c->cudnn, &c->plans[pass], tensors, a->scratch, cuda_stream);
}

static const void *weight_of(const conv *c, const ts_op_args *a)
{
    return c->base.desc.type == TS_BF16 ? (const void *)a->shadow : a->weight;
}

/* y's whole gradient. */
static ts_status gradient_of(const conv *c, const ts_op_args *a, void *cuda_stream,
                             const void **dy_p)
{
    const ts_op_desc *d = &c->base.desc;
    *dy_p = a->dy;
    if (!a->dy2) return TS_OK;
    *dy_p = (char *)a->scratch + c->sum_at;
    return ts_cuda_sum((char *)a->scratch + c->sum_at, a->dy, a->dy2, ts_shape_count(d->out),
                       d->type, cuda_stream);
}

static ts_status forward(const void *args, void *cuda_stream)
{
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    return run(c, TS_FORWARD, &r->args, r->args.x, weight_of(c, &r->args), r->args.y, cuda_stream);
}

static ts_status backward_data(const void *args, void *cuda_stream)
{
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    const void *dy;
    TS_TRY(gradient_of(c, &r->args, cuda_stream, &dy));
    return run(c, TS_BACKWARD_DATA, &r->args, r->args.dx, weight_of(c, &r->args), dy, cuda_stream);
}

static ts_status backward_weights(const void *args, void *cuda_stream)
{
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    const void *dy;
    TS_TRY(gradient_of(c, &r->args, cuda_stream, &dy));
    if (c->base.desc.type == TS_F32)
        return run(c, TS_BACKWARD_WEIGHTS, &r->args, r->args.x, r->args.dweight, dy, cuda_stream);
    ts_cast widen = {c->base.weight_n, r->args.dweight,
                     (uint16_t *)(void *)((char *)r->args.scratch + c->narrow_at)};
    TS_TRY(run(c, TS_BACKWARD_WEIGHTS, &r->args, r->args.x, widen.narrow, dy, cuda_stream));
    return ts_from_bf16_enqueue(&widen, cuda_stream);
}

const ts_op_ops ts_op_cudnn = {
    .name = "cudnn",
    .serves = cudnn_serves,
    .plan = cudnn_plan,
    .release = cudnn_release,
    .kernels = {[TS_FORWARD] = {"cudnn forward", NULL, ts_op_forward_accesses, forward},
                [TS_BACKWARD_DATA] = {"cudnn backward data", NULL, ts_op_backward_data_accesses,
                                      backward_data},
                [TS_BACKWARD_WEIGHTS] = {"cudnn backward weights", NULL,
                                         ts_op_backward_weights_accesses, backward_weights}},
    .pack = cudnn_pack,
    .unpack = cudnn_unpack,
};
