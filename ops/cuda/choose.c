/* choose.c - which of cuDNN's plans is the fastest: timed once, then remembered in a file by GPU
 * (and whether ranks share it), cuDNN version, shape and type, so that the next run starts at once
 * and takes the same plans. The file is $TWINSTREAM_CACHE/cudnn-plans, else
 * $XDG_CACHE_HOME/twinstream/..., else ~/.cache/twinstream/...; a line a choice, the first one
 * counts. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ops/cuda/conv.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/device/cuda/cuda.h"
#include "runtime/device/cuda/occupant.h"

enum { PLANS = 64, RUNS = 5, KEY = 512 };

/* ---- what was chosen before ---- */

static ts_status cache_path(char *path, size_t bytes, bool make)
{
    char folder[480];
    const char *own = getenv("TWINSTREAM_CACHE"), *shared = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (own)
        TS_TRY(ts_file_join(folder, sizeof folder, own, ""));
    else if (shared)
        TS_TRY(ts_file_join(folder, sizeof folder, shared, "twinstream"));
    else
        TS_TRY(ts_file_join(folder, sizeof folder, home ? home : "/tmp", ".cache/twinstream"));
    if (make) TS_TRY(ts_file_make_folder(folder));
    return ts_file_join(path, bytes, folder, "cudnn-plans");
}

/* The plan's name, "" when there is none. Lines are "key<tab>name". */
static void recall(const char *key, char *name, size_t bytes)
{
    char path[512], line[KEY + 256];
    *name = '\0';
    FILE *in = cache_path(path, sizeof path, false) ? NULL : fopen(path, "r");
    while (in && !*name && fgets(line, sizeof line, in)) {
        char *tab = strchr(line, '\t');
        if (!tab) continue;
        *tab = '\0';
        if (!strcmp(line, key)) snprintf(name, bytes, "%.*s", (int)strcspn(tab + 1, "\n"), tab + 1);
    }
    if (in) fclose(in);
    ts_trail_clear();
}

/* One write, so that ranks which start together do not mix their lines. */
static ts_status append(const char *key, const char *name)
{
    char path[512], line[KEY + 256];
    TS_TRY(cache_path(path, sizeof path, true));
    int n = snprintf(line, sizeof line, "%s\t%s\n", key, name);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    ssize_t written = file < 0 ? -1 : write(file, line, (size_t)n);
    if (file >= 0) close(file);
    TS_NEED(written == n, TS_EDATA, "%s cannot be written", path);
    return TS_OK;
}

static void remember(const char *key, const char *name)
{
    static bool warned;
    if (append(key, name) && !warned) {
        warned = true;
        ts_warn("cuDNN plans will be timed again by the next run: %s; set TWINSTREAM_CACHE to a "
                "folder for them",
                ts_trail_message());
    }
    ts_trail_clear();
}

static ts_status make_key(const ts_cudnn *cudnn, const ts_op_desc *d, ts_op_pass pass, char *key)
{
    static const char *const passes[] = {
        [TS_FORWARD] = "forward", [TS_BACKWARD_DATA] = "data", [TS_BACKWARD_WEIGHTS] = "weights"};
    struct cudaDeviceProp gpu;
    char text[160];
    int ordinal = 0;
    TS_CUDA_TRY(cudaGetDevice(&ordinal));
    TS_CUDA_TRY(cudaGetDeviceProperties(&gpu, ordinal));
    ts_op_describe(d, text, sizeof text);
    snprintf(key, KEY, "%s%s, cuDNN %zu, %s%s, %s", gpu.name,
             ts_device_may_be_shared() ? " shared" : "", ts_cudnn_version(cudnn), text,
             d->tf32 ? " tf32" : "", passes[pass]);
    return TS_OK;
}

/* ---- timing ---- */

typedef struct bench {
    ts_cudnn *cudnn;
    void *tensors[TS_CUDNN_TENSORS], *workspace; /* x, w, y */
    cudaStream_t stream, beside;
    cudaEvent_t begin, end;
    ts_occupant *occupant;
} bench;

static ts_status open_bench(bench *b, const ts_op_desc *d, size_t workspace)
{
    int least = 0, greatest = 0;
    ts_shape x = d->in, w = {d->out.c, d->in.c + 7, d->kernel, d->kernel};
    x.c += 7; /* at most so much padding */
    const size_t sizes[] = {ts_shape_count(x), ts_shape_count(w), ts_shape_count(d->out)};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t bytes = sizes[i] * ts_type_bytes(d->type);
        TS_CUDA_TRY(cudaMalloc(&b->tensors[i], bytes));
        TS_CUDA_TRY(cudaMemset(b->tensors[i], 0x3c, bytes)); /* about 0.01 in every type */
    }
    TS_CUDA_TRY(cudaMalloc(&b->workspace, workspace ? workspace : 1));
    TS_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    TS_CUDA_TRY(cudaStreamCreateWithPriority(&b->stream, cudaStreamNonBlocking, least));
    TS_CUDA_TRY(cudaStreamCreateWithPriority(&b->beside, cudaStreamNonBlocking, greatest));
    TS_CUDA_TRY(cudaEventCreate(&b->begin));
    TS_CUDA_TRY(cudaEventCreate(&b->end));
    TS_CUDA_TRY(cudaDeviceSynchronize());
    return ts_occupant_open(&b->occupant);
}

