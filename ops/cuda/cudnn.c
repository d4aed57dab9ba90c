/* cudnn.c - see cudnn.h. Descriptors of cuDNN's backend are opaque bags of attributes; the first
 * failure stays in the graph that is being built, so that the building reads as a list. */
#include "ops/cuda/cudnn.h"

#include <cudnn_graph.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/device/cuda/library.h"

enum { DESCRIPTORS = 48, CONFIGS = 96, KNOBS = 24, NOTES = 16, OLDEST = 90000 };

#define FUNCTIONS(F)                                                                               \
    F(cudnnGetVersion)                                                                             \
    F(cudnnCreate)                                                                                 \
    F(cudnnDestroy)                                                                                \
    F(cudnnSetStream)                                                                              \
    F(cudnnGetErrorString)                                                                         \
    F(cudnnGetLastErrorString)                                                                     \
    F(cudnnBackendCreateDescriptor)                                                                \
    F(cudnnBackendDestroyDescriptor)                                                               \
    F(cudnnBackendFinalize)                                                                        \
    F(cudnnBackendSetAttribute)                                                                    \
    F(cudnnBackendGetAttribute)                                                                    \
    F(cudnnBackendExecute)
TS_LIBRARY_TABLE(cudnn, FUNCTIONS);

typedef cudnnBackendDescriptor_t descriptor;

struct ts_cudnn {
    cudnnHandle_t handle; /* NULL: without a GPU */
    descriptor device;    /* its description then */
};

struct ts_cudnn_graph {
    ts_cudnn *on;
    bool exact;       /* fp32 products of fp32 inputs */
    bool fp32_sums;   /* whatever the inputs */
    ts_status status; /* of building it */
    descriptor all[DESCRIPTORS];
    int n;
    descriptor operations[8], graph;
    int n_operations;
};

static ts_status check(cudnnStatus_t status, const char *what)
{
    char why[512] = "";
    if (status == CUDNN_STATUS_SUCCESS) return TS_OK;
    cudnn.cudnnGetLastErrorString(why, sizeof why);
    return TS_ERROR(TS_EDEVICE, "cuDNN: %s: %s; %s", what, cudnn.cudnnGetErrorString(status), why);
}

/* ---- life ---- */

static ts_status describe_device(ts_cudnn *on, const char *json)
{
    TS_TRY(
        check(cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &on->device),
              "device description"));
    TS_TRY(
        check(cudnn.cudnnBackendSetAttribute(on->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                             CUDNN_TYPE_CHAR, (int64_t)strlen(json), json),
              "device description"));
    return check(cudnn.cudnnBackendFinalize(on->device), "device description");
}

static ts_status open_library(void)
{
    static const ts_library library = {"cuDNN", "TWINSTREAM_CUDNN_LIBRARY", TS_CUDNN_LIBRARY,
                                       "cudnn", "libcudnn.so.9"};
    if (!cudnn.cudnnGetVersion) TS_TRY(ts_library_open(&library, cudnn_names, cudnn.all));
    TS_NEED(cudnn.cudnnGetVersion() >= OLDEST, TS_EUNSUPPORTED, "cuDNN %zu is too old; 9 is needed",
            cudnn.cudnnGetVersion());
    return TS_OK;
}

