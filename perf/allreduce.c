/* allreduce.c - all-reduce over a range of sizes: every communicator beside the others.
 *
 *   mpirun -np 2 perf_allreduce --min-bytes 44695848 --max-bytes 44695848
 *
 * The first columns are those of nccl-tests, in its order and units, so that the tables lie beside
 * each other: time is that of the slowest rank, out of place, for one of a row of all-reduces, by
 * the stream's own stamps; algbw = bytes / time; busbw = algbw 2 (size - 1) / size, what each link
 * carries. cpu is the processor time of a rank per all-reduce: what communication takes from the
 * host. Per size the communicators take turns, so that a noisy machine is noisy for all; time is
 * the mean over turns, best that of the best turn. Every result is checked for equality: the data
 * are small integers. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "perf/program.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/comm/comm.h"
#include "runtime/device/trace.h"

typedef struct settings {
    int64_t min_bytes, max_bytes, factor, warm_up, iterations, turns, timeout, ctas;
    const char *device, *communicators;
    bool json, help;
} settings;

#define AT(field) offsetof(settings, field)
static const ts_option rows[] = {
    {"min-bytes", TS_OPTION_INT, AT(min_bytes), "4", NULL, 4, 1e12, "smallest size, in bytes"},
    {"max-bytes", TS_OPTION_INT, AT(max_bytes), "67108864", NULL, 4, 1e12,
     "largest size, in bytes"},
    {"factor", TS_OPTION_INT, AT(factor), "4", NULL, 2, 1e6, "from one size to the next"},
    {"warm-up", TS_OPTION_INT, AT(warm_up), "1", NULL, 0, 1e6, "turns of a size before it counts"},
    {"turns", TS_OPTION_INT, AT(turns), "4", NULL, 1, 1e6, "turns of a communicator that count"},
    {"iterations", TS_OPTION_INT, AT(iterations), "5", NULL, 1, 1e6,
     "all-reduces in a row, in a turn"},
    {"timeout", TS_OPTION_INT, AT(timeout), "60", NULL, 0, 1e6,
     "seconds without progress that are a fault"},
    {"device", TS_OPTION_TEXT, AT(device), "auto", NULL, 0, 0, "auto, cuda or host"},
    {"communicators", TS_OPTION_TEXT, AT(communicators), "all", NULL, 0, 0,
     "which, with commas; all: those that serve these ranks on this device"},
    {"nccl-ctas", TS_OPTION_INT, AT(ctas), "4", NULL, 1, 64,
     "blocks that an NCCL collective may take"},
    {"json", TS_OPTION_BOOL, AT(json), "no", NULL, 0, 0, "one line of JSON for each row, no table"},
    {"help", TS_OPTION_BOOL, AT(help), "no", NULL, 0, 0, "this text"},
    {0},
};

typedef struct bench {
    settings set;
    ts_world *world;
    ts_device *device;
    ts_stream *stream;
    ts_trace *trace;
    ts_communicator *communicators[8];
    int n_communicators;
    float *from, *to; /* device */
    float *host;      /* pinned: what came out */
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
        wrong += b->host[i] != want;
    }
    return wrong;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void take_time(void *context, const ts_span *span)
{
    *(double *)context = (double)(span->end_ns - span->begin_ns) * 1e-9;
}

static ts_status measure(const bench *b, ts_communicator *c, size_t n, bool counts, result *result)
{
    double seconds = 0;
    TS_TRY(ts_stream_fill(b->stream, b->to, 0xff, n * sizeof *b->to));
    TS_TRY(ts_stream_sync(b->stream));
    TS_TRY(b->world->ops->barrier(b->world));
    double cpu = cpu_seconds();
    TS_TRY(ts_trace_begin(b->trace, b->stream, TS_SPAN_COMM, -1));
    for (int64_t i = 0; i < b->set.iterations; i++)
        TS_TRY(c->ops->all_reduce(c, b->to, b->from, n, TS_SUM, NULL));
    TS_TRY(ts_trace_end(b->trace, b->stream, TS_SPAN_COMM));
    TS_TRY(ts_stream_sync(b->stream));
    cpu = (cpu_seconds() - cpu) / (double)b->set.iterations;
    ts_trace_drain(b->trace, take_time, &seconds);
    seconds /= (double)b->set.iterations;
    TS_TRY(ts_stream_copy(b->stream, b->host, b->to, n * sizeof *b->to));
    TS_TRY(ts_stream_sync(b->stream));
    result->wrong += count_wrong(b, n);
    if (!counts) return TS_OK;
    if (result->best_s == 0 || seconds < result->best_s) result->best_s = seconds;
    result->sum_s += seconds;
    result->cpu_s += cpu;
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
    double turns = (double)b->set.turns, mean_s = r->sum_s / turns;
    double algbw = bytes / mean_s * 1e-9, busbw = algbw * 2 * (size - 1) / size;
    if (b->set.json)
        return ts_json_append(
            stdout, "standard output",
            json_pack("{s:s, s:s, s:i, s:I, s:I, s:s, s:s, s:f, s:f, s:f, s:I, s:f, s:f}",
                      "communicator", name, "device", b->device->ops->name, "ranks", b->world->size,
                      "size", (json_int_t)(n * sizeof(float)), "count", (json_int_t)n, "type",
                      "float", "redop", "sum", "time_us", mean_s * 1e6, "algbw_gbs", algbw,
                      "busbw_gbs", busbw, "wrong", (json_int_t)r->wrong, "best_us", r->best_s * 1e6,
                      "cpu_us", r->cpu_s / turns * 1e6));
    printf("%12zu %12zu %8s %6s %6d %10.2f %7.3f %7.3f %6lld  %10.2f %10.1f %s\n",
           n * sizeof(float), n, "float", "sum", -1, mean_s * 1e6, algbw, busbw,
           (long long)r->wrong, r->best_s * 1e6, r->cpu_s / turns * 1e6, name);
    fflush(stdout);
    return TS_OK;
}

