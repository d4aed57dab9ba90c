/* recording_device.c - see recording_device.h.
 *
 * Each node carries a vector clock: for each stream, how many of its nodes certainly came
 * before. It is the maximum over the node before it on its stream, what it waits for, and what
 * the host had waited for when it enqueued the node; so it is known when the node runs. Node a
 * is ordered before node b exactly when b's clock counts a. */
#include "tests/recording_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/random.h"

enum { LABEL_BYTES = 48, TRAIL_BYTES = 2048, TEXT_BYTES = 192 };

typedef enum work_kind { WORK_KERNEL, WORK_COPY, WORK_FILL } work_kind;
typedef struct work {
    work_kind kind;
    const ts_kernel *kernel;
    void *to;
    const void *from;
    int byte;
    size_t bytes;
    union {
        max_align_t alignment;
        unsigned char bytes[TS_KERNEL_ARGS_MAX];
    } args;
} work;

typedef enum node_kind { NODE_WORK, NODE_WAIT, NODE_MEET } node_kind;
typedef struct meeting meeting;
typedef struct recording_stream recording_stream;

typedef struct node {
    node_kind kind;
    int64_t number;
    recording_stream *stream;
    uint32_t position; /* in its stream, from 1 */
    uint32_t clock[RECORDING_STREAMS];
    work work;
    recording_stream *source; /* a wait's */
    uint32_t source_position;
    meeting *meeting;
    int n_accesses;
    ts_access accesses[TS_ACCESS_MAX];
} node;

struct meeting {
    uint64_t key;
    int size, n;
    const ts_kernel *kernel;
    size_t bytes; /* of one call's arguments */
    unsigned char *args;
    node *calls[RECORDING_STREAMS];
    meeting *next;
};

typedef struct recording_graph {
    ts_graph base;
    work *list;
    size_t n, capacity;
} recording_graph;

struct recording_stream {
    ts_stream base;
    char label[LABEL_BYTES]; /* a copy: reports are made after streams are closed */
    int index;
    node **nodes;
    uint32_t n, capacity, done;
    ts_status status;
    uint32_t failed_at;
    char trail[TRAIL_BYTES];
    recording_graph *capture;
};

typedef struct recording_event {
    ts_event base;
    recording_stream *stream;
    uint32_t position;
} recording_event;

typedef struct wait_note {
    char text[TEXT_BYTES];
} wait_note;

typedef struct recording {
    ts_device base;
    recording_stream *streams[RECORDING_STREAMS];
    int n_streams;
    int64_t n_nodes;
    uint32_t clock[RECORDING_STREAMS]; /* what the host has waited for */
    meeting *meetings;
    uint64_t seed, draws;
    int favourite; /* the stream that runs ahead for a while */
    bool counting;
    int drop;
    wait_note *waits;
    int n_waits, waits_capacity;
} recording;

static const ts_device_ops recording_ops;

static recording *of_stream(const recording_stream *s)
{
    return (recording *)s->base.device;
}

static void clock_join(uint32_t *clock, const uint32_t *other)
{
    for (int i = 0; i < RECORDING_STREAMS; i++)
        if (other[i] > clock[i]) clock[i] = other[i];
}

static uint32_t draw(recording *r, uint32_t n)
{
    return ts_random(r->seed, r->draws++, 0).v[0] % n;
}

static ts_status sticky(const recording_stream *s)
{
    if (s->status != TS_OK) ts_trail_set(s->trail);
    return s->status;
}

static void stick(recording_stream *s, ts_status status)
{
    s->status = status;
    s->failed_at = s->done + 1;
    snprintf(s->trail, sizeof s->trail, "%s\n  on stream %s", ts_trail(), s->label);
    ts_trail_clear();
}

/* ---- running -------------------------------------------------------------------------------- */

static node *head_of(const recording_stream *s)
{
    return s->done < s->n ? s->nodes[s->done] : NULL;
}

static bool runnable(const recording_stream *s)
{
    const node *n = head_of(s);
    if (!n) return false;
    if (n->kind == NODE_WAIT) return n->source->done >= n->source_position;
    if (n->kind == NODE_MEET) {
        const meeting *m = n->meeting;
        if (m->n < m->size) return false;
        for (int i = 0; i < m->size; i++)
            if (head_of(m->calls[i]->stream) != m->calls[i]) return false;
    }
    return true;
}

