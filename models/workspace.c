/* workspace.c - one batch in flight: planned ops, activations and gradients, and the order in
 * which they run.
 *
 * Time in the plan: forward of node i is time i, backward of node i is time 2 n - 1 - i. A buffer
 * lives from the time that writes it to the last time that reads it; ts_arena_plan shares memory
 * between those that never live together. */
#include <stdlib.h>

#include "models/arena.h"
#include "models/model_internal.h"
#include "runtime/device/vector.h"

typedef struct state { /* of one node */
    ts_op *op;
    int output;       /* buffers, by index; -1: none */
    int gradients[2]; /* of its output, one from each reader */
    int readers[2];   /* nodes, in the order of backward */
    size_t saved, packed;
    const ts_tensor *weight, *bias, *running;
} state;

struct ts_workspace {
    ts_model *model;
    int batch;
    bool training;
    ts_control *control;
    state *states;
    ts_buffer *buffers;
    int n_buffers;
    char *arena, *kept; /* activations and gradients; what persists: saved, packed, labels */
    size_t arena_bytes, kept_bytes, scratch_bytes, scratch, labels;
    const float *parameters;
    const uint16_t *shadow;
    float *statistics;
};

/* ---- planning ---- */

static int backward_time(const ts_workspace *w, int node)
{
    return 2 * w->model->builder.n - 1 - node;
}

static int add_buffer(ts_workspace *w, size_t bytes, int first)
{
    w->buffers[w->n_buffers] = (ts_buffer){.bytes = bytes, .first = first, .last = first};
    return w->n_buffers++;
}

static void use(ts_workspace *w, int buffer, int time)
{
    if (buffer >= 0 && w->buffers[buffer].last < time) w->buffers[buffer].last = time;
}

static size_t output_bytes(const ts_op_desc *d)
{
    return ts_layout_count(d->layout, d->out) * ts_type_bytes(d->out_type);
}

/* Does backward of this op read its input, its output? */
static bool rereads_input(const ts_op_desc *d)
{
    return d->kind == TS_OP_CONV || d->kind == TS_OP_BATCH_NORM || d->kind == TS_OP_LINEAR ||
           d->kind == TS_OP_CROSS_ENTROPY;
}

static bool rereads_output(const ts_op_desc *d)
{
    return d->relu;
}

static ts_status plan_ops(ts_workspace *w)
{
    ts_model *m = w->model;
    for (int i = 1; i < m->builder.n; i++) {
        ts_op_desc d = ts_model_desc(m, i, w->batch, w->training);
        ts_op **op = &w->states[i].op;
        TS_TRY(ts_op_plan(m->device, &d, m->options.ops, op));
        TS_NEED(!strcmp((*op)->weight_order, m->ops[i]->weight_order) &&
                    (*op)->weight_n == m->ops[i]->weight_n,
                TS_EUNSUPPORTED, "%s wants its weight as %s for batch %d, the model holds it as %s",
                m->builder.nodes[i].name, (*op)->weight_order, w->batch, m->ops[i]->weight_order);
    }
    return TS_OK;
}

static void plan_forward(ts_workspace *w)
{
    const ts_builder *b = &w->model->builder;
    for (int i = 0; i < b->n; i++) {
        ts_op_desc d = ts_model_desc(w->model, i, w->batch, w->training);
        state *s = &w->states[i];
        s->gradients[0] = s->gradients[1] = s->readers[0] = s->readers[1] = -1;
        s->output = i == b->n - 1 ? -1 : add_buffer(w, output_bytes(&d), i);
        if (i == 0) continue;
        use(w, w->states[b->nodes[i].from].output, i);
        if (b->nodes[i].add >= 0) use(w, w->states[b->nodes[i].add].output, i);
    }
    /* logits may be read after the whole forward */
    use(w, w->states[b->n - 2].output, b->n - 1);
}

/* The gradient of `node`'s output that `reader` writes. */
static void add_gradient(ts_workspace *w, int node, int reader)
{
    state *s = &w->states[node];
    ts_op_desc d = ts_model_desc(w->model, node, w->batch, true);
    int slot = s->gradients[0] >= 0;
    s->gradients[slot] = add_buffer(w, output_bytes(&d), backward_time(w, reader));
    s->readers[slot] = reader;
    use(w, s->gradients[slot], backward_time(w, node));
}

