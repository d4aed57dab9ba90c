/* model.c - structure, flat buffers and named tensors of a network.
 *
 * The model plans every op once for a nominal batch: that fixes the order of each weight in the
 * flat buffers, which workspaces of other batch sizes must share. */
#include "models/model_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/device/vector.h"

enum { NOMINAL_BATCH = 16 };

/* ---- planning ---- */

static bool is_pixels(ts_shape s)
{
    return s.h > 1 || s.w > 1;
}

static bool feeds(const ts_builder *b, int node, ts_op_kind kind)
{
    for (int i = node + 1; i < b->n; i++)
        if (b->nodes[i].from == node && b->nodes[i].desc.kind == kind) return true;
    return false;
}

/* How often later nodes read it, as input or as residual. */
static int count_readers(const ts_builder *b, int node)
{
    int readers = 0;
    for (int i = node + 1; i < b->n; i++)
        readers += (b->nodes[i].from == node) + (b->nodes[i].add == node);
    return readers;
}

/* Layouts and types of every node: one layout for all pictures inside the net; what a linear layer
 * reads lies as the layer counts it. */
static ts_status set_layouts(ts_model *m)
{
    ts_builder *b = &m->builder;
    ts_layout inner = ts_op_best_layout(m->device, m->options.type, m->options.ops);
    for (int i = 0; i < b->n; i++) {
        ts_op_desc *d = &b->nodes[i].desc;
        d->type = d->out_type = m->options.type;
        d->tf32 = m->options.tf32;
        bool plain = !is_pixels(d->out) || feeds(b, i, TS_OP_LINEAR);
        d->layout = plain || i == 0 ? TS_NCHW : inner;
        if (i == 0) {
            if (!plain && feeds(b, 0, TS_OP_CONV))
                d->layout = ts_op_picture_layout(m->device, inner);
            continue;
        }
        d->in_layout = b->nodes[b->nodes[i].from].desc.layout;
        d->needs_dx = b->nodes[i].from > 0;
        d->two_readers = count_readers(b, i) == 2;
        if (d->kind == TS_OP_BATCH_NORM || d->kind == TS_OP_DROPOUT) d->layout = d->in_layout;
        int add = b->nodes[i].add;
        TS_NEED(add < 0 || b->nodes[add].desc.layout == d->layout, TS_EUSAGE,
                "network %s: %s adds node %d, whose order in memory is not that of its input, "
                "because a linear layer or the picture is next to one of them: put a pool of 1 "
                "pixel between",
                m->network->name, b->nodes[i].name, add);
    }
    /* logits and loss are fp32 */
    ts_op_desc *loss = &b->nodes[b->n - 1].desc, *logits = &b->nodes[b->n - 2].desc;
    logits->out_type = loss->type = loss->out_type = TS_F32;
    return TS_OK;
}

static ts_status check_readers(ts_model *m)
{
    ts_builder *b = &m->builder;
    TS_NEED(b->n >= 3 && b->nodes[b->n - 2].desc.kind == TS_OP_LINEAR &&
                b->nodes[b->n - 2].desc.out.c == m->options.classes,
            TS_EUSAGE,
            "network %s must end in a linear layer with one output for each of the %d "
            "classes",
            m->network->name, m->options.classes);
    for (int i = 0; i < b->n; i++) {
        int readers = count_readers(b, i);
        TS_NEED(readers == (i < b->n - 1) || (readers == 2 && i > 0), TS_EUSAGE,
                "network %s: the output of node %d (%s) is read %d times; once or twice is served",
                m->network->name, i, b->nodes[i].name, readers);
    }
    return TS_OK;
}

ts_op_desc ts_model_desc(const ts_model *m, int node, int batch, bool training)
{
    ts_op_desc d = m->builder.nodes[node].desc;
    d.in.n = d.out.n = batch;
    d.training = training;
    if (!training) d.smoothing = 0; /* the test's loss is plain cross-entropy */
    return d;
}

static ts_status plan_ops(ts_model *m)
{
    m->ops = calloc((size_t)m->builder.n, sizeof *m->ops);
    TS_NEED(m->ops, TS_ENOMEM, "no memory for %d ops", m->builder.n);
    for (int i = 1; i < m->builder.n; i++) {
        ts_op_desc d = ts_model_desc(m, i, NOMINAL_BATCH, true);
        d.nominal = true;
        TS_TRY(ts_op_plan(m->device, &d, m->options.ops, &m->ops[i]));
        m->reads_shadow |= m->ops[i]->reads_shadow;
    }
    return TS_OK;
}

