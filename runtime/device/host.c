/* host.c - the device that is this machine's processors: a stream is a thread with a FIFO.
 *
 * A stream counts the items it was given and the items it has finished. That pair of counters is
 * all an event needs: a record is (stream, items given so far), so a wait keeps the record it
 * saw, whatever is recorded later, and no wait can form a cycle. Closed streams are kept and
 * reused with their counters running on, so a record outlives its stream.
 * In the steady state an enqueue is one lock and one copy of the arguments: the FIFO grows when
 * it must and never shrinks. What waits for a failed stream fails with it. */
#include <ctype.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "runtime/base/log.h"
#include "runtime/device/device.h"

enum {
    FIFO_START = 64, /* items */
    TRAIL_BYTES = 4096,
    SMALL_ALIGNMENT = 64,
    PAGE_ALIGNMENT = 4096,
    HUGE_PAGE = 2 << 20
};

typedef struct host_stream host_stream;
typedef struct host_graph host_graph;

typedef enum item_kind { ITEM_KERNEL, ITEM_COPY, ITEM_FILL, ITEM_WAIT, ITEM_GRAPH } item_kind;

typedef struct item {
    item_kind kind;
    const ts_kernel *kernel;
    size_t bytes; /* of the copy, the fill or the arguments */
    union {
        struct {
            void *to;
            const void *from;
        } copy;
        struct {
            void *to;
            int byte;
        } fill;
        struct {
            host_stream *stream;
            uint64_t position;
        } wait;
        host_graph *graph;
        max_align_t alignment;
        unsigned char args[TS_KERNEL_ARGS_MAX];
    } u;
} item;

typedef struct host_device {
    ts_device base;
    size_t memory; /* bytes of the machine */
    pthread_mutex_t lock;
    host_stream *streams; /* all that were ever opened */
} host_device;

struct host_stream {
    ts_stream base;
    ts_stream_role role;
    bool open;         /* guarded by the device's lock, as is `next` */
    host_stream *next; /* of the device */
    pthread_t thread;

    pthread_mutex_t lock;    /* guards what follows */
    pthread_cond_t work;     /* the stream's thread sleeps here when the FIFO is empty */
    pthread_cond_t progress; /* others sleep here until `completed` reaches `wake_at` */
    bool idle, closing;
    item *fifo;
    size_t capacity; /* a power of two */
    uint64_t enqueued;
    _Atomic uint64_t completed; /* written with the lock held; event_done reads it without */
    uint64_t wake_at;           /* the nearest position somebody waits for */
    ts_status status;           /* sticky */
    uint64_t failed_at;         /* position of the item that failed */
    char trail[TRAIL_BYTES];
    host_graph *capture; /* being recorded, or NULL */
};

typedef struct host_event {
    ts_event base;
    pthread_mutex_t lock;
    host_stream *stream; /* of the latest record; NULL: never recorded */
    uint64_t position;
} host_event;

struct host_graph {
    ts_graph base;
    item *items;
    size_t n, capacity;
    atomic_int references; /* the owner's and one for each launch in flight */
};

/* ---- items ---------------------------------------------------------------------------------- */

/* Only the part that is in use: most arguments are far smaller than the slot. */
static void item_copy(item *to, const item *from)
{
    size_t used = from->kind == ITEM_KERNEL ? from->bytes : sizeof from->u.copy;
    memcpy(to, from, offsetof(item, u) + used);
}

static void graph_release(host_graph *graph)
{
    if (atomic_fetch_sub(&graph->references, 1) != 1) return;
    free(graph->items);
    free(graph);
}

/* With the lock held: hand the sticky error to the calling thread. */
static ts_status stream_failure(const host_stream *s)
{
    ts_trail_set(s->trail);
    return s->status;
}

