/* model_internal.h - what model.c, init.c and workspace.c share. */
#ifndef TS_MODELS_MODEL_INTERNAL_H
#define TS_MODELS_MODEL_INTERNAL_H

#include "models/builder.h"

struct ts_model {
    ts_device *device;
    const ts_network *network;
    ts_model_options options;
    ts_builder builder;
    ts_op **ops; /* [nodes] planned for a nominal batch; NULL for the input */
    bool reads_shadow;
    ts_tensor *tensors;
    int n_tensors;
    ts_slice *buckets, *weights;
    int *bucket_nodes; /* the node whose backward completes each bucket */
    ts_flat flat;
};

/* The description of a node's op for a batch. */
ts_op_desc ts_model_desc(const ts_model *model, int node, int batch, bool training);

#endif
