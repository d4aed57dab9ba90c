/* staged.c - collectives on a device's memory through pinned host memory and the ring over MPI: for
 * clusters without NCCL, and for several ranks on one GPU.
 *
 * A collective is a copy down, the ring, a copy up, all in the stream's order. The pinned memory
 * grows to the largest collective and then stays. */
#include <stdlib.h>

#include "runtime/comm/mpi_common.h"

typedef struct staged {
    ts_communicator base;
    ts_communicator *ring;
    char *from, *to; /* pinned */
    size_t from_bytes, to_bytes;
    float *weight; /* pinned, one */
} staged;

static staged *staged_of(ts_communicator *communicator)
{
    return (staged *)communicator;
}

static bool staged_serves(const ts_world *world, const ts_device *device, const char **why_p)
{
    (void)device;
    const char *why = world->ops != &ts_world_mpi
                          ? "it needs ranks started by mpirun or by srun --mpi=pmix"
                      : world->size == 1 ? "it is for several ranks"
                                         : NULL;
    if (why && why_p) *why_p = why;
    return !why;
}

/* Earlier collectives may still be using what is replaced. */
static ts_status grow(staged *s, char **memory, size_t *has, size_t bytes)
{
    ts_device *device = s->base.stream->device;
    if (*has >= bytes) return TS_OK;
    TS_TRY(ts_stream_sync(s->base.stream));
    ts_device_release(device, TS_MEMORY_PINNED, *memory);
    *memory = NULL;
    *has = 0;
    TS_TRY(ts_device_alloc(device, TS_MEMORY_PINNED, bytes, (void **)memory));
    *has = bytes;
    return TS_OK;
}

/* What goes in and what comes out, and this rank's weight, pinned. */
static ts_status stage(staged *s, const void *from, size_t from_bytes, size_t to_bytes,
                       const float *weight)
{
    TS_TRY(grow(s, &s->from, &s->from_bytes, from_bytes));
    TS_TRY(grow(s, &s->to, &s->to_bytes, to_bytes));
    if (from_bytes) TS_TRY(ts_stream_copy(s->base.stream, s->from, from, from_bytes));
    return weight ? ts_stream_copy(s->base.stream, s->weight, weight, sizeof *weight) : TS_OK;
}

static ts_status deliver(staged *s, void *to, size_t bytes)
{
    s->base.sent_bytes = s->ring->sent_bytes;
    return bytes ? ts_stream_copy(s->base.stream, to, s->to, bytes) : TS_OK;
}

static ts_status staged_all_reduce(ts_communicator *communicator, float *to, const float *from,
                                   size_t n, ts_reduction reduction, const float *weight)
{
    staged *s = staged_of(communicator);
    TS_TRY(ts_group_need_weight(n, reduction, weight));
    TS_TRY(stage(s, from, n * sizeof *from, n * sizeof *to, weight));
    TS_TRY(s->ring->ops->all_reduce(s->ring, (float *)(void *)s->to,
                                    (const float *)(const void *)s->from, n, reduction,
                                    weight ? s->weight : NULL));
    return deliver(s, to, n * sizeof *to);
}

static ts_status staged_all_reduce_bf16(ts_communicator *communicator, uint16_t *to,
                                        const uint16_t *from, size_t n)
{
    staged *s = staged_of(communicator);
    TS_TRY(stage(s, from, n * sizeof *from, n * sizeof *to, NULL));
    TS_TRY(s->ring->ops->all_reduce_bf16(s->ring, (uint16_t *)(void *)s->to,
                                         (const uint16_t *)(const void *)s->from, n));
    return deliver(s, to, n * sizeof *to);
}

static ts_status staged_reduce_scatter(ts_communicator *communicator, float *to, const float *from,
                                       size_t n, ts_reduction reduction, const float *weight)
{
    staged *s = staged_of(communicator);
    TS_TRY(ts_group_need_weight(n, reduction, weight));
    TS_TRY(stage(s, from, n * sizeof *from * (size_t)communicator->world->size, n * sizeof *to,
                 weight));
    TS_TRY(s->ring->ops->reduce_scatter(s->ring, (float *)(void *)s->to,
                                        (const float *)(const void *)s->from, n, reduction,
                                        weight ? s->weight : NULL));
    return deliver(s, to, n * sizeof *to);
}

