/* allreduce.c - all-reduce over a range of sizes: every communicator beside the others.
 *
 *   mpirun -np 2 perf_allreduce --min-bytes 44695848 --max-bytes 44695848
 *
 * Columns are those of nccl-tests: algbw = bytes / time, busbw = algbw 2 (size - 1) / size, which
 * is what each link carries. cpu is the processor time of the stream's thread per all-reduce: what
 * communication takes from computation. Per size the communicators take turns, so that a noisy
 * machine is noisy for all; the best and the mean are over the iterations. Every result is
 * checked for equality: the data are small integers. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/option.h"
#include "runtime/comm/comm.h"

typedef struct settings {
    int64_t min_bytes, max_bytes, factor, warm_up, iterations, timeout;
    const char *communicators;
    bool json, help;
} settings;

#define ROW(key, type, field, initial, min, max, help)                                             \
    {                                                                                              \
        key, type, offsetof(settings, field), initial, NULL, min, max, help                        \
    }
static const ts_option rows[] = {
    ROW("min-bytes", TS_OPTION_INT, min_bytes, "4", 4, 1e12, "smallest size, in bytes"),
    ROW("max-bytes", TS_OPTION_INT, max_bytes, "67108864", 4, 1e12, "largest size, in bytes"),
    ROW("factor", TS_OPTION_INT, factor, "4", 2, 1e6, "from one size to the next"),
    ROW("warm-up", TS_OPTION_INT, warm_up, "2", 0, 1e6, "all-reduces of a size before it counts"),
    ROW("iterations", TS_OPTION_INT, iterations, "8", 1, 1e6, "all-reduces of a size that count"),
    ROW("timeout", TS_OPTION_INT, timeout, "60", 0, 1e6,
        "seconds without progress that are a fault"),
    ROW("communicators", TS_OPTION_TEXT, communicators, "ring,mpi", 0, 0, "which, with commas"),
    ROW("json", TS_OPTION_BOOL, json, "no", 0, 0, "one line of JSON for each row, no table"),
    ROW("help", TS_OPTION_BOOL, help, "no", 0, 0, "this text"),
    {0},
};

/* What the stream's thread notes as it passes: the time, and its own processor time. */
typedef struct stamp {
    int64_t at_ns, cpu_ns;
} stamp;

static ts_status run_stamp(const void *args)
{
    stamp *s = *(stamp *const *)args;
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    s->at_ns = ts_clock_ns();
    s->cpu_ns = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000000) +
                (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * INT64_C(1000);
    return TS_OK;
}

static const ts_kernel stamp_kernel = {.name = "perf_stamp", .run = run_stamp};

typedef struct bench {
    settings set;
    ts_world *world;
    ts_device *device;
    ts_stream *stream;
    ts_communicator *communicators[8];
    int n_communicators;
    float *from, *to;
} bench;

typedef struct result {
    double best_s, sum_s, cpu_s;
    int64_t wrong;
} result;

static float value(int rank, size_t i)
{
    return (float)((int)((i * 5 + (size_t)rank * 11) % 13) - 6);
}

static int64_t count_wrong(const bench *b, size_t n)
{
    int64_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        float want = 0;
        for (int r = 0; r < b->world->size; r++) want += value(r, i);
        wrong += b->to[i] != want;
    }
    return wrong;
}

static ts_status measure(const bench *b, ts_communicator *c, size_t n, bool counts, result *result)
{
    stamp begin, end, *begin_at = &begin, *end_at = &end;
    memset(b->to, 0xff, n * sizeof *b->to);
    TS_TRY(b->world->ops->barrier(b->world));
    TS_TRY(ts_stream_launch(b->stream, &stamp_kernel, &begin_at, sizeof begin_at));
    TS_TRY(c->ops->all_reduce(c, b->to, b->from, n, TS_SUM, NULL));
    TS_TRY(ts_stream_launch(b->stream, &stamp_kernel, &end_at, sizeof end_at));
    TS_TRY(ts_stream_sync(b->stream));
    result->wrong += count_wrong(b, n);
    if (!counts) return TS_OK;
    double seconds = (double)(end.at_ns - begin.at_ns) * 1e-9;
    if (result->best_s == 0 || seconds < result->best_s) result->best_s = seconds;
    result->sum_s += seconds;
    result->cpu_s += (double)(end.cpu_ns - begin.cpu_ns) * 1e-9;
    return TS_OK;
}

/* The slowest rank's time, the mean over ranks of the processor time, all wrong elements. */
static ts_status combine(const bench *b, result *mine)
{
    int size = b->world->size;
    result *all = malloc((size_t)size * sizeof *all);
    TS_NEED(all, TS_ENOMEM, "no memory for %d results", size);
    ts_status status = b->world->ops->all_gather(b->world, mine, all, sizeof *mine);
    if (status == TS_OK) *mine = (result){0};
    for (int r = 0; r < size && status == TS_OK; r++) {
        if (all[r].best_s > mine->best_s) mine->best_s = all[r].best_s;
        if (all[r].sum_s > mine->sum_s) mine->sum_s = all[r].sum_s;
        mine->cpu_s += all[r].cpu_s / size;
        mine->wrong += all[r].wrong;
    }
    free(all);
    return status;
}

