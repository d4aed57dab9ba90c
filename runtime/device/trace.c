/* trace.c - stamps from the streams to the host, without locks.
 *
 * Each stream writes into a ring of its own in pinned memory and never looks at the reader, so
 * a stamp costs the same however late the host drains. Every slot says which stamp it holds; a
 * reader that is overtaken while it reads sees that and counts the stamp as lost. The running
 * number is kept beside the ring, not in the arguments, so a replayed graph stamps anew. */
#include "runtime/device/trace.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/device/trace_ring.h"

enum { ROWS = 32, LABEL_BYTES = 48, DEPTH = 32 };

const char *const ts_span_names[TS_SPAN_KINDS] = {
    [TS_SPAN_STEP] = "step",         [TS_SPAN_INPUT] = "input",       [TS_SPAN_DATA] = "data",
    [TS_SPAN_FORWARD] = "forward",   [TS_SPAN_BACKWARD] = "backward", [TS_SPAN_UPDATE] = "update",
    [TS_SPAN_MERGE] = "merge",       [TS_SPAN_WAIT] = "wait",         [TS_SPAN_COMM] = "comm",
    [TS_SPAN_EVALUATE] = "evaluate",
};

typedef struct row {
    ts_stream *stream;
    char label[LABEL_BYTES]; /* a copy: the row outlives the stream */
    ts_stamp_ring *ring;
    uint64_t read; /* stamps so far */
    int depth;
    ts_span open[DEPTH];
} row;

struct ts_trace {
    ts_device *device;
    size_t capacity;
    int64_t lost, offset_ns; /* from a stamp's clock to ts_clock_ns */
    int n_rows;
    row rows[ROWS];
};

static ts_status stamp_run(const void *args)
{
    const ts_stamp_args *a = args;
    ts_stamp_ring *r = a->ring;
    uint64_t number = atomic_load_explicit(&r->written, memory_order_relaxed) + 1;
    ts_stamp *s = &r->stamps[number & r->mask];
    /* An exchange, since a plain store could move behind the stores that follow. */
    atomic_exchange_explicit(&s->holds, 0, memory_order_acq_rel);
    atomic_store_explicit(&s->time_ns, ts_clock_ns(), memory_order_relaxed);
    atomic_store_explicit(&s->detail, a->detail, memory_order_relaxed);
    atomic_store_explicit(&s->kind, a->kind, memory_order_relaxed);
    atomic_store_explicit(&s->begins, a->begins, memory_order_relaxed);
    atomic_store_explicit(&s->holds, number, memory_order_release);
    atomic_store_explicit(&r->written, number, memory_order_release);
    return TS_OK;
}

static const ts_kernel stamp_kernel = {"trace_stamp", stamp_run, NULL, ts_stamp_enqueue};

