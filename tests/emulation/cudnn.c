/* cudnn.c - convolutions as plain loops behind cudnn.h, in place of cuDNN and of the choice of its
 * plans: NHWC activations, K, R, S, C weights, all padding included. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/cuda/conv.h"

struct ts_cudnn {
    int unused;
};

struct ts_cudnn_graph {
    ts_op_desc desc;
    ts_op_pass pass;
};

typedef struct conv {
    ts_cudnn_graph graph;
    void *tensors[TS_CUDNN_TENSORS];
} conv;

void ts_op_cudnn_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "emulated");
}

ts_status ts_cudnn_open(const char *device_json, ts_cudnn **cudnn_p)
{
    static ts_cudnn emulated;
    (void)device_json;
    *cudnn_p = &emulated;
    return TS_OK;
}

void ts_cudnn_close(ts_cudnn *cudnn)
{
    (void)cudnn;
}

ts_status ts_cudnn_graph_open(ts_cudnn *cudnn, const ts_op_desc *desc, ts_op_pass pass,
                              ts_cudnn_form form, ts_cudnn_graph **graph_p)
{
    (void)cudnn;
    TS_NEED(form == TS_CUDNN_PLAIN, TS_EUNSUPPORTED, "only plain convolutions are emulated");
    *graph_p = malloc(sizeof **graph_p);
    **graph_p = (ts_cudnn_graph){*desc, pass};
    return TS_OK;
}

void ts_cudnn_graph_close(ts_cudnn_graph *graph)
{
    free(graph);
}

ts_status ts_cudnn_choose(ts_cudnn *cudnn, ts_cudnn_graph *graph, const ts_op_desc *desc,
                          ts_op_pass pass, ts_cudnn_plan *plan_p)
{
    (void)cudnn, (void)desc, (void)pass;
    *plan_p = (ts_cudnn_plan){"emulated", 64, graph, NULL};
    return TS_OK;
}

void ts_cudnn_plan_close(ts_cudnn_plan *plan)
{
    (void)plan;
}

static float load(const void *from, size_t i, ts_type type)
{
    return type == TS_BF16 ? ts_bf16_to_float(((const uint16_t *)from)[i])
                           : ((const float *)from)[i];
}

static void store(void *to, size_t i, double x, ts_type type)
{
    if (type == TS_BF16)
        ((uint16_t *)to)[i] = ts_bf16_from_float((float)x);
    else
        ((float *)to)[i] = (float)x;
}

/* Every (output element, weight element) pair, in one loop nest for all three passes. */
static void CUDART_CB run_conv(void *context)
{
    const conv *c = context;
    const ts_op_desc *d = &c->graph.desc;
    int channels = (d->in.c + 7) / 8 * 8, size = d->kernel;
    size_t x_n = (size_t)d->in.n * (size_t)(d->in.h * d->in.w * channels);
    size_t w_n = (size_t)d->out.c * (size_t)(size * size * channels), y_n = ts_shape_count(d->out);
    ts_op_pass pass = c->graph.pass;
    size_t n = pass == TS_FORWARD ? y_n : pass == TS_BACKWARD_DATA ? x_n : w_n;
    double *sums = calloc(n, sizeof *sums);
    const void *x = c->tensors[TS_CUDNN_X], *w = c->tensors[TS_CUDNN_W],
               *y = c->tensors[TS_CUDNN_Y];
    for (int i = 0; i < d->out.n * d->out.h * d->out.w; i++)
        for (int tap = 0; tap < size * size; tap++) {
            int picture = i / (d->out.h * d->out.w), oh = i / d->out.w % d->out.h,
                ow = i % d->out.w;
            int h = oh * d->stride - d->padding + tap / size;
            int v = ow * d->stride - d->padding + tap % size;
            if (h < 0 || h >= d->in.h || v < 0 || v >= d->in.w) continue;
            size_t x_at = (size_t)((picture * d->in.h + h) * d->in.w + v) * (size_t)channels;
            for (int k = 0; k < d->out.c; k++) {
                size_t y_at = (size_t)i * (size_t)d->out.c + (size_t)k;
                size_t w_at = (size_t)(k * size * size + tap) * (size_t)channels;
                for (size_t e = 0; e < (size_t)channels; e++) {
                    if (pass == TS_FORWARD)
                        sums[y_at] +=
                            (double)load(x, x_at + e, d->type) * load(w, w_at + e, d->type);
                    else if (pass == TS_BACKWARD_DATA)
                        sums[x_at + e] +=
                            (double)load(y, y_at, d->type) * load(w, w_at + e, d->type);
                    else
                        sums[w_at + e] +=
                            (double)load(y, y_at, d->type) * load(x, x_at + e, d->type);
                }
            }
        }
    void *to = pass == TS_FORWARD         ? c->tensors[TS_CUDNN_Y]
               : pass == TS_BACKWARD_DATA ? c->tensors[TS_CUDNN_X]
                                          : c->tensors[TS_CUDNN_W];
    for (size_t i = 0; i < n; i++) store(to, i, sums[i], d->type);
    free(sums);
}

ts_status ts_cudnn_run(ts_cudnn *cudnn, const ts_cudnn_plan *plan,
                       void *const tensors[TS_CUDNN_TENSORS], void *workspace, void *cuda_stream)
{
    (void)cudnn;
    TS_NEED(workspace, TS_EDEVICE, "a convolution without a workspace");
    conv *c = malloc(sizeof *c); /* kept: a graph may run it again */
    c->graph = *(const ts_cudnn_graph *)plan->descriptor;
    memcpy(c->tensors, tensors, sizeof c->tensors);
    TS_NEED(!cudaLaunchHostFunc((cudaStream_t)cuda_stream, run_conv, c), TS_EDEVICE,
            "an emulated convolution could not be launched");
    return TS_OK;
}
