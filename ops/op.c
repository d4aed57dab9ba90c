/* op.c - what all op backends share: choosing one, counts, descriptions, accesses. */
#include "ops/op.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/option.h"

const ts_op_ops *const ts_op_backends[] = {&ts_op_cuda, &ts_op_cudnn,     &ts_op_onednn,
                                           &ts_op_host, &ts_op_reference, NULL};

static const char *const kinds[] = {
    [TS_OP_CONV] = "conv",
    [TS_OP_BATCH_NORM] = "batch norm",
    [TS_OP_MAX_POOL] = "max pool",
    [TS_OP_AVERAGE_POOL] = "average pool",
    [TS_OP_LINEAR] = "linear",
    [TS_OP_DROPOUT] = "dropout",
    [TS_OP_CROSS_ENTROPY] = "cross-entropy",
};

const char *ts_op_kind_name(ts_op_kind kind)
{
    return kinds[kind];
}

void ts_op_describe(const ts_op_desc *d, char *text, size_t bytes)
{
    int n =
        snprintf(text, bytes, "%s %dx%dx%dx%d", kinds[d->kind], d->in.n, d->in.c, d->in.h, d->in.w);
    if (d->kind == TS_OP_CONV || d->kind == TS_OP_LINEAR || d->kind == TS_OP_MAX_POOL)
        n += snprintf(text + n, n < (int)bytes ? bytes - (size_t)n : 0, " -> %d", d->out.c);
    if (d->kernel)
        n += snprintf(text + n, n < (int)bytes ? bytes - (size_t)n : 0,
                      ", kernel %d, stride %d, padding %d", d->kernel, d->stride, d->padding);
    snprintf(text + n, n < (int)bytes ? bytes - (size_t)n : 0, "%s%s, %s", d->add ? ", add" : "",
             d->relu ? ", ReLU" : "", ts_type_name(d->type));
}

size_t ts_op_plain_weight_count(const ts_op_desc *d)
{
    switch (d->kind) {
    case TS_OP_CONV:
        return (size_t)d->out.c * (size_t)d->in.c * (size_t)d->kernel * (size_t)d->kernel;
    case TS_OP_BATCH_NORM:
        return (size_t)d->in.c;
    case TS_OP_LINEAR:
        return (size_t)d->out.c * (size_t)d->in.c * (size_t)d->in.h * (size_t)d->in.w;
    default:
        return 0;
    }
}

size_t ts_op_plain_bias_count(const ts_op_desc *d)
{
    return d->kind == TS_OP_BATCH_NORM || d->kind == TS_OP_LINEAR ? (size_t)d->out.c : 0;
}

ts_status ts_op_plan(ts_device *device, const ts_op_desc *desc, const char *only, ts_op **op_p)
{
    char text[160], reasons[512] = "";
    size_t used = 0;
    for (int i = 0; ts_op_backends[i]; i++) {
        const ts_op_ops *backend = ts_op_backends[i];
        const char *why = NULL;
        /* what a restricted backend does not know at all, the reference still serves */
        if (only && strcmp(only, backend->name) && backend != &ts_op_reference) continue;
        if (backend->serves(device, desc, &why)) return backend->plan(device, desc, op_p);
        if (why && used < sizeof reasons)
            used += (size_t)snprintf(reasons + used, sizeof reasons - used, "; %s: %s",
                                     backend->name, why);
    }
    ts_op_describe(desc, text, sizeof text);
    return TS_ERROR(TS_EUNSUPPORTED, "no op backend serves %s on device %s%s", text,
                    device->ops->name, reasons);
}

void ts_op_release(ts_op *op)
{
    if (op) op->ops->release(op);
}

ts_status ts_op_open_plain(const ts_op_ops *ops, const ts_op_desc *desc, ts_op **op_p)
{
    ts_op *op = calloc(1, sizeof *op);
    TS_NEED(op, TS_ENOMEM, "no memory for an op");
    op->ops = ops;
    op->desc = *desc;
    op->weight_n = ts_op_plain_weight_count(desc);
    op->bias_n = ts_op_plain_bias_count(desc);
    snprintf(op->weight_order, sizeof op->weight_order, "plain");
    *op_p = op;
    return TS_OK;
}

void ts_op_close_plain(ts_op *op)
{
    free(op);
}

/* ---- accesses, for the recording device ---- */

typedef struct list {
    ts_access *at;
    int n;
} list;

static void touch(list *l, const void *at, size_t bytes, bool write)
{
    if (at && bytes && l->n < TS_ACCESS_MAX) l->at[l->n++] = (ts_access){at, bytes, write};
}

static int accesses(const ts_op_run *run, ts_op_pass pass, ts_access *at)
{
    const ts_op *op = run->op;
    const ts_op_args *a = &run->args;
    const ts_op_desc *d = &op->desc;
    list l = {at, 0};
    bool entropy = d->kind == TS_OP_CROSS_ENTROPY, norm = d->kind == TS_OP_BATCH_NORM;
    size_t x = ts_layout_count(d->in_layout, d->in) * ts_type_bytes(d->type);
    size_t y = ts_layout_count(d->layout, d->out) *
               ts_type_bytes(d->kind == TS_OP_LINEAR ? d->out_type : d->type);
    size_t weight = op->weight_n * sizeof(float), bias = op->bias_n * sizeof(float);
    bool forward = pass == TS_FORWARD, weights = pass == TS_BACKWARD_WEIGHTS;

    if (pass == TS_REFRESH) {
        touch(&l, a->weight, weight, false);
        touch(&l, a->shadow, op->weight_n * sizeof(uint16_t), false);
        touch(&l, a->packed, op->packed_bytes, true);
        return l.n;
    }
    touch(&l, a->x, x, false);
    touch(&l, a->packed, op->packed_bytes, false);
    touch(&l, a->scratch, op->scratch_bytes, true);
    touch(&l, a->saved, op->saved_bytes, forward);
    touch(&l, a->weight, weight, false);
    touch(&l, a->shadow, op->weight_n * sizeof(uint16_t), false);
    if (forward) {
        touch(&l, a->bias, bias, false);
        touch(&l, a->residual, y, false);
        touch(&l, a->y, entropy ? (size_t)d->in.n * sizeof(float) : y, true);
        touch(&l, a->running, 2 * bias, d->training);
        touch(&l, a->control, sizeof *a->control, entropy);
    } else {
        touch(&l, a->y, y, false);
        if (!entropy) touch(&l, a->dy, y, false);
        touch(&l, a->dy2, y, false);
        if (weights || norm) {
            touch(&l, a->dweight, weight, true);
            touch(&l, a->dbias, bias, true);
        }
        if (!weights) {
            touch(&l, a->dx, x, true);
            touch(&l, a->dresidual, y, true);
        }
        touch(&l, a->control, sizeof *a->control, false);
    }
    touch(&l, a->labels, (size_t)d->in.n * sizeof *a->labels, false);
    return l.n;
}

int ts_op_forward_accesses(const void *run, ts_access *list)
{
    return accesses(run, TS_FORWARD, list);
}

int ts_op_backward_data_accesses(const void *run, ts_access *list)
{
    return accesses(run, TS_BACKWARD_DATA, list);
}

int ts_op_backward_weights_accesses(const void *run, ts_access *list)
{
    return accesses(run, TS_BACKWARD_WEIGHTS, list);
}

int ts_op_refresh_accesses(const void *run, ts_access *list)
{
    return accesses(run, TS_REFRESH, list);
}
