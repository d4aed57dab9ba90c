/* bench.c - see bench.h. */
#include "perf/gpu/bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/log.h"

void ts_bench_check(ts_status status, const char *what)
{
    if (!status) return;
    ts_log_set_phase("%s", what);
    ts_log_failure(status);
    exit(ts_status_exit_code(status));
}

void ts_bench_open(ts_bench *b)
{
    if (ts_device_open("cuda", 0, &b->device)) {
        fprintf(stderr, "skipped: %s\n", ts_trail_message());
        exit(77);
    }
    ts_bench_check(ts_stream_open(b->device, TS_STREAM_COMPUTE, "compute", &b->compute), "compute");
    ts_bench_check(ts_stream_open(b->device, TS_STREAM_COMM, "comm", &b->comm), "comm");
    ts_bench_check(ts_cuda_check(cudaEventCreate(&b->begin), "an event"), "events");
    ts_bench_check(ts_cuda_check(cudaEventCreate(&b->end), "an event"), "events");
}

ts_status ts_bench_run_op(void *context, ts_stream *stream)
{
    const ts_bench_op *p = context;
    return ts_op_launch(p->op, p->which, &p->args, stream);
}

ts_op_desc ts_bench_norm(ts_shape shape, bool add)
{
    return (ts_op_desc){.kind = TS_OP_BATCH_NORM,
                        .in = shape,
                        .out = shape,
                        .type = TS_BF16,
                        .out_type = TS_BF16,
                        .in_layout = TS_NHWC,
                        .layout = TS_NHWC,
                        .relu = true,
                        .add = add,
                        .needs_dx = true,
                        .training = true,
                        .epsilon = 1e-5f,
                        .momentum = 0.1f};
}

void ts_bench_close(ts_bench *b)
{
    (void)cudaEventDestroy(b->end);
    (void)cudaEventDestroy(b->begin);
    ts_stream_close(b->comm);
    ts_stream_close(b->compute);
    ts_device_close(b->device);
}

void *ts_bench_alloc(ts_bench *b, size_t bytes, int byte)
{
    void *memory = NULL;
    ts_bench_check(ts_device_alloc(b->device, TS_MEMORY_DEVICE, bytes, &memory), "memory");
    ts_bench_check(ts_stream_fill(b->compute, memory, byte, bytes), "memory");
    return memory;
}

void *ts_bench_random(ts_bench *b, size_t bytes)
{
    enum { CHUNK = 4 << 20 };
    uint16_t *chunk = NULL;
    char *memory = ts_bench_alloc(b, bytes, 0);
    ts_bench_check(ts_device_alloc(b->device, TS_MEMORY_PINNED, CHUNK, (void **)&chunk), "memory");
    for (size_t i = 0; i < CHUNK / sizeof *chunk; i++)
        chunk[i] = ts_bf16_from_float(2 * ts_random_unit(ts_random(1, 2, i).v[0]) - 1);
    for (size_t at = 0; at < bytes; at += CHUNK)
        ts_bench_check(
            ts_stream_copy(b->compute, memory + at, chunk, bytes - at < CHUNK ? bytes - at : CHUNK),
            "memory");
    ts_bench_check(ts_stream_sync(b->compute), "memory");
    ts_device_release(b->device, TS_MEMORY_PINNED, chunk);
    return memory;
}

void ts_bench_release(ts_bench *b, void *memory)
{
    ts_device_release(b->device, TS_MEMORY_DEVICE, memory);
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double ts_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, order);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double ts_bench_time(ts_bench *b, ts_bench_work *work, void *context, int runs, int samples)
{
    double us[32];
    cudaStream_t stream = ts_cuda_stream(b->compute);
    if (samples > 32) samples = 32;
    for (int i = -1; i < samples; i++) { /* the first warms up */
        float ms = 0;
        ts_bench_check(ts_cuda_check(cudaEventRecord(b->begin, stream), "begin"), "timing");
        for (int k = 0; k < runs; k++) ts_bench_check(work(context, b->compute), "timing");
        ts_bench_check(ts_cuda_check(cudaEventRecord(b->end, stream), "end"), "timing");
        ts_bench_check(ts_cuda_check(cudaEventSynchronize(b->end), "end"), "timing");
        ts_bench_check(ts_cuda_check(cudaEventElapsedTime(&ms, b->begin, b->end), "time"),
                       "timing");
        if (i >= 0) us[i] = (double)ms * 1e3 / runs;
    }
    return ts_median(us, samples);
}

void ts_bench_print(json_t *line)
{
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    printf("\n");
    fflush(stdout);
    json_decref(line);
}
