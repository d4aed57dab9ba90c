/* cuda.c - the CUDA device: streams, events, memory and graphs are CUDA's own.
 *
 * One process uses one GPU, made current by open(). Every stream is non-blocking; comm has the
 * highest priority, so that its few blocks start while a step runs. Module loading is eager: a
 * lazily loaded kernel may wait for the whole device, which deadlocks beside a collective that
 * waits for a peer. */
#include "runtime/device/cuda/cuda.h"

#include <nvtx3/nvToolsExt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/log.h"

enum { OLDEST = 75 /* compute capability, times ten */ };

typedef struct cuda_device {
    ts_device base;
    struct cudaDeviceProp properties;
    int ordinal;
} cuda_device;
typedef struct host_call host_call;
typedef struct cuda_stream {
    ts_stream base;
    cudaStream_t stream;
    bool capturing;
    host_call *captured; /* host functions in graphs captured from it, which live as long as it */
    atomic_int status;   /* of the first host function that failed, with its trail */
    char trail[1024];
} cuda_stream;
typedef struct cuda_event {
    ts_event base;
    cudaEvent_t event;
} cuda_event;
typedef struct cuda_graph {
    ts_graph base;
    cudaGraphExec_t graph;
} cuda_graph;

static int processors = 1;

ts_status ts_cuda_check(cudaError_t error, const char *what)
{
    TS_NEED(error == cudaSuccess, error == cudaErrorMemoryAllocation ? TS_ENOMEM : TS_EDEVICE,
            "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
    return TS_OK;
}

cudaStream_t ts_cuda_stream(ts_stream *stream)
{
    return ((cuda_stream *)stream)->stream;
}

int ts_cuda_processors(void)
{
    return processors;
}

unsigned ts_cuda_blocks(size_t n, size_t each)
{
    size_t blocks = (n + each - 1) / each, most = 8 * (size_t)processors;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* ---- the device ---- */

/* Which GPU: the rank's number on its machine. Where each process is shown one GPU only, as SLURM
 * does, all take the first; who shares one is found when the ranks meet. */
static ts_status choose(int ordinal, int *gpu_p)
{
    int n = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    TS_NEED(error != cudaErrorInsufficientDriver, TS_EUNSUPPORTED,
            "no CUDA driver, or one older than this build's CUDA %d.%d", CUDART_VERSION / 1000,
            CUDART_VERSION % 1000 / 10);
    TS_NEED(error == cudaSuccess && n > 0, TS_EUNSUPPORTED, "no GPU: %s",
            error ? cudaGetErrorString(error) : "the driver shows none");
    *gpu_p = ordinal % n;
    return TS_OK;
}

static ts_status cuda_open(int ordinal, ts_device **device_p)
{
    int gpu = 0;
    *device_p = NULL;
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    TS_TRY(choose(ordinal, &gpu));
    cuda_device *device = calloc(1, sizeof *device);
    TS_NEED(device, TS_ENOMEM, "no memory for the CUDA device");
    device->base.ops = &ts_device_cuda;
    device->ordinal = gpu;
    ts_status status = ts_cuda_check(cudaSetDevice(gpu), "cudaSetDevice");
    if (!status)
        status = ts_cuda_check(cudaGetDeviceProperties(&device->properties, gpu),
                               "cudaGetDeviceProperties");
    const struct cudaDeviceProp *p = &device->properties;
    if (!status && p->major * 10 + p->minor < OLDEST)
        status =
            TS_ERROR(TS_EUNSUPPORTED, "GPU %d, %s, has compute capability %d.%d; %d.%d is needed",
                     gpu, p->name, p->major, p->minor, OLDEST / 10, OLDEST % 10);
    if (status) {
        free(device);
        return status;
    }
    processors = p->multiProcessorCount;
    *device_p = &device->base;
    return TS_OK;
}

static void cuda_close(ts_device *device)
{
    free(device);
}

static void cuda_describe(ts_device *base, char *text, size_t bytes)
{
    const cuda_device *device = (const cuda_device *)base;
    const struct cudaDeviceProp *p = &device->properties;
    snprintf(text, bytes, "GPU %d %s, %d processors, compute capability %d.%d, %.1f GiB",
             device->ordinal, p->name, p->multiProcessorCount, p->major, p->minor,
             (double)p->totalGlobalMem / (1 << 30));
}

static void cuda_identity(ts_device *base, char *text, size_t bytes)
{
    const cuda_device *device = (const cuda_device *)base;
    const unsigned char *id = (const unsigned char *)device->properties.uuid.bytes;
    int used = snprintf(text, bytes, "GPU %d (", device->ordinal);
    for (int i = 0; i < 16; i++)
        used += snprintf(text + used, bytes - (size_t)used, "%02x", (unsigned)id[i]);
    snprintf(text + used, bytes - (size_t)used, ")");
}

/* TWINSTREAM_HOST_MEMORY=1 is for tests: device memory is pinned host memory, which they may look
 * into when streams are idle and on which their kernels run as host functions. */
static bool is_host_memory(ts_memory kind)
{
    return kind == TS_MEMORY_PINNED || getenv("TWINSTREAM_HOST_MEMORY");
}

static ts_status cuda_alloc(ts_device *device, ts_memory kind, size_t bytes, void **memory_p)
{
    (void)device;
    size_t room = bytes ? bytes : 1, free_bytes = 0, total = 0;
    *memory_p = NULL;
    cudaError_t error = is_host_memory(kind) ? cudaHostAlloc(memory_p, room, cudaHostAllocPortable)
                                             : cudaMalloc(memory_p, room);
    if (error == cudaSuccess) return TS_OK;
    (void)cudaGetLastError(); /* it would come back from the next launch */
    (void)cudaMemGetInfo(&free_bytes, &total);
    /* invalid: a size beyond any address */
    TS_NEED(error != cudaErrorMemoryAllocation && error != cudaErrorInvalidValue, TS_ENOMEM,
            "%zu bytes of %s memory were asked for, %zu of the GPU's %zu are free; use a smaller "
            "batch or model",
            bytes, kind == TS_MEMORY_PINNED ? "pinned host" : "device", free_bytes, total);
    return ts_cuda_check(error, kind == TS_MEMORY_PINNED ? "cudaHostAlloc" : "cudaMalloc");
}

static void cuda_release(ts_device *device, ts_memory kind, void *memory)
{
    (void)device;
    if (is_host_memory(kind))
        (void)cudaFreeHost(memory);
    else
        (void)cudaFree(memory);
}

/* ---- host functions ---- */

/* One call of a host function, on CUDA's own thread. */
struct host_call {
    cuda_stream *stream;
    const ts_kernel *kernel;
    host_call *next; /* in a graph it runs again and again, and is kept in a list */
    bool captured;
    _Alignas(16) char args[TS_KERNEL_ARGS_MAX];
};

static void free_calls(host_call *call)
{
    while (call) {
        host_call *next = call->next;
        free(call);
        call = next;
    }
}

static void CUDART_CB call_host(void *context)
{
    host_call *call = context;
    cuda_stream *s = call->stream;
    ts_status status = TS_OK;
    if (!atomic_load(&s->status)) status = call->kernel->run(call->args);
    if (status) {
        snprintf(s->trail, sizeof s->trail, "%s\n  on stream %s", ts_trail(), s->base.label);
        ts_trail_clear();
        atomic_store(&s->status, (int)status);
    }
    if (!call->captured) free(call);
}

static ts_status check_args(const ts_kernel *kernel, size_t bytes)
{
    TS_NEED(bytes <= TS_KERNEL_ARGS_MAX, TS_EDEVICE, "%zu bytes of arguments for kernel %s; %d fit",
            bytes, kernel->name, TS_KERNEL_ARGS_MAX);
    return TS_OK;
}

static ts_status cuda_run_on_host(ts_stream *stream, const ts_kernel *kernel, const void *args,
                                  size_t bytes)
{
    cuda_stream *s = (cuda_stream *)stream;
    TS_TRY(check_args(kernel, bytes));
    host_call *call = malloc(sizeof *call);
    TS_NEED(call, TS_ENOMEM, "no memory for a host function");
    call->stream = s;
    call->kernel = kernel;
    call->captured = s->capturing;
    call->next = s->captured;
    memcpy(call->args, args, bytes);
    cudaError_t error = cudaLaunchHostFunc(s->stream, call_host, call);
    if (error)
        free(call);
    else if (s->capturing)
        s->captured = call;
    return ts_cuda_check(error, "cudaLaunchHostFunc");
}

/* ---- streams and events ---- */

static ts_status cuda_stream_open(ts_device *device, ts_stream_role role, const char *label,
                                  ts_stream **stream_p)
{
    int least = 0, greatest = 0; /* the greatest priority has the smaller number */
    *stream_p = NULL;
    TS_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    int priority = role == TS_STREAM_COMM      ? greatest
                   : role == TS_STREAM_COMPUTE ? least
                                               : (least + greatest) / 2;
    cuda_stream *s = calloc(1, sizeof *s);
    TS_NEED(s, TS_ENOMEM, "no memory for a stream");
    s->base.device = device;
    s->base.label = label;
    ts_status status =
        ts_cuda_check(cudaStreamCreateWithPriority(&s->stream, cudaStreamNonBlocking, priority),
                      "cudaStreamCreateWithPriority");
    if (status)
        free(s);
    else
        *stream_p = &s->base;
    return status;
}

static void drop_capture(cuda_stream *s)
{
    cudaGraph_t captured = NULL;
    ts_warn("stream %s was closed while it was capturing: the graph is lost", s->base.label);
    (void)cudaStreamEndCapture(s->stream, &captured);
    if (captured) (void)cudaGraphDestroy(captured);
}

static void cuda_stream_close(ts_stream *stream)
{
    cuda_stream *s = (cuda_stream *)stream;
    if (s->capturing) drop_capture(s);
    (void)cudaStreamSynchronize(s->stream);
    (void)cudaStreamDestroy(s->stream);
    free_calls(s->captured);
    free(s);
}

/* A failure of the stream's host functions comes back from every later call. */
static ts_status check_stream(ts_stream *stream)
{
    cuda_stream *s = (cuda_stream *)stream;
    ts_status status = (ts_status)atomic_load(&s->status);
    if (status) ts_trail_set(s->trail);
    return status;
}

/* CUDA would make of these a dependency of the graph, or end the capture. */
static ts_status check_idle(ts_stream *stream, const char *what)
{
    TS_TRY(check_stream(stream));
    TS_NEED(!((cuda_stream *)stream)->capturing, TS_EDEVICE,
            "%s on stream %s, which is capturing: a graph holds copies, fills and launches", what,
            stream->label);
    return TS_OK;
}

static ts_status cuda_stream_sync(ts_stream *stream)
{
    TS_TRY(check_idle(stream, "a wait"));
    TS_CUDA_TRY(cudaStreamSynchronize(ts_cuda_stream(stream)));
    return check_stream(stream);
}

static ts_status cuda_event_open(ts_device *device, ts_event **event_p)
{
    cuda_event *e = calloc(1, sizeof *e);
    *event_p = NULL;
    TS_NEED(e, TS_ENOMEM, "no memory for an event");
    e->base.device = device;
    ts_status status = ts_cuda_check(cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming),
                                     "cudaEventCreateWithFlags");
    if (status)
        free(e);
    else
        *event_p = &e->base;
    return status;
}

static void cuda_event_close(ts_event *event)
{
    (void)cudaEventDestroy(((cuda_event *)event)->event);
    free(event);
}

static ts_status cuda_event_record(ts_event *event, ts_stream *stream)
{
    TS_TRY(check_idle(stream, "an event's record"));
    TS_CUDA_TRY(cudaEventRecord(((cuda_event *)event)->event, ts_cuda_stream(stream)));
    return TS_OK;
}

static ts_status cuda_event_wait(ts_event *event, ts_stream *stream)
{
    TS_TRY(check_idle(stream, "an event's wait"));
    TS_CUDA_TRY(cudaStreamWaitEvent(ts_cuda_stream(stream), ((cuda_event *)event)->event, 0));
    return TS_OK;
}

static ts_status cuda_event_sync(ts_event *event)
{
    TS_CUDA_TRY(cudaEventSynchronize(((cuda_event *)event)->event));
    return TS_OK;
}

/* A device that has failed does nothing any more: to wait for it would be in vain, and what is done
 * next with it returns its error. */
static bool cuda_event_done(ts_event *event)
{
    return cudaEventQuery(((cuda_event *)event)->event) != cudaErrorNotReady;
}

/* bf16 convolutions and products need Ampere. */
static bool cuda_has_bf16(const ts_device *device)
{
    return ((const cuda_device *)device)->properties.major >= 8;
}

/* ---- work ---- */

static ts_status cuda_copy(ts_stream *stream, void *to, const void *from, size_t bytes)
{
    TS_TRY(check_stream(stream));
    TS_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, ts_cuda_stream(stream)));
    return TS_OK;
}

