/* op.h - one layer's arithmetic: planned once for fixed shapes, run many times.
 *
 * The first backend in ts_op_backends whose serves() says yes plans the op. Activations lie in
 * the op's layout, parameters in the order the backend likes best: pack and unpack convert
 * from and to PyTorch's order (conv OIHW, linear [out][in]), a permutation with zero padding, so
 * checkpoints and exports are the same on every machine. Forward and backward only enqueue. */
#ifndef TS_OPS_OP_H
#define TS_OPS_OP_H

#include "runtime/base/random.h"
#include "runtime/device/control.h"
#include "runtime/device/device.h"

typedef enum ts_op_kind {
    TS_OP_CONV,       /* y = w * x, square kernel, no bias */
    TS_OP_BATCH_NORM, /* y = gamma (x - mean) / sqrt(var + epsilon) + beta [+ residual] [ReLU] */
    TS_OP_MAX_POOL,
    TS_OP_AVERAGE_POOL, /* padding is not counted; kernel 0: global, out 1x1 */
    TS_OP_LINEAR,       /* y = w x + b [ReLU]; x is flattened in channel, row, column order */
    TS_OP_DROPOUT,      /* y = x mask / (1 - p); the mask is a function of (seed, step, node) */
    TS_OP_CROSS_ENTROPY /* softmax cross-entropy with label smoothing, mean over the batch */
} ts_op_kind;

/* How an activation lies in memory. Blocked: [n][c/B][h][w][B], channels padded to B; TS_NHWC8 is
 * NHWC with channels padded to 8. Padding holds zeros. */
typedef enum ts_layout { TS_NCHW, TS_NHWC, TS_NHWC8, TS_NCHW8C, TS_NCHW16C } ts_layout;
TS_HD int ts_layout_block(ts_layout layout)
{
    return layout == TS_NCHW8C || layout == TS_NHWC8 ? 8 : layout == TS_NCHW16C ? 16 : 1;
}
/* One flat row a picture, in channel, row, column order? */
static inline bool ts_layout_is_flat(ts_layout layout, ts_shape s)
{
    return layout == TS_NCHW || (layout == TS_NHWC && s.h == 1 && s.w == 1);
}
/* Elements, padding included. */
static inline size_t ts_layout_count(ts_layout layout, ts_shape s)
{
    int block = ts_layout_block(layout);
    s.c = (s.c + block - 1) / block * block;
    return ts_shape_count(s);
}

typedef struct ts_op_desc {
    ts_op_kind kind;
    ts_shape in, out;
    ts_type type;                /* of x and y: TS_F32 or TS_BF16 */
    ts_type out_type;            /* linear only: of y; the logits are TS_F32 */
    ts_layout in_layout, layout; /* of x; of y */
    int kernel, stride, padding;
    bool add;                /* batch norm: a residual is added before the ReLU */
    bool relu;               /* batch norm, linear */
    bool needs_dx;           /* false where nothing before it learns */
    bool tf32;               /* fp32 products may round their factors to tf32, where it helps */
    bool nominal;            /* planned only for its orders and sizes; never run */
    bool two_readers;        /* y's gradient comes in two parts, which the op adds */
    bool training;           /* false: forward only, batch norm by its running statistics */
    float epsilon, momentum; /* batch norm: 1e-5, 0.1 (share of the new batch) */
    float smoothing;         /* cross-entropy */
    float probability;       /* dropout: of a zero */
    int node;                /* dropout: makes its random numbers its own */
} ts_op_desc;

/* What one run works on; unused members are NULL. Sizes are those of ts_op. */
typedef struct ts_op_args {
    /* forward */
    const void *x, *residual;
    void *y;
    /* backward; dy2: the second part of y's gradient, NULL without `two_readers`.
     * Cross-entropy: dx = d loss / d logits. */
    const void *dy, *dy2;
    void *dx, *dresidual;
    /* parameters, in the op's order: conv, linear: weight; batch norm: gamma */
    const float *weight, *bias; /* fp32 master */
    const uint16_t *shadow;     /* bf16 copy of weight in the same order, or NULL */
    float *dweight, *dbias;     /* written, not added to */
    float *running;             /* batch norm: [2][c] running mean, running variance */
    const int32_t *labels;      /* [n], cross-entropy */
    ts_control *control;        /* cross-entropy adds to its sums; dropout reads seed, step */
    void *packed;               /* [packed_bytes] the weights as the op wants them; refresh */
    void *saved;                /* [saved_bytes] from forward to backward */
    void *scratch;              /* [scratch_bytes] valid during one call */
} ts_op_args;

typedef struct ts_op ts_op;