void ts_op_cudnn_version(char *text, size_t bytes)
{
    if (open_library()) {
        snprintf(text, bytes, "absent: %s", ts_trail_message());
        ts_trail_clear();
        return;
    }
    size_t v = cudnn.cudnnGetVersion();
    snprintf(text, bytes, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

ts_status ts_cudnn_open(const char *device_json, ts_cudnn **cudnn_p)
{
    *cudnn_p = NULL;
    TS_TRY(open_library());
    ts_cudnn *on = calloc(1, sizeof *on);
    TS_NEED(on, TS_ENOMEM, "no memory for cuDNN");
    ts_status status = device_json ? describe_device(on, device_json)
                                   : check(cudnn.cudnnCreate(&on->handle), "cudnnCreate");
    if (status) {
        ts_cudnn_close(on);
        return status;
    }
    *cudnn_p = on;
    return TS_OK;
}

void ts_cudnn_close(ts_cudnn *on)
{
    if (!on) return;
    if (on->device) cudnn.cudnnBackendDestroyDescriptor(on->device);
    if (on->handle) cudnn.cudnnDestroy(on->handle);
    free(on);
}

size_t ts_cudnn_version(const ts_cudnn *on)
{
    (void)on;
    return cudnn.cudnnGetVersion();
}

/* ---- building a graph ---- */

static descriptor make(ts_cudnn_graph *g, cudnnBackendDescriptorType_t type)
{
    descriptor d = NULL;
    if (g->status) return NULL;
    if (g->n == DESCRIPTORS)
        g->status = TS_ERROR(TS_EDEVICE, "more than %d cuDNN descriptors in a graph", DESCRIPTORS);
    else
        g->status = check(cudnn.cudnnBackendCreateDescriptor(type, &d), "a new descriptor");
    if (!g->status) g->all[g->n++] = d;
    return d;
}

static void set(ts_cudnn_graph *g, descriptor d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    if (!g->status)
        g->status = check(cudnn.cudnnBackendSetAttribute(d, name, type, n, values), "an attribute");
}

static void set_descriptor(ts_cudnn_graph *g, descriptor d, cudnnBackendAttributeName_t name,
                           descriptor value)
{
    set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_type(ts_cudnn_graph *g, descriptor d, cudnnBackendAttributeName_t name,
                     cudnnDataType_t type)
{
    set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

static descriptor finish(ts_cudnn_graph *g, descriptor d, const char *what)
{
    if (!g->status) g->status = check(cudnn.cudnnBackendFinalize(d), what);
    return d;
}

/* The next operation of the graph. */
static void operation(ts_cudnn_graph *g, descriptor d, const char *what)
{
    finish(g, d, what);
    if (!g->status) g->operations[g->n_operations++] = d;
}

/* Channels last. id < 0: it stays inside the kernel. */
static descriptor tensor(ts_cudnn_graph *g, int64_t id, cudnnDataType_t type, ts_shape s)
{
    int64_t dims[] = {s.n, s.c, s.h, s.w}, alignment = 16, unique = id < 0 ? 1000 + g->n : id;
    int64_t strides[] = {(int64_t)s.c * s.h * s.w, 1, (int64_t)s.c * s.w, s.c};
    bool inside = id < 0;
    descriptor d = make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &unique);
    set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &inside);
    return finish(g, d, "a tensor");
}

/* y = mode(x, b), or for a backward mode y = x where mode(b) passes it. */
static void pointwise(ts_cudnn_graph *g, cudnnPointwiseMode_t mode, descriptor x, descriptor b,
                      descriptor y)
{
    bool backward = mode == CUDNN_POINTWISE_RELU_BWD;
    descriptor how = make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    finish(g, how, "a pointwise mode");
    descriptor d = make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    if (backward) {
        set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, b);
        set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, x);
        set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, y);
    } else {
        set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
        if (b) set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
        set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    }
    operation(g, d, "a pointwise operation");
}

