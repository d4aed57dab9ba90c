/* init.c - initial values: functions of (seed, tensor, element in PyTorch's order) alone, so every
 * rank, device and op backend starts from the same model. */
#include <math.h>
#include <stdlib.h>

#include "models/model_internal.h"
#include "runtime/device/vector.h"

static float uniform(uint64_t seed, uint64_t tensor, uint64_t i)
{
    return ts_random_unit(ts_random(seed, i >> 2, tensor).v[i & 3]);
}

/* Standard normal by Box and Muller. */
static float normal(uint64_t seed, uint64_t tensor, uint64_t i)
{
    ts_random4 r = ts_random(seed, i >> 1, tensor);
    const uint32_t *pair = &r.v[2 * (i & 1)];
    float radius = sqrtf(-2.0f * logf(1.0f - ts_random_unit(pair[0])));
    return radius * cosf(6.2831853f * ts_random_unit(pair[1]));
}

static void fill(const ts_model *m, const ts_tensor *t, uint64_t seed, uint64_t index, float *plain)
{
    const ts_node *node = &m->builder.nodes[t->node];
    const ts_op_desc *d = &node->desc;
    bool conv = d->kind == TS_OP_CONV;
    float fan_in = (float)(ts_op_plain_weight_count(d) / (size_t)(d->out.c ? d->out.c : 1));
    /* conv: Kaiming, fan-out, ReLU; linear: PyTorch's default bound, or the network's own */
    float deviation =
        conv ? sqrtf(2.0f / (float)(d->out.c * d->kernel * d->kernel)) : node->linear_deviation;
    float bound = 1.0f / sqrtf(fan_in);
    for (size_t i = 0; i < t->count; i++) {
        float x = 0;
        if (t->role == TS_TENSOR_GAMMA || t->role == TS_TENSOR_RUNNING_VARIANCE) x = 1;
        if (t->role == TS_TENSOR_WEIGHT && deviation > 0) x = deviation * normal(seed, index, i);
        if ((t->role == TS_TENSOR_WEIGHT && !(deviation > 0)) ||
            (t->role == TS_TENSOR_BIAS && !(node->linear_deviation > 0)))
            x = bound * (2.0f * uniform(seed, index, i) - 1.0f);
        plain[i] = x;
    }
}

ts_status ts_model_init(ts_model *m, uint64_t seed, ts_stream *stream)
{
    ts_flat *f = &m->flat;
    TS_TRY(ts_stream_fill(stream, f->gradients, 0, f->n * sizeof(float)));
    TS_TRY(ts_stream_fill(stream, f->momentum, 0, f->n * sizeof(float)));
    for (int i = 0; i < m->n_tensors; i++) {
        const ts_tensor *t = &m->tensors[i];
        bool statistic = t->role == TS_TENSOR_RUNNING_MEAN || t->role == TS_TENSOR_RUNNING_VARIANCE;
        float *plain = malloc(t->count * sizeof *plain);
        TS_NEED(plain, TS_ENOMEM, "no memory for the initial values of %s", t->name);
        fill(m, t, seed, (uint64_t)i, plain);
        ts_status status =
            ts_model_write(m, t, statistic ? f->statistics : f->parameters, plain, stream);
        free(plain);
        TS_TRY(status);
    }
    if (f->shadow) TS_TRY(ts_vector_to_bf16(stream, f->n, f->shadow, f->parameters));
    return ts_stream_sync(stream);
}