ts_status ts_trace_open(ts_device *device, size_t capacity, ts_trace **trace_p)
{
    *trace_p = NULL;
    TS_NEED(capacity > 0, TS_EUSAGE, "a trace needs room for at least one stamp");
    ts_trace *t = calloc(1, sizeof *t);
    TS_NEED(t, TS_ENOMEM, "no memory for a trace");
    t->device = device;
    t->capacity = 1;
    while (t->capacity < capacity) t->capacity *= 2;
    ts_status status =
        device->ops->clock_offset ? device->ops->clock_offset(device, &t->offset_ns) : TS_OK;
    if (status) {
        free(t);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *trace_p = t;
    return TS_OK;
}

void ts_trace_close(ts_trace *trace)
{
    if (!trace) return;
    for (int i = 0; i < trace->n_rows; i++)
        ts_device_release(trace->device, TS_MEMORY_PINNED, trace->rows[i].ring);
    free(trace);
}

static ts_status row_open(ts_trace *t, ts_stream *stream, row **row_p)
{
    TS_NEED(t->n_rows < ROWS, TS_EUSAGE, "a trace of more than %d streams", ROWS);
    row *w = &t->rows[t->n_rows];
    void *memory;
    size_t bytes = sizeof *w->ring + t->capacity * sizeof w->ring->stamps[0];
    TS_TRY(ts_device_alloc(t->device, TS_MEMORY_PINNED, bytes, &memory));
    memset(memory, 0, bytes);
    w->ring = memory;
    w->ring->mask = t->capacity - 1;
    w->stream = stream;
    strncat(w->label, stream->label, sizeof w->label - 1);
    t->n_rows++;
    *row_p = w;
    return TS_OK;
}

/* A stream that is closed may be opened again at its old address under another label. */
static ts_status row_find(ts_trace *t, ts_stream *stream, row **row_p)
{
    for (int i = 0; i < t->n_rows; i++)
        if (t->rows[i].stream == stream &&
            strncmp(t->rows[i].label, stream->label, LABEL_BYTES - 1) == 0) {
            *row_p = &t->rows[i];
            return TS_OK;
        }
    TS_TRY(row_open(t, stream, row_p));
    return TS_OK;
}

static ts_status stamp(ts_trace *trace, ts_stream *stream, ts_span_kind kind, int64_t detail,
                       bool begins)
{
    if (!trace) return TS_OK;
    row *w = NULL;
    TS_TRY(row_find(trace, stream, &w));
    ts_stamp_args args = {.ring = w->ring, .detail = detail, .kind = kind, .begins = begins};
    TS_TRY(ts_stream_launch(stream, &stamp_kernel, &args, sizeof args));
    return TS_OK;
}

ts_status ts_trace_begin(ts_trace *trace, ts_stream *stream, ts_span_kind kind, int64_t detail)
{
    TS_TRY(stamp(trace, stream, kind, detail, true));
    return TS_OK;
}

ts_status ts_trace_end(ts_trace *trace, ts_stream *stream, ts_span_kind kind)
{
    TS_TRY(stamp(trace, stream, kind, -1, false));
    return TS_OK;
}

typedef struct stamp_read {
    int64_t time_ns, detail;
    ts_span_kind kind;
    bool begins;
} stamp_read;

/* False when the stream has written over it. */
static bool slot_read(ts_stamp *s, uint64_t number, stamp_read *read)
{
    if (atomic_load_explicit(&s->holds, memory_order_acquire) != number) return false;
    read->time_ns = atomic_load_explicit(&s->time_ns, memory_order_relaxed);
    read->detail = atomic_load_explicit(&s->detail, memory_order_relaxed);
    read->kind = (ts_span_kind)atomic_load_explicit(&s->kind, memory_order_relaxed);
    read->begins = atomic_load_explicit(&s->begins, memory_order_relaxed);
    /* Adding nothing is a read that the reads above cannot move behind. */
    return atomic_fetch_add_explicit(&s->holds, 0, memory_order_acq_rel) == number;
}

/* Opens or closes a span. An end whose begin was lost ends nothing. */
static void row_take(ts_trace *t, row *w, const stamp_read *read,
                     void (*each)(void *context, const ts_span *span), void *context)
{
    if (read->begins) {
        if (w->depth == DEPTH) {
            t->lost++;
            return;
        }
        w->open[w->depth++] = (ts_span){.kind = read->kind,
                                        .stream = (int)(w - t->rows),
                                        .begin_ns = read->time_ns + t->offset_ns,
                                        .detail = read->detail};
        return;
    }
    int depth = w->depth;
    while (depth > 0 && w->open[depth - 1].kind != read->kind) depth--;
    if (depth == 0) return;
    w->depth = depth - 1;
    ts_span *span = &w->open[w->depth];
    span->end_ns = read->time_ns + t->offset_ns;
    each(context, span);
}

void ts_trace_drain(ts_trace *trace, void (*each)(void *context, const ts_span *span),
                    void *context)
{
    if (!trace) return;
    for (int i = trace->n_rows - 1; i >= 0; i--) {
        row *w = &trace->rows[i];
        uint64_t written = atomic_load_explicit(&w->ring->written, memory_order_acquire);
        uint64_t behind = written - w->read;
        if (behind > trace->capacity) {
            trace->lost += (int64_t)(behind - trace->capacity);
            w->read = written - trace->capacity;
            w->depth = 0;
        }
        while (w->read < written) {
            uint64_t number = ++w->read;
            stamp_read read;
            if (slot_read(&w->ring->stamps[number & w->ring->mask], number, &read)) {
                row_take(trace, w, &read, each, context);
            } else {
                trace->lost++;
                w->depth = 0; /* what was open may have ended in the gap */
            }
        }
    }
}

int64_t ts_trace_lost(const ts_trace *trace)
{
    return trace ? trace->lost : 0;
}

const char *ts_trace_stream_label(const ts_trace *trace, int stream)
{
    return stream >= 0 && stream < trace->n_rows ? trace->rows[stream].label : "";
}