static ts_status work_run(const work *w)
{
    switch (w->kind) {
    case WORK_KERNEL:
        TS_TRY(w->kernel->run(w->args.bytes));
        break;
    case WORK_COPY:
        memcpy(w->to, w->from, w->bytes);
        break;
    case WORK_FILL:
        memset(w->to, w->byte, w->bytes);
        break;
    }
    return TS_OK;
}

/* The node's clock from its own stream; waits and collectives add theirs. */
static void node_order(node *n)
{
    if (n->position > 1) clock_join(n->clock, n->stream->nodes[n->position - 2]->clock);
    n->clock[n->stream->index] = n->position;
}

static void meeting_run(meeting *m)
{
    ts_status status = TS_OK;
    node *first = m->calls[0];
    for (int i = 0; i < m->size; i++) {
        node_order(m->calls[i]);
        clock_join(first->clock, m->calls[i]->clock);
        if (status == TS_OK) status = sticky(m->calls[i]->stream);
    }
    if (status == TS_OK) status = m->kernel->run(m->args);
    for (int i = 0; i < m->size; i++) {
        recording_stream *s = m->calls[i]->stream;
        memcpy(m->calls[i]->clock, first->clock, sizeof first->clock);
        if (status != TS_OK && s->status == TS_OK) {
            s->status = status;
            s->failed_at = s->done + 1;
            snprintf(s->trail, sizeof s->trail, "%s", ts_trail());
        }
        s->done++;
    }
}

static void head_run(recording_stream *s)
{
    node *n = head_of(s);
    if (n->kind == NODE_MEET) {
        meeting_run(n->meeting);
        return;
    }
    node_order(n);
    ts_status status = TS_OK;
    if (n->kind == NODE_WAIT) {
        const recording_stream *source = n->source;
        if (n->source_position > 0)
            clock_join(n->clock, source->nodes[n->source_position - 1]->clock);
        if (source->status != TS_OK && source->failed_at <= n->source_position)
            status = sticky(source);
    } else if (s->status == TS_OK) {
        status = work_run(&n->work);
    }
    if (status != TS_OK && s->status == TS_OK) stick(s, status);
    s->done++;
}

/* Runs one node that may run now; false when there is none. Now and then another stream becomes
 * the favourite and runs as far ahead as it can: uniform choices would keep streams abreast. */
static bool run_one(recording *r)
{
    int ready[RECORDING_STREAMS], n = 0;
    for (int i = 0; i < r->n_streams; i++)
        if (runnable(r->streams[i])) ready[n++] = i;
    if (n == 0) return false;
    if (draw(r, 8) == 0) r->favourite = (int)draw(r, (uint32_t)r->n_streams);
    int choice = ready[draw(r, (uint32_t)n)];
    for (int i = 0; i < n; i++)
        if (ready[i] == r->favourite) choice = r->favourite;
    head_run(r->streams[choice]);
    return true;
}

/* Runs until `s` has done `position` nodes; the host knows of them afterwards. */
static ts_status run_until(recording_stream *s, uint32_t position)
{
    recording *r = of_stream(s);
    while (s->done < position)
        TS_NEED(run_one(r), TS_EDEVICE,
                "stream %s can never go on: it waits for a collective that not all streams have "
                "joined; enqueue every rank's part before a sync",
                s->label);
    if (position > 0) clock_join(r->clock, s->nodes[position - 1]->clock);
    return TS_OK;
}

void recording_seed(ts_device *device, uint64_t seed)
{
    recording *r = (recording *)device;
    r->seed = seed;
    r->draws = 0;
}

ts_status recording_run(ts_device *device, uint64_t seed)
{
    recording *r = (recording *)device;
    recording_seed(device, seed);
    while (run_one(r)) {
    }
    for (int i = 0; i < r->n_streams; i++) {
        recording_stream *s = r->streams[i];
        TS_TRY(run_until(s, s->n));
        TS_TRY(sticky(s));
    }
    return TS_OK;
}

/* ---- enqueuing ------------------------------------------------------------------------------ */

static ts_status node_add(recording_stream *s, node_kind kind, node **node_p)
{
    if (s->n == s->capacity) {
        uint32_t capacity = s->capacity ? 2 * s->capacity : 64;
        node **nodes = realloc(s->nodes, capacity * sizeof *nodes);
        TS_NEED(nodes, TS_ENOMEM, "no memory for %u nodes", capacity);
        s->nodes = nodes;
        s->capacity = capacity;
    }
    recording *r = of_stream(s);
    node *n = calloc(1, sizeof *n);
    TS_NEED(n, TS_ENOMEM, "no memory for a node");
    n->kind = kind;
    n->number = r->n_nodes++;
    n->stream = s;
    n->position = s->n + 1;
    memcpy(n->clock, r->clock, sizeof n->clock);
    s->nodes[s->n++] = n;
    *node_p = n;
    return TS_OK;
}

