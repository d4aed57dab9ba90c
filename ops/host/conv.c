/* conv.c - convolutions by oneDNN, activations in one layout from end to end.
 *
 * The flat buffers hold a weight in the order in which backward-weights writes its gradient, so a
 * gradient needs no reorder; `refresh` packs the weight into what forward and backward-data want
 * (other blocks, bf16). That order is asked for at a fixed batch, so that it does not depend on
 * the batch of a workspace; packing to and from PyTorch's order is a reorder too. Where it would
 * fill up blocks, as AMX does with pictures' 3 channels, it is PyTorch's: filling would be sent.
 *
 * To the library the padding channels of a blocked layout are channels like others, zeros in x, dy
 * and weight: asked for 8 channels of a block of 16, oneDNN 2.6 takes its plain loops.
 *
 * A bf16 pass may run in fp32, widened on the way in and rounded on the way out, where Winograd's
 * method in fp32 beats direct bf16 (`widens`). Before all of it comes own_conv.h. */
#include <stdio.h>
#include <stdlib.h>

#include "ops/host/dnnl.h"
#include "ops/host/host_op.h"
#include "ops/host/own_conv.h"
#include "ops/host/pack.h"
#include "ops/host/weight_gradient.h"

enum { ORDER_BATCH = 16, PASSES = 3 };

/* One pass's primitive with the memory objects whose handles change from run to run. */
typedef struct pass {
    dnnl_primitive_t primitive;
    dnnl_memory_t src, weights, dst, scratch;
    ts_md weights_md;
    bool packs; /* else the weight is used as it lies */
    ts_packing packing;
    dnnl_primitive_t pack; /* order -> weights_md, where `packing` is none */
    dnnl_memory_t pack_from, pack_to;
    size_t packed_at, scratch_bytes;
    bool widens;       /* src and dst are fp32 copies in scratch */
    size_t wide_at[2]; /* src, dst in scratch */
} pass;

typedef struct conv {
    ts_op base;
    ts_op_desc desc;    /* with padding channels, as the library sees it */
    ts_md order, plain; /* fp32: of the flat buffers, of PyTorch; padding channels included */
    char *padded;       /* memory for a weight in `plain`, where there are padding channels */
    pass passes[PASSES];
    dnnl_primitive_t to_order, to_plain;
    dnnl_stream_t stream;
    /* backward-weights at this batch may want another order than the flat buffers' */
    dnnl_primitive_t gradient_to_order;
    dnnl_memory_t gradient_from, gradient_to;
    size_t gradient_at;     /* in scratch */
    size_t sum_at;          /* in scratch: dy + dy2, where y has two readers */
    bool own_gradient;      /* weight_gradient.c makes it */
    const ts_own_conv *own; /* not NULL: it does all passes, and none has a primitive */
} conv;

static const dnnl_format_tag_t tags[] = {[TS_NCHW] = dnnl_nchw,
                                         [TS_NHWC] = dnnl_nhwc,
                                         [TS_NCHW8C] = dnnl_nChw8c,
                                         [TS_NCHW16C] = dnnl_nChw16c};

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static ts_op_desc with_padding(const ts_op_desc *d)
{
    ts_op_desc padded = *d;
    int in = ts_layout_block(d->in_layout), out = ts_layout_block(d->layout);
    padded.in.c = (d->in.c + in - 1) / in * in;
    padded.out.c = (d->out.c + out - 1) / out * out;
    return padded;
}

static ts_status open_mds(const ts_op_desc *d, int batch, ts_md *src, ts_md *dst)
{
    const int64_t in[] = {batch, d->in.c, d->in.h, d->in.w};
    const int64_t out[] = {batch, d->out.c, d->out.h, d->out.w};
    TS_TRY(ts_md_open(src, 4, in, d->type, tags[d->in_layout]));
    return ts_md_open(dst, 4, out, d->type, tags[d->layout]);
}

static ts_status weights_md(const ts_op_desc *d, ts_type type, dnnl_format_tag_t tag, ts_md *md)
{
    const int64_t dims[] = {d->out.c, d->in.c, d->kernel, d->kernel};
    return ts_md_open(md, 4, dims, type, tag);
}