static ts_status cuda_fill(ts_stream *stream, void *to, int byte, size_t bytes)
{
    TS_TRY(check_stream(stream));
    TS_CUDA_TRY(cudaMemsetAsync(to, byte, bytes, ts_cuda_stream(stream)));
    return TS_OK;
}

static ts_status cuda_launch(ts_stream *stream, const ts_kernel *kernel, const void *args,
                             size_t bytes)
{
    TS_TRY(check_stream(stream));
    if (!kernel->enqueue && is_host_memory(TS_MEMORY_DEVICE))
        return cuda_run_on_host(stream, kernel, args, bytes);
    TS_TRY(check_args(kernel, bytes));
    TS_NEED(kernel->enqueue, TS_EUNSUPPORTED, "kernel %s has no CUDA launcher", kernel->name);
    return kernel->enqueue(args, ts_cuda_stream(stream));
}

/* ---- graphs ---- */

static ts_status cuda_capture_begin(ts_stream *stream)
{
    TS_TRY(check_idle(stream, "a capture"));
    /* Relaxed: what this thread does meanwhile with other streams and events stays allowed. */
    TS_CUDA_TRY(cudaStreamBeginCapture(ts_cuda_stream(stream), cudaStreamCaptureModeRelaxed));
    ((cuda_stream *)stream)->capturing = true;
    return TS_OK;
}