/* Blocks until `s` has finished `position` items. An error of one of these comes back. */
static ts_status stream_reach(host_stream *s, uint64_t position)
{
    pthread_mutex_lock(&s->lock);
    while (s->completed < position) {
        if (position < s->wake_at) s->wake_at = position;
        pthread_cond_wait(&s->progress, &s->lock);
    }
    ts_status status = TS_OK;
    if (s->status != TS_OK && s->failed_at <= position) status = stream_failure(s);
    pthread_mutex_unlock(&s->lock);
    return status;
}

static ts_status item_run(item *i)
{
    switch (i->kind) {
    case ITEM_KERNEL:
        TS_TRY(i->kernel->run(i->u.args));
        break;
    case ITEM_COPY:
        memcpy(i->u.copy.to, i->u.copy.from, i->bytes);
        break;
    case ITEM_FILL:
        memset(i->u.fill.to, i->u.fill.byte, i->bytes);
        break;
    case ITEM_WAIT:
        TS_TRY(stream_reach(i->u.wait.stream, i->u.wait.position));
        break;
    case ITEM_GRAPH:
        for (size_t k = 0; k < i->u.graph->n; k++) TS_TRY(item_run(&i->u.graph->items[k]));
        break;
    }
    return TS_OK;
}

/* With the lock held. Items keep their index modulo the capacity. */
static ts_status fifo_grow(host_stream *s)
{
    size_t capacity = s->capacity ? 2 * s->capacity : FIFO_START;
    item *fifo = malloc(capacity * sizeof *fifo);
    TS_NEED(fifo, TS_ENOMEM, "stream %s: no memory for a queue of %zu items", s->base.label,
            capacity);
    for (uint64_t k = s->completed; k < s->enqueued; k++)
        item_copy(&fifo[k & (capacity - 1)], &s->fifo[k & (s->capacity - 1)]);
    free(s->fifo);
    s->fifo = fifo;
    s->capacity = capacity;
    return TS_OK;
}

static ts_status capture_grow(host_graph *graph)
{
    size_t capacity = graph->capacity ? 2 * graph->capacity : FIFO_START;
    item *items = realloc(graph->items, capacity * sizeof *items);
    TS_NEED(items, TS_ENOMEM, "no memory for a graph of %zu items", capacity);
    graph->items = items;
    graph->capacity = capacity;
    return TS_OK;
}

/* With the lock held: room for the next item, in the FIFO or in the graph being captured. */
static ts_status slot_find(host_stream *s, item **slot_p)
{
    if (s->status != TS_OK) return stream_failure(s);
    if (s->capture) {
        if (s->capture->n == s->capture->capacity) TS_TRY(capture_grow(s->capture));
        *slot_p = &s->capture->items[s->capture->n];
        return TS_OK;
    }
    /* The running item keeps its slot until it is finished. */
    if (s->enqueued - s->completed == s->capacity) TS_TRY(fifo_grow(s));
    *slot_p = &s->fifo[s->enqueued & (s->capacity - 1)];
    return TS_OK;
}

/* Takes the lock and keeps it when it succeeds; slot_give publishes the item and releases it. */
static ts_status slot_take(host_stream *s, item **slot_p)
{
    pthread_mutex_lock(&s->lock);
    ts_status status = slot_find(s, slot_p);
    if (status != TS_OK) pthread_mutex_unlock(&s->lock);
    return status;
}

static void slot_give(host_stream *s)
{
    bool wake = false;
    if (s->capture) {
        s->capture->n++;
    } else {
        s->enqueued++;
        wake = s->idle;
        s->idle = false;
    }
    pthread_mutex_unlock(&s->lock);
    if (wake) pthread_cond_signal(&s->work);
}

/* ---- the stream's thread -------------------------------------------------------------------- */

/* Comm's part of a high-priority stream: a thread that wakes for a short while, often, should not
 * wait for compute's time slice to end. Linux 6.12 and later let a thread ask for a short slice of
 * its own, which makes it run sooner after a wake-up; elsewhere the call fails and changes nothing.
 */
