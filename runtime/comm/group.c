/* group.c - see group.h. */
#include "runtime/comm/group.h"

#include <string.h>

ts_status ts_fault_keep(ts_fault *fault, ts_status status)
{
    if (status == TS_OK || atomic_load(&fault->status) != TS_OK) return status;
    strncpy(fault->trail, ts_trail(), sizeof fault->trail - 1);
    atomic_store(&fault->status, (int)status);
    return status;
}

ts_status ts_fault_get(ts_fault *fault)
{
    ts_status status = (ts_status)atomic_load(&fault->status);
    if (status != TS_OK) ts_trail_set(fault->trail);
    return status;
}

int ts_collective_accesses(const void *args, ts_access *list)
{
    const ts_collective *call = args;
    int n = 0;
    if (call->from_bytes) list[n++] = (ts_access){call->from, call->from_bytes, false};
    if (call->weight) list[n++] = (ts_access){call->weight, sizeof *call->weight, false};
    if (call->to_bytes) list[n++] = (ts_access){call->to, call->to_bytes, true};
    return n;
}

void ts_group_init(ts_group *group, const ts_communicator_ops *ops, const ts_group_kernels *kernels,
                   ts_world *world, ts_stream *stream, const ts_communicator_options *options)
{
    group->base = (ts_communicator){.ops = ops, .world = world, .stream = stream};
    group->kernels = kernels;
    group->timeout_s = options->timeout_s;
}

bool ts_group_end(ts_group *group)
{
    ts_stream_sync(group->base.stream);
    return atomic_load(&group->fault.status) == TS_OK;
}

ts_status ts_group_need_weight(size_t n, ts_reduction reduction, const float *weight)
{
    TS_NEED(reduction != TS_WEIGHTED_AVERAGE || weight, TS_EUSAGE,
            "a weighted average of %zu elements without this rank's weight", n);
    return TS_OK;
}

size_t ts_group_segment(size_t n, int size)
{
    const size_t align = 16;
    size_t segment = (n + (size_t)size - 1) / (size_t)size;
    return (segment + align - 1) / align * align;
}

/* Bytes that a rank sends when `n` elements are reduced around a ring: in each half all segments
 * but one, rank + 1 and then rank + 2. */
static size_t sent_around(const ts_world *world, size_t n, size_t element)
{
    size_t segment = ts_group_segment(n, world->size), sent = 2 * n;
    for (int next = 1; next <= 2; next++) {
        size_t at = segment * (size_t)((world->rank + next) % world->size);
        size_t rest = at < n ? n - at : 0;
        sent -= rest < segment ? rest : segment;
    }
    return sent * element;
}

/* A kernel without a CUDA launcher works on host memory, whatever the device. */
static ts_status launch(const ts_kernel *kernel, const ts_collective *call, size_t sent)
{
    ts_stream *stream = call->communicator->stream;
    TS_TRY(kernel->enqueue ? ts_stream_launch(stream, kernel, call, sizeof *call)
                           : ts_stream_run_on_host(stream, kernel, call, sizeof *call));
    call->communicator->sent_bytes += (int64_t)sent;
    return TS_OK;
}

/* How often a rank sends its part of an all-gather or a reduce-scatter around a ring; to how many
 * it sends in an all-to-all. */
static size_t others(const ts_communicator *communicator)
{
    return (size_t)(communicator->world->size - 1);
}

static ts_group *group_of(ts_communicator *communicator)
{
    return (ts_group *)communicator;
}

/* Of elements of the call's type. */
static ts_status all_reduce(ts_collective call, void *to, const void *from, size_t n)
{
    size_t element = call.type == TS_BF16 ? sizeof(uint16_t) : sizeof(float);
    if (n == 0) return TS_OK;
    call.to = to;
    call.from = from;
    call.to_bytes = call.from_bytes = n * element;
    call.n = n;
    return launch(&group_of(call.communicator)->kernels->all_reduce, &call,
                  sent_around(call.communicator->world, n, element));
}

ts_status ts_group_all_reduce(ts_communicator *communicator, float *to, const float *from, size_t n,
                              ts_reduction reduction, const float *weight)
{
    TS_TRY(ts_group_need_weight(n, reduction, weight));
    return all_reduce((ts_collective){.communicator = communicator,
                                      .reduction = reduction,
                                      .weight = reduction == TS_WEIGHTED_AVERAGE ? weight : NULL},
                      to, from, n);
}

ts_status ts_group_all_reduce_bf16(ts_communicator *communicator, uint16_t *to,
                                   const uint16_t *from, size_t n)
{
    return all_reduce(
        (ts_collective){.communicator = communicator, .reduction = TS_SUM, .type = TS_BF16}, to,
        from, n);
}

