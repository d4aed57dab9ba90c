/* world.c - worlds and communicators by name, and what every world can do with its own calls. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/option.h"
#include "runtime/comm/mpi_common.h"

enum { PROBE_MS = 1000 /* after a time-out */ };

static const ts_world_ops *const worlds[] = {&ts_world_mpi, &ts_world_tcp, &ts_world_self, NULL};
const ts_communicator_ops *const ts_communicators[] = {
    &ts_communicator_self,   &ts_communicator_nccl, &ts_communicator_ring,
    &ts_communicator_staged, &ts_communicator_mpi,  NULL};

static ts_status unknown(const char *what, const char *name, const char *known)
{
    const char *nearest = ts_option_nearest(name, known);
    return TS_ERROR(TS_EUSAGE, "unknown %s \"%s\"%s%s%s; known: %s", what, name,
                    nearest ? ", did you mean \"" : "", nearest ? nearest : "",
                    nearest ? "\"?" : "", known);
}

/* Launchers bind ranks to cores of their own, or to some that several share, or not at all. */
static ts_status count_sharers(ts_world *w)
{
    cpu_set_t own, *all = calloc((size_t)w->size, sizeof *all);
    TS_TRY(ts_world_agree(w, all ? TS_OK : TS_ERROR(TS_ENOMEM, "no memory for %d ranks", w->size)));
    CPU_ZERO(&own);
    if (sched_getaffinity(0, sizeof own, &own)) CPU_ZERO(&own);
    ts_status status = w->ops->all_gather(w, &own, all, sizeof own);
    w->sharers = 1;
    for (int r = 0; r < w->size && !status; r++) {
        CPU_AND(&all[r], &all[r], &own);
        w->sharers += r != w->rank && CPU_COUNT(&all[r]) > 0 && !strcmp(w->hosts[r], w->host);
    }
    free(all);
    return status;
}

ts_status ts_world_open(const char *name, ts_world **world_p)
{
    bool automatic = strcmp(name, "auto") == 0;
    for (const ts_world_ops *const *ops = worlds; *ops; ops++) {
        if (automatic ? (*ops)->present() : strcmp(name, (*ops)->name) == 0) {
            TS_TRY((*ops)->open(world_p));
            return count_sharers(*world_p);
        }
    }
    return unknown("world", name, "auto|mpi|tcp|self");
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

ts_status ts_world_difference(ts_world *world, const char *what, const void *data, size_t bytes,
                              int *rank_p, int64_t *at_p)
{
    *rank_p = -1;
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
    for (int r = 1; r < world->size && status == TS_OK && *rank_p < 0; r++) {
        if (all[r] < 0) continue;
        *rank_p = r;
        *at_p = all[r];
    }
    free(all);
    return status;
}

ts_status ts_world_same(ts_world *world, const char *what, const void *data, size_t bytes)
{
    int rank;
    int64_t at;
    TS_TRY(ts_world_difference(world, what, data, bytes, &rank, &at));
    if (rank < 0) return TS_OK;
    return ts_world_agree(world, TS_ERROR(TS_EUSAGE,
                                          "%s of rank %d differs from rank 0's at byte %lld; give "
                                          "every rank the same options and files",
                                          what, rank, (long long)at));
}

ts_status ts_world_sum(ts_world *world, int64_t mine, int64_t *sum_p)
{
    *sum_p = mine;
    if (world->size == 1) return TS_OK;
    int64_t *all = malloc((size_t)world->size * sizeof *all);
    TS_TRY(ts_world_agree(world, all ? TS_OK
                                     : TS_ERROR(TS_ENOMEM, "no memory for %d ranks", world->size)));
    ts_status status = world->ops->all_gather(world, &mine, all, sizeof mine);
    *sum_p = 0;
    for (int r = 0; r < world->size && status == TS_OK; r++) *sum_p += all[r];
    free(all);
    return status;
}

int ts_world_silent(ts_world *world, int wait_ms, char *text, size_t bytes)
{
    bool *alive = calloc((size_t)world->size, sizeof *alive);
    text[0] = '\0';
    if (!alive) return 0;
    world->ops->probe(world, wait_ms, alive);
    int silent = 0;
    for (int r = 0; r < world->size; r++) {
        if (alive[r]) continue;
        size_t used = strlen(text);
        snprintf(text + used, bytes - used, "%srank %d (host %s)", silent++ ? ", " : "", r,
                 world->hosts[r]);
    }
    free(alive);
    return silent;
}

ts_status ts_world_timed_out(ts_world *world, const char *what, int timeout_s, int waited_for)
{
    char silent[512];
    int n = ts_world_silent(world, PROBE_MS, silent, sizeof silent);
    /* The caller is about to end this process. Those who time out a moment later must still find
     * it alive, or they would name it too. */
    if (n) ts_clock_sleep_ns(PROBE_MS * INT64_C(1000000));
    TS_NEED(n == 0, TS_ETIMEOUT,
            "%s made no progress for %d s: %s %s not answer; the process is stopped or has ended, "
            "or its host is unreachable",
            what, timeout_s, silent, n > 1 ? "do" : "does");
    TS_NEED(waited_for < 0, TS_ETIMEOUT,
            "%s made no progress for %d s: every rank's process answers, but rank %d (host %s) "
            "has nothing to say; it is in another collective, or late: raise the time-out",
            what, timeout_s, waited_for, world->hosts[waited_for]);
    return TS_ERROR(TS_ETIMEOUT,
                    "%s made no progress for %d s: every rank's process answers, but one is in "
                    "another collective, or late: raise the time-out",
                    what, timeout_s);
}

ts_status ts_communicator_open(const char *name, ts_world *world, ts_stream *stream,
                               const ts_communicator_options *options,
                               ts_communicator **communicator_p)
{
    bool automatic = strcmp(name, "auto") == 0;
    char known[128] = "auto", reasons[512] = "";
    for (const ts_communicator_ops *const *ops = ts_communicators; *ops; ops++) {
        const char *why = NULL;
        size_t used = strlen(known), said = strlen(reasons);
        snprintf(known + used, sizeof known - used, "|%s", (*ops)->name);
        if (!automatic && strcmp(name, (*ops)->name) != 0) continue;
        if ((*ops)->serves(world, stream->device, &why))
            return (*ops)->open(world, stream, options, communicator_p);
        snprintf(reasons + said, sizeof reasons - said, "; %s: %s", (*ops)->name, why);
    }
    TS_NEED(!*reasons, TS_EUNSUPPORTED,
            "no communicator serves %d ranks of world %s on device %s%s", world->size,
            world->ops->name, stream->device->ops->name, reasons);
    return unknown("communicator", name, known);
}

void ts_communicator_close(ts_communicator *communicator)
{
    if (communicator) communicator->ops->close(communicator);
}