static dnnl_status_t describe_by(bool winograd, const ts_op_desc *d, int batch, ts_conv_pass which,
                                 const ts_md *fixed, dnnl_primitive_desc_t *pd_p)
{
    ts_md src = {0}, dst = {0}, any = {0}, gradient = {0};
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t status = dnnl_runtime_error;
    if (open_mds(d, batch, &src, &dst) || weights_md(d, d->type, dnnl_format_tag_any, &any) ||
        weights_md(d, TS_F32, dnnl_format_tag_any, &gradient))
        goto out;
    status = ts_dnnl_conv(TS_CONV_FORWARD, winograd, winograd || d->training, &src, &any, &dst,
                          d->stride, d->padding, NULL, which == TS_CONV_FORWARD ? pd_p : &hint);
    if (status || which == TS_CONV_FORWARD) goto out;
    const ts_md *weights = which == TS_CONV_DATA ? &any : fixed ? fixed : &gradient;
    status =
        ts_dnnl_conv(which, winograd, true, &src, weights, &dst, d->stride, d->padding, hint, pd_p);
    dnnl_primitive_desc_destroy(hint);
out:
    ts_md_close(&gradient);
    ts_md_close(&any);
    ts_md_close(&dst);
    ts_md_close(&src);
    return status;
}

/* The primitive descriptor of one pass, with the library's choice of weights or `fixed`. Winograd's
 * F(4x4, 3x3) where the library has it (fp32 with AVX-512 in oneDNN 2.x): 1.3 to 2.8 times as fast
 * as direct on ResNet18's layers, with errors of 1e-6 of the result's norm. Evaluation uses its
 * training forward too: the inference one wants weights in an order that nothing else makes. */
static dnnl_status_t describe(const ts_op_desc *d, int batch, ts_conv_pass which,
                              const ts_md *fixed, dnnl_primitive_desc_t *pd_p)
{
    if (d->type == TS_F32 && d->kernel == 3 && d->stride == 1 &&
        describe_by(true, d, batch, which, fixed, pd_p) == dnnl_success)
        return dnnl_success;
    return describe_by(false, d, batch, which, fixed, pd_p);
}

/* Is fp32 by Winograd faster than bf16? On processors with bf16 dot products but no tiles, measured
 * on 2 cores of a Zen 5: 3.6 against 4.8 ms for 256 channels at 8x8, but 4.9 against 4.2 for 128
 * at 16x16 and 7.0 against 3.5 for 512 at 4x4, where most of a 4x4 tile's border is padding. */
static bool winograd_beats_bf16(const ts_op_desc *d, ts_conv_pass which)
{
    return d->type == TS_BF16 && which != TS_CONV_WEIGHTS && d->kernel == 3 && d->stride == 1 &&
           d->in.c >= 256 && d->out.c >= 256 && d->out.h >= 8 && d->out.w >= 8 &&
           d->in_layout == TS_NCHW16C && ts_dnnl_bf16_without_tiles();
}

static ts_op_desc wide(const ts_op_desc *d)
{
    ts_op_desc w = *d;
    w.type = w.out_type = TS_F32;
    return w;
}

static bool onednn_serves(const ts_device *device, const ts_op_desc *d, const char **why_p)
{
    const char *why = NULL;
    ts_op_desc training = with_padding(d);
    training.training = true;
    if (!strcmp(device->ops->name, "cuda"))
        return false; /* not its business */
    else if (d->kind != TS_OP_CONV)
        why = NULL; /* not its business */
    else {
        for (int i = 0; i < PASSES && !why; i++) {
            dnnl_primitive_desc_t pd = NULL;
            if (i == TS_CONV_DATA && !d->needs_dx) continue;
            if (describe(&training, ORDER_BATCH, (ts_conv_pass)i, NULL, &pd))
                why = "the library has no implementation for this type, layout or processor";
            else
                dnnl_primitive_desc_destroy(pd);
        }
        if (!why) return true;
    }
    ts_trail_clear();
    if (why_p) *why_p = why;
    return false;
}

/* ---- planning ---- */

static void need_scratch(conv *c, size_t bytes)
{
    if (bytes > c->base.scratch_bytes) c->base.scratch_bytes = bytes;
}

static void close_pass(pass *p)
{
    dnnl_memory_t memories[] = {p->src, p->weights, p->dst, p->scratch, p->pack_from, p->pack_to};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (p->pack) dnnl_primitive_destroy(p->pack);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    ts_md_close(&p->weights_md);
    *p = (pass){0};
}

