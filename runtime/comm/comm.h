/* comm.h - who the ranks are, and the collectives between them.
 *
 * A world finds rank, size and host and moves a few bytes between ranks at start-up and at rare
 * blocking points, from the main thread. A communicator does the heavy collectives: it is bound
 * to one stream for life, so collectives run in program order, the same on every rank, and two
 * of them can never pass each other. Its calls only enqueue. */
#ifndef TS_COMM_COMM_H
#define TS_COMM_COMM_H

#include "runtime/device/device.h"

enum { TS_HOST_NAME_MAX = 64 };

typedef struct ts_world_ops ts_world_ops;
typedef struct ts_world {
    const ts_world_ops *ops;
    int rank, size, local_rank; /* local: among the ranks of this host */
    int sharers; /* ranks of this host that may run on some core that this one may; 1: it alone */
    char host[TS_HOST_NAME_MAX];
    char (*hosts)[TS_HOST_NAME_MAX]; /* [size] */
    bool agreed; /* every rank knows of the failure that ends the run: nobody need be aborted */
} ts_world;

struct ts_world_ops {
    const char *name; /* "mpi", "tcp", "self" */
    /* Was this process started by its launcher? */
    bool (*present)(void);
    ts_status (*open)(ts_world **world_p);
    /* Collective; waits for the others. */
    void (*close)(ts_world *world);
    /* Blocking, collective, host memory, small. */
    ts_status (*broadcast)(ts_world *world, void *data, size_t bytes, int root);
    /* to[rank * bytes ..] <- each rank's `from`. */
    ts_status (*all_gather)(ts_world *world, const void *from, void *to, size_t bytes);
    ts_status (*barrier)(ts_world *world);
    /* Ends every rank of the job with `exit_code`; does not return. */
    void (*abort)(ts_world *world, int exit_code);
    /* Which ranks' processes still answer? alive[size]; asks each rank's watchdog thread over a
     * channel of its own and waits at most `wait_ms`. Callable from any thread, at any time, also
     * while a collective is stuck. */
    ts_status (*probe)(ts_world *world, int wait_ms, bool *alive);
};

/* The version of the MPI library, as text; callable at any time. */
void ts_comm_library_version(char *text, size_t bytes);
/* The version of NCCL, or why it is absent. */
void ts_comm_nccl_version(char *text, size_t bytes);

/* "auto": mpi when an MPI launcher started us, tcp when srun without MPI or TWINSTREAM_RANK did
 * (rendezvous.h), else self. */
ts_status ts_world_open(const char *name, ts_world **world_p);
void ts_world_close(ts_world *world);
/* Every rank passes its own status; all get that of the first rank that failed (a request to stop
 * counts as less than a failure). It alone keeps its description: the others' trail is empty, so
 * that one failure is told once. */
ts_status ts_world_agree(ts_world *world, ts_status mine);
/* The first rank whose `bytes` of `data` are not rank 0's, and the first byte that is not; rank -1
 * where there is none. `what` is for messages. */
ts_status ts_world_difference(ts_world *world, const char *what, const void *data, size_t bytes,
                              int *rank_p, int64_t *at_p);
/* TS_OK when `bytes` of `data` are the same on every rank; else TS_EUSAGE on all of
 * them; rank 0 names the first that differs. `what` is for the message. */
ts_status ts_world_same(ts_world *world, const char *what, const void *data, size_t bytes);
/* The sum over ranks of one number of each. */
ts_status ts_world_sum(ts_world *world, int64_t mine, int64_t *sum_p);

/* "rank 1 (host b), rank 3 (host c)": the ranks whose processes do not answer within `wait_ms`;
 * returns how many. */
int ts_world_silent(ts_world *world, int wait_ms, char *text, size_t bytes);
/* Ask every rank for a second at most and describe a time-out: `what` made no progress for
 * `timeout_s` seconds; it names the ranks that do not answer or, when all do, `waited_for`
 * (-1: nobody in particular). */