static int work_accesses(const work *w, ts_access *list)
{
    switch (w->kind) {
    case WORK_KERNEL:
        return w->kernel->accesses ? w->kernel->accesses(w->args.bytes, list) : 0;
    case WORK_COPY:
        list[0] = (ts_access){w->to, w->bytes, true};
        list[1] = (ts_access){w->from, w->bytes, false};
        return 2;
    case WORK_FILL:
        list[0] = (ts_access){w->to, w->bytes, true};
        return 1;
    }
    return 0;
}

static ts_status work_record(recording_stream *s, const work *w)
{
    node *n = NULL;
    TS_TRY(node_add(s, NODE_WORK, &n));
    n->work = *w;
    n->n_accesses = work_accesses(w, n->accesses);
    return TS_OK;
}

static ts_status work_enqueue(ts_stream *stream, const work *w)
{
    recording_stream *s = (recording_stream *)stream;
    TS_TRY(sticky(s));
    recording_graph *g = s->capture;
    if (!g) {
        TS_TRY(work_record(s, w));
        return TS_OK;
    }
    if (g->n == g->capacity) {
        size_t capacity = g->capacity ? 2 * g->capacity : 64;
        work *list = realloc(g->list, capacity * sizeof *list);
        TS_NEED(list, TS_ENOMEM, "no memory for a graph of %zu items", capacity);
        g->list = list;
        g->capacity = capacity;
    }
    g->list[g->n++] = *w;
    return TS_OK;
}

static ts_status recording_copy(ts_stream *stream, void *to, const void *from, size_t bytes)
{
    work w = {.kind = WORK_COPY, .to = to, .from = from, .bytes = bytes};
    TS_TRY(work_enqueue(stream, &w));
    return TS_OK;
}

static ts_status recording_fill(ts_stream *stream, void *to, int byte, size_t bytes)
{
    work w = {.kind = WORK_FILL, .to = to, .byte = byte, .bytes = bytes};
    TS_TRY(work_enqueue(stream, &w));
    return TS_OK;
}

static ts_status recording_launch(ts_stream *stream, const ts_kernel *kernel, const void *args,
                                  size_t bytes)
{
    TS_NEED(bytes <= TS_KERNEL_ARGS_MAX, TS_EDEVICE,
            "kernel %s: %zu bytes of arguments, at most %d fit", kernel->name, bytes,
            TS_KERNEL_ARGS_MAX);
    work w = {.kind = WORK_KERNEL, .kernel = kernel, .bytes = bytes};
    if (bytes) memcpy(w.args.bytes, args, bytes);
    TS_TRY(work_enqueue(stream, &w));
    return TS_OK;
}

static ts_status not_capturing(const recording_stream *s, const char *call)
{
    TS_TRY(sticky(s));
    TS_NEED(!s->capture, TS_EDEVICE, "%s on stream %s, which is capturing", call, s->label);
    return TS_OK;
}

ts_status recording_meet(ts_stream *stream, uint64_t key, int size, const ts_kernel *kernel,
                         const void *args, size_t bytes)
{
    recording_stream *s = (recording_stream *)stream;
    recording *r = of_stream(s);
    TS_TRY(not_capturing(s, "collective"));
    TS_NEED(size >= 1 && size <= RECORDING_STREAMS, TS_EDEVICE, "a collective of %d streams", size);
    meeting *m = r->meetings;
    while (m && (m->key != key || m->n == m->size)) m = m->next;
    if (!m) {
        m = calloc(1, sizeof *m);
        TS_NEED(m, TS_ENOMEM, "no memory for a collective");
        *m = (meeting){.key = key, .size = size, .kernel = kernel, .bytes = bytes};
        m->next = r->meetings;
        r->meetings = m;
        m->args = malloc((size_t)size * bytes + 1);
        TS_NEED(m->args, TS_ENOMEM, "no memory for a collective");
    }
    TS_NEED(m->size == size && m->kernel == kernel && m->bytes == bytes, TS_EDEVICE,
            "stream %s calls %s of %d streams where stream %s called %s of %d", s->label,
            kernel->name, size, m->calls[0]->stream->label, m->kernel->name, m->size);
    for (int i = 0; i < m->n; i++)
        TS_NEED(m->calls[i]->stream != s, TS_EDEVICE, "stream %s joins the same %s twice", s->label,
                kernel->name);
    node *n = NULL;
    TS_TRY(node_add(s, NODE_MEET, &n));
    n->meeting = m;
    if (bytes) memcpy(m->args + (size_t)m->n * bytes, args, bytes);
    n->n_accesses = kernel->accesses ? kernel->accesses(args, n->accesses) : 0;
    m->calls[m->n++] = n;
    return TS_OK;
}

