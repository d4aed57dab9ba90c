/* contract_op.c - one contract for every op backend.
 *
 * The reference is checked by central differences, every other backend against the reference: each
 * pass, each type, relative norm of the difference; a second run gives the same bits, and nothing
 * around a buffer is touched. A failure names the op, the backend and the pass or buffer. */
#include <math.h>
#include <omp.h>

#include "ops/element.h"
#include "tests/check.h"

/* The device under test, and the host's, where the reference runs. */
static ts_device *device, *host;
static ts_stream *stream, *host_stream;

/* ---- cases ---- */

#define CONV(ic, ih, oc, oh, k, s, p, il)                                                          \
    .kind = TS_OP_CONV, .in = {3, ic, ih, ih}, .out = {3, oc, oh, oh}, .kernel = k, .stride = s,   \
    .padding = p, .in_layout = il, .layout = TS_NCHW16C
#define NORM(c, h, l)                                                                              \
    .kind = TS_OP_BATCH_NORM, .in = {4, c, h, h}, .out = {4, c, h, h}, .in_layout = l,             \
    .layout = l, .epsilon = 1e-5f, .momentum = 0.1f
#define POOL(k, c, ih, oh, ker, s, p, il, ol)                                                      \
    .kind = k, .in = {2, c, ih, ih}, .out = {2, c, oh, oh}, .kernel = ker, .stride = s,            \
    .padding = p, .in_layout = il, .layout = ol

static const ts_op_desc cases[] = {
    {CONV(3, 12, 32, 12, 3, 1, 1, TS_NCHW)},
    {CONV(32, 8, 48, 8, 3, 1, 1, TS_NCHW16C)},
    {CONV(32, 8, 32, 4, 3, 2, 1, TS_NCHW16C)},
    {CONV(32, 8, 64, 4, 1, 2, 0, TS_NCHW16C)},
    {CONV(64, 4, 64, 4, 3, 1, 1, TS_NCHW16C)},
    {CONV(3, 20, 16, 10, 7, 2, 3, TS_NCHW)},
    {CONV(20, 8, 20, 8, 3, 1, 1, TS_NCHW16C)}, /* padding channels, here and in the next */
    {CONV(8, 8, 16, 4, 3, 2, 1, TS_NCHW16C)},
    {CONV(8, 8, 24, 4, 1, 2, 0, TS_NCHW16C)},
    {CONV(3, 12, 8, 12, 3, 1, 1, TS_NCHW)},
    /* Winograd's method: cut tiles, a chunk that is not full; many channels */
    {CONV(16, 10, 16, 10, 3, 1, 1, TS_NCHW16C)},
    {CONV(16, 29, 64, 29, 3, 1, 1, TS_NCHW16C)},
    {CONV(128, 6, 16, 6, 3, 1, 1, TS_NCHW16C)},
    {CONV(32, 8, 128, 8, 3, 1, 1, TS_NCHW16C)},
    {CONV(8, 10, 8, 10, 3, 1, 1, TS_NCHW16C)},
    {CONV(8, 8, 32, 8, 3, 1, 1, TS_NCHW16C)},
    {CONV(256, 6, 128, 6, 3, 1, 1, TS_NCHW16C)},
    {CONV(128, 4, 256, 4, 3, 1, 1, TS_NCHW16C)},
    {CONV(16, 54, 32, 27, 3, 2, 1, TS_NCHW16C)}, /* more than a chunk of weight_gradient.c */
    {CONV(16, 40, 32, 40, 3, 1, 1, TS_NCHW16C)},
    {CONV(32, 8, 20, 4, 1, 2, 0, TS_NCHW16C)},
    {CONV(256, 8, 256, 8, 3, 1, 1, TS_NCHW16C)}, /* fp32 inside, where that is faster */
    {NORM(32, 6, TS_NCHW16C)},
    {NORM(32, 6, TS_NCHW16C), .relu = true},
    {NORM(32, 6, TS_NCHW16C), .relu = true, .add = true},
    {NORM(20, 9, TS_NCHW16C), .relu = true, .add = true},
    {NORM(20, 5, TS_NHWC), .relu = true},
    {NORM(40, 3, TS_NHWC), .add = true},
    {NORM(24, 3, TS_NCHW8C), .relu = true},
    {POOL(TS_OP_MAX_POOL, 32, 8, 4, 2, 2, 0, TS_NCHW16C, TS_NCHW16C)},
    {POOL(TS_OP_MAX_POOL, 20, 9, 5, 3, 2, 1, TS_NCHW16C, TS_NCHW)},
    {POOL(TS_OP_MAX_POOL, 6, 8, 4, 2, 2, 0, TS_NHWC, TS_NHWC)},
    {POOL(TS_OP_AVERAGE_POOL, 32, 4, 1, 0, 0, 0, TS_NCHW16C, TS_NCHW)},
    {POOL(TS_OP_AVERAGE_POOL, 20, 3, 1, 0, 0, 0, TS_NCHW16C, TS_NCHW)},
    {POOL(TS_OP_AVERAGE_POOL, 20, 3, 1, 0, 0, 0, TS_NHWC, TS_NCHW)},
    {POOL(TS_OP_AVERAGE_POOL, 8, 8, 4, 2, 2, 0, TS_NHWC, TS_NHWC)},
    {.kind = TS_OP_LINEAR, .in = {5, 24, 1, 1}, .out = {5, 10, 1, 1}, .out_type = TS_F32},
    {.kind = TS_OP_LINEAR, .in = {5, 6, 3, 3}, .out = {5, 7, 1, 1}, .relu = true},
    {.kind = TS_OP_DROPOUT,
     .in = {6, 33, 1, 1},
     .out = {6, 33, 1, 1},
     .probability = 0.4f,
     .node = 3},
    {.kind = TS_OP_CROSS_ENTROPY, .in = {6, 10, 1, 1}, .out = {6, 1, 1, 1}, .smoothing = 0.1f},
    {.kind = TS_OP_CROSS_ENTROPY, .in = {6, 3, 1, 1}, .out = {6, 1, 1, 1}},
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* ---- everything one run works on ---- */

enum {
    GUARD = 256 /* which leaves the alignment that workspaces have */,
    RUNNING = 2 * 128,
    LABELS = 8
};
#define PATTERN 0x5a

/* What is being checked, for failures: "conv ... by onednn". */
static char subject[256];

static void name_subject(const ts_op *op)
{
    char text[160];
    ts_op_describe(&op->desc, text, sizeof text);
    snprintf(subject, sizeof subject, "%s, %s, by %s", text,
             op->desc.training ? "training" : "inference", op->ops->name);
}

/* Memory with guard bytes on both sides. */
static void *guarded(size_t bytes)
{
    void *memory;
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, bytes + 2 * GUARD, &memory));
    memset(memory, PATTERN, bytes + 2 * GUARD);
    return (unsigned char *)memory + GUARD;
}