static ts_status cuda_capture_end(ts_stream *stream, ts_graph **graph_p)
{
    cuda_stream *s = (cuda_stream *)stream;
    cudaGraph_t captured = NULL;
    *graph_p = NULL;
    TS_NEED(s->capturing, TS_EDEVICE, "stream %s is not capturing; begin a capture first",
            stream->label);
    s->capturing = false;
    TS_CUDA_TRY(cudaStreamEndCapture(s->stream, &captured));
    cuda_graph *g = calloc(1, sizeof *g);
    ts_status status =
        g ? ts_cuda_check(cudaGraphInstantiate(&g->graph, captured, 0), "cudaGraphInstantiate")
          : TS_ERROR(TS_ENOMEM, "no memory for a graph");
    (void)cudaGraphDestroy(captured);
    if (!status) {
        g->base.device = stream->device;
        status = ts_cuda_check(cudaGraphUpload(g->graph, s->stream), "cudaGraphUpload");
    }
    if (status)
        free(g);
    else
        *graph_p = &g->base;
    return status;
}

static ts_status cuda_graph_launch(ts_graph *graph, ts_stream *stream)
{
    TS_TRY(check_idle(stream, "a graph"));
    TS_CUDA_TRY(cudaGraphLaunch(((cuda_graph *)graph)->graph, ts_cuda_stream(stream)));
    return TS_OK;
}

