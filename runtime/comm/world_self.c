/* world_self.c - one process alone: no MPI, nothing to wait for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/comm/mpi_common.h"

static bool self_present(void)
{
    return true;
}

static ts_status self_open(ts_world **world_p)
{
    ts_world *world = calloc(1, sizeof *world);
    TS_NEED(world, TS_ENOMEM, "no memory for a world of one rank");
    world->ops = &ts_world_self;
    world->size = 1;
    gethostname(world->host, sizeof world->host - 1);
    world->hosts = &world->host;
    ts_log_set_rank(0, 1, world->host);
    *world_p = world;
    return TS_OK;
}

static void self_close(ts_world *world)
{
    free(world);
}

static ts_status self_broadcast(ts_world *world, void *data, size_t bytes, int root)
{
    (void)world, (void)data, (void)bytes;
    TS_NEED(root == 0, TS_EUSAGE, "broadcast from rank %d in a world of one", root);
    return TS_OK;
}

static ts_status self_all_gather(ts_world *world, const void *from, void *to, size_t bytes)
{
    (void)world;
    if (to != from && bytes) memcpy(to, from, bytes);
    return TS_OK;
}

static ts_status self_barrier(ts_world *world)
{
    (void)world;
    return TS_OK;
}

static void self_abort(ts_world *world, int exit_code)
{
    (void)world;
    fflush(NULL);
    _Exit(exit_code);
}

static ts_status self_probe(ts_world *world, int wait_ms, bool *alive)
{
    (void)world, (void)wait_ms;
    alive[0] = true;
    return TS_OK;
}

const ts_world_ops ts_world_self = {
    .name = "self",
    .present = self_present,
    .open = self_open,
    .close = self_close,
    .broadcast = self_broadcast,
    .all_gather = self_all_gather,
    .barrier = self_barrier,
    .abort = self_abort,
    .probe = self_probe,
};
