/* world.c - worlds and communicators by name, and what every world can do with its own calls. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/option.h"
#include "runtime/comm/mpi_common.h"

static const ts_world_ops *const worlds[] = {&ts_world_mpi, &ts_world_self, NULL};
const ts_communicator_ops *const ts_communicators[] = {&ts_communicator_self, &ts_communicator_ring,
                                                       &ts_communicator_mpi, NULL};

static ts_status unknown(const char *what, const char *name, const char *known)
{
    const char *nearest = ts_option_nearest(name, known);
    return TS_ERROR(TS_EUSAGE, "unknown %s \"%s\"%s%s%s; known: %s", what, name,
                    nearest ? ", did you mean \"" : "", nearest ? nearest : "",
                    nearest ? "\"?" : "", known);
}

ts_status ts_world_open(const char *name, ts_world **world_p)
{
    bool automatic = strcmp(name, "auto") == 0;
    for (const ts_world_ops *const *ops = worlds; *ops; ops++) {
        if (automatic ? (*ops)->present() : strcmp(name, (*ops)->name) == 0) {
            TS_TRY((*ops)->open(world_p));
            return TS_OK;
        }
    }
    return unknown("world", name, "auto|mpi|self");
}

void ts_world_close(ts_world *world)
{
    if (world) world->ops->close(world);
}

ts_status ts_world_agree(ts_world *world, ts_status mine)
{
    int32_t own = (int32_t)mine, *all = calloc((size_t)world->size, sizeof *all);
    TS_NEED(all, TS_ENOMEM, "no memory for the statuses of %d ranks", world->size);

    ts_status status = world->ops->all_gather(world, &own, all, sizeof own);
    if (status != TS_OK) {
        ts_status_pass(__FILE__, __LINE__, status);
        goto done;
    }
    int speaker = -1;
    for (int r = world->size - 1; r >= 0; r--) {
        bool worse = all[r] != TS_ESTOPPED || speaker < 0 || all[speaker] == TS_ESTOPPED;
        if (all[r] != TS_OK && worse) speaker = r;
    }
    if (speaker >= 0) status = (ts_status)all[speaker];
    if (speaker >= 0 && speaker != world->rank) ts_trail_clear();
    world->agreed |= speaker >= 0;
done:
    free(all);
    return status;
}

ts_status ts_world_same(ts_world *world, const char *what, const void *data, size_t bytes)
{
    uint64_t length = bytes;
    TS_TRY(world->ops->broadcast(world, &length, sizeof length, 0));
    unsigned char *first = malloc(length ? length : 1);
    TS_TRY(ts_world_agree(world, first ? TS_OK
                                       : TS_ERROR(TS_ENOMEM, "no memory for %llu bytes of %s",
                                                  (unsigned long long)length, what)));
    if (world->rank == 0) memcpy(first, data, length);
    ts_status status = world->ops->broadcast(world, first, length, 0);
    if (status != TS_OK) {
        free(first);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    /* Where this rank first differs; -1 where it does not. */
    int64_t differs = -1;
    size_t common = bytes < length ? bytes : (size_t)length, i = 0;
    while (i < common && first[i] == ((const unsigned char *)data)[i]) i++;
    if (i < common || bytes != length) differs = (int64_t)i;
    free(first);

    int64_t *all = malloc((size_t)world->size * sizeof *all);
    TS_TRY(ts_world_agree(world, all ? TS_OK
                                     : TS_ERROR(TS_ENOMEM, "no memory for %d ranks", world->size)));
    status = world->ops->all_gather(world, &differs, all, sizeof differs);
    if (status != TS_OK) ts_status_pass(__FILE__, __LINE__, status);
    for (int r = 1; r < world->size && status == TS_OK; r++) {
        if (all[r] < 0) continue;
        status = TS_ERROR(TS_EUSAGE,
                          "%s of rank %d differs from rank 0's at byte %lld; give every rank the "
                          "same options and files",
                          what, r, (long long)all[r]);
    }
    free(all);
    world->agreed |= status == TS_EUSAGE;
    if (status == TS_EUSAGE && world->rank) ts_trail_clear();
    return status;
}

ts_status ts_communicator_open(const char *name, ts_world *world, ts_stream *stream, int timeout_s,
                               ts_communicator **communicator_p)
{
    bool automatic = strcmp(name, "auto") == 0;
    for (const ts_communicator_ops *const *ops = ts_communicators; *ops; ops++) {
        bool serves = (*ops)->serves(world, stream->device);
        if (automatic ? !serves : strcmp(name, (*ops)->name) != 0) continue;
        TS_NEED(serves, TS_EUNSUPPORTED,
                "communicator %s does not serve %d ranks of world %s on device %s; try auto", name,
                world->size, world->ops->name, stream->device->ops->name);
        TS_TRY((*ops)->open(world, stream, timeout_s, communicator_p));
        return TS_OK;
    }
    TS_NEED(!automatic, TS_EUNSUPPORTED, "no communicator serves %d ranks of world %s on device %s",
            world->size, world->ops->name, stream->device->ops->name);
    return unknown("communicator", name, "auto|self|ring|mpi");
}

void ts_communicator_close(ts_communicator *communicator)
{
    if (communicator) communicator->ops->close(communicator);
}
