/* mpi.c - the collectives of the MPI library, as blocking calls on the stream's thread: the
 * baseline for ring, and what a cluster's vendor may have tuned.
 *
 * A blocking call is twice as fast as its non-blocking twin over TCP (Open MPI 4.1.4), but it
 * holds a core while it waits, and nothing can interrupt it: abort() does not free this rank and
 * the stream never sees the time-out. poll() does: a call that has run for longer than the
 * time-out, however long it should take, fails there, and the program ends through the world. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/comm/mpi_common.h"

typedef struct blocking {
    ts_group base;
    MPI_Comm mpi;
    _Atomic int64_t since_ns; /* when the running call began; 0: none runs */
    float *weighted;          /* reduce-scatter: the weighted terms; grows once */
    size_t weighted_n;
} blocking;

static void weigh(float *to, const float *from, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = weight * from[i];
}

static void divide(float *x, float divisor, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] /= divisor;
}

static ts_status begin(blocking *b, const ts_collective *call)
{
    TS_TRY(ts_fault_get(&b->base.fault));
    TS_NEED(call->n <= INT32_MAX, TS_EUNSUPPORTED,
            "%zu elements in one collective; communicator mpi moves at most %d, ring any number",
            call->n, INT32_MAX);
    TS_NEED(!atomic_load(&b->base.stop), TS_ECOMM, "communicator mpi was aborted");
    atomic_store(&b->since_ns, ts_clock_ns());
    return TS_OK;
}

static ts_status end(blocking *b, const char *call, int code)
{
    atomic_store(&b->since_ns, 0);
    ts_status status = TS_OK;
    if (code != MPI_SUCCESS) status = ts_mpi_fail(__FILE__, __LINE__, call, code);
    return ts_fault_keep(&b->base.fault, status);
}

static ts_status run_all_reduce(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    TS_TRY(begin(b, call));
    float *to = call->to;
    const void *from = call->from == call->to ? MPI_IN_PLACE : call->from;
    if (call->reduction == TS_WEIGHTED_AVERAGE) {
        weigh(to, call->from, *call->weight, call->n);
        from = MPI_IN_PLACE;
    }
    int code = MPI_Allreduce(from, to, (int)call->n, MPI_FLOAT, MPI_SUM, b->mpi);
    TS_TRY(end(b, "MPI_Allreduce", code));
    if (call->reduction == TS_AVERAGE) divide(to, (float)call->communicator->world->size, call->n);
    return TS_OK;
}

static ts_status run_reduce_scatter(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    const ts_world *world = call->communicator->world;
    const float *from = call->from;
    if (call->reduction == TS_WEIGHTED_AVERAGE) {
        size_t n = call->n * (size_t)world->size;
        if (b->weighted_n < n) {
            free(b->weighted);
            b->weighted = malloc(n * sizeof(float));
            b->weighted_n = b->weighted ? n : 0;
            TS_NEED(b->weighted, TS_ENOMEM, "no memory for %zu weighted terms", n);
        }
        weigh(b->weighted, from, *call->weight, n);
        from = b->weighted;
    }
    TS_TRY(begin(b, call));
    int code = MPI_Reduce_scatter_block(from, call->to, (int)call->n, MPI_FLOAT, MPI_SUM, b->mpi);
    TS_TRY(end(b, "MPI_Reduce_scatter_block", code));
    if (call->reduction == TS_AVERAGE) divide(call->to, (float)world->size, call->n);
    return TS_OK;
}

static ts_status run_broadcast(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    TS_TRY(begin(b, call));
    return end(b, "MPI_Bcast", MPI_Bcast(call->to, (int)call->n, MPI_BYTE, call->peer, b->mpi));
}

static ts_status run_all_gather(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    TS_TRY(begin(b, call));
    const char *own = (char *)call->to + (size_t)call->communicator->world->rank * call->n;
    return end(b, "MPI_Allgather",
               MPI_Allgather(call->from == own ? MPI_IN_PLACE : call->from, (int)call->n, MPI_BYTE,
                             call->to, (int)call->n, MPI_BYTE, b->mpi));
}