static ts_status open_pass(conv *c, ts_conv_pass which, const ts_md *fixed)
{
    pass *p = &c->passes[which];
    ts_md src = {0}, dst = {0};
    dnnl_primitive_desc_t pd = NULL;
    ts_op_desc widened = wide(&c->desc);
    p->widens = winograd_beats_bf16(&c->desc, which) &&
                describe_by(true, &widened, widened.in.n, which, NULL, &pd) == dnnl_success;
    const ts_op_desc *d = p->widens ? &widened : &c->desc;
    if (!p->widens) TS_TRY(ts_dnnl_check(describe(d, d->in.n, which, fixed, &pd), "convolution"));
    ts_status status = ts_dnnl_check(dnnl_primitive_create(&p->primitive, pd), "convolution");
    if (!status)
        status = ts_md_query(&p->weights_md, pd,
                             which == TS_CONV_WEIGHTS ? dnnl_query_diff_weights_md
                                                      : dnnl_query_weights_md);
    p->scratch_bytes = aligned(ts_dnnl_scratch(pd));
    dnnl_primitive_desc_destroy(pd);
    TS_TRY(status);
    status = open_mds(d, d->in.n, &src, &dst);
    if (!status) status = ts_md_memory(&src, &p->src);
    if (!status) status = ts_md_memory(&dst, &p->dst);
    if (!status) status = ts_md_memory(&p->weights_md, &p->weights);
    ts_md_close(&src);
    ts_md_close(&dst);
    TS_TRY(status);
    ts_md scratch = {0};
    const int64_t bytes[] = {(int64_t)p->scratch_bytes};
    TS_TRY(ts_md_open(&scratch, 1, bytes, TS_U8, dnnl_x));
    status = ts_md_memory(&scratch, &p->scratch);
    ts_md_close(&scratch);
    size_t bytes_needed = p->scratch_bytes;
    for (int i = 0; p->widens && i < 2; i++) {
        p->wide_at[i] = bytes_needed;
        bytes_needed += aligned(
            (i ? ts_layout_count(d->layout, d->out) : ts_layout_count(d->in_layout, d->in)) *
            sizeof(float));
    }
    need_scratch(c, bytes_needed);
    return status;
}

static ts_status open_packing(conv *c, pass *p)
{
    if (ts_md_same(&p->weights_md, &c->order)) return TS_OK;
    p->packs = true;
    p->packing = ts_packing_find(&c->desc, &c->order, &p->weights_md);
    if (!p->packing) {
        TS_TRY(ts_dnnl_reorder(&c->order, &p->weights_md, &p->pack));
        TS_TRY(ts_md_memory(&c->order, &p->pack_from));
        TS_TRY(ts_md_memory(&p->weights_md, &p->pack_to));
    }
    p->packed_at = c->base.packed_bytes;
    c->base.packed_bytes += aligned(ts_md_bytes(&p->weights_md));
    return TS_OK;
}

static ts_status run_reorder(dnnl_primitive_t primitive, dnnl_stream_t stream, dnnl_memory_t from,
                             dnnl_memory_t to)
{
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    return ts_dnnl_check(dnnl_primitive_execute(primitive, stream, 2, args), "reorder");
}

static ts_status convert(const conv *c, dnnl_primitive_t primitive, const ts_md *from_md,
                         const ts_md *to_md, const float *from, float *to)
{
    dnnl_memory_t source = NULL, target = NULL;
    ts_status status = ts_md_memory(from_md, &source);
    if (!status) status = ts_md_memory(to_md, &target);
    if (!status) {
        dnnl_memory_set_data_handle(source, (void *)(uintptr_t)from);
        dnnl_memory_set_data_handle(target, to);
        status = run_reorder(primitive, c->stream, source, target);
    }
    if (target) dnnl_memory_destroy(target);
    if (source) dnnl_memory_destroy(source);
    return status;
}

/* Bytes of one output's weights in PyTorch's order. */
static size_t row_bytes(const ts_op_desc *d)
{
    return (size_t)(d->in.c * d->kernel * d->kernel) * sizeof(float);
}

static ts_status onednn_pack(const ts_op *op, float *to, const float *plain)
{
    const conv *c = (const conv *)op;
    size_t row = row_bytes(&op->desc), padded = row_bytes(&c->desc);
    for (size_t o = 0; c->padded && o < (size_t)op->desc.out.c; o++)
        memcpy(c->padded + o * padded, (const char *)plain + o * row, row);
    const float *from = c->padded ? (const float *)(void *)c->padded : plain;
    return convert(c, c->to_order, &c->plain, &c->order, from, to);
}