static void run_soon(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = 48, .policy = 0 /* SCHED_OTHER */, .runtime = 100000 /* ns */};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *stream_main(void *argument)
{
    host_stream *s = argument;
    char name[16]; /* the longest name Linux takes */
    snprintf(name, sizeof name, "%s", s->base.label);
    if (s->role == TS_STREAM_COMM) run_soon();
    pthread_setname_np(pthread_self(), name);
#ifdef _OPENMP
    /* Only compute spreads over the cores; the others must not take them away from it. */
    if (s->role != TS_STREAM_COMPUTE) omp_set_num_threads(1);
#endif
    item current; /* a copy, since the FIFO may move while the item runs */
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->completed == s->enqueued && !s->closing) {
            s->idle = true;
            pthread_cond_wait(&s->work, &s->lock);
        }
        if (s->completed == s->enqueued) break;
        item_copy(&current, &s->fifo[s->completed & (s->capacity - 1)]);
        bool skip = s->status != TS_OK;
        pthread_mutex_unlock(&s->lock);

        ts_status status = skip ? TS_OK : item_run(&current);
        if (current.kind == ITEM_GRAPH) graph_release(current.u.graph);

        pthread_mutex_lock(&s->lock);
        uint64_t position = s->completed + 1;
        if (status != TS_OK) {
            s->status = status;
            s->failed_at = position;
            snprintf(s->trail, sizeof s->trail, "%s\n  on stream %s", ts_trail(), s->base.label);
            ts_trail_clear();
        }
        s->completed = position;
        if (position >= s->wake_at) {
            s->wake_at = UINT64_MAX; /* whoever needs more says so again */
            pthread_cond_broadcast(&s->progress);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void stream_free(host_stream *s)
{
    pthread_cond_destroy(&s->progress);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s->fifo);
    free(s);
}

/* With the device's lock held: a closed stream, or a new one. */
static ts_status stream_find(host_device *device, host_stream **stream_p)
{
    for (host_stream *s = device->streams; s; s = s->next)
        if (!s->open) {
            *stream_p = s;
            return TS_OK;
        }
    host_stream *s = calloc(1, sizeof *s);
    TS_NEED(s, TS_ENOMEM, "no memory for a stream");
    s->base.device = &device->base;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->progress, NULL);
    s->next = device->streams;
    device->streams = s;
    *stream_p = s;
    return TS_OK;
}

static ts_status stream_start(host_stream *s, ts_stream_role role, const char *label)
{
    s->base.label = label;
    s->role = role;
    pthread_mutex_lock(&s->lock); /* waits for records of its earlier life may be looking */
    s->wake_at = UINT64_MAX;
    s->status = TS_OK;
    s->idle = s->closing = false;
    pthread_mutex_unlock(&s->lock);
    /* Signals are for the thread that runs main(). */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&s->thread, NULL, stream_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    TS_NEED(error == 0, TS_EDEVICE, "cannot start the thread of stream %s: %s", label,
            strerror(error));
    s->open = true;
    return TS_OK;
}

static ts_status host_stream_open(ts_device *base, ts_stream_role role, const char *label,
                                  ts_stream **stream_p)
{
    host_device *device = (host_device *)base;
    host_stream *s = NULL;
    *stream_p = NULL;
    pthread_mutex_lock(&device->lock);
    ts_status status = stream_find(device, &s);
    if (status == TS_OK) status = stream_start(s, role, label);
    pthread_mutex_unlock(&device->lock);
    TS_TRY(status);
    *stream_p = &s->base;
    return TS_OK;
}

static void host_stream_close(ts_stream *base)
{
    host_stream *s = (host_stream *)base;
    host_device *device = (host_device *)base->device;
    pthread_mutex_lock(&s->lock);
    host_graph *capture = s->capture;
    s->capture = NULL;
    s->closing = true;
    pthread_mutex_unlock(&s->lock);
    pthread_cond_signal(&s->work);
    if (capture) {
        ts_log(TS_LOG_ERROR,
               "stream %s was closed while it was capturing: the graph is lost; "
               "end the capture first",
               base->label);
        graph_release(capture);
    }
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&device->lock);
    s->open = false;
    pthread_mutex_unlock(&device->lock);
}

