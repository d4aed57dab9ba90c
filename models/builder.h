/* builder.h - a network while it is built: nodes in the order of the calls, for one picture. */
#ifndef TS_MODELS_BUILDER_H
#define TS_MODELS_BUILDER_H

#include "models/model.h"

enum { TS_NODES_MAX = 512 };

typedef struct ts_node {
    ts_op_desc desc; /* shapes with n = 1; layouts and types are the model's to set */
    int from, add;   /* nodes read; -1: none. The input node reads nothing. */
    char name[48];
    float linear_deviation; /* of initial weights; 0: uniform as PyTorch's default */
    bool plain_bias;        /* conv: torchvision's has a bias, which batch norm makes void */
} ts_node;

struct ts_builder {
    ts_shape input;
    ts_node nodes[TS_NODES_MAX];
    int n;
    ts_status status; /* of the first failure, whose trail stands */
    float linear_deviation;
};

/* Linear layers from now on start from a normal distribution of this deviation and zero biases. */
void ts_build_set_linear_deviation(ts_builder *builder, float deviation);
/* The convolution at `node` exports a bias of zeros, so that torchvision's module loads. */
void ts_build_plain_bias(ts_builder *builder, int node);
/* The loss, by ts_model_open. */
int ts_build_cross_entropy(ts_builder *builder, int from, float smoothing);

extern const ts_network ts_network_resnet18, ts_network_resnet20, ts_network_vgg16, ts_network_mlp,
    ts_network_tiny;

#endif
