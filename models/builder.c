/* builder.c - the calls that describe a network. A failure stays in the builder, so that a
 * network's page needs no error handling. */
#include "models/builder.h"

#include <stdio.h>
#include <string.h>

static int fail(ts_builder *b, ts_status status)
{
    if (!b->status) b->status = status;
    return -1;
}

static int add_node(ts_builder *b, int from, const char *name, const ts_op_desc *desc)
{
    if (b->status) return -1;
    if (b->n == TS_NODES_MAX)
        return fail(b, TS_ERROR(TS_EUSAGE, "a network has more than %d nodes", TS_NODES_MAX));
    if (desc->out.c < 1 || desc->out.h < 1 || desc->out.w < 1)
        return fail(b, TS_ERROR(TS_EUSAGE,
                                "node %d (%s) would have the output %dx%dx%d: is the input, %dx%d "
                                "pixels, too small for this network?",
                                b->n, name, desc->out.c, desc->out.h, desc->out.w, b->input.h,
                                b->input.w));
    if (ts_op_plain_weight_count(desc)) {
        if (!*name) return fail(b, TS_ERROR(TS_EUSAGE, "node %d has parameters and no name", b->n));
        for (int i = 0; i < b->n; i++)
            if (!strcmp(b->nodes[i].name, name))
                return fail(b, TS_ERROR(TS_EUSAGE,
                                        "nodes %d and %d are both called %s: name parameters apart",
                                        i, b->n, name));
    }
    ts_node *node = &b->nodes[b->n];
    if (strlen(name) >= sizeof node->name)
        return fail(b, TS_ERROR(TS_EUSAGE, "a node's name has at most %zu characters, not as %s",
                                sizeof node->name - 1, name));
    *node = (ts_node){.desc = *desc, .from = from, .add = -1};
    node->desc.node = b->n;
    snprintf(node->name, sizeof node->name, "%s", name);
    return b->n++;
}

/* The output shape of `from`; a wrong index is a failure. */
static ts_shape source(ts_builder *b, int from)
{
    if (!b->status && (from < 0 || from >= b->n))
        fail(b, TS_ERROR(TS_EUSAGE, "node %d of a network reads node %d, which is not there", b->n,
                         from));
    return b->status ? (ts_shape){1, 1, 1, 1} : b->nodes[from].desc.out;
}

ts_shape ts_build_shape(const ts_builder *b, int node)
{
    return node >= 0 && node < b->n ? b->nodes[node].desc.out : (ts_shape){1, 1, 1, 1};
}

int ts_build_input(ts_builder *b)
{
    ts_op_desc desc = {.in = b->input, .out = b->input};
    if (b->n) return fail(b, TS_ERROR(TS_EUSAGE, "a network has one input, its first node"));
    return add_node(b, -1, "", &desc);
}

/* Where a window of `kernel` fits; 0: nowhere, which add_node refuses. */
static int windows(ts_builder *b, int pixels, int kernel, int stride, int padding)
{
    int room = pixels + 2 * padding - kernel;
    if (b->status) return 0;
    if (kernel > 0 && stride > 0 && padding >= 0) return room < 0 ? 0 : room / stride + 1;
    fail(b, TS_ERROR(TS_EUSAGE,
                     "node %d has windows of %d pixels, %d apart, with a padding of %d: kernel and "
                     "stride are 1 or more, padding 0 or more",
                     b->n, kernel, stride, padding));
    return 0;
}

int ts_build_conv(ts_builder *b, int from, const char *name, int channels, int kernel, int stride,
                  int padding)
{
    ts_shape in = source(b, from);
    ts_op_desc desc = {.kind = TS_OP_CONV,
                       .in = in,
                       .out = {1, channels, windows(b, in.h, kernel, stride, padding),
                               windows(b, in.w, kernel, stride, padding)},
                       .kernel = kernel,
                       .stride = stride,
                       .padding = padding};
    return add_node(b, from, name, &desc);
}

int ts_build_batch_norm(ts_builder *b, int from, const char *name, int add, bool relu)
{
    ts_shape in = source(b, from);
    ts_op_desc desc = {.kind = TS_OP_BATCH_NORM,
                       .in = in,
                       .out = in,
                       .add = add >= 0,
                       .relu = relu,
                       .epsilon = 1e-5f,
                       .momentum = 0.1f};
    int node = add_node(b, from, name, &desc);
    if (node < 0 || add < 0) return node;
    ts_shape other = source(b, add);
    if (other.c != in.c || other.h != in.h || other.w != in.w)
        return fail(b, TS_ERROR(TS_EUSAGE, "%s adds %dx%dx%d to %dx%dx%d", name, other.c, other.h,
                                other.w, in.c, in.h, in.w));
    b->nodes[node].add = add;
    return node;
}

static int pool(ts_builder *b, ts_op_kind kind, int from, int kernel, int stride, int padding)
{
    ts_shape in = source(b, from);
    ts_op_desc desc = {.kind = kind,
                       .in = in,
                       .out = {1, in.c, 1, 1},
                       .kernel = kernel,
                       .stride = stride,
                       .padding = padding};
    if (!b->status && kernel > 0 && padding >= kernel)
        return fail(b,
                    TS_ERROR(TS_EUSAGE,
                             "node %d pools windows of %d pixels with a padding of %d, where some "
                             "hold no pixel: a padding below the kernel is served",
                             b->n, kernel, padding));
    if (kernel) {
        desc.out.h = windows(b, in.h, kernel, stride, padding);
        desc.out.w = windows(b, in.w, kernel, stride, padding);
    }
    return add_node(b, from, "", &desc);
}

int ts_build_max_pool(ts_builder *b, int from, int kernel, int stride, int padding)
{
    return pool(b, TS_OP_MAX_POOL, from, kernel, stride, padding);
}

int ts_build_average_pool(ts_builder *b, int from, int kernel, int stride)
{
    return pool(b, TS_OP_AVERAGE_POOL, from, kernel, stride, 0);
}

int ts_build_dropout(ts_builder *b, int from, float probability)
{
    ts_shape in = source(b, from);
    ts_op_desc desc = {.kind = TS_OP_DROPOUT, .in = in, .out = in, .probability = probability};
    return add_node(b, from, "", &desc);
}

int ts_build_linear(ts_builder *b, int from, const char *name, int features, bool relu)
{
    ts_op_desc desc = {
        .kind = TS_OP_LINEAR, .in = source(b, from), .out = {1, features, 1, 1}, .relu = relu};
    int node = add_node(b, from, name, &desc);
    if (node >= 0) b->nodes[node].linear_deviation = b->linear_deviation;
    return node;
}

int ts_build_cross_entropy(ts_builder *b, int from, float smoothing)
{
    ts_shape in = source(b, from);
    ts_op_desc desc = {
        .kind = TS_OP_CROSS_ENTROPY, .in = in, .out = {1, 1, 1, 1}, .smoothing = smoothing};
    return add_node(b, from, "loss", &desc);
}

void ts_build_set_linear_deviation(ts_builder *b, float deviation)
{
    b->linear_deviation = deviation;
}

void ts_build_plain_bias(ts_builder *b, int node)
{
    if (node >= 0) b->nodes[node].plain_bias = true;
}