static void release(const void *at)
{
    if (at) ts_device_release(device, TS_MEMORY_DEVICE, (unsigned char *)(uintptr_t)at - GUARD);
}

static void check_guard(const void *at, size_t bytes, const char *what)
{
    const unsigned char *start = at;
    for (size_t i = 0; at && i < GUARD; i++)
        if (start[bytes + i] != PATTERN || *(start - 1 - i) != PATTERN)
            fail_msg("%s: %s: a byte %zu from its ends was overwritten", subject, what, i);
}

typedef struct bench {
    ts_op_desc d;
    ts_op *op;
    size_t x_n, y_n; /* elements, padding included */
    ts_type y_type;
    /* plain fp32, n c h w: the inputs, the same for every backend */
    float *x, *residual, *dy, *dy2, *weight, *bias;
    float *running;
    int32_t *labels;
    ts_control *control;
    ts_op_args a;
    ts_stream *stream;
    /* plain results */
    float *y, *dx, *dresidual, *dweight;
} bench;

static float noise(uint64_t what, size_t i)
{
    return 2 * ts_random_unit(ts_random(77, what, i).v[0]) - 1;
}

static float *random_floats(uint64_t what, size_t n, float scale)
{
    float *v = malloc((n + 1) * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = scale * noise(what, i);
    return v;
}

/* Between plain fp32 and an activation in its layout and type. */
static void put(void *to, const float *plain, ts_shape s, ts_layout layout, ts_type type)
{
    memset(to, 0, ts_layout_count(layout, s) * ts_type_bytes(type));
    for (int n = 0; n < s.n; n++)
        for (int c = 0; c < s.c; c++)
            for (int h = 0; h < s.h; h++)
                for (int w = 0; w < s.w; w++) {
                    float v = plain[ts_layout_at(TS_NCHW, s, n, c, h, w)];
                    size_t at = ts_layout_at(layout, s, n, c, h, w);
                    if (type == TS_BF16)
                        ((uint16_t *)to)[at] = ts_bf16_from_float(v);
                    else
                        ((float *)to)[at] = v;
                }
}

static float *take(const void *from, ts_shape s, ts_layout layout, ts_type type)
{
    float *plain = malloc((ts_shape_count(s) + 1) * sizeof *plain);
    for (int n = 0; n < s.n; n++)
        for (int c = 0; c < s.c; c++)
            for (int h = 0; h < s.h; h++)
                for (int w = 0; w < s.w; w++) {
                    size_t at = ts_layout_at(layout, s, n, c, h, w);
                    plain[ts_layout_at(TS_NCHW, s, n, c, h, w)] =
                        type == TS_BF16 ? ts_bf16_to_float(((const uint16_t *)from)[at])
                                        : ((const float *)from)[at];
                }
    return plain;
}

/* Padding channels of a blocked layout hold zeros. */
static void check_padding(const void *at, ts_shape s, ts_layout layout, ts_type type,
                          const char *what)
{
    size_t all = ts_layout_count(layout, s), nonzero = 0, bytes = ts_type_bytes(type);
    float *plain = take(at, s, layout, type);
    for (size_t i = 0; i < all * bytes; i++) nonzero += ((const unsigned char *)at)[i] != 0;
    unsigned char *copy = malloc(all * bytes + 1);
    put(copy, plain, s, layout, type);
    for (size_t i = 0; i < all * bytes; i++) nonzero -= copy[i] != 0;
    free(copy);
    free(plain);
    if (nonzero) fail_msg("%s: %s: padding channels are not zero", subject, what);
}

static void prepare(bench *b, const ts_op_desc *desc, const ts_op_ops *backend)
{
    memset(b, 0, sizeof *b);
    b->d = *desc;
    ts_op_desc *d = &b->d;
    b->y_type = d->kind == TS_OP_LINEAR ? d->out_type : d->type;
    bool reference = backend == &ts_op_reference;
    b->stream = reference ? host_stream : stream;
    OK(backend->plan(reference ? host : device, d, &b->op));
    ts_op *op = b->op;
    size_t x_plain = ts_shape_count(d->in), y_plain = ts_shape_count(d->out);
    b->x = random_floats(1, x_plain, 1);
    b->residual = random_floats(2, y_plain, 1);
    b->dy = random_floats(3, y_plain, 1);
    b->dy2 = random_floats(4, y_plain, 1);
    size_t weights = ts_op_plain_weight_count(d);
    float scale = d->kind == TS_OP_BATCH_NORM ? 1 : 1 / sqrtf((float)(weights / (size_t)d->out.c));
    b->weight = random_floats(5, weights, scale);
    b->bias = random_floats(6, ts_op_plain_bias_count(d), 1);
    b->running = guarded(RUNNING * sizeof *b->running);
    b->labels = guarded(LABELS * sizeof *b->labels);
    b->control = guarded(sizeof *b->control);
    for (int c = 0; c < RUNNING / 2; c++) b->running[c] = 0.3f * noise(7, (size_t)c);
    for (int c = 0; c < d->in.c && d->kind == TS_OP_BATCH_NORM; c++)
        b->running[d->in.c + c] = 1 + 0.5f * noise(8, (size_t)c);
    for (int n = 0; n < LABELS; n++) b->labels[n] = n == 1 ? -1 : (n * 7) % (d->in.c ? d->in.c : 1);
    *b->control = (ts_control){.seed = 9, .step = 4};

    b->x_n = ts_layout_count(d->in_layout, d->in);
    b->y_n = ts_layout_count(d->layout, d->out);
    size_t x_bytes = b->x_n * ts_type_bytes(d->type), y_bytes = b->y_n * ts_type_bytes(b->y_type);
    void *x = guarded(x_bytes), *residual = guarded(y_bytes);
    put(x, b->x, d->in, d->in_layout, d->type);
    put(residual, b->residual, d->out, d->layout, b->y_type);
    float *weight = guarded(op->weight_n * 4), *bias = guarded(op->bias_n * 4);
    memset(weight, 0, op->weight_n * 4);
    if (op->ops->pack)
        OK(op->ops->pack(op, weight, b->weight));
    else
        memcpy(weight, b->weight, weights * 4);
    memcpy(bias, b->bias, ts_op_plain_bias_count(d) * 4);
    uint16_t *shadow = op->reads_shadow ? guarded(op->weight_n * 2) : NULL;
    for (size_t i = 0; shadow && i < op->weight_n; i++) shadow[i] = ts_bf16_from_float(weight[i]);
    b->a = (ts_op_args){.x = x,
                        .residual = d->add ? residual : NULL,
                        .y = guarded(y_bytes),
                        .weight = weight,
                        .bias = bias,
                        .shadow = shadow,
                        .dweight = guarded(op->weight_n * 4),
                        .dbias = guarded(op->bias_n * 4),
                        .running = b->running,
                        .labels = b->labels,
                        .control = b->control,
                        .packed = guarded(op->packed_bytes),
                        .saved = guarded(op->saved_bytes),
                        .scratch = guarded(op->scratch_bytes)};
    if (d->training) {
        void *dy = guarded(y_bytes), *dy2 = d->two_readers ? guarded(y_bytes) : NULL;
        put(dy, b->dy, d->out, d->layout, b->y_type);
        if (dy2) put(dy2, b->dy2, d->out, d->layout, b->y_type);
        b->a.dy = dy;
        b->a.dy2 = dy2;
        bool norm = d->kind == TS_OP_BATCH_NORM; /* the rest of it may be wanted all the same */
        b->a.dx = d->needs_dx || !norm ? guarded(x_bytes) : NULL;
        b->a.dresidual = d->add ? guarded(y_bytes) : NULL;
    }
    if (!d->add) release(residual);
}

static void run_passes(bench *b)
{
    if (b->op->packed_bytes) OK(ts_op_launch(b->op, TS_REFRESH, &b->a, b->stream));
    OK(ts_op_launch(b->op, TS_FORWARD, &b->a, b->stream));
    if (b->d.training) {
        bool weights = b->d.kind == TS_OP_CONV || b->d.kind == TS_OP_LINEAR;
        if (weights) OK(ts_op_launch(b->op, TS_BACKWARD_WEIGHTS, &b->a, b->stream));
        if (b->d.needs_dx || !weights) OK(ts_op_launch(b->op, TS_BACKWARD_DATA, &b->a, b->stream));
    }
    OK(ts_stream_sync(b->stream));
}

static void collect(bench *b)
{
    const ts_op_desc *d = &b->d;
    const ts_op *op = b->op;
    size_t x_bytes = b->x_n * ts_type_bytes(d->type), y_bytes = b->y_n * ts_type_bytes(b->y_type);
    name_subject(op);
    b->y = take(b->a.y, d->out, d->layout, b->y_type);
    check_guard(b->a.y, y_bytes, "y");
    check_guard(b->a.packed, op->packed_bytes, "packed");
    check_guard(b->a.saved, op->saved_bytes, "saved");
    check_guard(b->a.scratch, op->scratch_bytes, "scratch");
    check_padding(b->a.y, d->out, d->layout, b->y_type, "y");
    if (!d->training) return;
    if (d->needs_dx) {
        b->dx = take(b->a.dx, d->in, d->in_layout, d->type);
        check_guard(b->a.dx, x_bytes, "dx");
        check_padding(b->a.dx, d->in, d->in_layout, d->type, "dx");
    }
    if (d->add) {
        b->dresidual = take(b->a.dresidual, d->out, d->layout, d->type);
        check_guard(b->a.dresidual, y_bytes, "dresidual");
        check_padding(b->a.dresidual, d->out, d->layout, d->type, "dresidual");
    }
    check_guard(b->a.dweight, op->weight_n * 4, "dweight");
    check_guard(b->a.dbias, op->bias_n * 4, "dbias");
    size_t weights = ts_op_plain_weight_count(d);
    b->dweight = malloc((weights + 1) * sizeof(float));
    if (op->ops->unpack)
        OK(op->ops->unpack(op, b->dweight, b->a.dweight));
    else
        memcpy(b->dweight, b->a.dweight, weights * 4);
}

static void finish(bench *b)
{
    const ts_op_args *a = &b->a;
    const void *buffers[] = {a->x,       a->residual, a->y,      a->dy,        a->dy2,
                             a->weight,  a->bias,     a->dx,     a->dresidual, a->dweight,
                             a->dbias,   a->packed,   a->saved,  a->scratch,   a->shadow,
                             b->running, b->labels,   b->control};
    float *plain[] = {b->x,    b->residual, b->dy, b->dy2,       b->weight,
                      b->bias, b->y,        b->dx, b->dresidual, b->dweight};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) release(buffers[i]);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) free(plain[i]);
    ts_op_release(b->op);
}

