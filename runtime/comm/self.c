/* self.c - the communicator of one rank: a reduction over it is a copy, on any device.
 *
 * The weights of a weighted average sum to 1, so the only rank's weight is 1 and is not read. */
#include <stdlib.h>

#include "runtime/comm/mpi_common.h"

static bool self_serves(const ts_world *world, const ts_device *device, const char **why_p)
{
    (void)device;
    if (world->size > 1 && why_p) *why_p = "it is for one rank";
    return world->size == 1;
}

static ts_status self_open(ts_world *world, ts_stream *stream,
                           const ts_communicator_options *options, ts_communicator **communicator_p)
{
    (void)options;
    ts_communicator *communicator = malloc(sizeof *communicator);
    TS_NEED(communicator, TS_ENOMEM, "no memory for a communicator");
    *communicator =
        (ts_communicator){.ops = &ts_communicator_self, .world = world, .stream = stream};
    *communicator_p = communicator;
    return TS_OK;
}

static void self_close(ts_communicator *communicator)
{
    free(communicator);
}

static ts_status self_all_gather(ts_communicator *communicator, void *to, const void *from,
                                 size_t bytes)
{
    if (to == from || bytes == 0) return TS_OK;
    TS_TRY(ts_stream_copy(communicator->stream, to, from, bytes));
    return TS_OK;
}

static ts_status self_reduce(ts_communicator *communicator, float *to, const float *from, size_t n,
                             ts_reduction reduction, const float *weight)
{
    (void)reduction, (void)weight;
    return self_all_gather(communicator, to, from, n * sizeof *to);
}

static ts_status self_broadcast(ts_communicator *communicator, void *data, size_t bytes, int root)
{
    (void)communicator, (void)data, (void)bytes;
    TS_NEED(root == 0, TS_EUSAGE, "broadcast from rank %d of one rank", root);
    return TS_OK;
}

static ts_status self_send(ts_communicator *communicator, const void *data, size_t bytes, int peer,
                           int tag)
{
    (void)communicator, (void)data, (void)bytes, (void)tag;
    return TS_ERROR(TS_EUSAGE, "send to rank %d, but there is only this rank", peer);
}

static ts_status self_receive(ts_communicator *communicator, void *data, size_t bytes, int peer,
                              int tag)
{
    (void)communicator, (void)data, (void)bytes, (void)tag;
    return TS_ERROR(TS_EUSAGE, "receive from rank %d, but there is only this rank", peer);
}

static ts_status self_poll(ts_communicator *communicator)
{
    (void)communicator;
    return TS_OK;
}

static void self_abort(ts_communicator *communicator)
{
    (void)communicator; /* nothing here can be stuck */
}

const ts_communicator_ops ts_communicator_self = {
    .name = "self",
    .serves = self_serves,
    .open = self_open,
    .close = self_close,
    .all_reduce = self_reduce,
    .broadcast = self_broadcast,
    .all_gather = self_all_gather,
    .all_to_all = self_all_gather,
    .reduce_scatter = self_reduce,
    .send = self_send,
    .receive = self_receive,
    .poll = self_poll,
    .abort = self_abort,
};
