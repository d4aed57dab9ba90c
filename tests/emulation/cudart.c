/* cudart.c - the part of the CUDA runtime that we call, over the host device: one GPU of two
 * processors, whose streams are threads. TWINSTREAM_EMULATED_GPU names it, so that ranks may have
 * one in common or not. Device memory can be touched only while something of a stream runs: host
 * code that looks into it ends with a segmentation fault, as it does on a GPU. */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/clock.h"
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

/* One range for all of it, handed out from the front; what is freed is not used again. */
#define ARENA ((size_t)4 << 30)
static struct {
    pthread_mutex_t lock;
    char *base;
    size_t used;
    int users; /* streams that run something now */
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void open_arena(int by)
{
    pthread_mutex_lock(&arena.lock);
    bool was = arena.users > 0;
    arena.users += by;
    bool is = arena.users > 0;
    if (was != is && arena.used)
        mprotect(arena.base, arena.used, is ? PROT_READ | PROT_WRITE : PROT_NONE);
    pthread_mutex_unlock(&arena.lock);
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    *memory = NULL;
    pthread_mutex_lock(&arena.lock);
    if (!arena.base)
        arena.base =
            mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena.base != MAP_FAILED && bytes <= ARENA && arena.used + room <= ARENA) {
        *memory = arena.base + arena.used;
        arena.used += room;
        if (arena.users) mprotect(*memory, room, PROT_READ | PROT_WRITE);
    }
    pthread_mutex_unlock(&arena.lock);
    if (!*memory) last = cudaErrorMemoryAllocation;
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *memory)
{
    (void)memory;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    (void)flags;
    *memory = bytes > ARENA ? NULL : aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*memory) last = cudaErrorMemoryAllocation;
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    free(memory);
    return cudaSuccess;
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

typedef struct work {
    cudaHostFn_t run; /* NULL: copy, or fill when `from` is NULL */
    void *context, *to;
    const void *from;
    size_t bytes;
    int byte;
} work;

static ts_status run_work(const void *args)
{
    const work *w = args;
    open_arena(1);
    if (w->run)
        w->run(w->context);
    else if (w->from)
        memmove(w->to, w->from, w->bytes);
    else
        memset(w->to, w->byte, w->bytes);
    open_arena(-1);
    return TS_OK;
}

static cudaError_t enqueue(cudaStream_t stream, work w)
{
    static const ts_kernel kernel = {.name = "emulated", .run = run_work};
    return result(ts_stream_launch(stream_of(stream), &kernel, &w, sizeof w));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind;
    return enqueue(stream, (work){.to = to, .from = from, .bytes = bytes});
}

cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream)
{
    return enqueue(stream, (work){.to = to, .byte = byte, .bytes = bytes});
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t run, void *context)
{
    return enqueue(stream, (work){.run = run, .context = context});
}

/* ---- events ---- */

struct CUevent_st {
    ts_event *event;
    int64_t at_ns;
};

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    *event = calloc(1, sizeof **event);
    return *event ? result(ts_event_open(host, &(*event)->event)) : cudaErrorMemoryAllocation;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    ts_event_close(event->event);
    free(event);
    return cudaSuccess;
}

static void CUDART_CB note_time(void *event)
{
    ((cudaEvent_t)event)->at_ns = ts_clock_ns();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t error = cudaLaunchHostFunc(stream, note_time, event);
    return error ? error : result(ts_event_record(event->event, stream_of(stream)));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    return result(ts_event_wait(event->event, stream_of(stream)));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return result(ts_event_sync(event->event));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return ts_event_done(event->event) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    *ms = (float)((double)(end->at_ns - begin->at_ns) * 1e-6);
    return cudaSuccess;
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