/* ---- backends against the reference ---- */

static void compare(const bench *b, const char *what, const float *mine, const float *theirs,
                    size_t n)
{
    double error = 0, norm = 0, limit = b->d.type == TS_BF16 ? 1e-2 : 1e-5;
    for (size_t i = 0; i < n; i++) {
        double e = (double)mine[i] - theirs[i];
        error += e * e;
        norm += (double)theirs[i] * theirs[i];
    }
    if (!(sqrt(error) <= limit * sqrt(norm) + 1e-12))
        fail_msg("%s: %s differs by %.2e of its norm, at most %.0e", subject, what,
                 sqrt(error / norm), limit);
}

static void compare_all(const bench *mine, const bench *theirs)
{
    const ts_op_desc *d = &mine->d;
    size_t x = ts_shape_count(d->in), y = ts_shape_count(d->out);
    name_subject(mine->op);
    compare(mine, "y", mine->y, theirs->y, y);
    if (d->kind == TS_OP_BATCH_NORM)
        compare(mine, "running statistics", mine->running, theirs->running, 2 * (size_t)d->in.c);
    if (d->kind == TS_OP_CROSS_ENTROPY) {
        float a = (float)mine->control->loss_sum, r = (float)theirs->control->loss_sum;
        compare(mine, "loss", &a, &r, 1);
        assert_int_equal(mine->control->correct, theirs->control->correct);
        assert_int_equal(mine->control->samples, theirs->control->samples);
    }
    if (!d->training) return;
    if (d->needs_dx) compare(mine, "dx", mine->dx, theirs->dx, x);
    if (d->add) compare(mine, "dresidual", mine->dresidual, theirs->dresidual, y);
    compare(mine, "dweight", mine->dweight, theirs->dweight, ts_op_plain_weight_count(d));
    compare(mine, "dbias", mine->a.dbias, theirs->a.dbias, ts_op_plain_bias_count(d));
}