/* ---- events --------------------------------------------------------------------------------- */

static ts_status recording_event_open(ts_device *device, ts_event **event_p)
{
    recording_event *e = calloc(1, sizeof *e);
    *event_p = NULL;
    TS_NEED(e, TS_ENOMEM, "no memory for an event");
    e->base.device = device;
    *event_p = &e->base;
    return TS_OK;
}

static void recording_event_close(ts_event *event)
{
    free(event);
}

static ts_status recording_event_record(ts_event *event, ts_stream *stream)
{
    recording_event *e = (recording_event *)event;
    recording_stream *s = (recording_stream *)stream;
    TS_TRY(not_capturing(s, "event record"));
    e->stream = s;
    e->position = s->n;
    return TS_OK;
}

static const char *node_name(const node *n)
{
    if (n->kind == NODE_MEET) return n->meeting->kernel->name;
    if (n->kind == NODE_WAIT) return "wait";
    if (n->work.kind == WORK_KERNEL) return n->work.kernel->name;
    return n->work.kind == WORK_COPY ? "copy" : "fill";
}

static ts_status wait_count(recording *r, const recording_stream *s, const recording_event *e)
{
    if (r->n_waits == r->waits_capacity) {
        int capacity = r->waits_capacity ? 2 * r->waits_capacity : 64;
        wait_note *waits = realloc(r->waits, (size_t)capacity * sizeof *waits);
        TS_NEED(waits, TS_ENOMEM, "no memory for %d waits", capacity);
        r->waits = waits;
        r->waits_capacity = capacity;
    }
    snprintf(r->waits[r->n_waits++].text, TEXT_BYTES, "%s, after %s, waits for %s, after %s",
             s->label, s->n ? node_name(s->nodes[s->n - 1]) : "nothing", e->stream->label,
             e->position ? node_name(e->stream->nodes[e->position - 1]) : "nothing");
    return TS_OK;
}

static ts_status recording_event_wait(ts_event *event, ts_stream *stream)
{
    recording_event *e = (recording_event *)event;
    recording_stream *s = (recording_stream *)stream;
    recording *r = of_stream(s);
    TS_TRY(not_capturing(s, "event wait"));
    if (!e->stream) return TS_OK;
    if (r->counting) {
        TS_TRY(wait_count(r, s, e));
        if (r->n_waits - 1 == r->drop) return TS_OK;
    }
    node *n = NULL;
    TS_TRY(node_add(s, NODE_WAIT, &n));
    n->source = e->stream;
    n->source_position = e->position;
    return TS_OK;
}

static ts_status recording_event_sync(ts_event *event)
{
    recording_event *e = (recording_event *)event;
    if (!e->stream) return TS_OK;
    TS_TRY(run_until(e->stream, e->position));
    if (e->stream->status != TS_OK && e->stream->failed_at <= e->position)
        TS_TRY(sticky(e->stream));
    return TS_OK;
}

/* Runs a node each time it is asked, so that a loop around it ends. */
static bool recording_event_done(ts_event *event)
{
    recording_event *e = (recording_event *)event;
    if (!e->stream) return true;
    run_one(of_stream(e->stream));
    if (e->stream->done < e->position) return false;
    return run_until(e->stream, e->position) == TS_OK;
}

/* ---- waits, conflicts ----------------------------------------------------------------------- */

int recording_waits(const ts_device *device)
{
    return ((const recording *)device)->n_waits;
}

void recording_count_waits(ts_device *device, bool on)
{
    ((recording *)device)->counting = on;
}

void recording_drop_wait(ts_device *device, int i)
{
    ((recording *)device)->drop = i;
}

void recording_wait_text(const ts_device *device, int i, char *text, size_t bytes)
{
    const recording *r = (const recording *)device;
    snprintf(text, bytes, "%s", i >= 0 && i < r->n_waits ? r->waits[i].text : "no such wait");
}