static void cuda_graph_close(ts_graph *graph)
{
    (void)cudaGraphExecDestroy(((cuda_graph *)graph)->graph);
    free(graph);
}

void ts_device_cuda_version(char *text, size_t bytes)
{
    int driver = 0;
    if (cudaDriverGetVersion(&driver)) driver = 0;
    if (driver)
        snprintf(text, bytes, "%d.%d, driver %d.%d", CUDART_VERSION / 1000,
                 CUDART_VERSION % 1000 / 10, driver / 1000, driver % 1000 / 10);
    else
        snprintf(text, bytes, "%d.%d, no driver", CUDART_VERSION / 1000,
                 CUDART_VERSION % 1000 / 10);
}

static void cuda_range_push(const char *name)
{
    nvtxRangePushA(name);
}

static void cuda_range_pop(void)
{
    nvtxRangePop();
}

static ts_status cuda_clock_offset(ts_device *device, int64_t *offset_ns_p)
{
    (void)device;
    return ts_cuda_clock_offset(offset_ns_p);
}

const ts_device_ops ts_device_cuda = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .identity = cuda_identity,
    .has_bf16 = cuda_has_bf16,
    .range_push = cuda_range_push,
    .range_pop = cuda_range_pop,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .stream_open = cuda_stream_open,
    .stream_close = cuda_stream_close,
    .stream_sync = cuda_stream_sync,
    .event_open = cuda_event_open,
    .event_close = cuda_event_close,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .event_sync = cuda_event_sync,
    .event_done = cuda_event_done,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .launch = cuda_launch,
    .run_on_host = cuda_run_on_host,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .graph_launch = cuda_graph_launch,
    .graph_close = cuda_graph_close,
    .clock_offset = cuda_clock_offset,
};
