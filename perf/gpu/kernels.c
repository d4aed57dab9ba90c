/* kernels.c - what the GPU can do, and our kernels as a share of it: copy bandwidth and the peak of
 * bf16 matrix products, then SGD, merge, encoders and decoders, batch norm and the making of a
 * batch by the bytes that they must move, and the cost of an edge in a captured graph. JSON lines;
 * goal: 85 % of the copy.
 *
 * Bytes are counted once for each time that an element must cross the memory bus, whatever a cache
 * may save. --small tries the program on sizes that measure nothing. */
#include <stdlib.h>

#include "ops/cuda/cublas.h"
#include "perf/gpu/bench.h"
#include "perf/program.h"
#include "runtime/compress/compressor.h"
#include "runtime/data/data.h"
#include "runtime/device/trace.h"
#include "runtime/device/vector.h"

#define GOAL 0.85

static struct {
    bool small, help;
} set;
static const ts_option rows[] = {
    {"small", TS_OPTION_BOOL, offsetof(__typeof__(set), small), "no", NULL, 0, 0,
     "a trial of the program on small sizes"},
    {"help", TS_OPTION_BOOL, offsetof(__typeof__(set), help), "no", NULL, 0, 0, "this text"},
    {0}};
static ts_bench bench;
static double copy_gb_s;

static double time_of(ts_bench_work *work, void *context)
{
    return ts_bench_time(&bench, work, context, set.small ? 1 : 20, set.small ? 1 : 7);
}

static void report(const char *kernel, const char *size, double us, double bytes)
{
    double gb_s = bytes / us * 1e-3;
    ts_bench_print(json_pack("{s:s, s:s, s:f, s:f, s:f, s:f}", "kernel", kernel, "size", size, "us",
                             us, "gb_s", gb_s, "share_of_copy", gb_s / copy_gb_s, "goal", GOAL));
}

/* ---- what the GPU can do ---- */

typedef struct copy {
    void *to, *from;
    size_t bytes;
} copy;

static ts_status run_copy(void *context, ts_stream *stream)
{
    const copy *c = context;
    return ts_stream_copy(stream, c->to, c->from, c->bytes);
}

static void measure_copy(void)
{
    copy c = {.bytes = (size_t)1 << (set.small ? 20 : 30)};
    c.from = ts_bench_alloc(&bench, c.bytes, 1);
    c.to = ts_bench_alloc(&bench, c.bytes, 0);
    double us = time_of(run_copy, &c);
    copy_gb_s = 2 * (double)c.bytes / us * 1e-3;
    ts_bench_print(json_pack("{s:s, s:I, s:f, s:f}", "measure", "copy", "bytes",
                             (json_int_t)c.bytes, "us", us, "gb_s", copy_gb_s));
    ts_bench_release(&bench, c.to);
    ts_bench_release(&bench, c.from);
}

static ts_status run_product(void *context, ts_stream *stream)
{
    return ts_cublas_product(context, ts_cuda_stream(stream));
}

static void measure_product(void)
{
    int n = set.small ? 64 : 8192;
    size_t bytes = (size_t)n * (size_t)n * 2;
    ts_product p = {.rows = n, .columns = n, .inner = n, .b_transposed = true, .type = TS_BF16};
    p.to_type = TS_BF16;
    void *a = ts_bench_random(&bench, bytes), *b = ts_bench_random(&bench, bytes);
    p.a = a;
    p.b = b;
    p.to = ts_bench_alloc(&bench, bytes, 0);
    p.workspace = ts_bench_alloc(&bench, TS_CUBLAS_WORKSPACE, 0);
    double us = time_of(run_product, &p);
    ts_bench_print(json_pack("{s:s, s:i, s:f, s:f}", "measure", "bf16 product", "n", n, "us", us,
                             "tflop_s", 2.0 * n * n * n / us * 1e-6));
    ts_bench_release(&bench, p.workspace);
    ts_bench_release(&bench, p.to);
    ts_bench_release(&bench, b);
    ts_bench_release(&bench, a);
}