static void convolution(ts_cudnn_graph *g, const ts_op_desc *desc, ts_op_pass pass, descriptor x,
                        descriptor w, descriptor y)
{
    static const struct {
        cudnnBackendDescriptorType_t type;
        cudnnBackendAttributeName_t how, x, w, y, alpha, beta;
    } passes[] = {
        [TS_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        [TS_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        [TS_BACKWARD_WEIGHTS] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
    };
    int64_t two = 2, padding[] = {desc->padding, desc->padding}, dilation[] = {1, 1};
    int64_t stride[] = {desc->stride, desc->stride};
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    float alpha = 1, beta = 0;
    descriptor how = make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
    set_type(g, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    set(g, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(g, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    set(g, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    set(g, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    set(g, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    finish(g, how, "a convolution");
    descriptor d = make(g, passes[pass].type);
    set_descriptor(g, d, passes[pass].how, how);
    set_descriptor(g, d, passes[pass].x, x);
    set_descriptor(g, d, passes[pass].w, w);
    set_descriptor(g, d, passes[pass].y, y);
    set(g, d, passes[pass].alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    set(g, d, passes[pass].beta, CUDNN_TYPE_FLOAT, 1, &beta);
    operation(g, d, "a convolution");
}

/* relu(scale x + bias), inside the kernel. */
static descriptor applied(ts_cudnn_graph *g, cudnnDataType_t type, descriptor x, ts_shape s)
{
    ts_shape channels = {1, s.c, 1, 1};
    descriptor scaled = tensor(g, -1, type, s), moved = tensor(g, -1, type, s);
    descriptor rectified = tensor(g, -1, type, s);
    pointwise(g, CUDNN_POINTWISE_MUL, x, tensor(g, TS_CUDNN_SCALE, type, channels), scaled);
    pointwise(g, CUDNN_POINTWISE_ADD, scaled, tensor(g, TS_CUDNN_BIAS, type, channels), moved);
    pointwise(g, CUDNN_POINTWISE_RELU_FWD, moved, NULL, rectified);
    return rectified;
}

/* Sums of y and of y^2 by channel. */
static void sums(ts_cudnn_graph *g, descriptor y, ts_shape s)
{
    ts_shape channels = {1, s.c, 1, 1};
    cudnnGenStatsMode_t mode = CUDNN_GENSTATS_SUM_SQSUM;
    descriptor d = make(g, CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR);
    set(g, d, CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, &mode);
    set_type(g, d, CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_DATA_FLOAT);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_GENSTATS_XDESC, y);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC,
                   tensor(g, TS_CUDNN_SUM, CUDNN_DATA_FLOAT, channels));
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC,
                   tensor(g, TS_CUDNN_SQUARES, CUDNN_DATA_FLOAT, channels));
    operation(g, d, "sums by channel");
}

/* dx, as the convolution made it, goes through the ReLU of a batch norm of `x`; what comes out is
 * written, with the sums that the batch norm's backward needs. */
static void norm_backward(ts_cudnn_graph *g, cudnnDataType_t type, descriptor dx, ts_shape s)
{
    ts_shape channels = {1, s.c, 1, 1};
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    descriptor x = tensor(g, TS_CUDNN_NORM_X, type, s),
               mean = tensor(g, TS_CUDNN_MEAN, f32, channels);
    descriptor inverse = tensor(g, TS_CUDNN_INVERSE, f32, channels),
               scale = tensor(g, TS_CUDNN_GAMMA, f32, channels);
    descriptor bias = tensor(g, TS_CUDNN_BETA, f32, channels), steps[4];
    for (int i = 0; i < 4; i++) steps[i] = tensor(g, -1, f32, s);
    pointwise(g, CUDNN_POINTWISE_SUB, x, mean, steps[0]);
    pointwise(g, CUDNN_POINTWISE_MUL, steps[0], inverse, steps[1]);
    pointwise(g, CUDNN_POINTWISE_MUL, steps[1], scale, steps[2]);
    pointwise(g, CUDNN_POINTWISE_ADD, steps[2], bias, steps[3]);
    descriptor masked = tensor(g, TS_CUDNN_X, type, s);
    pointwise(g, CUDNN_POINTWISE_RELU_BWD, dx, steps[3], masked);
    descriptor d = make(g, CUDNN_BACKEND_OPERATION_BN_BWD_WEIGHTS_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_MATH_PREC, f32);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_MEAN_DESC, mean);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_INVSTD_DESC, inverse);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_BN_SCALE_DESC, scale);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_X_DESC, x);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_DY_DESC, masked);
    static const cudnnBackendAttributeName_t out[] = {
        CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_DBN_SCALE_DESC,
        CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_DBN_BIAS_DESC,
        CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_EQ_DY_SCALE_DESC,
        CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_EQ_X_SCALE_DESC,
        CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_EQ_BIAS};
    for (int i = 0; i < 5; i++)
        set_descriptor(g, d, out[i], tensor(g, TS_CUDNN_DGAMMA + i, f32, channels));
    operation(g, d, "batch norm's backward sums");
}

static cudnnDataType_t data_type(ts_type type)
{
    return type == TS_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

static ts_shape padded(ts_layout layout, ts_shape s)
{
    int block = ts_layout_block(layout);
    s.c = (s.c + block - 1) / block * block;
    return s;
}

static void build(ts_cudnn_graph *g, const ts_op_desc *desc, ts_op_pass pass, ts_cudnn_form form)
{
    bool fused = form == TS_CUDNN_FUSED;
    cudnnDataType_t type = fused ? CUDNN_DATA_HALF : data_type(desc->type);
    ts_shape in = padded(desc->in_layout, desc->in), out = padded(desc->layout, desc->out);
    ts_shape weights = {out.c, in.c, desc->kernel, desc->kernel};
    bool masks = fused && pass == TS_BACKWARD_DATA;
    descriptor x = tensor(g, masks ? -1 : TS_CUDNN_X, type, in);
    descriptor w = tensor(g, TS_CUDNN_W, type, weights), y = tensor(g, TS_CUDNN_Y, type, out);
    descriptor used = fused && !masks ? applied(g, type, x, in) : x;
    convolution(g, desc, pass, used, w, y);
    if (fused && pass == TS_FORWARD) sums(g, y, out);
    if (masks) norm_backward(g, type, x, in);
    descriptor graph = make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (g->on->handle)
        set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->on->handle);
    set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_operations,
        g->operations);
    g->graph = finish(g, graph, "an operation graph");
}