static void same_bits(const bench *a, const bench *b)
{
    const ts_op_desc *d = &a->d;
    size_t y = ts_shape_count(d->out) * 4, x = ts_shape_count(d->in) * 4;
    const struct {
        const char *what;
        const void *first, *second;
        size_t bytes;
    } results[] = {
        {"y", a->y, b->y, y},
        {"running statistics", a->running, b->running, RUNNING * sizeof *a->running},
        {"dx", a->dx, b->dx, a->dx ? x : 0},
        {"dresidual", a->dresidual, b->dresidual, a->dresidual ? y : 0},
        {"dweight", a->dweight, b->dweight, a->dweight ? ts_op_plain_weight_count(d) * 4 : 0},
        {"dbias", a->a.dbias, b->a.dbias, d->training ? ts_op_plain_bias_count(d) * 4 : 0},
    };
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i].bytes && memcmp(results[i].first, results[i].second, results[i].bytes))
            fail_msg("%s: %s: a second run gives other bits", subject, results[i].what);
}

static int compare_case(const ts_op_desc *desc)
{
    int compared = 0;
    for (int i = 0; ts_op_backends[i]; i++) {
        const ts_op_ops *backend = ts_op_backends[i];
        if (backend == &ts_op_reference || !backend->serves(device, desc, NULL)) continue;
        bench mine, again, theirs;
        prepare(&mine, desc, backend);
        prepare(&again, desc, backend);
        prepare(&theirs, desc, &ts_op_reference);
        run_passes(&mine);
        run_passes(&again);
        run_passes(&theirs);
        collect(&mine);
        collect(&again);
        collect(&theirs);
        compare_all(&mine, &theirs);
        same_bits(&mine, &again);
        finish(&mine);
        finish(&again);
        finish(&theirs);
        compared++;
    }
    return compared;
}