static ts_status staged_broadcast(ts_communicator *communicator, void *data, size_t bytes, int root)
{
    staged *s = staged_of(communicator);
    bool is_root = communicator->world->rank == root;
    TS_TRY(ts_group_need_peer(communicator, "broadcast from", root));
    TS_TRY(grow(s, &s->to, &s->to_bytes, bytes));
    if (is_root) TS_TRY(ts_stream_copy(s->base.stream, s->to, data, bytes));
    TS_TRY(s->ring->ops->broadcast(s->ring, s->to, bytes, root));
    return deliver(s, data, is_root ? 0 : bytes);
}

/* Each rank gets a block of `bytes` from every rank, out of the from_bytes that it has. */
static ts_status blocks(staged *s,
                        ts_status (*collective)(ts_communicator *, void *, const void *, size_t),
                        void *to, const void *from, size_t from_bytes, size_t bytes)
{
    size_t all = bytes * (size_t)s->base.world->size;
    TS_TRY(stage(s, from, from_bytes, all, NULL));
    TS_TRY(collective(s->ring, s->to, s->from, bytes));
    return deliver(s, to, all);
}

static ts_status staged_all_gather(ts_communicator *communicator, void *to, const void *from,
                                   size_t bytes)
{
    staged *s = staged_of(communicator);
    return blocks(s, s->ring->ops->all_gather, to, from, bytes, bytes);
}

static ts_status staged_all_to_all(ts_communicator *communicator, void *to, const void *from,
                                   size_t bytes)
{
    staged *s = staged_of(communicator);
    return blocks(s, s->ring->ops->all_to_all, to, from, bytes * (size_t)communicator->world->size,
                  bytes);
}

static ts_status staged_send(ts_communicator *communicator, const void *data, size_t bytes,
                             int peer, int tag)
{
    staged *s = staged_of(communicator);
    TS_TRY(ts_group_need_other(communicator, "send to", peer, tag));
    TS_TRY(stage(s, data, bytes, 0, NULL));
    TS_TRY(s->ring->ops->send(s->ring, s->from, bytes, peer, tag));
    return deliver(s, NULL, 0);
}

static ts_status staged_receive(ts_communicator *communicator, void *data, size_t bytes, int peer,
                                int tag)
{
    staged *s = staged_of(communicator);
    TS_TRY(ts_group_need_other(communicator, "receive from", peer, tag));
    TS_TRY(grow(s, &s->to, &s->to_bytes, bytes));
    TS_TRY(s->ring->ops->receive(s->ring, s->to, bytes, peer, tag));
    return deliver(s, data, bytes);
}

static ts_status staged_poll(ts_communicator *communicator)
{
    ts_communicator *ring = staged_of(communicator)->ring;
    return ring->ops->poll(ring);
}

static void staged_abort(ts_communicator *communicator)
{
    ts_communicator *ring = staged_of(communicator)->ring;
    ring->ops->abort(ring);
}

static void staged_close(ts_communicator *communicator)
{
    staged *s = staged_of(communicator);
    ts_device *device = communicator->stream->device;
    bool healthy = !s->ring || s->ring->ops->poll(s->ring) == TS_OK;
    ts_communicator_close(s->ring); /* empties the stream */
    /* After a failure late messages may still land here. */
    if (healthy) {
        ts_device_release(device, TS_MEMORY_PINNED, s->to);
        ts_device_release(device, TS_MEMORY_PINNED, s->from);
    }
    ts_device_release(device, TS_MEMORY_PINNED, s->weight);
    free(s);
}

static ts_status staged_open(ts_world *world, ts_stream *stream,
                             const ts_communicator_options *options,
                             ts_communicator **communicator_p)
{
    staged *s = calloc(1, sizeof *s);
    TS_NEED(s, TS_ENOMEM, "no memory for a communicator");
    s->base = (ts_communicator){.ops = &ts_communicator_staged, .world = world, .stream = stream};
    ts_status status =
        ts_device_alloc(stream->device, TS_MEMORY_PINNED, sizeof *s->weight, (void **)&s->weight);
    if (!status) status = ts_communicator_ring.open(world, stream, options, &s->ring);
    if (status) {
        staged_close(&s->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *communicator_p = &s->base;
    return TS_OK;
}

const ts_communicator_ops ts_communicator_staged = {
    .name = "staged",
    .serves = staged_serves,
    .open = staged_open,
    .close = staged_close,
    .all_reduce = staged_all_reduce,
    .all_reduce_bf16 = staged_all_reduce_bf16,
    .broadcast = staged_broadcast,
    .all_gather = staged_all_gather,
    .all_to_all = staged_all_to_all,
    .reduce_scatter = staged_reduce_scatter,
    .send = staged_send,
    .receive = staged_receive,
    .poll = staged_poll,
    .abort = staged_abort,
};
