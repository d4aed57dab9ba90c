/* model.h - a network as a list of planned ops over flat buffers.
 *
 * The model holds the layers' structure and the four flat buffers: parameters, gradients,
 * momentum, statistics. A workspace holds one batch in flight on one stream: planned ops for its
 * batch size, activations, packed weights. Several workspaces over one model are evaluation with
 * another batch size, pipelines, micro-batches.
 *
 * A network is a page of builder calls (resnet.c, vgg.c, mlp.c). Parameter names and shapes are
 * torchvision's. */
#ifndef TS_MODELS_MODEL_H
#define TS_MODELS_MODEL_H

#include "ops/op.h"

typedef struct ts_model ts_model;
typedef struct ts_workspace ts_workspace;

/* ts_builder, ts_network and the builder's calls are public: runtime/twinstream.h. */
/* Every network known by name; NULL-terminated. */
const ts_network *const *ts_networks(void);
/* Also one that was added; NULL when there is none. */
const ts_network *ts_network_find(const char *name);
/* Make a network of one's own known by its name; borrowed. TS_EUSAGE when the name is taken. */
ts_status ts_network_add(const ts_network *network);
/* Those that were added are known no more. */
void ts_networks_forget(void);

/* ---- the model ---- */
typedef struct ts_slice {
    size_t at, n;
} ts_slice;

typedef enum ts_tensor_role {
    TS_TENSOR_WEIGHT,
    TS_TENSOR_BIAS,
    TS_TENSOR_GAMMA,
    TS_TENSOR_BETA,
    TS_TENSOR_RUNNING_MEAN,
    TS_TENSOR_RUNNING_VARIANCE,
    TS_TENSOR_VOID_BIAS
} ts_tensor_role;

/* One named tensor: where it lies in its flat buffer. Parameters first, in the order of the
 * network's calls, then statistics. A void bias is one that batch norm cancels: torchvision's
 * module has it, the flat buffers do not (slice.n 0); it reads as zeros, and what a file has
 * for it goes off the running mean of the batch norm behind it when it is imported. */
typedef struct ts_tensor {
    char name[64]; /* "layer1.0.conv1.weight" */
    ts_tensor_role role;
    ts_slice slice; /* in parameters, or for running_* in statistics; padding included */
    size_t count;   /* elements in PyTorch's order */
    int shape[4];   /* in PyTorch's order */
    int rank;       /* how many of shape count */
    int node;
} ts_tensor;

/* The flat buffers, all on the device. Each tensor starts at a multiple of TS_VECTOR_BLOCK. */
typedef struct ts_flat {
    size_t n; /* elements of parameters, padding (zeros) included */
    size_t n_statistics;
    float *parameters, *gradients, *momentum;
    uint16_t *shadow; /* bf16 copy of the parameters; NULL when no op reads it */
    float *statistics;
    uint8_t *decays;         /* [n / TS_VECTOR_BLOCK] */
    const ts_slice *buckets; /* slices of gradients in the order backward completes them */
    int n_buckets;
    /* Weights of convolutions and linear layers, ascending; between them lie biases and batch norm.
     */
    const ts_slice *weights;
    int n_weights;
} ts_flat;

typedef struct ts_model_options {
    ts_shape input; /* n is ignored; c, h, w of a picture */
    int classes;
    ts_type type;        /* of activations: TS_F32, TS_BF16 */
    bool tf32;           /* TS_F32 on CUDA: products may round their factors to tf32 */
    const char *ops;     /* restrict to this op backend, NULL: best first */
    size_t bucket_bytes; /* a bucket is closed when it holds this much */
    float smoothing;     /* label smoothing of the loss */
} ts_model_options;

ts_status ts_model_open(ts_device *device, const ts_network *network,
                        const ts_model_options *options, ts_model **model_p);
void ts_model_close(ts_model *model);
ts_flat *ts_model_flat(ts_model *model);
const ts_model_options *ts_model_get_options(const ts_model *model);
const char *ts_model_name(const ts_model *model);
const ts_tensor *ts_model_tensors(const ts_model *model, int *n_p);
size_t ts_model_parameter_count(const ts_model *model); /* as PyTorch counts */
/* Multiply-adds of nodes [first, last) in a forward pass for one picture. */
double ts_model_forward_macs(const ts_model *model, int first, int last);
/* How many ops only the plain loops of the reference serve. */
int ts_model_plain_ops(const ts_model *model);
/* Names every parameter's order in the flat buffers: equal on all ranks, or they may not average.
 */
uint64_t ts_model_signature(const ts_model *model);

/* Initial values as torchvision's: conv Kaiming normal fan-out, linear uniform (ResNet) or normal
 * 0.01 (VGG), gamma 1, beta 0, running mean 0, variance 1; a function of (seed, tensor, element
 * in PyTorch's order) only. Momentum and gradients 0. Blocks. */
ts_status ts_model_init(ts_model *model, uint64_t seed, ts_stream *stream);

/* One tensor between a flat vector on the device (`vector`: parameters, momentum, a snapshot;
 * statistics for running_*) and plain host memory in PyTorch's order. Blocks on `stream`. */
ts_status ts_model_read(ts_model *model, const ts_tensor *tensor, const float *vector, float *plain,
                        ts_stream *stream);
ts_status ts_model_write(ts_model *model, const ts_tensor *tensor, float *vector,
                         const float *plain, ts_stream *stream);

/* ---- a workspace ---- */
/* `training`: with backward; else forward by running statistics, in little memory. */
ts_status ts_workspace_open(ts_model *model, int batch, bool training, ts_control *control,
                            ts_workspace **workspace_p);
void ts_workspace_close(ts_workspace *workspace);
size_t ts_workspace_bytes(const ts_workspace *workspace);

/* Where the next batch goes: the input activation in its layout and type (channels may be
 * padded), and int32 labels [batch]. */
typedef struct ts_batch {
    void *input;
    int32_t *labels;
    ts_shape shape;
    ts_layout layout;
    ts_type type;
} ts_batch;
ts_batch ts_workspace_batch(const ts_workspace *workspace);

/* Everything below only enqueues. */
/* Read these weights from now on: flat vectors of the model, or scratch copies (the consensus
 * model). shadow NULL: none. Packs them where ops want it; call again after they changed. */
ts_status ts_workspace_refresh(ts_workspace *workspace, const float *parameters,
                               const uint16_t *shadow, float *statistics, ts_stream *stream);
/* Forward of nodes [first, last); the whole net is [0, ts_model_nodes). The last node is the
 * cross-entropy; it adds to the control block's sums. */
ts_status ts_workspace_forward(ts_workspace *workspace, int first, int last, ts_stream *stream);
typedef ts_status ts_ready(void *context, int bucket);
/* Backward of nodes [first, last) in reverse; calls `ready` (may be NULL) when the kernels that
 * complete a bucket's gradients have been enqueued. */
ts_status ts_workspace_backward(ts_workspace *workspace, int first, int last, float *gradients,
                                ts_ready *ready, void *context, ts_stream *stream);
int ts_model_nodes(const ts_model *model);
/* Logits [batch][classes] fp32 on the device, valid after a forward. */
const float *ts_workspace_logits(const ts_workspace *workspace);

#endif
