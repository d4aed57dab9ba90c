/* trace_ring.h - where a stream's stamps lie: written by the stamp kernel of the stream's device,
 * read by the host. Plain 64-bit words in C++, atomic ones of the same layout in C. */
#ifndef TS_DEVICE_TRACE_RING_H
#define TS_DEVICE_TRACE_RING_H

#include <stdint.h>

#include "runtime/base/status.h"

#ifdef __cplusplus
#define TS_SHARED(type) volatile type
#else
#define TS_SHARED(type) _Atomic type
#endif

typedef struct ts_stamp {
    TS_SHARED(uint64_t) holds; /* number of the stamp, from 1; 0 while it is written */
    TS_SHARED(int64_t) time_ns, detail;
    TS_SHARED(int32_t) kind, begins;
} ts_stamp;

typedef struct ts_stamp_ring {
    TS_SHARED(uint64_t) written; /* stamps so far */
    uint64_t mask;
    ts_stamp stamps[1]; /* mask + 1 of them */
} ts_stamp_ring;

typedef struct ts_stamp_args {
    ts_stamp_ring *ring;
    int64_t detail;
    int32_t kind, begins;
} ts_stamp_args;

#ifdef __cplusplus
extern "C"
#endif
    ts_status
    ts_stamp_enqueue(const void *stamp_args, void *cuda_stream);

#endif