static ts_status run_all_to_all(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    TS_TRY(begin(b, call));
    return end(
        b, "MPI_Alltoall",
        MPI_Alltoall(call->from, (int)call->n, MPI_BYTE, call->to, (int)call->n, MPI_BYTE, b->mpi));
}

static ts_status run_send(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    TS_TRY(begin(b, call));
    return end(b, "MPI_Send",
               MPI_Send(call->from, (int)call->n, MPI_BYTE, call->peer, call->tag, b->mpi));
}

static ts_status run_receive(const void *args)
{
    const ts_collective *call = args;
    blocking *b = (blocking *)call->communicator;
    TS_TRY(begin(b, call));
    return end(b, "MPI_Recv",
               MPI_Recv(call->to, (int)call->n, MPI_BYTE, call->peer, call->tag, b->mpi,
                        MPI_STATUS_IGNORE));
}

static const ts_group_kernels kernels = {
    .all_reduce = {.name = "mpi_all_reduce",
                   .run = run_all_reduce,
                   .accesses = ts_collective_accesses},
    .broadcast = {.name = "mpi_broadcast",
                  .run = run_broadcast,
                  .accesses = ts_collective_accesses},
    .all_gather = {.name = "mpi_all_gather",
                   .run = run_all_gather,
                   .accesses = ts_collective_accesses},
    .all_to_all = {.name = "mpi_all_to_all",
                   .run = run_all_to_all,
                   .accesses = ts_collective_accesses},
    .reduce_scatter = {.name = "mpi_reduce_scatter",
                       .run = run_reduce_scatter,
                       .accesses = ts_collective_accesses},
    .send = {.name = "mpi_send", .run = run_send, .accesses = ts_collective_accesses},
    .receive = {.name = "mpi_receive", .run = run_receive, .accesses = ts_collective_accesses},
};

static ts_status mpi_open(ts_world *world, ts_stream *stream,
                          const ts_communicator_options *options, ts_communicator **communicator_p)
{
    blocking *b = calloc(1, sizeof *b);
    TS_NEED(b, TS_ENOMEM, "no memory for a communicator");
    ts_group_init(&b->base, &ts_communicator_mpi, &kernels, world, stream, options);
    ts_status status = ts_mpi_duplicate(world, &b->mpi);
    if (status != TS_OK) {
        free(b);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *communicator_p = &b->base.base;
    return TS_OK;
}

static void mpi_close(ts_communicator *communicator)
{
    blocking *b = (blocking *)communicator;
    if (ts_group_end(&b->base)) MPI_Comm_free(&b->mpi);
    free(b->weighted);
    free(b);
}

static ts_status mpi_poll(ts_communicator *communicator)
{
    blocking *b = (blocking *)communicator;
    TS_TRY(ts_fault_get(&b->base.fault));
    int64_t since_ns = atomic_load(&b->since_ns);
    if (b->base.timeout_s <= 0 || !since_ns) return TS_OK;
    if (ts_clock_ns() - since_ns < b->base.timeout_s * INT64_C(1000000000)) return TS_OK;
    TS_TRY(ts_world_timed_out(communicator->world, "a call of communicator mpi", b->base.timeout_s,
                              -1));
    return TS_OK;
}

const ts_communicator_ops ts_communicator_mpi = {
    .name = "mpi",
    .serves = ts_mpi_serves,
    .open = mpi_open,
    .close = mpi_close,
    .all_reduce = ts_group_all_reduce,
    .broadcast = ts_group_broadcast,
    .all_gather = ts_group_all_gather,
    .all_to_all = ts_group_all_to_all,
    .reduce_scatter = ts_group_reduce_scatter,
    .send = ts_group_send,
    .receive = ts_group_receive,
    .poll = mpi_poll,
    .abort = ts_group_abort,
};