typedef struct touch {
    const node *node;
    const ts_access *access;
} touch;

static int touch_compare(const void *a, const void *b)
{
    const touch *p = a, *q = b;
    uintptr_t x = (uintptr_t)p->access->at, y = (uintptr_t)q->access->at;
    if (x != y) return x < y ? -1 : 1;
    return (p->node->number > q->node->number) - (p->node->number < q->node->number);
}

static bool ordered(const node *a, const node *b)
{
    return b->clock[a->stream->index] >= a->position || a->clock[b->stream->index] >= b->position;
}

static void report(const touch *a, const touch *b, void (*each)(void *, const recording_conflict *),
                   void *context)
{
    if (a->node->number > b->node->number) {
        const touch *swap = a;
        a = b;
        b = swap;
    }
    const char *a_at = a->access->at, *b_at = b->access->at;
    const char *begin = a_at > b_at ? a_at : b_at;
    const char *a_end = a_at + a->access->bytes, *b_end = b_at + b->access->bytes;
    recording_conflict conflict = {
        .first = node_name(a->node),
        .second = node_name(b->node),
        .first_stream = a->node->stream->label,
        .second_stream = b->node->stream->label,
        .first_node = a->node->number,
        .second_node = b->node->number,
        .first_writes = a->access->write,
        .second_writes = b->access->write,
        .at = begin,
        .bytes = (size_t)((a_end < b_end ? a_end : b_end) - begin),
    };
    each(context, &conflict);
}

int recording_conflicts(ts_device *device, void (*each)(void *, const recording_conflict *),
                        void *context)
{
    recording *r = (recording *)device;
    touch *touches = malloc(((size_t)r->n_nodes * TS_ACCESS_MAX + 1) * sizeof *touches);
    if (!touches) return -1;
    size_t n = 0;
    for (int i = 0; i < r->n_streams; i++)
        for (uint32_t k = 0; k < r->streams[i]->done; k++) {
            const node *a = r->streams[i]->nodes[k];
            for (int j = 0; j < a->n_accesses; j++)
                if (a->accesses[j].bytes) touches[n++] = (touch){a, &a->accesses[j]};
        }
    qsort(touches, n, sizeof *touches, touch_compare);
    int conflicts = 0;
    for (size_t i = 0; i < n; i++) {
        const ts_access *a = touches[i].access;
        for (size_t k = i + 1; k < n; k++) {
            const ts_access *b = touches[k].access;
            if ((uintptr_t)b->at >= (uintptr_t)a->at + a->bytes) break;
            if (!a->write && !b->write) continue;
            if (ordered(touches[i].node, touches[k].node)) continue;
            conflicts++;
            if (each) report(&touches[i], &touches[k], each, context);
        }
    }
    free(touches);
    return conflicts;
}

void recording_conflict_text(const recording_conflict *c, char *text, size_t bytes)
{
    snprintf(
        text, bytes,
        "nothing orders %s on %s (node %lld, %s) and %s on %s (node %lld, %s): %zu bytes at %p",
        c->first, c->first_stream, (long long)c->first_node, c->first_writes ? "writes" : "reads",
        c->second, c->second_stream, (long long)c->second_node,
        c->second_writes ? "writes" : "reads", c->bytes, c->at);
}

/* ---- graphs --------------------------------------------------------------------------------- */

static void recording_graph_close(ts_graph *graph)
{
    free(((recording_graph *)graph)->list);
    free(graph);
}

static ts_status recording_capture_begin(ts_stream *stream)
{
    recording_stream *s = (recording_stream *)stream;
    TS_TRY(not_capturing(s, "capture"));
    recording_graph *g = calloc(1, sizeof *g);
    TS_NEED(g, TS_ENOMEM, "no memory for a graph");
    g->base.device = stream->device;
    s->capture = g;
    return TS_OK;
}

static ts_status recording_capture_end(ts_stream *stream, ts_graph **graph_p)
{
    recording_stream *s = (recording_stream *)stream;
    *graph_p = NULL;
    TS_NEED(s->capture, TS_EDEVICE, "stream %s is not capturing", s->label);
    *graph_p = &s->capture->base;
    s->capture = NULL;
    return TS_OK;
}