/* ---- flat vectors ---- */

static ts_status run_sgd(void *context, ts_stream *stream)
{
    return ts_vector_sgd(stream, context);
}

static ts_status run_merge(void *context, ts_stream *stream)
{
    return ts_vector_merge(stream, context);
}

static ts_status run_outer(void *context, ts_stream *stream)
{
    return ts_vector_outer(stream, context);
}

/* Of ResNet18's 11.2 and VGG16's 138.4 million parameters. */
static void measure_vectors(size_t n)
{
    char size[32];
    snprintf(size, sizeof size, "%zu elements", n);
    float *v[4];
    for (int i = 0; i < 4; i++) v[i] = ts_bench_alloc(&bench, n * sizeof **v, 0);
    uint16_t *shadow = ts_bench_alloc(&bench, n * sizeof *shadow, 0);
    uint8_t *decays = ts_bench_alloc(&bench, n / TS_VECTOR_BLOCK, 1);
    ts_control *control = ts_bench_alloc(&bench, sizeof *control, 0);
    ts_sgd sgd = {.n = n,
                  .x = v[0],
                  .shadow = shadow,
                  .m = v[1],
                  .g = v[2],
                  .decays = decays,
                  .control = control,
                  .momentum = 0.9f,
                  .weight_decay = 5e-4f};
    ts_merge merge = {
        .n = n, .x = v[0], .shadow = shadow, .average = v[1], .snapshot = v[2], .a = 1, .b = 1};
    merge.c = -1;
    copy snapshot = {v[3], v[0], n * sizeof **v};
    report("sgd", size, time_of(run_sgd, &sgd), (double)n * 22);
    report("merge", size, time_of(run_merge, &merge), (double)n * 18);
    ts_outer outer = {.n = n, .z = v[0], .v = v[1], .average = v[2], .momentum = 0.5f, .rate = 1};
    report("outer step", size, time_of(run_outer, &outer), (double)n * 24);
    report("snapshot", size, time_of(run_copy, &snapshot), (double)n * 8);
    ts_bench_release(&bench, control);
    ts_bench_release(&bench, decays);
    ts_bench_release(&bench, shadow);
    for (int i = 0; i < 4; i++) ts_bench_release(&bench, v[i]);
}

/* ---- compression ---- */

typedef struct coding {
    ts_compressor *compressor;
    ts_coding c;
} coding;

static ts_status run_encode(void *context, ts_stream *stream)
{
    const coding *k = context;
    return ts_compressor_encode(k->compressor, &k->c, stream);
}

static ts_status run_decode(void *context, ts_stream *stream)
{
    const coding *k = context;
    return ts_compressor_decode(k->compressor, &k->c, stream);
}

/* One piece; encoding reads `from` and, with feedback, the residual, and writes it and the
 * encoding. Decoding reads the encodings of 4 ranks, or one that was reduced, and writes `to`. Of a
 * sparse encoding all of the vector is searched, and `to` is filled before. */