static ts_status onednn_unpack(const ts_op *op, float *plain, const float *from)
{
    const conv *c = (const conv *)op;
    size_t row = row_bytes(&op->desc), padded = row_bytes(&c->desc);
    float *to = c->padded ? (float *)(void *)c->padded : plain;
    TS_TRY(convert(c, c->to_plain, &c->order, &c->plain, from, to));
    for (size_t o = 0; c->padded && o < (size_t)op->desc.out.c; o++)
        memcpy((char *)plain + o * row, c->padded + o * padded, row);
    return TS_OK;
}

/* A name for an order, whatever the library calls it: where it puts each element. */
static ts_status name_order(conv *c)
{
    size_t n = ts_op_plain_weight_count(&c->base.desc);
    float *ramp = malloc(n * sizeof *ramp), *packed = calloc(c->base.weight_n, sizeof *packed);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    if (!ramp || !packed) {
        free(ramp);
        free(packed);
        return TS_ERROR(TS_ENOMEM, "no memory to name the order of a weight");
    }
    for (size_t i = 0; i < n; i++) ramp[i] = (float)(i + 1);
    ts_status status = onednn_pack(&c->base, packed, ramp);
    for (size_t i = 0; i < c->base.weight_n; i++)
        hash = (hash ^ (uint64_t)packed[i]) * UINT64_C(0x100000001b3);
    snprintf(c->base.weight_order, sizeof c->base.weight_order, "onednn-%016llx",
             (unsigned long long)hash);
    free(packed);
    free(ramp);
    return status;
}

static ts_status find_order(conv *c)
{
    ts_op_desc nominal = c->desc;
    dnnl_primitive_desc_t pd;
    dnnl_engine_t engine = NULL;
    nominal.training = true;
    TS_TRY(
        ts_dnnl_check(describe(&nominal, ORDER_BATCH, TS_CONV_WEIGHTS, NULL, &pd), "convolution"));
    ts_status status = ts_md_query(&c->order, pd, dnnl_query_diff_weights_md);
    dnnl_primitive_desc_destroy(pd);
    TS_TRY(status);
    TS_TRY(weights_md(&c->desc, TS_F32, dnnl_oihw, &c->plain));
    if (ts_md_bytes(&c->order) > ts_md_bytes(&c->plain)) { /* blocks that are not full */
        ts_md_close(&c->order);
        TS_TRY(weights_md(&c->desc, TS_F32, dnnl_oihw, &c->order));
    }
    TS_TRY(ts_dnnl_reorder(&c->plain, &c->order, &c->to_order));
    TS_TRY(ts_dnnl_reorder(&c->order, &c->plain, &c->to_plain));
    TS_TRY(ts_dnnl_engine(&engine));
    TS_TRY(
        ts_dnnl_check(dnnl_stream_create(&c->stream, engine, dnnl_stream_default_flags), "stream"));
    c->base.weight_n = ts_md_bytes(&c->order) / sizeof(float);
    size_t n = ts_op_plain_weight_count(&c->desc);
    if (n != ts_op_plain_weight_count(&c->base.desc)) {
        c->padded = calloc(n, sizeof(float));
        TS_NEED(c->padded, TS_ENOMEM, "no memory for a weight of %zu elements", n);
    }
    return name_order(c);
}

static ts_status open_gradient(conv *c)
{
    pass *p = &c->passes[TS_CONV_WEIGHTS];
    c->own_gradient = ts_weight_gradient_serves(&c->desc, &c->order);
    if (c->own_gradient) {
        need_scratch(c, ts_weight_gradient_scratch(&c->desc));
        return TS_OK;
    }
    /* asked for PyTorch's order, the library would take its plain loops */
    bool plain = ts_md_same(&c->order, &c->plain);
    if (!plain && !open_pass(c, TS_CONV_WEIGHTS, &c->order)) return TS_OK;
    ts_trail_clear();
    close_pass(p);
    TS_TRY(open_pass(c, TS_CONV_WEIGHTS, NULL));
    if (ts_md_same(&p->weights_md, &c->order)) return TS_OK;
    TS_TRY(ts_dnnl_reorder(&p->weights_md, &c->order, &c->gradient_to_order));
    TS_TRY(ts_md_memory(&p->weights_md, &c->gradient_from));
    TS_TRY(ts_md_memory(&c->order, &c->gradient_to));
    c->gradient_at = p->scratch_bytes;
    need_scratch(c, p->scratch_bytes + aligned(ts_md_bytes(&p->weights_md)));
    return TS_OK;
}

static void open_sum(conv *c)
{
    const ts_op_desc *d = &c->desc;
    if (!d->two_readers) return;
    c->sum_at = aligned(c->base.scratch_bytes);
    c->base.scratch_bytes =
        c->sum_at + aligned(ts_layout_count(d->layout, d->out) * ts_type_bytes(d->type));
}