ts_status ts_cudnn_graph_open(ts_cudnn *on, const ts_op_desc *desc, ts_op_pass pass,
                              ts_cudnn_form form, ts_cudnn_graph **graph_p)
{
    ts_cudnn_graph *g = calloc(1, sizeof *g);
    *graph_p = NULL;
    TS_NEED(g, TS_ENOMEM, "no memory for a cuDNN graph");
    g->on = on;
    g->fp32_sums = form == TS_CUDNN_PLAIN;
    g->exact = g->fp32_sums && desc->type == TS_F32 && !desc->tf32;
    build(g, desc, pass, form);
    if (g->status) {
        ts_status status = g->status;
        ts_cudnn_graph_close(g);
        return status;
    }
    *graph_p = g;
    return TS_OK;
}

void ts_cudnn_graph_close(ts_cudnn_graph *g)
{
    if (!g) return;
    while (g->n) cudnn.cudnnBackendDestroyDescriptor(g->all[--g->n]);
    free(g);
}

/* ---- plans ---- */

static int64_t get(descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t max, void *values)
{
    int64_t n = 0;
    if (cudnn.cudnnBackendGetAttribute(d, name, type, max, &n, values)) return 0;
    return n < max ? n : max;
}

/* Same bits in every run, nothing compiled at run time and, where asked, no rounding of inputs or
 * sums? */
static bool suits(descriptor engine, const ts_cudnn_graph *g)
{
    cudnnBackendNumericalNote_t numerical[NOTES];
    cudnnBackendBehaviorNote_t behavior[NOTES];
    int64_t n =
        get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES, numerical);
    for (int64_t i = 0; i < n; i++) {
        bool rounds = numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
                      numerical[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
        bool short_sums = numerical[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
        if (numerical[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC || (g->exact && rounds) ||
            (g->fp32_sums && short_sums))
            return false;
    }
    n = get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, NOTES, behavior);
    for (int64_t i = 0; i < n; i++)
        if (behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) return false;
    return true;
}

/* "62 3=1 8=2": engine, then knobs. */
static void name_config(descriptor config, int64_t engine, char *name, size_t bytes)
{
    descriptor knobs[KNOBS] = {0};
    int used = snprintf(name, bytes, "%lld", (long long)engine), made = 0;
    while (made < KNOBS &&
           !cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[made]))
        made++;
    int64_t n =
        get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, made, knobs);
    for (int64_t i = 0; i < n && used < (int)bytes; i++) {
        cudnnBackendKnobType_t type = 0;
        int64_t value = 0;
        get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &value);
        used +=
            snprintf(name + used, bytes - (size_t)used, " %d=%lld", (int)type, (long long)value);
    }
    while (made) cudnn.cudnnBackendDestroyDescriptor(knobs[--made]);
}

