/* overlap.c - what a collective beside the local step costs, on one GPU: its place is taken by a
 * kernel of the same shape (runtime/device/cuda/occupant.h). JSON lines:
 *
 *   - the local step of --model at --batch while 0 to 16 blocks are taken for ever;
 *   - how long a kernel on comm waits to begin while a step runs on compute;
 *   - rounds of CoCoD's form, snapshot, average beside --period steps, merge, with an "average"
 * that moves --bytes: exposed and hidden communication, and what it cost compute. */
#include <math.h>
#include <stdlib.h>

#include "models/model.h"
#include "perf/gpu/bench.h"
#include "perf/program.h"
#include "runtime/base/clock.h"
#include "runtime/device/cuda/occupant.h"
#include "runtime/device/trace.h"
#include "runtime/device/vector.h"

enum { SAMPLES = 7, STARTS = 40 };

typedef struct settings {
    const char *model;
    int64_t batch, pixels, period, bytes, runs;
    bool help;
} settings;

#define AT(field) offsetof(settings, field)
static const ts_option rows[] = {
    {"model", TS_OPTION_TEXT, AT(model), "resnet18", NULL, 0, 0, "network"},
    {"batch", TS_OPTION_INT, AT(batch), "512", NULL, 1, 1e6, "pictures in a local step"},
    {"pixels", TS_OPTION_INT, AT(pixels), "32", NULL, 8, 512, "height and width of a picture"},
    {"period", TS_OPTION_INT, AT(period), "4", NULL, 1, 1e4, "local steps in a round"},
    {"bytes", TS_OPTION_INT, AT(bytes), "357566784", NULL, 1, 1e12,
     "what the collective moves in a round: 8 times ResNet18's fp32 parameters"},
    {"runs", TS_OPTION_INT, AT(runs), "10", NULL, 1, 1e4,
     "steps or rounds in a sample, and starts / 4"},
    {"help", TS_OPTION_BOOL, AT(help), "no", NULL, 0, 0, "this text"},
    {0},
};

static settings set;
static ts_bench bench;
static ts_model *model;
static ts_workspace *workspace;
static ts_control *control;
static ts_graph *step;
static ts_occupant *occupant;

#define DO(expression) ts_bench_check((expression), #expression)

/* ---- the local step ---- */

static ts_status enqueue_step(void)
{
    ts_flat *f = ts_model_flat(model);
    int nodes = ts_model_nodes(model);
    TS_TRY(ts_workspace_refresh(workspace, f->parameters, f->shadow, f->statistics, bench.compute));
    TS_TRY(ts_workspace_forward(workspace, 0, nodes, bench.compute));
    TS_TRY(ts_workspace_backward(workspace, 0, nodes, f->gradients, NULL, NULL, bench.compute));
    ts_sgd sgd = {.n = f->n,
                  .x = f->parameters,
                  .shadow = f->shadow,
                  .m = f->momentum,
                  .g = f->gradients,
                  .decays = f->decays,
                  .control = control,
                  .momentum = 0.9f};
    return ts_vector_sgd(bench.compute, &sgd);
}

static void open_step(void)
{
    const ts_network *network = ts_network_find(set.model);
    int pixels = (int)set.pixels;
    ts_model_options options = {.input = {1, 3, pixels, pixels},
                                .classes = pixels < 64 ? 10 : 1000,
                                .type = TS_BF16,
                                .bucket_bytes = 1 << 22};
    if (!network) DO(TS_ERROR(TS_EUSAGE, "no model is called %s", set.model));
    DO(ts_model_open(bench.device, network, &options, &model));
    control = ts_bench_alloc(&bench, sizeof *control, 0); /* the learning rate is 0 */
    DO(ts_model_init(model, 1, bench.compute));
    DO(ts_workspace_open(model, (int)set.batch, true, control, &workspace));
    ts_batch batch = ts_workspace_batch(workspace);
    size_t bytes = ts_layout_count(batch.layout, batch.shape) * ts_type_bytes(batch.type);
    void *random = ts_bench_random(&bench, bytes);
    DO(ts_stream_copy(bench.compute, batch.input, random, bytes));
    DO(ts_stream_sync(bench.compute));
    ts_bench_release(&bench, random);
    DO(ts_stream_fill(bench.compute, batch.labels, 0, (size_t)set.batch * sizeof *batch.labels));
    DO(enqueue_step()); /* once as it is: libraries make their handles */
    DO(ts_stream_sync(bench.compute));
    DO(ts_stream_capture_begin(bench.compute));
    DO(enqueue_step());
    DO(ts_stream_capture_end(bench.compute, &step));
}

