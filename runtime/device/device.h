/* device.h - memory, streams, events, kernels and graphs on one device.
 *
 * The host device runs streams as threads with a FIFO; the CUDA device runs them as CUDA does.
 * Semantics are CUDA's on both: a call that takes a stream only enqueues; an error that surfaces
 * later sticks to the stream and comes back from every later call on it; an event may be
 * recorded again, and an earlier wait keeps the earlier record; waiting for an event that was
 * never recorded is no wait. Release functions accept NULL.
 *
 * All arithmetic is kernels: a name, a host function, a CUDA launcher, and what it reads and
 * writes. The host device calls the function on the stream's thread; the CUDA device calls the
 * launcher; the recording device of the tests uses the accesses to find pairs that nothing orders.
 */
#ifndef TS_DEVICE_DEVICE_H
#define TS_DEVICE_DEVICE_H

#include "runtime/base/status.h"
#include "runtime/base/type.h"

typedef enum ts_memory {
    TS_MEMORY_DEVICE, /* 64-byte aligned or better, contents undefined */
    TS_MEMORY_PINNED  /* host memory that asynchronous copies may use */
} ts_memory;

/* A stream's part: comm gets the highest priority a device has. */
typedef enum ts_stream_role { TS_STREAM_COMPUTE, TS_STREAM_COMM, TS_STREAM_COPY } ts_stream_role;

typedef struct ts_device ts_device;
typedef struct ts_stream ts_stream;
typedef struct ts_event ts_event;
typedef struct ts_graph ts_graph;

/* One range of memory that a kernel touches. */
typedef struct ts_access {
    const void *at;
    size_t bytes;
    bool write;
} ts_access;
enum { TS_ACCESS_MAX = 24, TS_KERNEL_ARGS_MAX = 512, TS_IDENTITY_MAX = 64 };

typedef struct ts_kernel {
    const char *name;
    /* Run it on the host. A failure (an oneDNN status, an MPI error) is described with TS_ERROR
     * and sticks to the stream. */
    ts_status (*run)(const void *args);
    /* Fill at most TS_ACCESS_MAX ranges, return how many. NULL: the kernel touches no shared
     * memory. */
    int (*accesses)(const void *args, ts_access *list);
    /* Launch it on a CUDA stream (a cudaStream_t), at once. NULL: it runs on the host only. In a
     * build without CUDA these functions are no_cuda.c's, which refuse. */
    ts_status (*enqueue)(const void *args, void *cuda_stream);
} ts_kernel;

typedef struct ts_device_ops {
    const char *name; /* "host", "cuda" */

    /* Required. */
    /* `ordinal`: which one of its kind, the rank's number on its machine; the host device is one,
     * and all ranks of a machine share it. */
    ts_status (*open)(int ordinal, ts_device **device_p);
    void (*close)(ts_device *device);
    /* One line for people: model, cores, memory. */
    void (*describe)(ts_device *device, char *text, size_t bytes);
    ts_status (*alloc)(ts_device *device, ts_memory kind, size_t bytes, void **memory_p);
    void (*release)(ts_device *device, ts_memory kind, void *memory);
    /* `label` ("compute", "comm") names the thread, the trace row and errors; it is borrowed. */
    ts_status (*stream_open)(ts_device *device, ts_stream_role role, const char *label,
                             ts_stream **stream_p);
    /* Finishes what is queued. */
    void (*stream_close)(ts_stream *stream);
    /* Blocks the caller until the stream is empty. */
    ts_status (*stream_sync)(ts_stream *stream);
    ts_status (*event_open)(ts_device *device, ts_event **event_p);
    void (*event_close)(ts_event *event);
    ts_status (*event_record)(ts_event *event, ts_stream *stream);
    ts_status (*event_wait)(ts_event *event, ts_stream *stream);
    /* Blocks the caller until the latest record has happened. */
    ts_status (*event_sync)(ts_event *event);
    /* Never blocks: has the latest record happened? */
    bool (*event_done)(ts_event *event);
    ts_status (*copy)(ts_stream *stream, void *to, const void *from, size_t bytes);
    ts_status (*fill)(ts_stream *stream, void *to, int byte, size_t bytes);
    /* Copies the `bytes` (<= TS_KERNEL_ARGS_MAX) of arguments; what they point to must outlive
     * the run. */
    ts_status (*launch)(ts_stream *stream, const ts_kernel *kernel, const void *args, size_t bytes);

    /* Optional. At most TS_IDENTITY_MAX bytes that no other device has, "GPU 3 (0f3a...)". NULL:
     * one device serves any number of ranks. */
    void (*identity)(ts_device *device, char *text, size_t bytes);
    /* Optional. Do its libraries multiply bf16? NULL: ask the host's. */
    bool (*has_bf16)(const ts_device *device);
    /* Optional. A range, nested, that a profiler shows beside this thread's calls. */
    void (*range_push)(const char *name);
    void (*range_pop)(void);
    /* Optional. Run the kernel's host function in the stream's order; what it touches must be
     * pinned or plain host memory. NULL: launch does it. */
    ts_status (*run_on_host)(ts_stream *stream, const ts_kernel *kernel, const void *args,
                             size_t bytes);
    /* Optional; a device without them runs eagerly. Between begin and end every copy, fill and
     * launch on the stream is recorded, not run; event and sync calls on it are errors. A graph
     * may be launched any number of times, and runs as one item of the stream. */
    ts_status (*capture_begin)(ts_stream *stream);
    ts_status (*capture_end)(ts_stream *stream, ts_graph **graph_p);
    ts_status (*graph_launch)(ts_graph *graph, ts_stream *stream);
    void (*graph_close)(ts_graph *graph);
    /* What to add to the time of a stamp (trace.h) to be on ts_clock_ns's scale. Blocks. NULL: 0.
     */
    ts_status (*clock_offset)(ts_device *device, int64_t *offset_ns_p);
} ts_device_ops;

