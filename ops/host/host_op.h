/* host_op.h - what the own host ops share: one object, one kernel a pass, typed loads. */
#ifndef TS_OPS_HOST_HOST_OP_H
#define TS_OPS_HOST_HOST_OP_H

#include "ops/op.h"

/* The passes of one kind of op; run on the stream's thread. */
typedef struct ts_host_kind {
    bool (*serves)(const ts_op_desc *desc);
    void (*size)(ts_op *op); /* sets weight_n, bias_n, saved_bytes, scratch_bytes */
    ts_status (*forward)(const ts_op_run *run);
    ts_status (*backward_data)(const ts_op_run *run);
    ts_status (*backward_weights)(const ts_op_run *run);
} ts_host_kind;

extern const ts_host_kind ts_host_batch_norm, ts_host_pool, ts_host_linear, ts_host_dropout,
    ts_host_cross_entropy;

/* A constant `bf16` lets the compiler make one loop for each type. */
static inline float ts_host_load(const void *from, size_t i, bool bf16)
{
    return bf16 ? ts_bf16_to_float(((const uint16_t *)from)[i]) : ((const float *)from)[i];
}
static inline void ts_host_store(void *to, size_t i, float x, bool bf16)
{
    if (bf16)
        ((uint16_t *)to)[i] = ts_bf16_from_float(x);
    else
        ((float *)to)[i] = x;
}

/* Whole vectors between bf16 and fp32, over the cores. */
void ts_host_widen(float *to, const uint16_t *from, size_t n);
void ts_host_narrow(uint16_t *to, const float *from, size_t n);

/* Threads of every loop that has scratch for each: the same number whichever thread plans and
 * whichever runs. */
int ts_host_threads(void);

#define TS_INLINE static inline __attribute__((always_inline))

#endif