static ts_status run_step(void *context, ts_stream *stream)
{
    (void)context;
    return ts_graph_launch(step, stream);
}

/* ---- beside blocks that are taken for ever ---- */

static double step_us;

static void measure_contention(void)
{
    static const int blocks[] = {0, 1, 2, 4, 8, 16};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        DO(ts_occupant_start(occupant, blocks[i], 0, ts_cuda_stream(bench.comm)));
        double us = ts_bench_time(&bench, run_step, NULL, (int)set.runs, SAMPLES);
        ts_occupant_stop(occupant);
        DO(ts_stream_sync(bench.comm));
        if (!blocks[i]) step_us = us;
        ts_bench_print(json_pack("{s:s, s:s, s:I, s:i, s:f, s:f, s:f}", "measure", "contention",
                                 "model", set.model, "batch", (json_int_t)set.batch, "blocks",
                                 blocks[i], "step_us", us, "images_per_second",
                                 (double)set.batch / us * 1e6, "slow_down", us / step_us - 1));
    }
}

/* ---- how soon comm begins ---- */

typedef struct starts {
    double us[STARTS];
    int n;
    int64_t asked_ns;
} starts;

static void on_start(void *context, const ts_span *span)
{
    starts *s = context;
    if (span->kind == TS_SPAN_COMM && s->n < STARTS)
        s->us[s->n++] = (double)(span->begin_ns - s->asked_ns) * 1e-3;
}

static void measure_start(ts_trace *trace, bool busy)
{
    starts s = {.n = 0};
    for (int i = 0; i < STARTS && i < 4 * set.runs; i++) {
        for (int k = 0; k < 3 && busy; k++) DO(run_step(NULL, bench.compute));
        ts_clock_sleep_ns((int64_t)(step_us * 1e3 * (0.5 + 0.02 * i)));
        s.asked_ns = ts_clock_ns();
        DO(ts_trace_begin(trace, bench.comm, TS_SPAN_COMM, i));
        DO(ts_trace_end(trace, bench.comm, TS_SPAN_COMM));
        DO(ts_stream_sync(bench.comm));
        DO(ts_stream_sync(bench.compute));
        ts_trace_drain(trace, on_start, &s);
    }
    double median = ts_median(s.us, s.n);
    ts_bench_print(json_pack("{s:s, s:b, s:f, s:f, s:i}", "measure", "start of a kernel on comm",
                             "beside_step", busy, "us", median, "longest_us",
                             s.n ? s.us[s.n - 1] : 0.0, "n", s.n));
}

/* ---- rounds ---- */

typedef struct sums {
    double wait_us, comm_us;
    int waits;
} sums;

static void on_round(void *context, const ts_span *span)
{
    sums *s = context;
    double us = (double)(span->end_ns - span->begin_ns) * 1e-3;
    s->waits += span->kind == TS_SPAN_WAIT;
    if (span->kind == TS_SPAN_WAIT) s->wait_us += us;
    if (span->kind == TS_SPAN_COMM) s->comm_us += us;
}

typedef struct round {
    ts_trace *trace;
    float *snapshot, *average;
    ts_event *snapped, *arrived;
    int blocks;
} round_of;