static ts_status host_stream_sync(ts_stream *base)
{
    host_stream *s = (host_stream *)base;
    pthread_mutex_lock(&s->lock);
    uint64_t position = s->enqueued;
    bool capturing = s->capture != NULL;
    pthread_mutex_unlock(&s->lock);
    TS_NEED(!capturing, TS_EDEVICE,
            "stream %s is capturing and cannot be waited for; end the "
            "capture first",
            base->label);
    TS_TRY(stream_reach(s, position));
    return TS_OK;
}

/* ---- events --------------------------------------------------------------------------------- */

static ts_status host_event_open(ts_device *device, ts_event **event_p)
{
    *event_p = NULL;
    host_event *e = calloc(1, sizeof *e);
    TS_NEED(e, TS_ENOMEM, "no memory for an event");
    e->base.device = device;
    pthread_mutex_init(&e->lock, NULL);
    *event_p = &e->base;
    return TS_OK;
}

static void host_event_close(ts_event *base)
{
    host_event *e = (host_event *)base;
    pthread_mutex_destroy(&e->lock);
    free(e);
}

/* The latest record; NULL when there is none. */
static host_stream *event_latest(ts_event *base, uint64_t *position_p)
{
    host_event *e = (host_event *)base;
    pthread_mutex_lock(&e->lock);
    host_stream *s = e->stream;
    *position_p = e->position;
    pthread_mutex_unlock(&e->lock);
    return s;
}

/* With the stream's lock held. */
static ts_status event_allowed(const host_stream *s, const char *call)
{
    if (s->status != TS_OK) return stream_failure(s);
    TS_NEED(!s->capture, TS_EDEVICE,
            "%s on stream %s, which is capturing: a graph holds copies, "
            "fills and kernels only",
            call, s->base.label);
    return TS_OK;
}

static ts_status host_event_record(ts_event *base, ts_stream *stream)
{
    host_event *e = (host_event *)base;
    host_stream *s = (host_stream *)stream;
    pthread_mutex_lock(&s->lock);
    ts_status status = event_allowed(s, "event record");
    uint64_t position = s->enqueued;
    pthread_mutex_unlock(&s->lock);
    TS_TRY(status);
    pthread_mutex_lock(&e->lock);
    e->stream = s;
    e->position = position;
    pthread_mutex_unlock(&e->lock);
    return TS_OK;
}

static ts_status host_event_wait(ts_event *base, ts_stream *stream)
{
    host_stream *s = (host_stream *)stream;
    uint64_t position;
    host_stream *first = event_latest(base, &position);
    item *slot = NULL;
    pthread_mutex_lock(&s->lock);
    ts_status status = event_allowed(s, "event wait");
    /* A stream is always behind its own records. */
    bool enqueue = first && first != s;
    if (status == TS_OK && enqueue) status = slot_find(s, &slot);
    if (status != TS_OK || !enqueue) {
        pthread_mutex_unlock(&s->lock);
        TS_TRY(status);
        return TS_OK;
    }
    slot->kind = ITEM_WAIT;
    slot->u.wait.stream = first;
    slot->u.wait.position = position;
    slot_give(s);
    return TS_OK;
}

static ts_status host_event_sync(ts_event *base)
{
    uint64_t position;
    host_stream *s = event_latest(base, &position);
    if (s) TS_TRY(stream_reach(s, position));
    return TS_OK;
}

static bool host_event_done(ts_event *base)
{
    uint64_t position;
    host_stream *s = event_latest(base, &position);
    return !s || atomic_load_explicit(&s->completed, memory_order_acquire) >= position;
}

/* ---- work ----------------------------------------------------------------------------------- */

static ts_status host_copy(ts_stream *base, void *to, const void *from, size_t bytes)
{
    host_stream *s = (host_stream *)base;
    item *slot = NULL;
    TS_TRY(slot_take(s, &slot));
    slot->kind = ITEM_COPY;
    slot->bytes = bytes;
    slot->u.copy.to = to;
    slot->u.copy.from = from;
    slot_give(s);
    return TS_OK;
}