/* ---- tensors ---- */

static size_t padded(size_t n)
{
    return (n + TS_VECTOR_BLOCK - 1) / TS_VECTOR_BLOCK * TS_VECTOR_BLOCK;
}

static ts_tensor *add_tensor(ts_model *m, int node, const char *suffix, ts_tensor_role role,
                             size_t elements, size_t count)
{
    bool statistic = role == TS_TENSOR_RUNNING_MEAN || role == TS_TENSOR_RUNNING_VARIANCE;
    size_t *end = statistic ? &m->flat.n_statistics : &m->flat.n;
    ts_tensor *t = &m->tensors[m->n_tensors++];
    *t = (ts_tensor){.role = role,
                     .slice = {*end, padded(elements)},
                     .count = count,
                     .shape = {(int)count},
                     .rank = 1,
                     .node = node};
    snprintf(t->name, sizeof t->name, "%s.%s", m->builder.nodes[node].name, suffix);
    *end += t->slice.n;
    return t;
}

static void add_parameters(ts_model *m, int i)
{
    const ts_node *node = &m->builder.nodes[i];
    const ts_op_desc *d = &node->desc;
    const ts_op *op = m->ops[i];
    if (d->kind == TS_OP_BATCH_NORM) {
        add_tensor(m, i, "weight", TS_TENSOR_GAMMA, op->weight_n, (size_t)d->in.c);
        add_tensor(m, i, "bias", TS_TENSOR_BETA, op->bias_n, (size_t)d->in.c);
        return;
    }
    if (d->kind != TS_OP_CONV && d->kind != TS_OP_LINEAR) return;
    ts_tensor *t =
        add_tensor(m, i, "weight", TS_TENSOR_WEIGHT, op->weight_n, ts_op_plain_weight_count(d));
    bool conv = d->kind == TS_OP_CONV;
    t->rank = conv ? 4 : 2;
    t->shape[0] = d->out.c;
    t->shape[1] = conv ? d->in.c : (int)(t->count / (size_t)d->out.c);
    t->shape[2] = t->shape[3] = conv ? d->kernel : 0;
    if (!conv) add_tensor(m, i, "bias", TS_TENSOR_BIAS, op->bias_n, (size_t)d->out.c);
    if (node->plain_bias) {
        ts_tensor *bias = add_tensor(m, i, "bias", TS_TENSOR_VOID_BIAS, 0, (size_t)d->out.c);
        bias->node = i + 1; /* the batch norm that cancels it */
    }
}

/* Means of all channels, then variances: what ts_op_args.running expects, so no padding between
 * the two of a node; the pair is padded. */
static void add_statistics(ts_model *m, int i)
{
    const ts_op_desc *d = &m->builder.nodes[i].desc;
    if (d->kind != TS_OP_BATCH_NORM) return;
    size_t c = (size_t)d->in.c;
    ts_tensor *mean = add_tensor(m, i, "running_mean", TS_TENSOR_RUNNING_MEAN, 0, c);
    ts_tensor *variance = add_tensor(m, i, "running_var", TS_TENSOR_RUNNING_VARIANCE, 0, c);
    mean->slice.n = variance->slice.n = c;
    variance->slice.at = mean->slice.at + c;
    m->flat.n_statistics += padded(2 * c);
}

static ts_status list_tensors(ts_model *m)
{
    m->tensors = calloc((size_t)m->builder.n * 5, sizeof *m->tensors);
    TS_NEED(m->tensors, TS_ENOMEM, "no memory for the tensors of %d nodes", m->builder.n);
    for (int i = 1; i < m->builder.n; i++) add_parameters(m, i);
    for (int i = 1; i < m->builder.n; i++) add_statistics(m, i);
    return TS_OK;
}

static bool is_parameter(const ts_tensor *t)
{
    return t->role <= TS_TENSOR_BETA;
}

/* Buckets from the last tensor backwards, whole tensors, closed when they hold bucket_bytes. */
static ts_status cut_buckets(ts_model *m)
{
    size_t end = m->flat.n;
    m->buckets = calloc((size_t)m->n_tensors, sizeof *m->buckets);
    m->bucket_nodes = calloc((size_t)m->n_tensors, sizeof *m->bucket_nodes);
    TS_NEED(m->buckets && m->bucket_nodes, TS_ENOMEM, "no memory for the buckets");
    for (int i = m->n_tensors - 1; i >= 0; i--) {
        const ts_tensor *t = &m->tensors[i];
        if (!is_parameter(t)) continue;
        if (t->slice.at && (end - t->slice.at) * sizeof(float) < m->options.bucket_bytes) continue;
        m->buckets[m->flat.n_buckets] = (ts_slice){t->slice.at, end - t->slice.at};
        m->bucket_nodes[m->flat.n_buckets++] = t->node;
        end = t->slice.at;
    }
    m->flat.buckets = m->buckets;
    return TS_OK;
}