/* Merge what arrived, start the next average, k steps. */
static ts_status run_round(void *context, ts_stream *stream)
{
    round_of *r = context;
    ts_flat *f = ts_model_flat(model);
    TS_TRY(ts_trace_begin(r->trace, stream, TS_SPAN_WAIT, -1));
    TS_TRY(ts_event_wait(r->arrived, stream));
    TS_TRY(ts_trace_end(r->trace, stream, TS_SPAN_WAIT));
    ts_merge merge = {.n = f->n,
                      .x = f->parameters,
                      .shadow = f->shadow,
                      .average = r->average,
                      .snapshot = r->snapshot,
                      .a = 1,
                      .b = 1,
                      .c = -1};
    TS_TRY(ts_vector_merge(stream, &merge));
    TS_TRY(ts_stream_copy(stream, r->snapshot, f->parameters, f->n * sizeof(float)));
    TS_TRY(ts_stream_after(r->snapped, stream, bench.comm));
    if (r->blocks) {
        TS_TRY(ts_trace_begin(r->trace, bench.comm, TS_SPAN_COMM, -1));
        TS_TRY(
            ts_occupant_start(occupant, r->blocks, (size_t)set.bytes, ts_cuda_stream(bench.comm)));
        TS_TRY(ts_trace_end(r->trace, bench.comm, TS_SPAN_COMM));
    }
    TS_TRY(ts_event_record(r->arrived, bench.comm));
    for (int64_t k = 0; k < set.period; k++) TS_TRY(ts_graph_launch(step, stream));
    return TS_OK;
}

static void measure_rounds(ts_trace *trace)
{
    size_t n = ts_model_flat(model)->n;
    round_of r = {.trace = trace};
    r.snapshot = ts_bench_alloc(&bench, n * sizeof(float), 0);
    r.average = ts_bench_alloc(&bench, n * sizeof(float), 0);
    DO(ts_event_open(bench.device, &r.snapped));
    DO(ts_event_open(bench.device, &r.arrived));
    double alone = ts_bench_time(&bench, run_round, &r, (int)set.runs, 3);
    sums none = {0}; /* a wait for nothing still lasts from one stamp to the next */
    ts_trace_drain(trace, on_round, &none);
    double floor_us = none.wait_us / none.waits;
    for (r.blocks = 1; r.blocks <= 16; r.blocks *= 2) {
        sums s = {0};
        double us[3];
        for (int i = 0; i < 3; i++) {
            us[i] = ts_bench_time(&bench, run_round, &r, (int)set.runs, 1);
            ts_trace_drain(trace, on_round, &s);
        }
        DO(ts_stream_sync(bench.comm));
        ts_trace_drain(trace, on_round, &s);
        double round_us = ts_median(us, 3), comm = s.comm_us / s.waits;
        double exposed = fmax(0, s.wait_us / s.waits - floor_us);
        ts_bench_print(json_pack(
            "{s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "measure", "round", "blocks",
            r.blocks, "period", (json_int_t)set.period, "bytes", (json_int_t)set.bytes, "round_us",
            round_us, "round_alone_us", alone, "comm_us", comm, "exposed_us", exposed, "stamps_us",
            floor_us, "hidden", 1 - exposed / comm, "cost_of_hiding", (round_us - alone) / comm));
    }
    ts_event_close(r.arrived);
    ts_event_close(r.snapped);
    ts_bench_release(&bench, r.average);
    ts_bench_release(&bench, r.snapshot);
}

int main(int argc, char **argv)
{
    ts_trace *trace;
    ts_program_options("Overlap on one GPU", rows, &set, &set.help, argc, argv);
    ts_bench_open(&bench);
    DO(ts_occupant_open(&occupant));
    open_step();
    DO(ts_trace_open(bench.device, 1 << 12, &trace));
    measure_contention();
    measure_start(trace, false);
    measure_start(trace, true);
    measure_rounds(trace);
    DO(ts_stream_sync(bench.comm));
    DO(ts_stream_sync(bench.compute));
    ts_graph_close(step);
    ts_trace_close(trace);
    ts_occupant_close(occupant);
    ts_workspace_close(workspace);
    ts_model_close(model);
    ts_bench_release(&bench, control);
    ts_bench_close(&bench);
    return 0;
}