ts_status ts_group_reduce_scatter(ts_communicator *communicator, float *to, const float *from,
                                  size_t n, ts_reduction reduction, const float *weight)
{
    TS_TRY(ts_group_need_weight(n, reduction, weight));
    if (n == 0) return TS_OK;
    ts_collective call = {.communicator = communicator,
                          .to = to,
                          .from = from,
                          .to_bytes = n * sizeof *to,
                          .from_bytes = n * sizeof *from * (size_t)communicator->world->size,
                          .n = n,
                          .reduction = reduction,
                          .weight = reduction == TS_WEIGHTED_AVERAGE ? weight : NULL};
    TS_TRY(launch(&group_of(communicator)->kernels->reduce_scatter, &call,
                  others(communicator) * n * sizeof *to));
    return TS_OK;
}

ts_status ts_group_need_peer(const ts_communicator *communicator, const char *what, int peer)
{
    const ts_world *world = communicator->world;
    TS_NEED(peer >= 0 && peer < world->size, TS_EUSAGE, "%s rank %d of %d ranks", what, peer,
            world->size);
    return TS_OK;
}

ts_status ts_group_broadcast(ts_communicator *communicator, void *data, size_t bytes, int root)
{
    TS_TRY(ts_group_need_peer(communicator, "broadcast from", root));
    if (bytes == 0) return TS_OK;
    bool is_root = communicator->world->rank == root;
    ts_collective call = {.communicator = communicator,
                          .to = data,
                          .from = data,
                          .to_bytes = is_root ? 0 : bytes,
                          .from_bytes = is_root ? bytes : 0,
                          .n = bytes,
                          .peer = root};
    /* a chain from the root around: the last rank passes nothing on */
    bool last = (communicator->world->rank + 1) % communicator->world->size == root;
    TS_TRY(launch(&group_of(communicator)->kernels->broadcast, &call, last ? 0 : bytes));
    return TS_OK;
}

/* Each rank gets a block of `bytes` from every rank, out of the from_bytes that it has. */
static ts_status blocks(const ts_kernel *kernel, ts_communicator *communicator, void *to,
                        const void *from, size_t from_bytes, size_t bytes)
{
    if (bytes == 0) return TS_OK;
    ts_collective call = {.communicator = communicator,
                          .to = to,
                          .from = from,
                          .to_bytes = bytes * (size_t)communicator->world->size,
                          .from_bytes = from_bytes,
                          .n = bytes};
    return launch(kernel, &call, others(communicator) * bytes);
}

ts_status ts_group_all_gather(ts_communicator *communicator, void *to, const void *from,
                              size_t bytes)
{
    return blocks(&group_of(communicator)->kernels->all_gather, communicator, to, from, bytes,
                  bytes);
}

ts_status ts_group_all_to_all(ts_communicator *communicator, void *to, const void *from,
                              size_t bytes)
{
    return blocks(&group_of(communicator)->kernels->all_to_all, communicator, to, from,
                  bytes * (size_t)communicator->world->size, bytes);
}

ts_status ts_group_need_other(const ts_communicator *communicator, const char *what, int peer,
                              int tag)
{
    TS_TRY(ts_group_need_peer(communicator, what, peer));
    TS_NEED(peer != communicator->world->rank, TS_EUSAGE, "%s rank %d, which is this rank", what,
            peer);
    /* MPI promises tags up to 32767; one is the collectives'. */
    TS_NEED(tag >= 0 && tag < 32767, TS_EUSAGE, "%s rank %d with tag %d; tags are 0 to 32766", what,
            peer, tag);
    return TS_OK;
}

ts_status ts_group_send(ts_communicator *communicator, const void *data, size_t bytes, int peer,
                        int tag)
{
    TS_TRY(ts_group_need_other(communicator, "send to", peer, tag));
    if (bytes == 0) return TS_OK;
    ts_collective call = {.communicator = communicator,
                          .from = data,
                          .from_bytes = bytes,
                          .n = bytes,
                          .peer = peer,
                          .tag = tag};
    TS_TRY(launch(&group_of(communicator)->kernels->send, &call, bytes));
    return TS_OK;
}

ts_status ts_group_receive(ts_communicator *communicator, void *data, size_t bytes, int peer,
                           int tag)
{
    TS_TRY(ts_group_need_other(communicator, "receive from", peer, tag));
    if (bytes == 0) return TS_OK;
    ts_collective call = {.communicator = communicator,
                          .to = data,
                          .to_bytes = bytes,
                          .n = bytes,
                          .peer = peer,
                          .tag = tag};
    TS_TRY(launch(&group_of(communicator)->kernels->receive, &call, 0));
    return TS_OK;
}

ts_status ts_group_poll(ts_communicator *communicator)
{
    return ts_fault_get(&group_of(communicator)->fault);
}

void ts_group_abort(ts_communicator *communicator)
{
    atomic_store(&group_of(communicator)->stop, true);
}