static ts_status host_fill(ts_stream *base, void *to, int byte, size_t bytes)
{
    host_stream *s = (host_stream *)base;
    item *slot = NULL;
    TS_TRY(slot_take(s, &slot));
    slot->kind = ITEM_FILL;
    slot->bytes = bytes;
    slot->u.fill.to = to;
    slot->u.fill.byte = byte;
    slot_give(s);
    return TS_OK;
}

static ts_status host_launch(ts_stream *base, const ts_kernel *kernel, const void *args,
                             size_t bytes)
{
    host_stream *s = (host_stream *)base;
    TS_NEED(bytes <= TS_KERNEL_ARGS_MAX, TS_EDEVICE,
            "kernel %s: %zu bytes of arguments, at most %d fit", kernel->name, bytes,
            TS_KERNEL_ARGS_MAX);
    item *slot = NULL;
    TS_TRY(slot_take(s, &slot));
    slot->kind = ITEM_KERNEL;
    slot->kernel = kernel;
    slot->bytes = bytes;
    if (bytes) memcpy(slot->u.args, args, bytes);
    slot_give(s);
    return TS_OK;
}

/* ---- graphs --------------------------------------------------------------------------------- */

static ts_status host_capture_begin(ts_stream *base)
{
    host_stream *s = (host_stream *)base;
    host_graph *graph = calloc(1, sizeof *graph);
    TS_NEED(graph, TS_ENOMEM, "no memory for a graph");
    graph->base.device = base->device;
    atomic_init(&graph->references, 1);
    pthread_mutex_lock(&s->lock);
    ts_status status = TS_OK;
    if (s->status != TS_OK)
        status = stream_failure(s);
    else if (s->capture)
        status = TS_ERROR(TS_EDEVICE, "stream %s is capturing already; end that capture first",
                          base->label);
    else
        s->capture = graph;
    pthread_mutex_unlock(&s->lock);
    if (status != TS_OK) graph_release(graph);
    return status;
}

static ts_status host_capture_end(ts_stream *base, ts_graph **graph_p)
{
    host_stream *s = (host_stream *)base;
    pthread_mutex_lock(&s->lock);
    host_graph *graph = s->capture;
    s->capture = NULL;
    pthread_mutex_unlock(&s->lock);
    *graph_p = NULL;
    TS_NEED(graph, TS_EDEVICE, "stream %s is not capturing; begin a capture first", base->label);
    *graph_p = &graph->base;
    return TS_OK;
}

static ts_status host_graph_launch(ts_graph *base, ts_stream *stream)
{
    host_graph *graph = (host_graph *)base;
    host_stream *s = (host_stream *)stream;
    item *slot = NULL;
    pthread_mutex_lock(&s->lock);
    ts_status status = event_allowed(s, "graph launch");
    if (status == TS_OK) status = slot_find(s, &slot);
    if (status != TS_OK) {
        pthread_mutex_unlock(&s->lock);
        TS_TRY(status);
    }
    atomic_fetch_add(&graph->references, 1);
    slot->kind = ITEM_GRAPH;
    slot->u.graph = graph;
    slot_give(s);
    return TS_OK;
}

static void host_graph_close(ts_graph *base)
{
    graph_release((host_graph *)base);
}

/* ---- memory --------------------------------------------------------------------------------- */

static ts_status host_alloc(ts_device *base, ts_memory kind, size_t bytes, void **memory_p)
{
    const host_device *device = (const host_device *)base;
    (void)kind; /* every byte of the host may be copied asynchronously */
    *memory_p = NULL;
    /* Linux promises more than it has; what can never fit is refused here. */
    TS_NEED(bytes <= device->memory, TS_ENOMEM,
            "%zu bytes were asked for, the machine has %zu; use a smaller batch or model", bytes,
            device->memory);
    void *memory = NULL;
    int error = posix_memalign(&memory, bytes >= HUGE_PAGE ? PAGE_ALIGNMENT : SMALL_ALIGNMENT,
                               bytes ? bytes : 1);
    TS_NEED(error == 0, TS_ENOMEM, "no %zu bytes of memory left (the machine has %zu)", bytes,
            device->memory);
    /* Advice only: fewer page faults and TLB misses where the kernel takes it. */
    if (bytes >= HUGE_PAGE) (void)madvise(memory, bytes, MADV_HUGEPAGE);
    *memory_p = memory;
    return TS_OK;
}

