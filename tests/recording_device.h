/* recording_device.h - a device that finds missing waits.
 *
 * It implements all of device.h, but runs nothing when it is enqueued: each copy, fill, kernel
 * and wait becomes a node. recording_run then runs all pending nodes in a random order, one of
 * those that streams and events allow; a sync runs nodes in such an order until what it waits
 * for has run and may leave the rest pending. Graph launches are recorded node by node.
 * Memory from alloc starts as 0xff bytes (NaN in fp32), so that reading too early shows.
 *
 * recording_conflicts then looks at everything recorded, whatever order was run: two accesses
 * conflict when they overlap, at least one writes, and nothing orders them (order of a stream,
 * events, collectives, or the host, which waited for the one before it enqueued the other).
 *
 *     recording_open(&device);                       several ranks: several pairs of streams on it
 *     recording_drop_wait(device, i);                optional: before the program enqueues it
 *     ... enqueue the program, as on any device ...
 *     recording_run(device, seed);
 *     n = recording_conflicts(device, print, NULL);  0 when every pair is ordered
 *     ts_device_close(device);
 *
 * One thread only. A stream's label goes into reports ("rank 1 comm"). At most
 * RECORDING_STREAMS streams in a device's life. */
#ifndef TS_TESTS_RECORDING_DEVICE_H
#define TS_TESTS_RECORDING_DEVICE_H

#include "runtime/device/device.h"

enum { RECORDING_STREAMS = 32 };

ts_status recording_open(ts_device **device_p);

/* Runs everything pending, in the order that `seed` chooses, and is a sync with all streams: what
 * is enqueued later is ordered after it. Later syncs go on with the same random numbers. TS_EDEVICE
 * when something can never run: a collective that a rank has not joined yet. A kernel's failure
 * sticks to its stream as on any device. */
ts_status recording_run(ts_device *device, uint64_t seed);
/* Chooses the order without running anything: for programs that sync by themselves. */
void recording_seed(ts_device *device, uint64_t seed);

typedef struct recording_conflict {
    const char *first, *second;               /* kernels; "copy", "fill" */
    const char *first_stream, *second_stream; /* labels */
    int64_t first_node, second_node;          /* in the order in which they were enqueued */
    bool first_writes, second_writes;
    const void *at; /* what both touch */
    size_t bytes;
} recording_conflict;

/* Calls `each` (or nothing when NULL) for every conflicting pair of accesses, returns how many.
 * Only nodes that have run count: call recording_run first. */
int recording_conflicts(ts_device *device,
                        void (*each)(void *context, const recording_conflict *conflict),
                        void *context);
/* "merge on rank 0 compute (writes) and all_reduce on rank 0 comm (reads) share 64 bytes ..." */
void recording_conflict_text(const recording_conflict *conflict, char *text, size_t bytes);

/* Waits are numbered from 0 as they are enqueued. Counted are those that name a record (a wait
 * for an event that was never recorded is no wait) while counting is on, as it is at the start:
 * the test's own scaffolding can switch it off. */
int recording_waits(const ts_device *device);
void recording_count_waits(ts_device *device, bool on);
/* From now on wait `i` is left out when it is enqueued; -1: none. */
void recording_drop_wait(ts_device *device, int i);
/* "rank 0 compute waits for rank 0 comm, after all_reduce": which one was that? */
void recording_wait_text(const ts_device *device, int i, char *text, size_t bytes);

/* A collective among streams of this device. Each of `size` streams calls it once with the same
 * key; it runs when all have come and what is before it on each has run, and all go on after it.
 * The kernel runs once and gets the arguments of all `size` calls one after the other, in the
 * order of the calls: an array of structs, each of `bytes`; kernel->accesses is asked for each
 * call's arguments alone. A key may be used again when its collective is complete. Calls that
 * differ in kernel, size or bytes are TS_EDEVICE. Not allowed while the stream captures. */
ts_status recording_meet(ts_stream *stream, uint64_t key, int size, const ts_kernel *kernel,
                         const void *args, size_t bytes);

#endif