static void measure_compressor(const ts_compression *settings, size_t n)
{
    enum { RANKS = 4 };
    const ts_stretch all = {0, n};
    const ts_compressor_ops *ops;
    char name[48], size[64];
    coding k = {.c = {.weight = 1.0f / RANKS, .momentum = 0.9f}};
    ts_bench_check(ts_compressor_find(settings, &ops), "compressor");
    ts_bench_check(ts_compressor_open(bench.compute, ops, settings, n, &all, 1, 1, &k.compressor),
                   "compressor");
    size_t bytes = ts_compressor_bytes(k.compressor);
    bool feedback = ts_compression_feedback(settings, ops);
    void *v[4];
    for (int i = 0; i < 4; i++) v[i] = ts_bench_random(&bench, n * sizeof(float));
    k.c.encoding = ts_bench_alloc(&bench, RANKS * bytes, 0);
    k.c.from = v[0];
    k.c.to = v[1];
    k.c.residual = feedback ? v[2] : NULL;
    k.c.velocity = ops->corrects_momentum ? v[3] : NULL;
    k.c.feedback = feedback;
    k.c.stride = bytes;
    k.c.ranks = ops->reduces ? 1 : RANKS;
    snprintf(size, sizeof size, "%zu elements, %d levels, density %g", n, (int)settings->levels,
             settings->density);
    double dense = (double)n * sizeof(float);
    snprintf(name, sizeof name, "%s encode", ops->name);
    report(name, size, time_of(run_encode, &k),
           dense * (1 + 2 * feedback + 2 * (k.c.velocity != NULL)) + (double)bytes);
    for (k.c.rank = 1; k.c.rank < k.c.ranks; k.c.rank++) { /* as what others would have sent */
        coding theirs = k;
        theirs.c.encoding += (size_t)k.c.rank * bytes;
        theirs.c.from = v[k.c.rank];
        ts_bench_check(run_encode(&theirs, bench.compute), "encode");
    }
    snprintf(name, sizeof name, "%s decode", ops->name);
    report(name, size, time_of(run_decode, &k), dense + k.c.ranks * (double)bytes);
    ts_bench_release(&bench, k.c.encoding);
    for (int i = 0; i < 4; i++) ts_bench_release(&bench, v[i]);
    ts_compressor_close(k.compressor);
}