static ts_status report(const bench *b, const char *name, size_t n, const result *r)
{
    double bytes = (double)(n * sizeof(float)), size = b->world->size;
    double iterations = (double)b->set.iterations;
    double algbw = bytes / r->best_s * 1e-9, busbw = algbw * 2 * (size - 1) / size;
    if (b->set.json) {
        return ts_json_append(stdout, "standard output",
                              json_pack("{s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:I}",
                                        "communicator", name, "ranks", b->world->size, "bytes",
                                        (json_int_t)(n * sizeof(float)), "count", (json_int_t)n,
                                        "best_s", r->best_s, "mean_s", r->sum_s / iterations,
                                        "cpu_s", r->cpu_s / iterations, "algbw_gb_s", algbw,
                                        "busbw_gb_s", busbw, "wrong", (json_int_t)r->wrong));
    }
    printf("%12zu %12zu %6s %12.1f %12.1f %12.1f %8.3f %8.3f %6lld\n", n * sizeof(float), n, name,
           r->best_s * 1e6, r->sum_s / iterations * 1e6, r->cpu_s / iterations * 1e6, algbw, busbw,
           (long long)r->wrong);
    fflush(stdout);
    return TS_OK;
}

static ts_status sweep(bench *b)
{
    if (b->world->rank == 0 && !b->set.json)
        printf("%12s %12s %6s %12s %12s %12s %8s %8s %6s\n%12s %12s %6s %12s %12s %12s %8s %8s\n",
               "size", "count", "comm", "best", "mean", "cpu", "algbw", "busbw", "wrong", "(B)",
               "(fp32)", "", "(us)", "(us)", "(us)", "(GB/s)", "(GB/s)");
    int64_t wrong = 0;
    for (int64_t bytes = b->set.min_bytes; bytes <= b->set.max_bytes; bytes *= b->set.factor) {
        size_t n = (size_t)bytes / sizeof(float);
        result results[8] = {0};
        for (int64_t k = 0; k < b->set.warm_up + b->set.iterations; k++) {
            for (int i = 0; i < b->n_communicators; i++)
                TS_TRY(measure(b, b->communicators[i], n, k >= b->set.warm_up, &results[i]));
        }
        for (int i = 0; i < b->n_communicators; i++) {
            TS_TRY(combine(b, &results[i]));
            wrong += results[i].wrong;
            if (b->world->rank == 0)
                TS_TRY(report(b, b->communicators[i]->ops->name, n, &results[i]));
        }
    }
    TS_NEED(wrong == 0, TS_ECOMM, "%lld elements are wrong", (long long)wrong);
    return TS_OK;
}

static ts_status open_communicators(bench *b)
{
    char names[128];
    TS_NEED(strlen(b->set.communicators) < sizeof names, TS_EUSAGE, "too many communicators");
    strcpy(names, b->set.communicators);
    char *rest = NULL;
    for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        TS_NEED(b->n_communicators < 8, TS_EUSAGE, "at most 8 communicators");
        TS_TRY(ts_communicator_open(name, b->world, b->stream,
                                    &(ts_communicator_options){.timeout_s = (int)b->set.timeout},
                                    &b->communicators[b->n_communicators]));
        b->n_communicators++;
    }
    return TS_OK;
}

static ts_status run(bench *b)
{
    TS_TRY(ts_device_open("host", 0, &b->device));
    TS_TRY(ts_stream_open(b->device, TS_STREAM_COMM, "comm", &b->stream));
    TS_TRY(open_communicators(b));
    size_t bytes = (size_t)b->set.max_bytes;
    void *memory;
    TS_TRY(ts_device_alloc(b->device, TS_MEMORY_DEVICE, bytes, &memory));
    b->from = memory;
    TS_TRY(ts_device_alloc(b->device, TS_MEMORY_DEVICE, bytes, &memory));
    b->to = memory;
    for (size_t i = 0; i < bytes / sizeof(float); i++) b->from[i] = value(b->world->rank, i);
    TS_TRY(sweep(b));
    ts_device_release(b->device, TS_MEMORY_DEVICE, b->to);
    ts_device_release(b->device, TS_MEMORY_DEVICE, b->from);
    for (int i = b->n_communicators; i-- > 0;) ts_communicator_close(b->communicators[i]);
    ts_stream_close(b->stream);
    ts_device_close(b->device);
    return TS_OK;
}

int main(int argc, char **argv)
{
    bench b = {0};
    ts_option_group group = {"all-reduce benchmark", rows, &b.set};
    ts_option_set *set = NULL;
    ts_status status = ts_option_set_open(&group, 1, &set);
    if (status == TS_OK) status = ts_option_set_parse(set, argc, argv);
    if (status == TS_OK && b.set.help) {
        ts_option_set_help(set, stdout);
        ts_option_set_close(set);
        return 0;
    }
    if (status == TS_OK) status = ts_world_open("auto", &b.world);
    if (status == TS_OK) status = run(&b);
    if (status != TS_OK) {
        ts_log_failure(status);
        if (b.world) b.world->ops->abort(b.world, ts_status_exit_code(status));
    }
    ts_world_close(b.world);
    ts_option_set_close(set);
    return ts_status_exit_code(status);
}