struct ts_device {
    const ts_device_ops *ops;
};
struct ts_stream {
    ts_device *device;
    const char *label;
};
struct ts_event {
    ts_device *device;
};
struct ts_graph {
    ts_device *device;
};

extern const ts_device_ops ts_device_host, ts_device_cuda;
/* "13.0, driver 13.0", or why there is none. */
void ts_device_cuda_version(char *text, size_t bytes);
/* NULL-terminated; the order is that of --device auto. */
extern const ts_device_ops *const ts_devices[];
/* "auto" takes the first that opens. TS_EUSAGE when the name is unknown. */
ts_status ts_device_open(const char *name, int ordinal, ts_device **device_p);
/* TWINSTREAM_SHARE_GPU=1: ranks may have one GPU together. */
bool ts_device_may_be_shared(void);
void ts_device_close(ts_device *device);

static inline void ts_device_describe(ts_device *device, char *text, size_t bytes)
{
    device->ops->describe(device, text, bytes);
}
static inline ts_status ts_device_alloc(ts_device *device, ts_memory kind, size_t bytes,
                                        void **memory_p)
{
    return device->ops->alloc(device, kind, bytes, memory_p);
}
static inline void ts_device_release(ts_device *device, ts_memory kind, void *memory)
{
    if (memory) device->ops->release(device, kind, memory);
}
static inline ts_status ts_stream_open(ts_device *device, ts_stream_role role, const char *label,
                                       ts_stream **stream_p)
{
    return device->ops->stream_open(device, role, label, stream_p);
}
static inline void ts_stream_close(ts_stream *stream)
{
    if (stream) stream->device->ops->stream_close(stream);
}
static inline ts_status ts_stream_sync(ts_stream *stream)
{
    return stream->device->ops->stream_sync(stream);
}
static inline ts_status ts_event_open(ts_device *device, ts_event **event_p)
{
    return device->ops->event_open(device, event_p);
}
static inline void ts_event_close(ts_event *event)
{
    if (event) event->device->ops->event_close(event);
}
static inline ts_status ts_event_record(ts_event *event, ts_stream *stream)
{
    return stream->device->ops->event_record(event, stream);
}
static inline ts_status ts_event_wait(ts_event *event, ts_stream *stream)
{
    return stream->device->ops->event_wait(event, stream);
}
static inline ts_status ts_event_sync(ts_event *event)
{
    return event->device->ops->event_sync(event);
}
static inline bool ts_event_done(ts_event *event)
{
    return event->device->ops->event_done(event);
}
static inline ts_status ts_stream_copy(ts_stream *stream, void *to, const void *from, size_t bytes)
{
    return stream->device->ops->copy(stream, to, from, bytes);
}
static inline ts_status ts_stream_fill(ts_stream *stream, void *to, int byte, size_t bytes)
{
    return stream->device->ops->fill(stream, to, byte, bytes);
}
static inline ts_status ts_stream_launch(ts_stream *stream, const ts_kernel *kernel,
                                         const void *args, size_t bytes)
{
    return stream->device->ops->launch(stream, kernel, args, bytes);
}
static inline ts_status ts_stream_run_on_host(ts_stream *stream, const ts_kernel *kernel,
                                              const void *args, size_t bytes)
{
    const ts_device_ops *ops = stream->device->ops;
    return (ops->run_on_host ? ops->run_on_host : ops->launch)(stream, kernel, args, bytes);
}
static inline void ts_range_push(ts_device *device, const char *name)
{
    if (device->ops->range_push) device->ops->range_push(name);
}
static inline void ts_range_pop(ts_device *device)
{
    if (device->ops->range_pop) device->ops->range_pop();
}
static inline bool ts_device_can_capture(const ts_device *device)
{
    return device->ops->capture_begin != NULL;
}
static inline ts_status ts_stream_capture_begin(ts_stream *stream)
{
    return stream->device->ops->capture_begin(stream);
}
static inline ts_status ts_stream_capture_end(ts_stream *stream, ts_graph **graph_p)
{
    return stream->device->ops->capture_end(stream, graph_p);
}
static inline ts_status ts_graph_launch(ts_graph *graph, ts_stream *stream)
{
    return graph->device->ops->graph_launch(graph, stream);
}
static inline void ts_graph_close(ts_graph *graph)
{
    if (graph) graph->device->ops->graph_close(graph);
}

/* Whatever is queued on `then` from now on waits for what is on `first` now. */
static inline ts_status ts_stream_after(ts_event *event, ts_stream *first, ts_stream *then)
{
    TS_TRY(ts_event_record(event, first));
    return ts_event_wait(event, then);
}

#endif
