/* trace.h - what ran when, on every stream, from stamps taken by the streams themselves.
 *
 * ts_trace_begin and ts_trace_end enqueue a stamp; when the stream reaches it, the stamp kernel
 * writes the clock into a ring in pinned memory, also when a graph replays it. The host drains
 * the rings now and then and gets finished spans. Exposed communication is the span around the
 * compute stream's wait for comm; hidden is the rest of comm's spans. */
#ifndef TS_DEVICE_TRACE_H
#define TS_DEVICE_TRACE_H

#include "runtime/device/device.h"

typedef enum ts_span_kind {
    TS_SPAN_STEP,  /* a whole local step, compute stream */
    TS_SPAN_INPUT, /* compute waits for samples that are read too slowly */
    TS_SPAN_DATA,  /* sampling, augmentation */
    TS_SPAN_FORWARD,
    TS_SPAN_BACKWARD,
    TS_SPAN_UPDATE,
    TS_SPAN_MERGE, /* snapshot and merge */
    TS_SPAN_WAIT,  /* compute waits for comm: exposed communication */
    TS_SPAN_COMM,  /* a collective, comm stream */
    TS_SPAN_EVALUATE,
    TS_SPAN_KINDS
} ts_span_kind;
extern const char *const ts_span_names[TS_SPAN_KINDS];

typedef struct ts_span {
    ts_span_kind kind;
    int stream;               /* row: index of the stream in the order of first use */
    int64_t begin_ns, end_ns; /* ts_clock_ns */
    int64_t detail;           /* bucket or round, as given to begin; -1 for none */
} ts_span;

typedef struct ts_trace ts_trace;

/* `capacity`: stamps a stream may be ahead of the last drain; older ones are lost and counted. */
ts_status ts_trace_open(ts_device *device, size_t capacity, ts_trace **trace_p);
/* When no stamp is queued any more: sync the streams first, and launch no graph that holds one. */
void ts_trace_close(ts_trace *trace);

/* Spans of one stream nest. With a NULL trace both do nothing. */
ts_status ts_trace_begin(ts_trace *trace, ts_stream *stream, ts_span_kind kind, int64_t detail);
ts_status ts_trace_end(ts_trace *trace, ts_stream *stream, ts_span_kind kind);

/* Calls `each` for every span that has ended since the last drain, in the order of their ends
 * for each stream; the stream used first comes last, so that a reader of compute's spans knows
 * what comm did beside them. Never blocks on the device. */
void ts_trace_drain(ts_trace *trace, void (*each)(void *context, const ts_span *span),
                    void *context);
int64_t ts_trace_lost(const ts_trace *trace);
const char *ts_trace_stream_label(const ts_trace *trace, int stream);

#endif
