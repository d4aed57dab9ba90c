/* fused.c - would fp16 with batch norm inside cuDNN's convolutions be faster than bf16 with batch
 * norm by kernels of ours? For each inner 3x3 convolution of ResNet18 at 32x32, --batch: the best
 * plan of each of the three passes, and our batch norm's, beside the fused passes. What the fused
 * chain leaves to a pass of its own (the batch norm's dx from dy and x) is counted as a copy of as
 * many bytes. JSON lines, the last for the whole net. */
#include <stdlib.h>

#include "ops/cuda/conv.h"
#include "perf/gpu/bench.h"
#include "perf/program.h"

enum { RUNS = 10, SAMPLES = 3, PLANS = 64 };

static struct {
    int64_t batch;
    bool help;
} set;
static const ts_option rows[] = {
    {"batch", TS_OPTION_INT, offsetof(__typeof__(set), batch), "512", NULL, 1, 1e6, "pictures"},
    {"help", TS_OPTION_BOOL, offsetof(__typeof__(set), help), "no", NULL, 0, 0, "this text"},
    {0}};

static ts_bench bench;
static ts_cudnn *cudnn;
static void *tensors[TS_CUDNN_TENSORS], *workspace, *copy_to, *copy_from;

#define DO(expression) ts_bench_check((expression), #expression)

typedef struct layer {
    int channels, size, count; /* 3x3, stride 1; how often ResNet18 has it */
} layer;
static const layer layers[] = {{64, 32, 4}, {128, 16, 3}, {256, 8, 3}, {512, 4, 3}};

static ts_status run_plan(void *plan, ts_stream *stream)
{
    return ts_cudnn_run(cudnn, plan, tensors, workspace, ts_cuda_stream(stream));
}

/* Which tensors a graph has. */
static void choose_tensors(void *const all[TS_CUDNN_TENSORS], ts_op_pass pass, ts_cudnn_form form)
{
    int last = TS_CUDNN_Y;
    memset(tensors, 0, sizeof tensors);
    for (int i = 0; i <= last; i++) tensors[i] = all[i];
    if (form == TS_CUDNN_PLAIN) return;
    bool data = pass == TS_BACKWARD_DATA;
    int from = data ? TS_CUDNN_NORM_X : TS_CUDNN_SCALE;
    last = data ? TS_CUDNN_SHIFT : pass == TS_FORWARD ? TS_CUDNN_SQUARES : TS_CUDNN_BIAS;
    for (int i = from; i <= last; i++) tensors[i] = all[i];
}

/* Microseconds of the fastest plan. */
static double time_pass(const ts_op_desc *d, ts_op_pass pass, ts_cudnn_form form,
                        void *const all[TS_CUDNN_TENSORS])
{
    ts_cudnn_graph *graph;
    ts_cudnn_plan plans[PLANS];
    int n;
    double best = 0;
    choose_tensors(all, pass, form);
    DO(ts_cudnn_graph_open(cudnn, d, pass, form, &graph));
    DO(ts_cudnn_plans(graph, TS_CUDNN_WORKSPACE, NULL, plans, PLANS, &n));
    for (int i = 0; i < n; i++) {
        if (run_plan(&plans[i], bench.compute) || ts_stream_sync(bench.compute)) {
            ts_trail_clear(); /* not on this GPU */
            continue;
        }
        double us = ts_bench_time(&bench, run_plan, &plans[i], RUNS, SAMPLES);
        if (best == 0 || us < best) best = us;
    }
    for (int i = 0; i < n; i++) ts_cudnn_plan_close(&plans[i]);
    ts_cudnn_graph_close(graph);
    return best;
}

static ts_status run_copy(void *bytes, ts_stream *stream)
{
    return ts_stream_copy(stream, copy_to, copy_from, *(const size_t *)bytes);
}