static void close_bench(bench *b)
{
    ts_occupant_close(b->occupant);
    if (b->end) (void)cudaEventDestroy(b->end);
    if (b->begin) (void)cudaEventDestroy(b->begin);
    if (b->beside) (void)cudaStreamDestroy(b->beside);
    if (b->stream) (void)cudaStreamDestroy(b->stream);
    (void)cudaFree(b->workspace);
    for (int i = 0; i < TS_CUDNN_TENSORS; i++) (void)cudaFree(b->tensors[i]);
}

/* A plan's first run loads its code, which may wait for all that runs on the device: not beside the
 * occupant, which does not end. */
static bool runs(bench *b, const ts_cudnn_plan *plan)
{
    bool well = !ts_cudnn_run(b->cudnn, plan, b->tensors, b->workspace, b->stream) &&
                !ts_cuda_check(cudaStreamSynchronize(b->stream), "a plan's first run");
    if (!well) ts_log(TS_LOG_DEBUG, "a plan is passed over: %s", ts_trail_message());
    ts_trail_clear();
    return well;
}

/* Milliseconds of one run. */
static ts_status time_plan(bench *b, const ts_cudnn_plan *plan, float *ms_p)
{
    TS_CUDA_TRY(cudaEventRecord(b->begin, b->stream));
    for (int i = 0; i < RUNS; i++)
        TS_TRY(ts_cudnn_run(b->cudnn, plan, b->tensors, b->workspace, b->stream));
    TS_CUDA_TRY(cudaEventRecord(b->end, b->stream));
    TS_CUDA_TRY(cudaEventSynchronize(b->end));
    TS_CUDA_TRY(cudaEventElapsedTime(ms_p, b->begin, b->end));
    *ms_p /= RUNS;
    return TS_OK;
}

/* The index of the fastest; a plan that fails to run is passed over. */
static ts_status time_all(bench *b, const ts_cudnn_plan *plans, int n, int *best_p, float *ms_p)
{
    bool well[PLANS];
    ts_status status = TS_OK;
    *best_p = -1;
    for (int i = 0; i < n; i++) well[i] = runs(b, &plans[i]);
    TS_TRY(ts_occupant_start(b->occupant, TS_COMM_BLOCKS, 0, b->beside));
    for (int i = 0; i < n && !status; i++) {
        float ms = 0;
        if (!well[i]) continue;
        status = time_plan(b, &plans[i], &ms);
        if (status || (*best_p >= 0 && ms >= *ms_p)) continue;
        *best_p = i;
        *ms_p = ms;
    }
    ts_occupant_stop(b->occupant);
    TS_TRY(status);
    TS_CUDA_TRY(cudaStreamSynchronize(b->beside));
    TS_NEED(*best_p >= 0, TS_EDEVICE, "none of %d cuDNN plans ran", n);
    return TS_OK;
}

/* Ranks that start together may find different ones: all take the one that every later run will. */
static void take_first(const char *key, const ts_cudnn_plan *plans, int n, int *best_p)
{
    char name[sizeof plans->name];
    recall(key, name, sizeof name);
    for (int i = 0; i < n; i++)
        if (!strcmp(plans[i].name, name)) *best_p = i;
}

static ts_status find_fastest(ts_cudnn *cudnn, const ts_op_desc *d, const ts_cudnn_plan *plans,
                              int n, const char *key, int *best_p)
{
    bench b = {.cudnn = cudnn};
    size_t workspace = 0;
    float ms = 0;
    for (int i = 0; i < n; i++)
        if (plans[i].workspace_bytes > workspace) workspace = plans[i].workspace_bytes;
    ts_status status = open_bench(&b, d, workspace);
    if (!status) status = time_all(&b, plans, n, best_p, &ms);
    close_bench(&b);
    (void)cudaGetLastError(); /* of what failed above, or the next launch would return it */
    if (status == TS_ENOMEM) {
        ts_warn("too little memory to time the plans of %s; cuDNN's favourite is taken", key);
        ts_trail_clear();
        *best_p = 0;
        return TS_OK;
    }
    TS_TRY(status);
    ts_log(TS_LOG_DEBUG, "%s: plan %s, %.1f us, the fastest of %d", key, plans[*best_p].name,
           (double)ms * 1e3, n);
    remember(key, plans[*best_p].name);
    take_first(key, plans, n, best_p);
    return TS_OK;
}

ts_status ts_cudnn_choose(ts_cudnn *cudnn, ts_cudnn_graph *graph, const ts_op_desc *d,
                          ts_op_pass pass, ts_cudnn_plan *plan_p)
{
    char key[KEY], name[sizeof plan_p->name];
    int n = 0, best = 0;
    ts_status status = TS_OK;
    ts_cudnn_plan plans[PLANS] = {0};
    TS_TRY(make_key(cudnn, d, pass, key));
    recall(key, name, sizeof name);
    if (*name) TS_TRY(ts_cudnn_plans(graph, TS_CUDNN_WORKSPACE, name, plans, 1, &n));
    if (n == 0) {
        TS_TRY(ts_cudnn_plans(graph, TS_CUDNN_WORKSPACE, NULL, plans, PLANS, &n));
        TS_NEED(n > 0, TS_EUNSUPPORTED,
                "cuDNN has no deterministic, compiled plan with a workspace of at most %zu MiB for "
                "%s",
                TS_CUDNN_WORKSPACE >> 20, key);
        status = find_fastest(cudnn, d, plans, n, key, &best);
    }
    for (int i = 0; i < n; i++)
        if (status || i != best) ts_cudnn_plan_close(&plans[i]);
    *plan_p = status ? (ts_cudnn_plan){0} : plans[best];
    return status;
}