/* A case as the device under test takes it: CUDA knows no blocked layouts, and of a convolution in
 * blocks other than the processor's the library makes plain loops. */
static ts_op_desc case_of(int i, ts_type type)
{
    ts_op_desc d = cases[i];
    bool cuda = !strcmp(device->ops->name, "cuda");
    ts_layout best = ts_op_best_layout(device, type, NULL);
    if (d.kind == TS_OP_CONV) {
        d.in_layout = ts_layout_block(d.in_layout) > 1 ? best : ts_op_picture_layout(device, best);
        d.layout = best;
    } else if (cuda) {
        if (ts_layout_block(d.in_layout) > 1) d.in_layout = TS_NHWC;
        if (ts_layout_block(d.layout) > 1) d.layout = TS_NHWC;
    }
    d.type = type;
    d.out_type = d.kind == TS_OP_LINEAR && !d.relu ? TS_F32 : type;
    return d;
}

static void test_backends(void **state)
{
    int compared[2] = {0, 0};
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (int type = 0; type < 2; type++)
            for (int mode = 0; mode < 4; mode++) {
                ts_op_desc d = case_of(i, type ? TS_BF16 : TS_F32);
                d.two_readers = mode == 2;
                if (d.kind == TS_OP_CROSS_ENTROPY && (type || d.two_readers)) continue;
                d.training = mode > 0;
                d.needs_dx = mode != 3;
                if (mode == 3 && d.kind != TS_OP_CONV && d.kind != TS_OP_BATCH_NORM) continue;
                compared[type] += compare_case(&d);
            }
    print_message("%d fp32 and %d bf16 comparisons\n", compared[0], compared[1]);
    assert_true(compared[0] > 40 && compared[1] > 30);
}