ts_status ts_world_timed_out(ts_world *world, const char *what, int timeout_s, int waited_for);

typedef enum ts_reduction {
    TS_SUM,
    TS_AVERAGE,         /* sum / size */
    TS_WEIGHTED_AVERAGE /* sum of weight_r x_r; weights sum to 1 over ranks */
} ts_reduction;

typedef struct ts_communicator_options {
    /* A collective that makes no progress for so many seconds fails with TS_ETIMEOUT and names the
     * ranks that do not answer. 0: never. */
    int timeout_s;
    int ctas; /* nccl: blocks, and so processors of the GPU, that a collective may take */
} ts_communicator_options;

typedef struct ts_communicator_ops ts_communicator_ops;
typedef struct ts_communicator {
    const ts_communicator_ops *ops;
    ts_world *world;
    ts_stream *stream;
    int64_t sent_bytes; /* by this rank in the collectives that were enqueued so far: exact with
                           ring; mpi and nccl choose, and are taken to send what a ring sends */
} ts_communicator;

struct ts_communicator_ops {
    const char *name; /* "self", "ring", "mpi", "nccl", "staged" */
    /* When not and `why_p` is not NULL: why not. */
    bool (*serves)(const ts_world *world, const ts_device *device, const char **why_p);
    /* Collective over the world. */
    ts_status (*open)(ts_world *world, ts_stream *stream, const ts_communicator_options *options,
                      ts_communicator **communicator_p);
    void (*close)(ts_communicator *communicator);

    /* The calls below only enqueue on the communicator's stream. n counts fp32 elements. A
     * failure of the wire sticks to the stream. */
    /* to <- reduction over ranks of from; to == from is allowed. `weight` (TS_WEIGHTED_AVERAGE)
     * points to this rank's weight in device memory, read when the collective runs. */
    ts_status (*all_reduce)(ts_communicator *communicator, float *to, const float *from, size_t n,
                            ts_reduction reduction, const float *weight);
    ts_status (*broadcast)(ts_communicator *communicator, void *data, size_t bytes, int root);
    /* to[rank * bytes ..] <- each rank's `from`; `from` may be its own place in `to`. */
    ts_status (*all_gather)(ts_communicator *communicator, void *to, const void *from,
                            size_t bytes);
    /* to[rank * bytes ..] <- that rank's from[own rank * bytes ..]; not in place. */
    ts_status (*all_to_all)(ts_communicator *communicator, void *to, const void *from,
                            size_t bytes);
    /* to[0..n) <- this rank's n elements of the reduction of from[0..n * size). */
    ts_status (*reduce_scatter)(ts_communicator *communicator, float *to, const float *from,
                                size_t n, ts_reduction reduction, const float *weight);
    /* Messages between two ranks arrive in the order they were sent; tags must match it. */
    ts_status (*send)(ts_communicator *communicator, const void *data, size_t bytes, int peer,
                      int tag);
    ts_status (*receive)(ts_communicator *communicator, void *data, size_t bytes, int peer,
                         int tag);
    /* Optional: to <- sum over ranks of from, n bf16 elements, a sum rounded to bf16 wherever it is
     * passed on: half of all_reduce's bytes. The same bits on all ranks. */
    ts_status (*all_reduce_bf16)(ts_communicator *communicator, uint16_t *to, const uint16_t *from,
                                 size_t n);
    /* Asynchronous errors so far; never blocks. */
    ts_status (*poll)(ts_communicator *communicator);
    /* From any thread: frees this rank if it is stuck in a collective, which then fails. */
    void (*abort)(ts_communicator *communicator);
};

/* NULL-terminated; the order is that of "auto": the first that serves. */
extern const ts_communicator_ops *const ts_communicators[];
ts_status ts_communicator_open(const char *name, ts_world *world, ts_stream *stream,
                               const ts_communicator_options *options,
                               ts_communicator **communicator_p);
void ts_communicator_close(ts_communicator *communicator);

#endif