static void measure(const layer *l, double *plain_p, double *fused_p)
{
    ts_shape s = {(int)set.batch, l->channels, l->size, l->size};
    size_t n = ts_shape_count(s), channels = (size_t)l->channels * sizeof(float);
    ts_op_desc conv = {.kind = TS_OP_CONV,
                       .in = s,
                       .out = s,
                       .type = TS_BF16,
                       .out_type = TS_BF16,
                       .in_layout = TS_NHWC,
                       .layout = TS_NHWC,
                       .kernel = 3,
                       .stride = 1,
                       .padding = 1,
                       .training = true,
                       .needs_dx = true};
    void *all[TS_CUDNN_TENSORS];
    for (int i = 0; i < TS_CUDNN_TENSORS; i++) {
        bool big = i == TS_CUDNN_X || i == TS_CUDNN_Y || i == TS_CUDNN_NORM_X;
        size_t bytes = big               ? n * 2
                       : i == TS_CUDNN_W ? (size_t)l->channels * (size_t)l->channels * 18
                                         : channels;
        all[i] = big || i == TS_CUDNN_W ? ts_bench_random(&bench, bytes)
                                        : ts_bench_alloc(&bench, bytes, 0);
    }
    double plain[3], fused[3];
    for (int p = TS_FORWARD; p <= TS_BACKWARD_WEIGHTS; p++) {
        plain[p] = time_pass(&conv, (ts_op_pass)p, TS_CUDNN_PLAIN, all);
        fused[p] = time_pass(&conv, (ts_op_pass)p, TS_CUDNN_FUSED, all);
    }
    ts_op_desc norm = ts_bench_norm(s, false);
    ts_bench_op p = {.which = TS_FORWARD};
    DO(ts_op_plan(bench.device, &norm, NULL, &p.op));
    void *saved = ts_bench_alloc(&bench, p.op->saved_bytes, 0);
    void *scratch = ts_bench_alloc(&bench, p.op->scratch_bytes, 0);
    void *running = ts_bench_alloc(&bench, 2 * channels, 0);
    p.args = (ts_op_args){.x = all[TS_CUDNN_X],
                          .y = all[TS_CUDNN_Y],
                          .dy = all[TS_CUDNN_Y],
                          .dx = all[TS_CUDNN_NORM_X],
                          .weight = all[TS_CUDNN_GAMMA],
                          .bias = all[TS_CUDNN_BETA],
                          .dweight = all[TS_CUDNN_DGAMMA],
                          .dbias = all[TS_CUDNN_DBETA],
                          .running = running,
                          .saved = saved,
                          .scratch = scratch};
    double norm_forward = ts_bench_time(&bench, ts_bench_run_op, &p, RUNS, SAMPLES);
    p.which = TS_BACKWARD_DATA;
    double norm_backward = ts_bench_time(&bench, ts_bench_run_op, &p, RUNS, SAMPLES);
    /* dy and x read, dx written: a copy moves each byte twice */
    size_t left = n * 2 * 3 / 2;
    copy_from = ts_bench_alloc(&bench, left, 0);
    copy_to = ts_bench_alloc(&bench, left, 0);
    double left_us = ts_bench_time(&bench, run_copy, &left, RUNS, SAMPLES);
    *plain_p = plain[0] + plain[1] + plain[2] + norm_forward + norm_backward;
    *fused_p = fused[0] + fused[1] + fused[2] + left_us;
    ts_bench_print(json_pack("{s:i, s:i, s:[fff], s:[ff], s:f, s:[fff], s:f, s:f}", "channels",
                             l->channels, "size", l->size, "bf16_us", plain[0], plain[1], plain[2],
                             "batch_norm_us", norm_forward, norm_backward, "bf16_total_us",
                             *plain_p, "fp16_fused_us", fused[0], fused[1], fused[2],
                             "fp16_left_us", left_us, "fp16_total_us", *fused_p));
    ts_bench_release(&bench, copy_to);
    ts_bench_release(&bench, copy_from);
    ts_bench_release(&bench, running);
    ts_bench_release(&bench, scratch);
    ts_bench_release(&bench, saved);
    ts_op_release(p.op);
    for (int i = 0; i < TS_CUDNN_TENSORS; i++) ts_bench_release(&bench, all[i]);
}

int main(int argc, char **argv)
{
    double bf16 = 0, fp16 = 0;
    ts_program_options("Fused fp16", rows, &set, &set.help, argc, argv);
    ts_bench_open(&bench);
    DO(ts_cudnn_open(NULL, &cudnn));
    workspace = ts_bench_alloc(&bench, TS_CUDNN_WORKSPACE, 0);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        double plain, fused;
        measure(&layers[i], &plain, &fused);
        bf16 += plain * layers[i].count;
        fp16 += fused * layers[i].count;
    }
    ts_bench_print(json_pack("{s:s, s:I, s:f, s:f, s:f}", "measure", "fused fp16", "batch",
                             (json_int_t)set.batch, "bf16_us", bf16, "fp16_us", fp16, "ratio",
                             bf16 / fp16));
    ts_bench_release(&bench, workspace);
    ts_cudnn_close(cudnn);
    ts_bench_close(&bench);
    return 0;
}