/* OpenMP's number of threads is each thread's own: that of a program's main thread, which plans, is
 * not that of the stream's, which runs. The guards behind scratch tell. */
static void test_planned_on_another_thread(void **state)
{
    int threads = omp_get_max_threads();
    (void)state;
    omp_set_num_threads(1);
    for (int i = 0; i < N_CASES; i++)
        for (int type = 0; type < 2; type++) {
            ts_op_desc d = case_of(i, type ? TS_BF16 : TS_F32);
            if (d.kind != TS_OP_CONV || d.in.h > 32 || d.in.c > 128) continue;
            d.training = d.needs_dx = true;
            compare_case(&d);
        }
    omp_set_num_threads(threads);
}

/* ---- a number that is none ---- */

/* A NaN at x[at] makes NaN at least what it makes of the reference: a diverged model shows in its
 * loss. Returns how many results were NaN. */
static int check_nan(const ts_op_ops *backend, const ts_op_desc *d, size_t at)
{
    bench mine, theirs, *both[] = {&mine, &theirs};
    int found = 0;
    prepare(&mine, d, backend);
    prepare(&theirs, d, &ts_op_reference);
    for (int i = 0; i < 2; i++) {
        bench *b = both[i];
        b->x[at] = NAN;
        put((void *)(uintptr_t)b->a.x, b->x, d->in, d->in_layout, d->type);
        run_passes(b);
        b->y = take(b->a.y, d->out, d->layout, b->y_type);
    }
    name_subject(mine.op);
    for (size_t i = 0; i < ts_shape_count(d->out); i++) {
        if (!isnan(theirs.y[i])) continue;
        found++;
        if (!isnan(mine.y[i]))
            fail_msg("%s: x[%zu] is NaN and y[%zu] %g", subject, at, i, (double)mine.y[i]);
    }
    if (isnan(theirs.control->loss_sum)) {
        found++;
        if (!isnan(mine.control->loss_sum))
            fail_msg("%s: x[%zu] is NaN and the loss %g", subject, at, mine.control->loss_sum);
    }
    finish(&mine);
    finish(&theirs);
    return found;
}

static void test_nan_stays(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (int type = 0; type < 2; type++)
            for (int training = 0; training < 2; training++) {
                ts_op_desc d = case_of(i, type ? TS_BF16 : TS_F32);
                if (d.in.h > 32 || d.in.c > 128) continue; /* adds time, nothing else */
                if (d.kind == TS_OP_CROSS_ENTROPY && type) continue;
                d.training = d.needs_dx = training;
                size_t n = ts_shape_count(d.in), at[] = {0, n / 2, n / 3, n - 1}, found = 0;
                size_t places = d.kind == TS_OP_DROPOUT ? 4 : 2; /* some are dropped */
                for (int b = 0; ts_op_backends[b]; b++) {
                    const ts_op_ops *backend = ts_op_backends[b];
                    if (backend == &ts_op_reference || !backend->serves(device, &d, NULL)) continue;
                    for (size_t p = 0; p < places; p++)
                        found += (size_t)check_nan(backend, &d, at[p]);
                    if (!found) fail_msg("%s: no NaN comes of one in x", subject);
                }
            }
}

/* A batch of more pictures than a backend may take at once gives what its pictures give one by one,
 * and the sum of their weight gradients. (For the reference it would be too much.) */