static void plan_backward(ts_workspace *w)
{
    const ts_builder *b = &w->model->builder;
    for (int i = b->n - 1; i > 0; i--) {
        const ts_op_desc *d = &b->nodes[i].desc;
        int time = backward_time(w, i);
        if (rereads_input(d)) use(w, w->states[b->nodes[i].from].output, time);
        if (rereads_output(d)) use(w, w->states[i].output, time);
        if (b->nodes[i].from > 0) add_gradient(w, b->nodes[i].from, i);
        if (b->nodes[i].add > 0) add_gradient(w, b->nodes[i].add, i);
    }
}

/* cuBLAS takes no workspace that is less aligned (and the device's memory is). */
enum { ALIGN = 256 };

static size_t keep(ts_workspace *w, size_t bytes)
{
    size_t at = w->kept_bytes;
    w->kept_bytes += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static void plan_kept(ts_workspace *w)
{
    for (int i = 1; i < w->model->builder.n; i++) {
        state *s = &w->states[i];
        s->saved = keep(w, s->op->saved_bytes);
        s->packed = keep(w, s->op->packed_bytes);
        if (s->op->scratch_bytes > w->scratch_bytes) w->scratch_bytes = s->op->scratch_bytes;
    }
    w->scratch = keep(w, w->scratch_bytes);
    w->labels = keep(w, (size_t)w->batch * sizeof(int32_t));
}

static void find_tensors(ts_workspace *w)
{
    const ts_model *m = w->model;
    for (int i = 0; i < m->n_tensors; i++) {
        const ts_tensor *t = &m->tensors[i];
        state *s = &w->states[t->node];
        if (t->role == TS_TENSOR_WEIGHT || t->role == TS_TENSOR_GAMMA) s->weight = t;
        if (t->role == TS_TENSOR_BIAS || t->role == TS_TENSOR_BETA) s->bias = t;
        if (t->role == TS_TENSOR_RUNNING_MEAN) s->running = t;
    }
}

static ts_status open_parts(ts_workspace *w)
{
    ts_device *device = w->model->device;
    size_t nodes = (size_t)w->model->builder.n;
    w->states = calloc(nodes, sizeof *w->states);
    w->buffers = calloc(3 * nodes, sizeof *w->buffers);
    TS_NEED(w->states && w->buffers, TS_ENOMEM, "no memory for a workspace of %zu nodes", nodes);
    TS_TRY(plan_ops(w));
    plan_forward(w);
    if (w->training) plan_backward(w);
    w->arena_bytes = ts_arena_plan(w->buffers, w->n_buffers);
    plan_kept(w);
    find_tensors(w);
    TS_TRY(ts_device_alloc(device, TS_MEMORY_DEVICE, w->arena_bytes, (void **)&w->arena));
    return ts_device_alloc(device, TS_MEMORY_DEVICE, w->kept_bytes, (void **)&w->kept);
}

ts_status ts_workspace_open(ts_model *model, int batch, bool training, ts_control *control,
                            ts_workspace **workspace_p)
{
    ts_workspace *w = calloc(1, sizeof *w);
    TS_NEED(w, TS_ENOMEM, "no memory for a workspace");
    w->model = model;
    w->batch = batch;
    w->training = training;
    w->control = control;
    ts_status status = open_parts(w);
    if (status) {
        ts_workspace_close(w);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *workspace_p = w;
    return TS_OK;
}

void ts_workspace_close(ts_workspace *w)
{
    if (!w) return;
    ts_device_release(w->model->device, TS_MEMORY_DEVICE, w->kept);
    ts_device_release(w->model->device, TS_MEMORY_DEVICE, w->arena);
    for (int i = 0; w->states && i < w->model->builder.n; i++) ts_op_release(w->states[i].op);
    free(w->buffers);
    free(w->states);
    free(w);
}

size_t ts_workspace_bytes(const ts_workspace *w)
{
    return w->arena_bytes + w->kept_bytes;
}

/* ---- running ---- */

static void *buffer(const ts_workspace *w, int index)
{
    return index < 0 ? NULL : w->arena + w->buffers[index].at;
}

ts_batch ts_workspace_batch(const ts_workspace *w)
{
    ts_op_desc d = ts_model_desc(w->model, 0, w->batch, w->training);
    return (ts_batch){.input = buffer(w, w->states[0].output),
                      .labels = (int32_t *)(void *)(w->kept + w->labels),
                      .shape = d.out,
                      .layout = d.layout,
                      .type = d.out_type};
}

const float *ts_workspace_logits(const ts_workspace *w)
{
    return buffer(w, w->states[w->model->builder.n - 2].output);
}

/* What forward and backward have in common. */
static ts_op_args common_args(const ts_workspace *w, int i)
{
    const ts_node *node = &w->model->builder.nodes[i];
    const state *s = &w->states[i];
    ts_op_args a = {.x = buffer(w, w->states[node->from].output),
                    .y = buffer(w, s->output),
                    .control = w->control,
                    .scratch = w->scratch_bytes ? w->kept + w->scratch : NULL};
    if (s->op->saved_bytes) a.saved = w->kept + s->saved;
    if (s->op->packed_bytes) a.packed = w->kept + s->packed;
    if (node->add >= 0) a.residual = buffer(w, w->states[node->add].output);
    if (s->weight) {
        a.weight = w->parameters + s->weight->slice.at;
        if (w->shadow) a.shadow = w->shadow + s->weight->slice.at;
    }
    if (s->bias) a.bias = w->parameters + s->bias->slice.at;
    if (s->running) a.running = w->statistics + s->running->slice.at;
    if (node->desc.kind == TS_OP_CROSS_ENTROPY)
        a.labels = (const int32_t *)(const void *)(w->kept + w->labels);
    return a;
}

ts_status ts_workspace_refresh(ts_workspace *w, const float *parameters, const uint16_t *shadow,
                               float *statistics, ts_stream *stream)
{
    w->parameters = parameters;
    w->shadow = shadow;
    w->statistics = statistics;
    for (int i = 1; i < w->model->builder.n; i++) {
        ts_op *op = w->states[i].op;
        if (!op->packed_bytes) continue;
        ts_op_args a = common_args(w, i);
        TS_TRY(ts_op_launch(op, TS_REFRESH, &a, stream));
    }
    return TS_OK;
}

ts_status ts_workspace_forward(ts_workspace *w, int first, int last, ts_stream *stream)
{
    for (int i = first > 1 ? first : 1; i < last; i++) {
        ts_op_args a = common_args(w, i);
        TS_TRY(ts_op_launch(w->states[i].op, TS_FORWARD, &a, stream));
    }
    return TS_OK;
}

/* The buffer that `reader` writes the gradient of `node`'s output to. `second`: a reader that
 * reads it twice (as input and as residual) has two. */
static void *gradient_from(const ts_workspace *w, int node, int reader, bool second)
{
    const state *s = &w->states[node];
    if (node <= 0) return NULL;
    bool twice = s->readers[0] == s->readers[1];
    int slot = s->readers[0] == reader ? (twice && second) : 1;
    return buffer(w, s->gradients[slot]);
}

typedef struct listener { /* of complete buckets */
    ts_ready *ready;
    void *context;
} listener;

/* The gradients of node i's parameters are enqueued. */
static ts_status tell(const ts_model *m, int i, listener l)
{
    for (int b = 0; l.ready && b < m->flat.n_buckets; b++)
        if (m->bucket_nodes[b] == i) TS_TRY(l.ready(l.context, b));
    return TS_OK;
}

static ts_status backward_node(ts_workspace *w, int i, float *gradients, listener l,
                               ts_stream *stream)
{
    const ts_node *node = &w->model->builder.nodes[i];
    const state *s = &w->states[i];
    ts_op_args a = common_args(w, i);
    a.dy = buffer(w, s->gradients[0]);
    a.dy2 = buffer(w, s->gradients[1]);
    a.dx = gradient_from(w, node->from, i, false);
    if (node->add >= 0) a.dresidual = gradient_from(w, node->add, i, true);
    if (s->weight) a.dweight = gradients + s->weight->slice.at;
    if (s->bias) a.dbias = gradients + s->bias->slice.at;
    /* weights first: their bucket may leave while data gradients are still being made */
    if (node->desc.kind == TS_OP_CONV || node->desc.kind == TS_OP_LINEAR) {
        TS_TRY(ts_op_launch(s->op, TS_BACKWARD_WEIGHTS, &a, stream));
        TS_TRY(tell(w->model, i, l));
        return a.dx ? ts_op_launch(s->op, TS_BACKWARD_DATA, &a, stream) : TS_OK;
    }
    /* what reads the picture has no gradient to hand on */
    if (a.dx || a.dresidual || s->weight) TS_TRY(ts_op_launch(s->op, TS_BACKWARD_DATA, &a, stream));
    return tell(w->model, i, l);
}

ts_status ts_workspace_backward(ts_workspace *w, int first, int last, float *gradients,
                                ts_ready *ready, void *context, ts_stream *stream)
{
    TS_NEED(w->training, TS_EUSAGE, "backward in a workspace that was opened for evaluation");
    for (int i = last - 1; i >= first && i > 0; i--)
        TS_TRY(backward_node(w, i, gradients, (listener){ready, context}, stream));
    return TS_OK;
}