static ts_status open_passes(conv *c)
{
    TS_TRY(open_pass(c, TS_CONV_FORWARD, NULL));
    TS_TRY(open_packing(c, &c->passes[TS_CONV_FORWARD]));
    if (!c->desc.training) return TS_OK;
    if (c->desc.needs_dx) {
        TS_TRY(open_pass(c, TS_CONV_DATA, NULL));
        TS_TRY(open_packing(c, &c->passes[TS_CONV_DATA]));
    }
    return open_gradient(c);
}

static void open_own(conv *c)
{
    int passes = c->desc.training ? PASSES : 1;
    for (int i = 0; i < passes; i++)
        if (i != TS_CONV_DATA || c->desc.needs_dx)
            need_scratch(c, c->own->scratch_bytes(&c->desc, (ts_conv_pass)i));
    if (c->own->pack) c->base.packed_bytes = aligned(c->own->packed_bytes(&c->desc));
}

static void onednn_release(ts_op *op)
{
    conv *c = (conv *)op;
    dnnl_primitive_t primitives[] = {c->to_order, c->to_plain, c->gradient_to_order};
    for (size_t i = 0; i < sizeof primitives / sizeof *primitives; i++)
        if (primitives[i]) dnnl_primitive_destroy(primitives[i]);
    if (c->gradient_from) dnnl_memory_destroy(c->gradient_from);
    if (c->gradient_to) dnnl_memory_destroy(c->gradient_to);
    for (int i = 0; i < PASSES; i++) close_pass(&c->passes[i]);
    if (c->stream) dnnl_stream_destroy(c->stream);
    ts_md_close(&c->plain);
    ts_md_close(&c->order);
    free(c->padded);
    free(c);
}

static ts_status onednn_plan(ts_device *device, const ts_op_desc *d, ts_op **op_p)
{
    (void)device;
    ts_status status;
    conv *c = calloc(1, sizeof *c);
    TS_NEED(c, TS_ENOMEM, "no memory for a convolution");
    c->base.ops = &ts_op_onednn;
    c->base.desc = *d;
    c->desc = with_padding(d);
    TS_TRY_TO(status, fail, find_order(c));
    c->own = ts_own_conv_find(&c->desc, &c->order);
    if (c->own)
        open_own(c);
    else
        TS_TRY_TO(status, fail, open_passes(c));
    if (d->training) open_sum(c);
    *op_p = &c->base;
    return TS_OK;
fail:
    onednn_release(&c->base);
    return status;
}

/* ---- running ---- */

static void *weights_of(const pass *p, const ts_op_args *a)
{
    return p->packs ? (char *)a->packed + p->packed_at : (void *)(uintptr_t)a->weight;
}

static const void *own_weight(const conv *c, const ts_op_args *a)
{
    return c->own->pack ? a->packed : (const void *)a->weight;
}

static ts_status execute(const conv *c, const pass *p, const ts_op_args *a, void *src,
                         void *weights, void *dst, const int arg_of[3])
{
    const ts_op_desc *d = &c->desc;
    size_t n[2] = {ts_layout_count(d->in_layout, d->in), ts_layout_count(d->layout, d->out)};
    int from = p == &c->passes[TS_CONV_DATA]; /* backward data goes from dst to src */
    void *ends[2] = {src, dst};
    for (int i = 0; p->widens && i < 2; i++) ends[i] = (char *)a->scratch + p->wide_at[i];
    if (p->widens) ts_host_widen(ends[from], from ? dst : src, n[from]);
    dnnl_memory_set_data_handle(p->src, ends[0]);
    dnnl_memory_set_data_handle(p->weights, weights);
    dnnl_memory_set_data_handle(p->dst, ends[1]);
    dnnl_memory_set_data_handle(p->scratch, a->scratch);
    dnnl_exec_arg_t args[] = {{arg_of[0], p->src},
                              {arg_of[1], p->weights},
                              {arg_of[2], p->dst},
                              {DNNL_ARG_SCRATCHPAD, p->scratch}};
    TS_TRY(ts_dnnl_check(dnnl_primitive_execute(p->primitive, c->stream, 4, args), "convolution"));
    if (p->widens) ts_host_narrow(from ? src : dst, ends[!from], n[!from]);
    return TS_OK;
}