typedef enum ts_op_pass {
    TS_FORWARD,
    TS_BACKWARD_DATA,
    TS_BACKWARD_WEIGHTS,
    TS_REFRESH,
    TS_OP_PASSES
} ts_op_pass;

typedef struct ts_op_run {
    ts_op *op;
    ts_op_args args;
} ts_op_run;

typedef struct ts_op_ops {
    const char *name; /* "onednn", "host", "reference" */

    /* Required. */
    /* Can this backend plan it on this device? When not and `why` is not NULL: why not. */
    bool (*serves)(const ts_device *device, const ts_op_desc *desc, const char **why_p);
    ts_status (*plan)(ts_device *device, const ts_op_desc *desc, ts_op **op_p);
    void (*release)(ts_op *op);
    /* By pass; each takes a ts_op_run. Required: forward, and for ops planned with `training`
     * backward. Conv and linear split backward in two, so that a bucket's gradients are complete
     * as early as can be; others do all in backward data. Refresh, packed <- weight (or shadow)
     * for the passes that follow, runs after every change of the weights; required of ops with
     * packed_bytes. */
    ts_kernel kernels[TS_OP_PASSES];

    /* Optional. */
    /* Host memory, at once: the op's order <- PyTorch's order and back. NULL: they are the same.
     * Only the weight of conv and linear; every other parameter is a plain [c]. */
    ts_status (*pack)(const ts_op *op, float *to, const float *plain);
    ts_status (*unpack)(const ts_op *op, float *plain, const float *from);
} ts_op_ops;

struct ts_op {
    const ts_op_ops *ops;
    ts_op_desc desc;
    size_t weight_n; /* elements of weight in the op's order, padding included; 0: none */
    size_t bias_n;
    size_t packed_bytes, saved_bytes, scratch_bytes;
    bool reads_shadow; /* the bf16 copy of the parameters must be kept for it */
    /* Names the weight's order, e.g. "OIhw16i16o": ranks and flat buffers must agree on it. */
    char weight_order[32];
};

/* NULL-terminated, best first. */
extern const ts_op_ops *const ts_op_backends[];
extern const ts_op_ops ts_op_reference, ts_op_onednn, ts_op_host, ts_op_cuda, ts_op_cudnn;

/* Plan by the first backend that serves; `only` (a backend's name, or NULL) restricts. */
ts_status ts_op_plan(ts_device *device, const ts_op_desc *desc, const char *only, ts_op **op_p);
void ts_op_release(ts_op *op);
/* For backends: an op without state of its own, its parameters in PyTorch's order, and its release.
 */
ts_status ts_op_open_plain(const ts_op_ops *ops, const ts_op_desc *desc, ts_op **op_p);
void ts_op_close_plain(ts_op *op);
/* The layout that convolutions of this type run best in on this device: one for a whole net. */
ts_layout ts_op_best_layout(const ts_device *device, ts_type type, const char *only);
/* The layout in which a convolution that writes `inner` reads a data set's pictures, with their few
 * channels. */
ts_layout ts_op_picture_layout(const ts_device *device, ts_layout inner);

/* Is bf16 faster than fp32 on this device? */
bool ts_op_prefers_bf16(const ts_device *device);

/* The version of the library behind the host's ops, as text. */
void ts_op_library_version(char *text, size_t bytes);
/* The same for the GPU's convolutions, or why it is absent. */
void ts_op_cudnn_version(char *text, size_t bytes);
/* The same for its products. */
void ts_op_cublas_version(char *text, size_t bytes);

/* Enqueue one pass. */
static inline ts_status ts_op_launch(ts_op *op, ts_op_pass pass, const ts_op_args *args,
                                     ts_stream *stream)
{
    ts_op_run run = {op, *args};
    return ts_stream_launch(stream, &op->ops->kernels[pass], &run, sizeof run);
}
/* What a pass touches: `accesses` of its kernel. */
int ts_op_forward_accesses(const void *run, ts_access *list);
int ts_op_backward_data_accesses(const void *run, ts_access *list);
int ts_op_backward_weights_accesses(const void *run, ts_access *list);
int ts_op_refresh_accesses(const void *run, ts_access *list);

/* Elements of the plain (PyTorch order) weight and bias of a description. */
size_t ts_op_plain_weight_count(const ts_op_desc *desc);
size_t ts_op_plain_bias_count(const ts_op_desc *desc);
const char *ts_op_kind_name(ts_op_kind kind);
/* "conv 64x64x32x32 -> 64, kernel 3, stride 1, bf16" for messages. */
void ts_op_describe(const ts_op_desc *desc, char *text, size_t bytes);
#endif