static ts_status recording_graph_launch(ts_graph *graph, ts_stream *stream)
{
    recording_graph *g = (recording_graph *)graph;
    recording_stream *s = (recording_stream *)stream;
    TS_TRY(not_capturing(s, "graph launch"));
    for (size_t i = 0; i < g->n; i++) TS_TRY(work_record(s, &g->list[i]));
    return TS_OK;
}

/* ---- streams, memory, the device ------------------------------------------------------------ */

static ts_status recording_stream_open(ts_device *device, ts_stream_role role, const char *label,
                                       ts_stream **stream_p)
{
    recording *r = (recording *)device;
    (void)role;
    *stream_p = NULL;
    TS_NEED(r->n_streams < RECORDING_STREAMS, TS_EDEVICE, "more than %d streams in a recording",
            RECORDING_STREAMS);
    recording_stream *s = calloc(1, sizeof *s);
    TS_NEED(s, TS_ENOMEM, "no memory for a stream");
    snprintf(s->label, sizeof s->label, "%s", label);
    s->base.device = device;
    s->base.label = s->label;
    s->index = r->n_streams;
    r->streams[r->n_streams++] = s;
    *stream_p = &s->base;
    return TS_OK;
}

static ts_status recording_stream_sync(ts_stream *stream)
{
    recording_stream *s = (recording_stream *)stream;
    TS_TRY(not_capturing(s, "sync"));
    TS_TRY(run_until(s, s->n));
    TS_TRY(sticky(s));
    return TS_OK;
}

/* The struct stays until the device closes: its nodes are still reported. */
static void recording_stream_close(ts_stream *stream)
{
    recording_stream *s = (recording_stream *)stream;
    if (s->capture) recording_graph_close(&s->capture->base);
    s->capture = NULL;
    if (run_until(s, s->n) != TS_OK) ts_trail_clear(); /* its collectives will never be complete */
}

static ts_status recording_alloc(ts_device *device, ts_memory kind, size_t bytes, void **memory_p)
{
    (void)device;
    (void)kind;
    *memory_p = NULL;
    int error = posix_memalign(memory_p, 64, bytes ? bytes : 1);
    TS_NEED(error == 0, TS_ENOMEM, "no %zu bytes of memory left", bytes);
    memset(*memory_p, 0xff, bytes);
    return TS_OK;
}

static void recording_release(ts_device *device, ts_memory kind, void *memory)
{
    (void)device;
    (void)kind;
    free(memory);
}

static void recording_describe(ts_device *device, char *text, size_t bytes)
{
    (void)device;
    snprintf(text, bytes, "records and runs in random order");
}

static ts_status recording_open_ordinal(int ordinal, ts_device **device_p)
{
    (void)ordinal;
    *device_p = NULL;
    recording *r = calloc(1, sizeof *r);
    TS_NEED(r, TS_ENOMEM, "no memory for a recording");
    r->base.ops = &recording_ops;
    r->counting = true;
    r->drop = -1;
    *device_p = &r->base;
    return TS_OK;
}

ts_status recording_open(ts_device **device_p)
{
    TS_TRY(recording_open_ordinal(0, device_p));
    return TS_OK;
}

static void recording_close(ts_device *device)
{
    recording *r = (recording *)device;
    for (int i = 0; i < r->n_streams; i++) {
        recording_stream *s = r->streams[i];
        for (uint32_t k = 0; k < s->n; k++) free(s->nodes[k]);
        free(s->nodes);
        if (s->capture) recording_graph_close(&s->capture->base);
        free(s);
    }
    for (meeting *m = r->meetings, *next; m; m = next) {
        next = m->next;
        free(m->args);
        free(m);
    }
    free(r->waits);
    free(r);
}

static const ts_device_ops recording_ops = {
    .name = "recording",
    .open = recording_open_ordinal,
    .close = recording_close,
    .describe = recording_describe,
    .alloc = recording_alloc,
    .release = recording_release,
    .stream_open = recording_stream_open,
    .stream_close = recording_stream_close,
    .stream_sync = recording_stream_sync,
    .event_open = recording_event_open,
    .event_close = recording_event_close,
    .event_record = recording_event_record,
    .event_wait = recording_event_wait,
    .event_sync = recording_event_sync,
    .event_done = recording_event_done,
    .copy = recording_copy,
    .fill = recording_fill,
    .launch = recording_launch,
    .capture_begin = recording_capture_begin,
    .capture_end = recording_capture_end,
    .graph_launch = recording_graph_launch,
    .graph_close = recording_graph_close,
};