static void measure_compressors(size_t n)
{
    static const ts_compression settings[] = {
        {.name = "bf16"},
        {.name = "qsgd", .levels = 7, .block = 512},
        {.name = "terngrad"},
        {.name = "topk", .density = 0.01},
        {.name = "randomk", .density = 0.01},
        {.name = "dgc", .density = 0.01},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        measure_compressor(&settings[i], n);
}

/* ---- batch norm ---- */

static void measure_norm(ts_shape s, bool add)
{
    char size[64];
    size_t n = ts_shape_count(s), channels = (size_t)s.c * sizeof(float);
    ts_op_desc d = ts_bench_norm(s, add);
    ts_bench_op p = {.which = TS_FORWARD};
    ts_bench_check(ts_op_plan(bench.device, &d, NULL, &p.op), "batch norm");
    void *v[6], *c[5];
    for (int i = 0; i < 6; i++) v[i] = ts_bench_alloc(&bench, n * 2, 0x3c);
    for (int i = 0; i < 5; i++) c[i] = ts_bench_alloc(&bench, 2 * channels, 0);
    p.args = (ts_op_args){.x = v[0],
                          .y = v[1],
                          .dy = v[2],
                          .dx = v[3],
                          .residual = add ? v[4] : NULL,
                          .dresidual = add ? v[5] : NULL,
                          .weight = c[0],
                          .bias = c[1],
                          .running = c[2],
                          .dweight = c[3],
                          .dbias = c[4],
                          .saved = ts_bench_alloc(&bench, p.op->saved_bytes, 0),
                          .scratch = ts_bench_alloc(&bench, p.op->scratch_bytes, 0)};
    snprintf(size, sizeof size, "%dx%dx%dx%d bf16%s", s.n, s.c, s.h, s.w, add ? " add" : "");
    /* forward: x twice, y, the residual; backward: x and dy twice, dx; with a residual also y twice
     * (its ReLU's mask) and the residual's gradient */
    report("batch norm forward", size, time_of(ts_bench_run_op, &p), (double)n * 2 * (add ? 4 : 3));
    p.which = TS_BACKWARD_DATA;
    report("batch norm backward", size, time_of(ts_bench_run_op, &p),
           (double)n * 2 * (add ? 8 : 5));
    ts_bench_release(&bench, p.args.scratch);
    ts_bench_release(&bench, p.args.saved);
    for (int i = 0; i < 5; i++) ts_bench_release(&bench, c[i]);
    for (int i = 0; i < 6; i++) ts_bench_release(&bench, v[i]);
    ts_op_release(p.op);
}

/* ---- a batch of pictures ---- */

typedef struct loader {
    ts_dataset *dataset;
    ts_shard shard;
    ts_augment augment;
    ts_control *control;
    ts_batch batch;
} loader;

static ts_status run_loader(void *context, ts_stream *stream)
{
    const loader *l = context;
    return ts_data_train_batch(l->dataset, &l->shard, &l->augment, l->control, &l->batch, stream);
}

static void measure_batch(int batch)
{
    loader l = {.augment = {.flip = true, .crop = 4, .shuffle = true}};
    char size[64];
    ts_bench_check(ts_dataset_open(bench.device, "synthetic:train=50000,test=1024", &l.dataset),
                   "data");
    ts_bench_check(ts_shard_open(l.dataset, 0, 1, &batch, 0, 1, &l.shard), "data");
    l.control = ts_bench_alloc(&bench, sizeof *l.control, 0);
    l.batch = (ts_batch){.shape = {batch, 3, 32, 32}, .layout = TS_NHWC8, .type = TS_BF16};
    l.batch.input = ts_bench_alloc(&bench, (size_t)batch * 32 * 32 * 8 * 2, 0);
    l.batch.labels = ts_bench_alloc(&bench, (size_t)batch * 4, 0);
    snprintf(size, sizeof size, "%dx3x32x32 to 8 channels bf16", batch);
    report("batch", size, time_of(run_loader, &l), (double)batch * 32 * 32 * (3 + 16));
    ts_bench_release(&bench, l.batch.labels);
    ts_bench_release(&bench, l.batch.input);
    ts_bench_release(&bench, l.control);
    ts_shard_close(l.dataset, &l.shard);
    ts_dataset_close(l.dataset);
}

/* ---- a graph of kernels that do next to nothing ---- */

static ts_status run_graph(void *context, ts_stream *stream)
{
    return ts_graph_launch(context, stream);
}

/* With a trace the kernels are its stamps. */
static void measure_graph(int kernels, ts_trace *trace)
{
    ts_graph *graph;
    float *x = ts_bench_alloc(&bench, 256, 0);
    ts_bench_check(ts_stream_sync(bench.compute), "graph");
    ts_bench_check(ts_stream_capture_begin(bench.compute), "graph");
    for (int i = 0; i < kernels; i++)
        ts_bench_check(!trace  ? ts_vector_scale(bench.compute, TS_VECTOR_BLOCK, x, 1)
                       : i % 2 ? ts_trace_end(trace, bench.compute, TS_SPAN_DATA)
                               : ts_trace_begin(trace, bench.compute, TS_SPAN_DATA, -1),
                       "graph");
    ts_bench_check(ts_stream_capture_end(bench.compute, &graph), "graph");
    double us = time_of(run_graph, graph);
    ts_bench_print(json_pack("{s:s, s:i, s:f, s:f}", "measure",
                             trace ? "graph of stamps" : "graph of small kernels", "kernels",
                             kernels, "us", us, "us_per_edge", us / kernels));
    ts_graph_close(graph);
    ts_bench_release(&bench, x);
}

int main(int argc, char **argv)
{
    ts_program_options("Kernels", rows, &set, &set.help, argc, argv);
    ts_bench_open(&bench);
    measure_copy();
    measure_product();
    int batch = set.small ? 2 : 512;
    measure_vectors(set.small ? 1 << 12 : 11173952);
    if (!set.small) measure_vectors(138361856);
    measure_compressors(set.small ? 1 << 12 : 11173952);
    measure_norm((ts_shape){batch, 64, 32, 32}, false);
    measure_norm((ts_shape){batch, 64, 32, 32}, true);
    measure_norm((ts_shape){batch, 256, 8, 8}, true);
    measure_norm((ts_shape){batch, 512, 4, 4}, true);
    measure_batch(batch);
    measure_graph(150, NULL);
    if (!set.small) measure_graph(600, NULL);
    ts_trace *trace;
    ts_bench_check(ts_trace_open(bench.device, 1 << 14, &trace), "trace");
    measure_graph(100, trace);
    ts_bench_check(ts_stream_sync(bench.compute), "trace");
    ts_trace_close(trace);
    ts_bench_close(&bench);
    return 0;
}
