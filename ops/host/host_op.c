/* host_op.c - own ops of the host device: what oneDNN lacks (batch norm with a residual and two
 * gradients in one pass) and what is too small to plan (pooling, linear, loss, dropout). */
#include "ops/host/host_op.h"

#include <omp.h>
#include <pthread.h>

static int threads;

static void count_threads(void)
{
    threads = omp_get_max_threads();
}

int ts_host_threads(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, count_threads);
    return threads;
}

void ts_host_widen(float *to, const uint16_t *from, size_t n)
{
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < n; i++) to[i] = ts_bf16_to_float(from[i]);
}

void ts_host_narrow(uint16_t *to, const float *from, size_t n)
{
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < n; i++) to[i] = ts_bf16_from_float(from[i]);
}

static const ts_host_kind *kind_of(const ts_op_desc *desc)
{
    switch (desc->kind) {
    case TS_OP_BATCH_NORM:
        return &ts_host_batch_norm;
    case TS_OP_MAX_POOL:
    case TS_OP_AVERAGE_POOL:
        return &ts_host_pool;
    case TS_OP_LINEAR:
        return &ts_host_linear;
    case TS_OP_DROPOUT:
        return &ts_host_dropout;
    case TS_OP_CROSS_ENTROPY:
        return &ts_host_cross_entropy;
    case TS_OP_CONV:
        break;
    }
    return NULL;
}

static ts_status run_forward(const void *args)
{
    return kind_of(&((const ts_op_run *)args)->op->desc)->forward(args);
}

static ts_status run_backward_data(const void *args)
{
    return kind_of(&((const ts_op_run *)args)->op->desc)->backward_data(args);
}

static ts_status run_backward_weights(const void *args)
{
    return kind_of(&((const ts_op_run *)args)->op->desc)->backward_weights(args);
}

static bool host_serves(const ts_device *device, const ts_op_desc *desc, const char **why_p)
{
    const ts_host_kind *kind = kind_of(desc);
    const char *why = NULL;
    if (!strcmp(device->ops->name, "cuda")) return false; /* not its business */
    if (kind && !kind->serves(desc))
        why = "not in these layouts or types";
    else if (kind)
        return true;
    if (why_p) *why_p = why;
    return false;
}

static ts_status host_plan(ts_device *device, const ts_op_desc *desc, ts_op **op_p)
{
    (void)device;
    TS_TRY(ts_op_open_plain(&ts_op_host, desc, op_p));
    kind_of(desc)->size(*op_p);
    return TS_OK;
}

const ts_op_ops ts_op_host = {
    .name = "host",
    .serves = host_serves,
    .plan = host_plan,
    .release = ts_op_close_plain,
    .kernels = {[TS_FORWARD] = {.name = "host forward",
                                .run = run_forward,
                                .accesses = ts_op_forward_accesses},
                [TS_BACKWARD_DATA] = {.name = "host backward data",
                                      .run = run_backward_data,
                                      .accesses = ts_op_backward_data_accesses},
                [TS_BACKWARD_WEIGHTS] = {.name = "host backward weights",
                                         .run = run_backward_weights,
                                         .accesses = ts_op_backward_weights_accesses}},
};
