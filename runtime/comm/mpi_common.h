/* mpi_common.h - what the MPI world and the communicators over it share; for this folder only. */
#ifndef TS_COMM_MPI_COMMON_H
#define TS_COMM_MPI_COMMON_H

#include <mpi.h>
#include <stdatomic.h>

#include "runtime/comm/comm.h"

/* Describe what an MPI call returned, in MPI's own words. */
ts_status ts_mpi_fail(const char *file, int line, const char *call, int code);
#define TS_MPI_TRY(call)                                                                           \
    do {                                                                                           \
        int ts_mpi_code = (call);                                                                  \
        if (ts_mpi_code != MPI_SUCCESS)                                                            \
            return ts_mpi_fail(__FILE__, __LINE__, #call, ts_mpi_code);                            \
    } while (0)

/* An MPI world, and memory that MPI may touch: the host device, or a test's own device over it,
 * whose name then begins with "host". */
bool ts_mpi_serves(const ts_world *world, const ts_device *device);
/* Collective: a communicator of one's own over the world, whose errors return. */
ts_status ts_mpi_duplicate(ts_world *world, MPI_Comm *mpi_p);
const char *ts_mpi_host(const ts_world *world, int rank);
/* Ask every rank for a second at most and describe a time-out: `what` made no progress for
 * `timeout_s` seconds; it names the ranks that do not answer or, when all do, `waited_for`
 * (-1: nobody in particular). */
ts_status ts_mpi_timed_out(ts_world *world, const char *what, int timeout_s, int waited_for);

/* How a thread waits without holding a core: it looks again at once for the first microseconds,
 * because the next message is often there already, and then sleeps, longer each time. */
typedef struct ts_mpi_wait {
    int64_t idle_since_ns; /* 0: something has just moved */
    int64_t sleep_ns;
} ts_mpi_wait;
/* Once a thread: sleeps end when they should, not up to 50 us later. */
void ts_mpi_wait_sharpen(void);
static inline void ts_mpi_wait_moved(ts_mpi_wait *wait)
{
    wait->idle_since_ns = 0;
}
/* Sleeps at most `longest_ns`; returns for how long nothing has moved, in ns. */
int64_t ts_mpi_wait_pause(ts_mpi_wait *wait, int64_t longest_ns);

/* The first failure of a communicator, kept for every later call and for other threads. */
typedef struct ts_mpi_fault {
    atomic_int status;
    char trail[1024];
} ts_mpi_fault;
/* From the stream's thread only; copies that thread's trail. Returns `status`. */
ts_status ts_mpi_fault_keep(ts_mpi_fault *fault, ts_status status);
/* From any thread: the kept failure, with its trail. */
ts_status ts_mpi_fault_get(ts_mpi_fault *fault);

/* One collective as its kernel gets it. */
typedef struct ts_mpi_call {
    ts_communicator *communicator;
    void *to;
    const void *from;
    size_t to_bytes, from_bytes; /* what the kernel writes and reads there */
    size_t n;                    /* elements of a reduction, else bytes of a rank's part */
    const float *weight;
    ts_reduction reduction;
    int peer, tag; /* peer: or the root */
} ts_mpi_call;
/* For ts_kernel.accesses: what a ts_mpi_call reads and writes. */
int ts_mpi_call_accesses(const void *args, ts_access *list);

typedef struct ts_mpi_kernels {
    ts_kernel all_reduce, broadcast, all_gather, reduce_scatter, send, receive;
} ts_mpi_kernels;

/* What the communicators over MPI have in common: how a collective is enqueued. They differ in
 * the kernels that the stream then runs. */
typedef struct ts_mpi_communicator {
    ts_communicator base;
    const ts_mpi_kernels *kernels;
    MPI_Comm mpi;
    int timeout_s;    /* 0: never */
    atomic_bool stop; /* someone wants this rank freed */
    ts_mpi_fault fault;
} ts_mpi_communicator;

ts_status ts_mpi_communicator_init(ts_mpi_communicator *communicator,
                                   const ts_communicator_ops *ops, const ts_mpi_kernels *kernels,
                                   ts_world *world, ts_stream *stream, int timeout_s);
/* Empties the stream. False when a collective failed: MPI may then still write to its buffers. */
bool ts_mpi_communicator_end(ts_mpi_communicator *communicator);

ts_status ts_mpi_all_reduce(ts_communicator *communicator, float *to, const float *from, size_t n,
                            ts_reduction reduction, const float *weight);
ts_status ts_mpi_broadcast(ts_communicator *communicator, void *data, size_t bytes, int root);
ts_status ts_mpi_all_gather(ts_communicator *communicator, void *to, const void *from,
                            size_t bytes);
ts_status ts_mpi_reduce_scatter(ts_communicator *communicator, float *to, const float *from,
                                size_t n, ts_reduction reduction, const float *weight);
ts_status ts_mpi_send(ts_communicator *communicator, const void *data, size_t bytes, int peer,
                      int tag);
ts_status ts_mpi_receive(ts_communicator *communicator, void *data, size_t bytes, int peer,
                         int tag);
ts_status ts_mpi_poll(ts_communicator *communicator);
void ts_mpi_abort(ts_communicator *communicator);

extern const ts_world_ops ts_world_mpi, ts_world_self;
extern const ts_communicator_ops ts_communicator_self, ts_communicator_ring, ts_communicator_mpi;

#endif
