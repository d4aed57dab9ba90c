/* cuda_op.h - what the own CUDA ops share: one object, launchers by kind, as host_op.h on the host.
 */
#ifndef TS_OPS_CUDA_CUDA_OP_H
#define TS_OPS_CUDA_CUDA_OP_H

#include "ops/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The passes of one kind of op; each only launches on the stream (a cudaStream_t). */
typedef struct ts_cuda_kind {
    const char *(*refuses)(const ts_op_desc *desc); /* why it is not served, or NULL */
    void (*size)(ts_op *op);                        /* sets saved_bytes, scratch_bytes */
    ts_status (*forward)(const ts_op_run *run, void *cuda_stream);
    ts_status (*backward_data)(const ts_op_run *run, void *cuda_stream);
    ts_status (*backward_weights)(const ts_op_run *run, void *cuda_stream);
} ts_cuda_kind;

extern const ts_cuda_kind ts_cuda_batch_norm, ts_cuda_pool, ts_cuda_linear, ts_cuda_dropout,
    ts_cuda_cross_entropy;

#ifdef __cplusplus
}
#endif

#endif
