/* bench.h - what the GPU benchmarks share: the device, timing by events, JSON lines. */
#ifndef TS_PERF_GPU_BENCH_H
#define TS_PERF_GPU_BENCH_H

#include <jansson.h>

#include "ops/op.h"
#include "runtime/device/cuda/cuda.h"

typedef struct ts_bench {
    ts_device *device;
    ts_stream *compute, *comm;
    cudaEvent_t begin, end;
} ts_bench;

/* Ends the program: with 77 when there is no GPU, with a message on another failure. */
void ts_bench_open(ts_bench *bench);
void ts_bench_close(ts_bench *bench);
/* Device memory with every byte `byte`. */
void *ts_bench_alloc(ts_bench *bench, size_t bytes, int byte);
/* Device memory with random bf16 between -1 and 1: products of constants draw less power, and so
 * run faster, than those of a training step. */
void *ts_bench_random(ts_bench *bench, size_t bytes);
void ts_bench_release(ts_bench *bench, void *memory);

/* Enqueue what is measured, once. */
typedef ts_status ts_bench_work(void *context, ts_stream *stream);
/* Microseconds of one run: the median of `samples` times `runs` runs each, warmed up. */
double ts_bench_time(ts_bench *bench, ts_bench_work *work, void *context, int runs, int samples);

/* One pass of an op, as work: the context is a ts_bench_op. */
typedef struct ts_bench_op {
    ts_op *op;
    ts_op_args args;
    ts_op_pass which;
} ts_bench_op;
ts_bench_work ts_bench_run_op;
/* Training batch norm with ReLU, bf16, NHWC. */
ts_op_desc ts_bench_norm(ts_shape shape, bool add);

double ts_median(double *values, int n);
/* A JSON line on standard output; takes the reference. */
void ts_bench_print(json_t *line);
/* Ends the program on a failure. */
void ts_bench_check(ts_status status, const char *what);

#endif