static void check_pictures(const ts_op_ops *backend, const ts_op_desc *desc)
{
    ts_op_desc alone = *desc;
    alone.in.n = alone.out.n = 1;
    size_t x = ts_shape_count(alone.in), y = ts_shape_count(alone.out);
    size_t weights = ts_op_plain_weight_count(desc);
    float *sum = calloc(weights, sizeof *sum);
    bench all;
    prepare(&all, desc, backend);
    run_passes(&all);
    collect(&all);
    for (int n = 0; n < desc->in.n; n++) {
        bench one;
        prepare(&one, &alone, backend);
        memcpy(one.x, all.x + (size_t)n * x, x * sizeof *one.x);
        memcpy(one.dy, all.dy + (size_t)n * y, y * sizeof *one.dy);
        put((void *)(uintptr_t)one.a.x, one.x, alone.in, alone.in_layout, alone.type);
        put((void *)(uintptr_t)one.a.dy, one.dy, alone.out, alone.layout, alone.type);
        run_passes(&one);
        collect(&one);
        name_subject(all.op);
        compare(&all, "y of a picture", all.y + (size_t)n * y, one.y, y);
        compare(&all, "dx of a picture", all.dx + (size_t)n * x, one.dx, x);
        for (size_t i = 0; i < weights; i++) sum[i] += one.dweight[i];
        finish(&one);
    }
    compare(&all, "dweight of all pictures", all.dweight, sum, weights);
    finish(&all);
    free(sum);
}

static void test_batch_is_its_pictures(void **state)
{
    static const struct {
        int n, h, w, kernel, stride;
    } shapes[] = {
        {70, 5, 5, 3, 1}, {32, 5, 4, 3, 1}, {16, 3, 5, 3, 2}, {33, 5, 3, 1, 2}, {8, 6, 6, 3, 1}};
    ts_op_desc d = {.kind = TS_OP_CONV, .training = true, .needs_dx = true};
    int checked[2] = {0, 0}, all = sizeof shapes / sizeof *shapes;
    (void)state;
    for (int i = 0; i < 2 * all; i++) {
        int type = i % 2, n = shapes[i / 2].n, h = shapes[i / 2].h, w = shapes[i / 2].w;
        d.kernel = shapes[i / 2].kernel;
        d.stride = shapes[i / 2].stride;
        d.padding = d.kernel / 2;
        d.in = (ts_shape){n, 128, h, w};
        d.out = (ts_shape){n, 256, (h - 1) / d.stride + 1, (w - 1) / d.stride + 1};
        d.type = d.out_type = type ? TS_BF16 : TS_F32;
        d.in_layout = d.layout = ts_op_best_layout(device, d.type, NULL);
        for (int b = 0; ts_op_backends[b]; b++) {
            const ts_op_ops *backend = ts_op_backends[b];
            if (backend == &ts_op_reference || !backend->serves(device, &d, NULL)) continue;
            check_pictures(backend, &d);
            checked[type]++;
        }
    }
    assert_int_equal(checked[0], all);
    assert_true(checked[1] == all || !checked[1]); /* not every processor has bf16 */
}

/* ---- the reference against central differences ---- */

/* A random linear functional of everything that comes out. */
static double functional(bench *b)
{
    double sum = 0;
    run_passes(b);
    if (b->d.kind == TS_OP_CROSS_ENTROPY) {
        int count = 0;
        for (int n = 0; n < b->d.in.n; n++) count += b->labels[n] >= 0;
        double loss = b->control->loss_sum / count;
        b->control->loss_sum = 0;
        return loss;
    }
    float *y = take(b->a.y, b->d.out, b->d.layout, b->y_type);
    for (size_t i = 0; i < ts_shape_count(b->d.out); i++)
        sum += (double)y[i] * ((double)b->dy[i] + (b->a.dy2 ? b->dy2[i] : 0));
    free(y);
    return sum;
}