static ts_status run_forward(const void *args)
{
    static const int names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    const pass *p = &c->passes[TS_CONV_FORWARD];
    if (c->own) {
        c->own->run(&c->desc, TS_CONV_FORWARD, r->args.x, own_weight(c, &r->args), r->args.y,
                    r->args.scratch);
        return TS_OK;
    }
    return execute(c, p, &r->args, (void *)(uintptr_t)r->args.x, weights_of(p, &r->args), r->args.y,
                   names);
}

static void *gradient_of(const conv *c, const ts_op_args *a)
{
    const ts_op_desc *d = &c->desc;
    bool bf16 = d->type == TS_BF16;
    if (!a->dy2) return (void *)(uintptr_t)a->dy;
    void *sum = (char *)a->scratch + c->sum_at;
    size_t n = ts_layout_count(d->layout, d->out);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        ts_host_store(sum, i, ts_host_load(a->dy, i, bf16) + ts_host_load(a->dy2, i, bf16), bf16);
    return sum;
}

static ts_status run_backward_data(const void *args)
{
    static const int names[] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST};
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    const pass *p = &c->passes[TS_CONV_DATA];
    if (c->own) {
        c->own->run(&c->desc, TS_CONV_DATA, gradient_of(c, &r->args), own_weight(c, &r->args),
                    r->args.dx, r->args.scratch);
        return TS_OK;
    }
    return execute(c, p, &r->args, r->args.dx, weights_of(p, &r->args), gradient_of(c, &r->args),
                   names);
}

static ts_status run_backward_weights(const void *args)
{
    static const int names[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST};
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    const pass *p = &c->passes[TS_CONV_WEIGHTS];
    void *x = (void *)(uintptr_t)r->args.x, *dy = gradient_of(c, &r->args);
    void *to =
        c->gradient_to_order ? (char *)r->args.scratch + c->gradient_at : (void *)r->args.dweight;
    if (c->own) {
        c->own->run(&c->desc, TS_CONV_WEIGHTS, x, dy, r->args.dweight, r->args.scratch);
        return TS_OK;
    }
    if (c->own_gradient) {
        ts_weight_gradient_run(&c->desc, x, dy, r->args.dweight, r->args.scratch);
        return TS_OK;
    }
    TS_TRY(execute(c, p, &r->args, x, to, dy, names));
    if (!c->gradient_to_order) return TS_OK;
    dnnl_memory_set_data_handle(c->gradient_from, to);
    dnnl_memory_set_data_handle(c->gradient_to, r->args.dweight);
    return run_reorder(c->gradient_to_order, c->stream, c->gradient_from, c->gradient_to);
}

static ts_status run_refresh(const void *args)
{
    const ts_op_run *r = args;
    const conv *c = (const conv *)r->op;
    ts_packing packings[PASSES];
    uint16_t *packed[PASSES];
    int n = 0;
    if (c->own) {
        if (c->own->pack) c->own->pack(&c->desc, r->args.weight, r->args.packed);
        return TS_OK;
    }
    for (int i = 0; i < PASSES; i++) {
        const pass *p = &c->passes[i];
        char *to = (char *)r->args.packed + p->packed_at;
        if (!p->packs) continue;
        if (p->packing) {
            packings[n] = p->packing;
            packed[n++] = (uint16_t *)(void *)to;
            continue;
        }
        dnnl_memory_set_data_handle(p->pack_from, (void *)(uintptr_t)r->args.weight);
        dnnl_memory_set_data_handle(p->pack_to, to);
        TS_TRY(run_reorder(p->pack, c->stream, p->pack_from, p->pack_to));
    }
    if (n) ts_packing_run(packings, packed, n, &c->desc, r->args.weight);
    return TS_OK;
}

const ts_op_ops ts_op_onednn = {
    .name = "onednn",
    .serves = onednn_serves,
    .plan = onednn_plan,
    .release = onednn_release,
    .kernels = {[TS_FORWARD] = {.name = "onednn forward",
                                .run = run_forward,
                                .accesses = ts_op_forward_accesses},
                [TS_BACKWARD_DATA] = {.name = "onednn backward data",
                                      .run = run_backward_data,
                                      .accesses = ts_op_backward_data_accesses},
                [TS_BACKWARD_WEIGHTS] = {.name = "onednn backward weights",
                                         .run = run_backward_weights,
                                         .accesses = ts_op_backward_weights_accesses},
                [TS_REFRESH] = {.name = "onednn refresh",
                                .run = run_refresh,
                                .accesses = ts_op_refresh_accesses}},
    .pack = onednn_pack,
    .unpack = onednn_unpack,
};