static ts_status list_weights(ts_model *m)
{
    m->weights = calloc((size_t)m->n_tensors, sizeof *m->weights);
    TS_NEED(m->weights, TS_ENOMEM, "no memory for a list of %d tensors", m->n_tensors);
    for (int i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].role == TS_TENSOR_WEIGHT)
            m->weights[m->flat.n_weights++] = m->tensors[i].slice;
    m->flat.weights = m->weights;
    return TS_OK;
}

/* ---- flat buffers ---- */

static ts_status alloc_zeros(ts_model *m, ts_stream *stream, size_t bytes, void *memory_p)
{
    void *memory;
    bytes = bytes ? bytes : 1;
    TS_TRY(ts_device_alloc(m->device, TS_MEMORY_DEVICE, bytes, &memory));
    *(void **)memory_p = memory;
    return ts_stream_fill(stream, memory, 0, bytes);
}

static ts_status alloc_flat(ts_model *m, ts_stream *stream)
{
    ts_flat *f = &m->flat;
    uint8_t *decays = calloc(f->n / TS_VECTOR_BLOCK + 1, 1);
    TS_NEED(decays, TS_ENOMEM, "no memory for the decay mask");
    for (int i = 0; i < m->n_tensors; i++) {
        const ts_tensor *t = &m->tensors[i];
        if (is_parameter(t))
            memset(decays + t->slice.at / TS_VECTOR_BLOCK, t->role == TS_TENSOR_WEIGHT,
                   t->slice.n / TS_VECTOR_BLOCK);
    }
    ts_status status = alloc_zeros(m, stream, f->n * sizeof(float), &f->parameters);
    if (!status) status = alloc_zeros(m, stream, f->n * sizeof(float), &f->gradients);
    if (!status) status = alloc_zeros(m, stream, f->n * sizeof(float), &f->momentum);
    if (!status) status = alloc_zeros(m, stream, f->n_statistics * sizeof(float), &f->statistics);
    if (!status && m->reads_shadow)
        status = alloc_zeros(m, stream, f->n * sizeof(uint16_t), &f->shadow);
    if (!status) status = alloc_zeros(m, stream, f->n / TS_VECTOR_BLOCK, &f->decays);
    if (!status) status = ts_stream_copy(stream, f->decays, decays, f->n / TS_VECTOR_BLOCK);
    if (!status) status = ts_stream_sync(stream);
    free(decays);
    return status;
}

/* ---- open and close ---- */

static ts_status open_parts(ts_model *m)
{
    ts_builder *b = &m->builder;
    b->input = m->options.input;
    b->input.n = 1;
    ts_status built = m->network->build(b, b->input, m->options.classes);
    if (built) return ts_status_pass(__FILE__, __LINE__, built);
    ts_build_cross_entropy(b, b->n - 1, m->options.smoothing);
    if (b->status) return ts_status_pass(__FILE__, __LINE__, b->status);
    TS_TRY(check_readers(m));
    TS_TRY(set_layouts(m));
    TS_TRY(plan_ops(m));
    TS_TRY(list_tensors(m));
    TS_TRY(cut_buckets(m));
    TS_TRY(list_weights(m));
    ts_stream *stream;
    TS_TRY(ts_stream_open(m->device, TS_STREAM_COPY, "model", &stream));
    ts_status status = alloc_flat(m, stream);
    ts_stream_close(stream);
    return status;
}