/* Slope of the functional when `values` move along a random direction. */
static void check_slope(bench *b, const char *what, float *values, size_t n, const float *gradient)
{
    const double step = 2e-4;
    double predicted = 0;
    float *start = malloc((n + 1) * sizeof *start), *direction = random_floats(55, n, 1);
    for (size_t i = 0; i < n; i++) direction[i] += 0.5f; /* a mean: batch norm subtracts it */
    memcpy(start, values, n * sizeof *start);
    for (size_t i = 0; i < n; i++) predicted += (double)gradient[i] * direction[i];
    double side[2];
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < n; i++)
            values[i] = (float)(start[i] + (s ? step : -step) * direction[i]);
        put((void *)(uintptr_t)b->a.x, b->x, b->d.in, b->d.in_layout, b->d.type);
        if (b->d.add)
            put((void *)(uintptr_t)b->a.residual, b->residual, b->d.out, b->d.layout, b->d.type);
        memcpy((void *)(uintptr_t)b->a.weight, b->weight, ts_op_plain_weight_count(&b->d) * 4);
        memcpy((void *)(uintptr_t)b->a.bias, b->bias, ts_op_plain_bias_count(&b->d) * 4);
        side[s] = functional(b);
    }
    memcpy(values, start, n * sizeof *start);
    double slope = (side[1] - side[0]) / (2 * step), norm = 0;
    for (size_t i = 0; i < n; i++) norm += (double)gradient[i] * gradient[i];
    if (!(fabs(slope - predicted) <= 2e-3 * sqrt(norm) + 1e-4))
        fail_msg("%s: slope along %s is %g, its gradient says %g (norm %g)", subject, what, slope,
                 predicted, sqrt(norm));
    free(direction);
    free(start);
}

static void test_reference_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (int two = 0; two < 2; two++) {
            bench b;
            ts_op_desc d = cases[i];
            if (two && d.kind == TS_OP_CROSS_ENTROPY) continue;
            if (d.in.h > 32 || d.in.c > 128) continue; /* adds time, nothing else */
            d.type = d.out_type = TS_F32;
            d.training = d.needs_dx = true;
            d.two_readers = two;
            prepare(&b, &d, &ts_op_reference);
            run_passes(&b);
            collect(&b);
            b.control->loss_sum = 0;
            float *dx = b.dx, *dw = b.dweight, *dr = b.dresidual;
            size_t bias = ts_op_plain_bias_count(&d);
            float *db = malloc((bias + 1) * sizeof *db);
            memcpy(db, b.a.dbias, bias * sizeof *db);
            check_slope(&b, "x", b.x, ts_shape_count(d.in), dx);
            if (d.add) check_slope(&b, "residual", b.residual, ts_shape_count(d.out), dr);
            if (dw) check_slope(&b, "weight", b.weight, ts_op_plain_weight_count(&d), dw);
            if (bias) check_slope(&b, "bias", b.bias, bias, db);
            free(db);
            finish(&b);
        }
}

static void check_pack(const ts_op_ops *backend, const ts_op_desc *d)
{
    ts_op *op;
    size_t n = ts_op_plain_weight_count(d);
    OK(backend->plan(host, d, &op));
    float *plain = random_floats(1, n, 1), *back = malloc(n * 4);
    float *packed = guarded(op->weight_n * 4);
    name_subject(op);
    OK(op->ops->pack(op, packed, plain));
    check_guard(packed, op->weight_n * 4, "packed weight");
    OK(op->ops->unpack(op, back, packed));
    assert_memory_equal(back, plain, n * 4);
    double sum = 0, packed_sum = 0; /* what is not the weight is zero */
    for (size_t i = 0; i < n; i++) sum += fabs((double)plain[i]);
    for (size_t i = 0; i < op->weight_n; i++) packed_sum += fabs((double)packed[i]);
    assert_true(fabs(sum - packed_sum) < 1e-6 * sum);
    release(packed);
    free(back);
    free(plain);
    ts_op_release(op);
}

static void test_pack_is_exact(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        ts_op_desc d = cases[i];
        d.training = d.needs_dx = true;
        if (d.kind != TS_OP_CONV) continue;
        if (ts_op_onednn.serves(host, &d, NULL)) check_pack(&ts_op_onednn, &d);
        d.nominal = true; /* needs no GPU */
        if (ts_op_cudnn.plan) check_pack(&ts_op_cudnn, &d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradients),
        cmocka_unit_test(test_pack_is_exact),
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_planned_on_another_thread),
        cmocka_unit_test(test_nan_stays),
        cmocka_unit_test(test_batch_is_its_pictures),
    };
    if (ts_device_open(test_device(), 0, &device) || ts_device_open("host", 0, &host) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream) ||
        ts_stream_open(host, TS_STREAM_COMPUTE, "reference", &host_stream))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(host_stream);
    ts_device_close(host);
    ts_stream_close(stream);
    ts_device_close(device);
    return failed;
}
