/* cudart.c - the part of the CUDA runtime that we call, over the host device: one GPU of two
 * processors, whose streams are threads. TWINSTREAM_EMULATED_GPU names it, so that ranks may have
 * one in common or not. */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/device/device.h"

static ts_device *host;
static cudaError_t last;

struct CUstream_st {
    ts_stream *stream;
};

static cudaError_t result(ts_status status)
{
    if (status) {
        ts_trail_clear();
        last = cudaErrorUnknown;
    }
    return status ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return host ? cudaSuccess : result(ts_device_host.open(0, &host));
}

cudaError_t cudaSetDevice(int device)
{
    return device ? cudaErrorInvalidDevice : cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    const char *name = getenv("TWINSTREAM_EMULATED_GPU");
    memset(p, 0, sizeof *p);
    strcpy(p->name, "emulated");
    p->major = 9;
    p->multiProcessorCount = 2;
    p->totalGlobalMem = (size_t)1 << 30;
    int id = name ? atoi(name) : (int)getpid();
    memcpy(p->uuid.bytes, &id, sizeof id);
    return device ? cudaErrorInvalidDevice : cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "emulated failure";
}

const char *cudaGetErrorName(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t was = last;
    last = cudaSuccess;
    return was;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last;
}

/* ---- memory ---- */

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    *memory = bytes > (size_t)4 << 30 ? NULL : aligned_alloc(256, (bytes + 255) / 256 * 256);
    last = *memory ? last : cudaErrorMemoryAllocation;
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    (void)flags;
    return cudaMalloc(memory, bytes);
}

cudaError_t cudaFreeHost(void *memory)
{
    return cudaFree(memory);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *free_bytes = *total = (size_t)1 << 30;
    return cudaSuccess;
}

/* ---- streams ---- */

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    ts_stream_role role = priority == -5 ? TS_STREAM_COMM
                          : priority     ? TS_STREAM_COPY
                                         : TS_STREAM_COMPUTE;
    *stream = calloc(1, sizeof **stream);
    if (!*stream || flags != cudaStreamNonBlocking) return cudaErrorUnknown;
    return result(ts_stream_open(host, role, "emulated", &(*stream)->stream));
}

/* The stream of a thread's own, as the only one that is not made by a call. */
static ts_stream *stream_of(cudaStream_t stream)
{
    static struct CUstream_st own;
    if (stream != cudaStreamPerThread) return stream->stream;
    if (!own.stream) (void)ts_stream_open(host, TS_STREAM_COPY, "own", &own.stream);
    return own.stream;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    ts_stream_close(stream->stream);
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return result(ts_stream_sync(stream_of(stream)));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    return result(ts_event_wait((ts_event *)event, stream_of(stream)));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind;
    return result(ts_stream_copy(stream_of(stream), to, from, bytes));
}

cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream)
{
    return result(ts_stream_fill(stream_of(stream), to, byte, bytes));
}

typedef struct function {
    cudaHostFn_t run;
    void *context;
} function;

static ts_status run_function(const void *args)
{
    const function *f = args;
    f->run(f->context);
    return TS_OK;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t run, void *context)
{
    static const ts_kernel kernel = {.name = "emulated", .run = run_function};
    function f = {run, context};
    return result(ts_stream_launch(stream_of(stream), &kernel, &f, sizeof f));
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    return result(ts_event_open(host, (ts_event **)event));
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    ts_event_close((ts_event *)event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return result(ts_event_record((ts_event *)event, stream_of(stream)));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return result(ts_event_sync((ts_event *)event));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return ts_event_done((ts_event *)event) ? cudaSuccess : cudaErrorNotReady;
}

/* ---- graphs: a captured one is its own executable ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)mode;
    return result(ts_stream_capture_begin(stream_of(stream)));
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    return result(ts_stream_capture_end(stream_of(stream), (ts_graph **)graph));
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags)
{
    (void)flags;
    *executable = (cudaGraphExec_t)graph;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream)
{
    (void)executable, (void)stream;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    (void)graph; /* the executable still needs it */
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    return result(ts_graph_launch((ts_graph *)executable, stream_of(stream)));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    ts_graph_close((ts_graph *)executable);
    return cudaSuccess;
}
