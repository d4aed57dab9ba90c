/* group.h - what the communicators of this folder share: one collective as a kernel's argument, its
 * checks, the first failure. For this folder only. */
#ifndef TS_COMM_GROUP_H
#define TS_COMM_GROUP_H

#include <stdatomic.h>

#include "runtime/comm/comm.h"

/* The first failure of a communicator, kept for every later call and for other threads. */
typedef struct ts_fault {
    atomic_int status;
    char trail[1024];
} ts_fault;
/* From the stream's thread only; copies that thread's trail. Returns `status`. */
ts_status ts_fault_keep(ts_fault *fault, ts_status status);
/* From any thread: the kept failure, with its trail. */
ts_status ts_fault_get(ts_fault *fault);

/* One collective as its kernel gets it. */
typedef struct ts_collective {
    ts_communicator *communicator;
    void *to;
    const void *from;
    size_t to_bytes, from_bytes; /* what the kernel writes and reads there */
    size_t n;                    /* elements of a reduction, else bytes of a rank's part */
    const float *weight;
    ts_reduction reduction;
    ts_type type;  /* of a reduction's elements: fp32 or bf16 */
    int peer, tag; /* peer: or the root */
} ts_collective;
/* For ts_kernel.accesses: what a ts_collective reads and writes. */
int ts_collective_accesses(const void *args, ts_access *list);

typedef struct ts_group_kernels {
    ts_kernel all_reduce, broadcast, all_gather, all_to_all, reduce_scatter, send, receive;
} ts_group_kernels;

/* What communicators have in common: how a collective is checked and enqueued. They differ in the
 * kernels that the stream then runs. */
typedef struct ts_group {
    ts_communicator base;
    const ts_group_kernels *kernels;
    int timeout_s;
    atomic_bool stop; /* someone wants this rank freed */
    ts_fault fault;
} ts_group;

void ts_group_init(ts_group *group, const ts_communicator_ops *ops, const ts_group_kernels *kernels,
                   ts_world *world, ts_stream *stream, const ts_communicator_options *options);
/* Empties the stream. False when a collective failed: its buffers may then still be written to. */
bool ts_group_end(ts_group *group);

/* Elements of a rank's segment when n are reduced around a ring: segments begin on cache lines of
 * their vector, so the last ones may be short or empty. */
size_t ts_group_segment(size_t n, int size);

/* What every communicator refuses. */
ts_status ts_group_need_weight(size_t n, ts_reduction reduction, const float *weight);
ts_status ts_group_need_peer(const ts_communicator *communicator, const char *what, int peer);
ts_status ts_group_need_other(const ts_communicator *communicator, const char *what, int peer,
                              int tag);

ts_status ts_group_all_reduce(ts_communicator *communicator, float *to, const float *from, size_t n,
                              ts_reduction reduction, const float *weight);
ts_status ts_group_all_reduce_bf16(ts_communicator *communicator, uint16_t *to,
                                   const uint16_t *from, size_t n);
ts_status ts_group_broadcast(ts_communicator *communicator, void *data, size_t bytes, int root);
ts_status ts_group_all_gather(ts_communicator *communicator, void *to, const void *from,
                              size_t bytes);
ts_status ts_group_all_to_all(ts_communicator *communicator, void *to, const void *from,
                              size_t bytes);
ts_status ts_group_reduce_scatter(ts_communicator *communicator, float *to, const float *from,
                                  size_t n, ts_reduction reduction, const float *weight);
ts_status ts_group_send(ts_communicator *communicator, const void *data, size_t bytes, int peer,
                        int tag);
ts_status ts_group_receive(ts_communicator *communicator, void *data, size_t bytes, int peer,
                           int tag);
ts_status ts_group_poll(ts_communicator *communicator);
void ts_group_abort(ts_communicator *communicator);

#endif