static ts_status sweep(bench *b)
{
    char device[256];
    ts_device_describe(b->device, device, sizeof device);
    if (b->world->rank == 0 && !b->set.json)
        printf("# %d ranks, device %s: %s\n#%11s %12s %8s %6s %6s %10s %7s %7s %6s  %10s %10s %s\n"
               "#%11s %12s %8s %6s %6s %10s %7s %7s %6s  %10s %10s\n",
               b->world->size, b->device->ops->name, device, "size", "count", "type", "redop",
               "root", "time", "algbw", "busbw", "#wrong", "best", "cpu", "communicator", "(B)",
               "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "", "(us)", "(us)");
    int64_t wrong = 0;
    for (int64_t bytes = b->set.min_bytes; bytes <= b->set.max_bytes; bytes *= b->set.factor) {
        size_t n = (size_t)bytes / sizeof(float);
        result results[8] = {0};
        for (int64_t k = 0; k < b->set.warm_up + b->set.turns; k++) {
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

static ts_status open_communicator(bench *b, const char *name)
{
    TS_NEED(b->n_communicators < 8, TS_EUSAGE, "at most 8 communicators");
    ts_communicator_options options = {.timeout_s = (int)b->set.timeout, .ctas = (int)b->set.ctas};
    TS_TRY(ts_communicator_open(name, b->world, b->stream, &options,
                                &b->communicators[b->n_communicators]));
    b->n_communicators++;
    return TS_OK;
}

static ts_status open_communicators(bench *b)
{
    char names[128];
    TS_NEED(strlen(b->set.communicators) < sizeof names, TS_EUSAGE, "too many communicators");
    strcpy(names, b->set.communicators);
    if (!strcmp(names, "all")) {
        for (int i = 0; ts_communicators[i]; i++)
            if (ts_communicators[i]->serves(b->world, b->device, NULL))
                TS_TRY(open_communicator(b, ts_communicators[i]->name));
        TS_NEED(b->n_communicators, TS_EUNSUPPORTED,
                "no communicator serves %d ranks of world %s on device %s; `twinstream info` says "
                "why",
                b->world->size, b->world->ops->name, b->device->ops->name);
        return TS_OK;
    }
    char *rest = NULL;
    for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        TS_TRY(open_communicator(b, name));
    return TS_OK;
}

static ts_status run(bench *b)
{
    size_t bytes = (size_t)b->set.max_bytes;
    TS_TRY(ts_device_open(b->set.device, b->world->local_rank, &b->device));
    TS_TRY(ts_stream_open(b->device, TS_STREAM_COMM, "comm", &b->stream));
    TS_TRY(ts_trace_open(b->device, 64, &b->trace));
    TS_TRY(open_communicators(b));
    TS_TRY(ts_device_alloc(b->device, TS_MEMORY_DEVICE, bytes, (void **)&b->from));
    TS_TRY(ts_device_alloc(b->device, TS_MEMORY_DEVICE, bytes, (void **)&b->to));
    TS_TRY(ts_device_alloc(b->device, TS_MEMORY_PINNED, bytes, (void **)&b->host));
    for (size_t i = 0; i < bytes / sizeof(float); i++) b->host[i] = value(b->world->rank, i);
    TS_TRY(ts_stream_copy(b->stream, b->from, b->host, bytes));
    TS_TRY(sweep(b));
    ts_device_release(b->device, TS_MEMORY_PINNED, b->host);
    ts_device_release(b->device, TS_MEMORY_DEVICE, b->to);
    ts_device_release(b->device, TS_MEMORY_DEVICE, b->from);
    for (int i = b->n_communicators; i-- > 0;) ts_communicator_close(b->communicators[i]);
    ts_trace_close(b->trace);
    ts_stream_close(b->stream);
    ts_device_close(b->device);
    return TS_OK;
}

int main(int argc, char **argv)
{
    bench b = {0};
    ts_program_options("all-reduce benchmark", rows, &b.set, &b.set.help, argc, argv);
    ts_status status = ts_world_open("auto", &b.world);
    if (status == TS_OK) status = run(&b);
    if (status != TS_OK) {
        ts_log_failure(status);
        if (b.world) b.world->ops->abort(b.world, ts_status_exit_code(status));
    }
    ts_world_close(b.world);
    return ts_status_exit_code(status);
}
