/* mpi_common.c - errors, waiting, kept failures, and how a collective over MPI is enqueued. */
#include "runtime/comm/mpi_common.h"

#include <string.h>
#include <sys/prctl.h>

#include "runtime/base/clock.h"

enum { SPIN_NS = 5000, FIRST_SLEEP_NS = 50000 };

ts_status ts_mpi_fail(const char *file, int line, const char *call, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
    text[length] = '\0';
    return ts_status_fail(file, line, TS_ECOMM, "%.*s failed: %s (code %d)",
                          (int)strcspn(call, "("), call, text, code);
}

void ts_mpi_wait_sharpen(void)
{
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

int64_t ts_mpi_wait_pause(ts_mpi_wait *wait, int64_t longest_ns)
{
    int64_t now = ts_clock_ns();
    if (!wait->idle_since_ns) {
        wait->idle_since_ns = now;
        wait->sleep_ns = FIRST_SLEEP_NS;
        return 0;
    }
    int64_t idle = now - wait->idle_since_ns;
    if (idle < SPIN_NS) return idle;
    ts_clock_sleep_ns(wait->sleep_ns);
    wait->sleep_ns = wait->sleep_ns * 2 < longest_ns ? wait->sleep_ns * 2 : longest_ns;
    return idle;
}

ts_status ts_mpi_fault_keep(ts_mpi_fault *fault, ts_status status)
{
    if (status == TS_OK || atomic_load(&fault->status) != TS_OK) return status;
    strncpy(fault->trail, ts_trail(), sizeof fault->trail - 1);
    atomic_store(&fault->status, (int)status);
    return status;
}

ts_status ts_mpi_fault_get(ts_mpi_fault *fault)
{
    ts_status status = (ts_status)atomic_load(&fault->status);
    if (status != TS_OK) ts_trail_set(fault->trail);
    return status;
}

int ts_mpi_call_accesses(const void *args, ts_access *list)
{
    const ts_mpi_call *call = args;
    int n = 0;
    if (call->from_bytes) list[n++] = (ts_access){call->from, call->from_bytes, false};
    if (call->weight) list[n++] = (ts_access){call->weight, sizeof *call->weight, false};
    if (call->to_bytes) list[n++] = (ts_access){call->to, call->to_bytes, true};
    return n;
}

ts_status ts_mpi_communicator_init(ts_mpi_communicator *communicator,
                                   const ts_communicator_ops *ops, const ts_mpi_kernels *kernels,
                                   ts_world *world, ts_stream *stream, int timeout_s)
{
    communicator->base = (ts_communicator){ops, world, stream};
    communicator->kernels = kernels;
    communicator->timeout_s = timeout_s;
    TS_TRY(ts_mpi_duplicate(world, &communicator->mpi));
    return TS_OK;
}

bool ts_mpi_communicator_end(ts_mpi_communicator *communicator)
{
    ts_stream_sync(communicator->base.stream);
    if (atomic_load(&communicator->fault.status) != TS_OK) return false;
    MPI_Comm_free(&communicator->mpi);
    return true;
}

static ts_status launch(const ts_kernel *kernel, const ts_mpi_call *call)
{
    return ts_stream_launch(call->communicator->stream, kernel, call, sizeof *call);
}

static ts_mpi_communicator *over_mpi(ts_communicator *communicator)
{
    return (ts_mpi_communicator *)communicator;
}

ts_status ts_mpi_all_reduce(ts_communicator *communicator, float *to, const float *from, size_t n,
                            ts_reduction reduction, const float *weight)
{
    TS_NEED(reduction != TS_WEIGHTED_AVERAGE || weight, TS_EUSAGE,
            "a weighted average of %zu elements without this rank's weight", n);
    if (n == 0) return TS_OK;
    ts_mpi_call call = {.communicator = communicator,
                        .to = to,
                        .from = from,
                        .to_bytes = n * sizeof *to,
                        .from_bytes = n * sizeof *from,
                        .n = n,
                        .reduction = reduction,
                        .weight = reduction == TS_WEIGHTED_AVERAGE ? weight : NULL};
    TS_TRY(launch(&over_mpi(communicator)->kernels->all_reduce, &call));
    return TS_OK;
}

ts_status ts_mpi_reduce_scatter(ts_communicator *communicator, float *to, const float *from,
                                size_t n, ts_reduction reduction, const float *weight)
{
    TS_NEED(reduction != TS_WEIGHTED_AVERAGE || weight, TS_EUSAGE,
            "a weighted average of %zu elements without this rank's weight", n);
    if (n == 0) return TS_OK;
    ts_mpi_call call = {.communicator = communicator,
                        .to = to,
                        .from = from,
                        .to_bytes = n * sizeof *to,
                        .from_bytes = n * sizeof *from * (size_t)communicator->world->size,
                        .n = n,
                        .reduction = reduction,
                        .weight = reduction == TS_WEIGHTED_AVERAGE ? weight : NULL};
    TS_TRY(launch(&over_mpi(communicator)->kernels->reduce_scatter, &call));
    return TS_OK;
}

static ts_status need_peer(const ts_communicator *communicator, const char *what, int peer)
{
    const ts_world *world = communicator->world;
    TS_NEED(peer >= 0 && peer < world->size, TS_EUSAGE, "%s rank %d of %d ranks", what, peer,
            world->size);
    return TS_OK;
}

ts_status ts_mpi_broadcast(ts_communicator *communicator, void *data, size_t bytes, int root)
{
    TS_TRY(need_peer(communicator, "broadcast from", root));
    if (bytes == 0) return TS_OK;
    bool is_root = communicator->world->rank == root;
    ts_mpi_call call = {.communicator = communicator,
                        .to = data,
                        .from = data,
                        .to_bytes = is_root ? 0 : bytes,
                        .from_bytes = is_root ? bytes : 0,
                        .n = bytes,
                        .peer = root};
    TS_TRY(launch(&over_mpi(communicator)->kernels->broadcast, &call));
    return TS_OK;
}

ts_status ts_mpi_all_gather(ts_communicator *communicator, void *to, const void *from, size_t bytes)
{
    if (bytes == 0) return TS_OK;
    ts_mpi_call call = {.communicator = communicator,
                        .to = to,
                        .from = from,
                        .to_bytes = bytes * (size_t)communicator->world->size,
                        .from_bytes = bytes,
                        .n = bytes};
    TS_TRY(launch(&over_mpi(communicator)->kernels->all_gather, &call));
    return TS_OK;
}

static ts_status need_other(const ts_communicator *communicator, const char *what, int peer,
                            int tag)
{
    TS_TRY(need_peer(communicator, what, peer));
    TS_NEED(peer != communicator->world->rank, TS_EUSAGE, "%s rank %d, which is this rank", what,
            peer);
    /* MPI promises tags up to 32767; one is the collectives'. */
    TS_NEED(tag >= 0 && tag < 32767, TS_EUSAGE, "%s rank %d with tag %d; tags are 0 to 32766", what,
            peer, tag);
    return TS_OK;
}

ts_status ts_mpi_send(ts_communicator *communicator, const void *data, size_t bytes, int peer,
                      int tag)
{
    TS_TRY(need_other(communicator, "send to", peer, tag));
    if (bytes == 0) return TS_OK;
    ts_mpi_call call = {.communicator = communicator,
                        .from = data,
                        .from_bytes = bytes,
                        .n = bytes,
                        .peer = peer,
                        .tag = tag};
    TS_TRY(launch(&over_mpi(communicator)->kernels->send, &call));
    return TS_OK;
}

ts_status ts_mpi_receive(ts_communicator *communicator, void *data, size_t bytes, int peer, int tag)
{
    TS_TRY(need_other(communicator, "receive from", peer, tag));
    if (bytes == 0) return TS_OK;
    ts_mpi_call call = {.communicator = communicator,
                        .to = data,
                        .to_bytes = bytes,
                        .n = bytes,
                        .peer = peer,
                        .tag = tag};
    TS_TRY(launch(&over_mpi(communicator)->kernels->receive, &call));
    return TS_OK;
}

ts_status ts_mpi_poll(ts_communicator *communicator)
{
    return ts_mpi_fault_get(&over_mpi(communicator)->fault);
}

void ts_mpi_abort(ts_communicator *communicator)
{
    atomic_store(&over_mpi(communicator)->stop, true);
}