static void host_release(ts_device *device, ts_memory kind, void *memory)
{
    (void)device;
    (void)kind;
    free(memory);
}

/* ---- the device ----------------------------------------------------------------------------- */

static ts_status host_open(int ordinal, ts_device **device_p)
{
    *device_p = NULL;
    (void)ordinal; /* the ranks of a machine share its one host device */
    host_device *device = calloc(1, sizeof *device);
    TS_NEED(device, TS_ENOMEM, "no memory for the host device");
    device->base.ops = &ts_device_host;
    device->memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    pthread_mutex_init(&device->lock, NULL);
    *device_p = &device->base;
    return TS_OK;
}

static void host_close(ts_device *base)
{
    host_device *device = (host_device *)base;
    while (device->streams) {
        host_stream *s = device->streams;
        if (s->open) host_stream_close(&s->base);
        device->streams = s->next;
        stream_free(s);
    }
    pthread_mutex_destroy(&device->lock);
    free(device);
}

/* Copies the value of the first line "key : value" of /proc/cpuinfo. */
static void cpuinfo_value(const char *key, char *value, size_t bytes)
{
    value[0] = '\0';
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[8192]; /* the line of flags is long */
    while (!value[0] && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        line[strcspn(line, "\n")] = '\0';
        const char *start = colon + 1;
        while (isspace((unsigned char)*start)) start++;
        snprintf(value, bytes, "%s", start);
    }
    fclose(file);
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

static void host_describe(ts_device *base, char *text, size_t bytes)
{
    static const char *const extensions[] = {"avx2",     "avx512f", "avx512_bf16", "avx512_fp16",
                                             "amx_bf16", "asimd",   "sve",         "bf16"};
    const host_device *device = (const host_device *)base;
    char model[128], flags[8192], found[128] = "";
    cpuinfo_value("model name", model, sizeof model);
    cpuinfo_value("flags", flags, sizeof flags);
    if (!flags[0]) cpuinfo_value("Features", flags, sizeof flags);
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
        if (has_word(flags, extensions[i])) {
            size_t used = strlen(found);
            snprintf(found + used, sizeof found - used, " %s", extensions[i]);
        }
    cpu_set_t usable;
    CPU_ZERO(&usable);
    int cores = sched_getaffinity(0, sizeof usable, &usable) == 0
                    ? CPU_COUNT(&usable)
                    : (int)sysconf(_SC_NPROCESSORS_ONLN);
    snprintf(text, bytes, "%s, %d core%s usable,%s, %.1f GiB", model[0] ? model : "processor",
             cores, cores == 1 ? "" : "s", found[0] ? found : " no vector extension known",
             (double)device->memory / (1 << 30));
}

const ts_device_ops ts_device_host = {
    .name = "host",
    .open = host_open,
    .close = host_close,
    .describe = host_describe,
    .alloc = host_alloc,
    .release = host_release,
    .stream_open = host_stream_open,
    .stream_close = host_stream_close,
    .stream_sync = host_stream_sync,
    .event_open = host_event_open,
    .event_close = host_event_close,
    .event_record = host_event_record,
    .event_wait = host_event_wait,
    .event_sync = host_event_sync,
    .event_done = host_event_done,
    .copy = host_copy,
    .fill = host_fill,
    .launch = host_launch,
    .capture_begin = host_capture_begin,
    .capture_end = host_capture_end,
    .graph_launch = host_graph_launch,
    .graph_close = host_graph_close,
};
