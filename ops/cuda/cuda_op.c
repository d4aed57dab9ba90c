/* cuda_op.c - own ops of the CUDA device: batch norm (cuDNN's persistent kernels stall beside an
 * all-reduce), pooling, linear layers by cuBLAS, loss, dropout. Convolutions are cuDNN's. */
#include "ops/cuda/cuda_op.h"

static const ts_cuda_kind *const kinds[] = {
    [TS_OP_CONV] = NULL,
    [TS_OP_BATCH_NORM] = &ts_cuda_batch_norm,
    [TS_OP_MAX_POOL] = &ts_cuda_pool,
    [TS_OP_AVERAGE_POOL] = &ts_cuda_pool,
    [TS_OP_LINEAR] = &ts_cuda_linear,
    [TS_OP_DROPOUT] = &ts_cuda_dropout,
    [TS_OP_CROSS_ENTROPY] = &ts_cuda_cross_entropy,
};

static const ts_cuda_kind *kind_of(const void *run)
{
    return kinds[((const ts_op_run *)run)->op->desc.kind];
}

static ts_status enqueue_forward(const void *run, void *cuda_stream)
{
    return kind_of(run)->forward(run, cuda_stream);
}

static ts_status enqueue_backward_data(const void *run, void *cuda_stream)
{
    return kind_of(run)->backward_data(run, cuda_stream);
}

static ts_status enqueue_backward_weights(const void *run, void *cuda_stream)
{
    return kind_of(run)->backward_weights(run, cuda_stream);
}

static bool cuda_serves(const ts_device *device, const ts_op_desc *desc, const char **why_p)
{
    const ts_cuda_kind *kind = kinds[desc->kind];
    const char *why = NULL;
    if (strcmp(device->ops->name, "cuda") != 0) return false; /* not its business */
    if (kind) why = kind->refuses(desc);
    if (why_p && why) *why_p = why;
    return kind && !why;
}

static ts_status cuda_plan(ts_device *device, const ts_op_desc *desc, ts_op **op_p)
{
    (void)device;
    TS_TRY(ts_op_open_plain(&ts_op_cuda, desc, op_p));
    (*op_p)->reads_shadow = desc->kind == TS_OP_LINEAR && desc->type == TS_BF16;
    kinds[desc->kind]->size(*op_p);
    return TS_OK;
}

const ts_op_ops ts_op_cuda = {
    .name = "cuda",
    .serves = cuda_serves,
    .plan = cuda_plan,
    .release = ts_op_close_plain,
    .kernels = {[TS_FORWARD] = {"cuda forward", NULL, ts_op_forward_accesses, enqueue_forward},
                [TS_BACKWARD_DATA] = {"cuda backward data", NULL, ts_op_backward_data_accesses,
                                      enqueue_backward_data},
                [TS_BACKWARD_WEIGHTS] = {"cuda backward weights", NULL,
                                         ts_op_backward_weights_accesses,
                                         enqueue_backward_weights}},
};