ts_status ts_model_open(ts_device *device, const ts_network *network,
                        const ts_model_options *options, ts_model **model_p)
{
    ts_model *m = calloc(1, sizeof *m);
    TS_NEED(m, TS_ENOMEM, "no memory for a model");
    m->device = device;
    m->network = network;
    m->options = *options;
    ts_status status = open_parts(m);
    if (status) {
        ts_model_close(m);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *model_p = m;
    return TS_OK;
}

void ts_model_close(ts_model *m)
{
    if (!m) return;
    void *buffers[] = {m->flat.decays,   m->flat.shadow,    m->flat.statistics,
                       m->flat.momentum, m->flat.gradients, m->flat.parameters};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        ts_device_release(m->device, TS_MEMORY_DEVICE, buffers[i]);
    for (int i = 0; m->ops && i < m->builder.n; i++) ts_op_release(m->ops[i]);
    free(m->ops);
    free(m->bucket_nodes);
    free(m->weights);
    free(m->buckets);
    free(m->tensors);
    free(m);
}

/* ---- what it is ---- */

ts_flat *ts_model_flat(ts_model *m)
{
    return &m->flat;
}

const ts_model_options *ts_model_get_options(const ts_model *m)
{
    return &m->options;
}

const char *ts_model_name(const ts_model *m)
{
    return m->network->name;
}

const ts_tensor *ts_model_tensors(const ts_model *m, int *n_p)
{
    *n_p = m->n_tensors;
    return m->tensors;
}

int ts_model_nodes(const ts_model *m)
{
    return m->builder.n;
}

int ts_model_plain_ops(const ts_model *m)
{
    int n = 0;
    for (int i = 1; i < m->builder.n; i++) n += m->ops[i]->ops == &ts_op_reference;
    return n;
}

size_t ts_model_parameter_count(const ts_model *m)
{
    size_t count = 0;
    for (int i = 0; i < m->n_tensors; i++)
        if (is_parameter(&m->tensors[i])) count += m->tensors[i].count;
    return count;
}

double ts_model_forward_macs(const ts_model *m, int first, int last)
{
    double macs = 0;
    for (int i = first > 1 ? first : 1; i < last; i++) {
        const ts_op_desc *d = &m->builder.nodes[i].desc;
        double outputs = d->kind == TS_OP_CONV ? (double)d->out.h * d->out.w : 1;
        if (d->kind == TS_OP_CONV || d->kind == TS_OP_LINEAR)
            macs += outputs * (double)ts_op_plain_weight_count(d);
    }
    return macs;
}

static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ at[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    return h;
}

uint64_t ts_model_signature(const ts_model *m)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < m->n_tensors; i++) {
        const ts_tensor *t = &m->tensors[i];
        uint64_t place[2] = {t->slice.at, t->slice.n};
        h = hash(h, t->name, strlen(t->name) + 1);
        h = hash(h, t->shape, sizeof t->shape);
        h = hash(h, place, sizeof place);
        const char *order = m->ops[t->node]->weight_order;
        h = hash(h, order, strlen(order) + 1);
    }
    return h;
}

/* ---- tensors between a flat vector and PyTorch's order ---- */

/* The op whose order differs from PyTorch's, or NULL. */
static const ts_op *packing_op(const ts_model *m, const ts_tensor *t)
{
    const ts_op *op = m->ops[t->node];
    return t->role == TS_TENSOR_WEIGHT && op->ops->pack ? op : NULL;
}

ts_status ts_model_read(ts_model *m, const ts_tensor *t, const float *vector, float *plain,
                        ts_stream *stream)
{
    float *pinned;
    if (t->role == TS_TENSOR_VOID_BIAS) {
        memset(plain, 0, t->count * sizeof *plain);
        return TS_OK;
    }
    TS_TRY(ts_device_alloc(m->device, TS_MEMORY_PINNED, t->slice.n * sizeof *pinned,
                           (void **)&pinned));
    ts_status status =
        ts_stream_copy(stream, pinned, vector + t->slice.at, t->slice.n * sizeof *pinned);
    if (!status) status = ts_stream_sync(stream);
    const ts_op *op = packing_op(m, t);
    if (!status && op) status = op->ops->unpack(op, plain, pinned);
    if (!status && !op) memcpy(plain, pinned, t->count * sizeof *plain);
    ts_device_release(m->device, TS_MEMORY_PINNED, pinned);
    return status;
}

ts_status ts_model_write(ts_model *m, const ts_tensor *t, float *vector, const float *plain,
                         ts_stream *stream)
{
    float *pinned;
    if (t->role == TS_TENSOR_VOID_BIAS) return TS_OK;
    TS_TRY(ts_device_alloc(m->device, TS_MEMORY_PINNED, t->slice.n * sizeof *pinned,
                           (void **)&pinned));
    memset(pinned, 0, t->slice.n * sizeof *pinned);
    const ts_op *op = packing_op(m, t);
    ts_status status = TS_OK;
    if (op)
        status = op->ops->pack(op, pinned, plain);
    else
        memcpy(pinned, plain, t->count * sizeof *plain);
    if (!status)
        status = ts_stream_copy(stream, vector + t->slice.at, pinned, t->slice.n * sizeof *pinned);
    if (!status) status = ts_stream_sync(stream);
    ts_device_release(m->device, TS_MEMORY_PINNED, pinned);
    return status;
}