/* The plan of one configuration; false when it is not one for us. */
static bool plan_config(const ts_cudnn_graph *g, descriptor config, size_t cap, const char *only,
                        ts_cudnn_plan *plan)
{
    descriptor engine = NULL, d = NULL;
    int64_t index = 0, workspace = 0;
    if (cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine)) return false;
    bool taken =
        get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine) == 1 &&
        suits(engine, g);
    get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    cudnn.cudnnBackendDestroyDescriptor(engine);
    if (!taken) return false;
    name_config(config, index, plan->name, sizeof plan->name);
    if (only && strcmp(only, plan->name) != 0) return false;
    if (cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &d))
        return false;
    const ts_cudnn *on = g->on;
    cudnnStatus_t status =
        on->handle ? cudnn.cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                                                    CUDNN_TYPE_HANDLE, 1, &on->handle)
                   : cudnn.cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &on->device);
    if (!status)
        status = cudnn.cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (!status) status = cudnn.cudnnBackendFinalize(d);
    if (!status) get(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &workspace);
    if (status || workspace < 0 || (size_t)workspace > cap) {
        cudnn.cudnnBackendDestroyDescriptor(d);
        return false;
    }
    plan->workspace_bytes = (size_t)workspace;
    plan->descriptor = d;
    return true;
}

static bool is_known(const ts_cudnn_plan *plans, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(plans[i].name, plans[n].name)) return true;
    return false;
}

/* What one of cuDNN's heuristics offers, added to `plans`. */
static ts_status plan_by(ts_cudnn_graph *g, cudnnBackendHeurMode_t mode, size_t cap,
                         const char *only, ts_cudnn_plan *plans, int max, int *n_p)
{
    descriptor heuristics = make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR), configs[CONFIGS];
    set_descriptor(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph);
    set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (g->on->device)
        set_descriptor(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, g->on->device);
    TS_TRY(g->status);
    if (cudnn.cudnnBackendFinalize(heuristics)) return TS_OK; /* it knows nothing for this graph */
    int made = 0;
    while (made < CONFIGS &&
           !cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[made]))
        made++;
    int64_t n = get(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, made,
                    configs);
    for (int64_t i = 0; i < n && *n_p < max; i++) {
        if (!plan_config(g, configs[i], cap, only, &plans[*n_p])) continue;
        if (is_known(plans, *n_p)) { /* the same engine and knobs may be offered twice */
            cudnn.cudnnBackendDestroyDescriptor(plans[*n_p].descriptor);
            continue;
        }
        plans[(*n_p)++].config = configs[i];
        configs[i] = NULL;
    }
    for (int i = 0; i < made; i++)
        if (configs[i]) cudnn.cudnnBackendDestroyDescriptor(configs[i]);
    return TS_OK;
}

ts_status ts_cudnn_plans(ts_cudnn_graph *g, size_t cap, const char *only, ts_cudnn_plan *plans,
                         int max, int *n_p)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    *n_p = 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes && *n_p == 0; i++)
        TS_TRY(plan_by(g, modes[i], cap, only, plans, max, n_p));
    return TS_OK;
}

void ts_cudnn_plan_close(ts_cudnn_plan *plan)
{
    if (plan->descriptor) cudnn.cudnnBackendDestroyDescriptor(plan->descriptor);
    if (plan->config) cudnn.cudnnBackendDestroyDescriptor(plan->config);
    plan->descriptor = plan->config = NULL;
}

/* ---- running ---- */

ts_status ts_cudnn_run(ts_cudnn *on, const ts_cudnn_plan *plan,
                       void *const tensors[TS_CUDNN_TENSORS], void *workspace, void *cuda_stream)
{
    int64_t ids[TS_CUDNN_TENSORS], n = 0;
    void *pointers[TS_CUDNN_TENSORS];
    for (int i = 0; i < TS_CUDNN_TENSORS; i++) {
        if (!tensors[i]) continue;
        ids[n] = i;
        pointers[n++] = tensors[i];
    }
    descriptor pack = NULL;
    cudnnStatus_t status =
        cudnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    TS_TRY(check(status, "a variant pack"));
    status = cudnn.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                            CUDNN_TYPE_INT64, n, ids);
    if (!status)
        status = cudnn.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                                CUDNN_TYPE_VOID_PTR, n, pointers);
    if (!status)
        status = cudnn.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                                CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (!status) status = cudnn.cudnnBackendFinalize(pack);
    if (!status) status = cudnn.cudnnSetStream(on->handle, (cudaStream_t)cuda_stream);
    if (!status) status = cudnn.cudnnBackendExecute(on->handle, plan->descriptor, pack);
    cudnn.cudnnBackendDestroyDescriptor(pack);
    return check(status, plan->name);
}
