/* cudnn.h - convolutions of cuDNN's backend API: the plans that compute one pass, and running one.
 *
 * Only engines are taken that give the same bits in every run and that are compiled already. Plans
 * are made for this process's GPU or, in tests, for one that a JSON text describes: that needs no
 * GPU, but such a plan cannot run. */
#ifndef TS_OPS_CUDA_CUDNN_H
#define TS_OPS_CUDA_CUDNN_H

#include "ops/op.h"

typedef struct ts_cudnn ts_cudnn;
typedef struct ts_cudnn_graph ts_cudnn_graph;

/* What a graph computes beside the convolution. */
typedef enum ts_cudnn_form {
    TS_CUDNN_PLAIN,
    /* A batch norm around the convolution goes into it (fp16 only, as of cuDNN 9). Forward:
     * y = w * relu(scale x + bias), and sums of y and y^2 by channel. Backward data: dx behind the
     * ReLU, and what batch norm's backward needs of it. Backward weights: of relu(scale x + bias).
     */
    TS_CUDNN_FUSED
} ts_cudnn_form;

/* The tensors of a graph; a plain one has the first three. By channel, [c], are those of the fused:
 * scale and bias of the type, all others fp32. */
typedef enum ts_cudnn_tensor {
    TS_CUDNN_X, /* or dx; NHWC */
    TS_CUDNN_W, /* or dw; KRSC */
    TS_CUDNN_Y, /* or dy; NHWC */
    TS_CUDNN_SCALE,
    TS_CUDNN_BIAS,    /* forward, backward weights: what is applied to x */
    TS_CUDNN_SUM,     /* forward: of y */
    TS_CUDNN_SQUARES, /* of y^2 */
    TS_CUDNN_NORM_X,  /* backward data: what the batch norm read; NHWC */
    TS_CUDNN_MEAN,
    TS_CUDNN_INVERSE, /* 1 / deviation */
    TS_CUDNN_GAMMA,
    TS_CUDNN_BETA,
    TS_CUDNN_DGAMMA, /* written, as are those that follow */
    TS_CUDNN_DBETA,
    TS_CUDNN_DY_FACTOR, /* the batch norm's dx = dy_factor dx + x_factor x + shift */
    TS_CUDNN_X_FACTOR,
    TS_CUDNN_SHIFT,
    TS_CUDNN_TENSORS
} ts_cudnn_tensor;

/* One way to compute a graph. */
typedef struct ts_cudnn_plan {
    char name[160]; /* engine and knobs; the same for the same way in every process */
    size_t workspace_bytes;
    void *descriptor, *config;
} ts_cudnn_plan;

/* `device_json`: NULL for this process's GPU. TS_EUNSUPPORTED when there is no cuDNN 9. */
ts_status ts_cudnn_open(const char *device_json, ts_cudnn **cudnn_p);
void ts_cudnn_close(ts_cudnn *cudnn);
/* 90100 for 9.1.0 */
size_t ts_cudnn_version(const ts_cudnn *cudnn);

/* One pass of a convolution: TS_FORWARD, TS_BACKWARD_DATA or TS_BACKWARD_WEIGHTS. All tensors have
 * the description's type (the weights' gradient too); sums are fp32. */
ts_status ts_cudnn_graph_open(ts_cudnn *cudnn, const ts_op_desc *desc, ts_op_pass pass,
                              ts_cudnn_form form, ts_cudnn_graph **graph_p);
void ts_cudnn_graph_close(ts_cudnn_graph *graph);
/* At most `max` plans whose workspace is no larger than `cap`, cuDNN's favourite first; with
 * `only` just the one of that name. None is no failure: *n_p is 0. */
ts_status ts_cudnn_plans(ts_cudnn_graph *graph, size_t cap, const char *only, ts_cudnn_plan *plans,
                         int max, int *n_p);
void ts_cudnn_plan_close(ts_cudnn_plan *plan);
/* Enqueue a plan; tensors that its graph has not are NULL. */
ts_status ts_cudnn_run(ts_cudnn *cudnn, const ts_cudnn_plan *plan,
                       void *const tensors[TS_CUDNN_TENSORS], void *workspace, void *cuda_stream);

#endif
