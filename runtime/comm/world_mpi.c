/* world_mpi.c - the ranks that an MPI launcher started.
 *
 * Blocking calls here wait by testing and sleeping, because a blocking MPI call holds a core that
 * another rank of this machine may need. Every process has a watchdog thread that answers the
 * others' pings on a communicator of its own, so a rank can tell a process that is gone or
 * stopped from one that is merely busy. A rank may be late at a blocking point for as long as it
 * likes, as long as its process answers.
 * What surprised: when a connection breaks while it sends, Open MPI 4.1 over TCP ends the process
 * by itself ("FATAL"), before any code of ours runs; it is then mpirun that names the dead rank. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/comm/mpi_common.h"

#define MILLISECOND INT64_C(1000000)
#define SECOND INT64_C(1000000000)

enum { TAG_PING = 1, TAG_PONG = 2, TAGS = 3 };
#define WATCH_NS (50 * MILLISECOND)      /* how often a watchdog looks */
#define WATCH_PROBE_NS (2 * MILLISECOND) /* the same, while its own rank asks the others */
#define LATE_NS (10 * SECOND)            /* a blocking point asks who is alive this often */
#define LATE_PROBE_MS 5000

typedef struct post { /* the last message of one kind to one rank */
    int64_t number;
    MPI_Request request;
} post;

typedef struct mpi_world {
    ts_world base;
    bool finalizes; /* MPI_Init was ours */
    bool broken;    /* a blocking call failed: the ranks are no longer in step */
    MPI_Comm calls, watch;

    pthread_t watchdog;
    atomic_bool watching, probing;
    pthread_mutex_t probe_lock;
    int64_t probe_number;
    _Atomic int64_t *answered; /* [size] the latest number that each rank sent back */
    post *posts[TAGS];         /* [size] pings are the prober's, pongs the watchdog's */
} mpi_world;

void ts_comm_library_version(char *text, size_t bytes)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = 0; /* the rest is its package's story */
    snprintf(text, bytes, "%s", version);
}

static const char *const launcher_marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};

static bool mpi_present(void)
{
    for (size_t i = 0; i < sizeof launcher_marks / sizeof *launcher_marks; i++) {
        if (getenv(launcher_marks[i])) return true;
    }
    return false;
}

/* ---- who answers ---- */

/* Never blocks: a message that the last one to this rank still stands before is dropped. */
static void post_number(mpi_world *world, int tag, int rank, int64_t number)
{
    post *p = &world->posts[tag][rank];
    int done = 1;
    if (MPI_Test(&p->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done) return;
    p->number = number;
    if (MPI_Isend(&p->number, 1, MPI_INT64_T, rank, tag, world->watch, &p->request) != MPI_SUCCESS)
        p->request = MPI_REQUEST_NULL;
}

static void *watch(void *context)
{
    mpi_world *world = context;
    while (atomic_load(&world->watching)) {
        int there = 0;
        MPI_Status from;
        if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, world->watch, &there, &from) == MPI_SUCCESS &&
            there) {
            int64_t number = 0;
            if (MPI_Recv(&number, 1, MPI_INT64_T, from.MPI_SOURCE, from.MPI_TAG, world->watch,
                         MPI_STATUS_IGNORE) != MPI_SUCCESS)
                continue;
            if (from.MPI_TAG == TAG_PING) {
                post_number(world, TAG_PONG, from.MPI_SOURCE, number);
            } else {
                atomic_store(&world->answered[from.MPI_SOURCE], number);
            }
        } else {
            ts_clock_sleep_ns(atomic_load(&world->probing) ? WATCH_PROBE_NS : WATCH_NS);
        }
    }
    return NULL;
}

static ts_status mpi_probe(ts_world *base, int wait_ms, bool *alive)
{
    mpi_world *world = (mpi_world *)base;
    pthread_mutex_lock(&world->probe_lock);
    atomic_store(&world->probing, true);
    int64_t number = ++world->probe_number;
    for (int r = 0; r < base->size; r++) {
        if (r != base->rank) post_number(world, TAG_PING, r, number);
    }
    int64_t end = ts_clock_ns() + wait_ms * MILLISECOND;
    int missing;
    do {
        ts_clock_sleep_ns(MILLISECOND);
        missing = 0;
        for (int r = 0; r < base->size; r++) {
            alive[r] = r == base->rank || atomic_load(&world->answered[r]) == number;
            missing += !alive[r];
        }
    } while (missing && ts_clock_ns() < end);
    atomic_store(&world->probing, false);
    pthread_mutex_unlock(&world->probe_lock);
    return TS_OK;
}

/* ---- blocking calls ---- */

static ts_status wait_for(mpi_world *world, const char *what, MPI_Request *request)
{
    ts_mpi_wait wait = {0};
    int64_t next_check = LATE_NS;
    for (;;) {
        int done = 0;
        TS_MPI_TRY(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) return TS_OK;
        if (ts_mpi_wait_pause(&wait, MILLISECOND) < next_check) continue;
        char silent[512];
        int n = ts_world_silent(&world->base, LATE_PROBE_MS, silent, sizeof silent);
        TS_NEED(n == 0, TS_EPEER,
                "waiting in a %s: %s %s not answer; the process is stopped or has ended, or its "
                "host is unreachable",
                what, silent, n > 1 ? "do" : "does");
        next_check += LATE_NS + LATE_PROBE_MS * MILLISECOND;
    }
}

/* One blocking call: start it, wait; after a failure nothing on `calls` can be trusted. */
static ts_status finish(mpi_world *world, const char *what, int started, MPI_Request *request)
{
    ts_status status = started == MPI_SUCCESS ? wait_for(world, what, request)
                                              : ts_mpi_fail(__FILE__, __LINE__, what, started);
    world->broken |= status != TS_OK;
    return status;
}

static ts_status mpi_broadcast(ts_world *base, void *data, size_t bytes, int root)
{
    mpi_world *world = (mpi_world *)base;
    TS_NEED(bytes <= INT32_MAX, TS_EUSAGE, "broadcast of %zu bytes; a world moves small things",
            bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    int started = MPI_Ibcast(data, (int)bytes, MPI_BYTE, root, world->calls, &request);
    TS_TRY(finish(world, "broadcast", started, &request));
    return TS_OK;
}

static ts_status mpi_all_gather(ts_world *base, const void *from, void *to, size_t bytes)
{
    mpi_world *world = (mpi_world *)base;
    TS_NEED(bytes <= INT32_MAX, TS_EUSAGE, "all-gather of %zu bytes; a world moves small things",
            bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    int started = MPI_Iallgather(from, (int)bytes, MPI_BYTE, to, (int)bytes, MPI_BYTE, world->calls,
                                 &request);
    TS_TRY(finish(world, "all-gather", started, &request));
    return TS_OK;
}

static ts_status mpi_barrier(ts_world *base)
{
    mpi_world *world = (mpi_world *)base;
    MPI_Request request = MPI_REQUEST_NULL;
    int started = MPI_Ibarrier(world->calls, &request);
    TS_TRY(finish(world, "barrier", started, &request));
    return TS_OK;
}

static void mpi_abort(ts_world *base, int exit_code)
{
    (void)base;
    fflush(NULL);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _Exit(exit_code);
}

/* ---- life ---- */

ts_status ts_mpi_duplicate(ts_world *base, MPI_Comm *mpi_p)
{
    mpi_world *world = (mpi_world *)base;
    TS_MPI_TRY(MPI_Comm_dup(world->calls, mpi_p));
    TS_MPI_TRY(MPI_Comm_set_errhandler(*mpi_p, MPI_ERRORS_RETURN));
    return TS_OK;
}

bool ts_mpi_serves(const ts_world *world, const ts_device *device, const char **why_p)
{
    const char *why = world->ops != &ts_world_mpi
                          ? "it needs ranks started by mpirun or by srun --mpi=pmix"
                      : strncmp(device->ops->name, "host", 4) != 0 ? "it works on host memory"
                                                                   : NULL;
    if (why && why_p) *why_p = why;
    return !why;
}

static void release(mpi_world *world)
{
    for (int tag = 0; tag < TAGS; tag++) free(world->posts[tag]);
    free((void *)world->answered);
    free(world->base.hosts);
    free(world);
}

static ts_status start_mpi(mpi_world *world)
{
    int initialized = 0, finalized = 0, provided = MPI_THREAD_SINGLE;
    TS_MPI_TRY(MPI_Initialized(&initialized));
    TS_MPI_TRY(MPI_Finalized(&finalized));
    TS_NEED(!finalized, TS_EUSAGE, "this process has finalized MPI; it can start only once");
    if (initialized) {
        TS_MPI_TRY(MPI_Query_thread(&provided));
    } else {
        TS_MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided));
        world->finalizes = true;
    }
    TS_NEED(provided == MPI_THREAD_MULTIPLE, TS_EUNSUPPORTED,
            "MPI offers thread level %d and streams need MPI_THREAD_MULTIPLE (%d); start MPI with "
            "it, or use an MPI that was built with thread support",
            provided, MPI_THREAD_MULTIPLE);
    return TS_OK;
}

static ts_status join(mpi_world *world)
{
    ts_world *base = &world->base;
    TS_MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    TS_MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &world->calls));
    TS_MPI_TRY(MPI_Comm_set_errhandler(world->calls, MPI_ERRORS_RETURN));
    TS_TRY(ts_mpi_duplicate(base, &world->watch));
    TS_MPI_TRY(MPI_Comm_rank(world->calls, &base->rank));
    TS_MPI_TRY(MPI_Comm_size(world->calls, &base->size));

    MPI_Comm local;
    TS_MPI_TRY(MPI_Comm_split_type(world->calls, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local));
    TS_MPI_TRY(MPI_Comm_rank(local, &base->local_rank));
    TS_MPI_TRY(MPI_Comm_free(&local));

    size_t size = (size_t)base->size;
    base->hosts = calloc(size, sizeof *base->hosts);
    world->answered = calloc(size, sizeof *world->answered);
    TS_NEED(base->hosts && world->answered, TS_ENOMEM, "no memory for a world of %zu ranks", size);
    for (int tag = TAG_PING; tag < TAGS; tag++) {
        world->posts[tag] = calloc(size, sizeof *world->posts[tag]);
        TS_NEED(world->posts[tag], TS_ENOMEM, "no memory for a world of %zu ranks", size);
        for (size_t r = 0; r < size; r++) world->posts[tag][r].request = MPI_REQUEST_NULL;
    }
    gethostname(base->host, sizeof base->host - 1);
    ts_log_set_rank(base->rank, base->size, base->host);
    TS_MPI_TRY(MPI_Allgather(base->host, TS_HOST_NAME_MAX, MPI_CHAR, base->hosts, TS_HOST_NAME_MAX,
                             MPI_CHAR, world->calls));
    return TS_OK;
}

static ts_status mpi_open(ts_world **world_p)
{
    mpi_world *world = calloc(1, sizeof *world);
    TS_NEED(world, TS_ENOMEM, "no memory for a world");
    world->base.ops = &ts_world_mpi;
    world->calls = world->watch = MPI_COMM_NULL;
    pthread_mutex_init(&world->probe_lock, NULL);

    ts_status status;
    TS_TRY_TO(status, fail, start_mpi(world));
    TS_TRY_TO(status, fail, join(world));
    atomic_store(&world->watching, true);
    int code = pthread_create(&world->watchdog, NULL, watch, world);
    if (code) {
        status = TS_ERROR(TS_ENOMEM, "no watchdog thread: %s", strerror(code));
        goto fail;
    }
    *world_p = &world->base;
    return TS_OK;
fail:
    release(world);
    return status;
}

static void mpi_close(ts_world *base)
{
    mpi_world *world = (mpi_world *)base;
    /* MPI_Finalize would wait for ever for a rank that is gone. */
    ts_status status = world->broken
                           ? TS_ERROR(TS_EPEER, "the world cannot be closed: a rank is gone")
                           : mpi_barrier(base);
    if (status != TS_OK) {
        ts_log_failure(status);
        mpi_abort(base, ts_status_exit_code(status));
    }
    atomic_store(&world->watching, false);
    pthread_join(world->watchdog, NULL);
    pthread_mutex_destroy(&world->probe_lock);
    /* Pings of a rank that has gone on: whoever asked has its answer or has given up. */
    for (int tag = TAG_PING; tag < TAGS; tag++) {
        for (int r = 0; r < base->size; r++) {
            if (world->posts[tag][r].request != MPI_REQUEST_NULL)
                MPI_Request_free(&world->posts[tag][r].request);
        }
    }
    MPI_Comm_free(&world->watch);
    MPI_Comm_free(&world->calls);
    if (world->finalizes) MPI_Finalize();
    release(world);
}

const ts_world_ops ts_world_mpi = {
    .name = "mpi",
    .present = mpi_present,
    .open = mpi_open,
    .close = mpi_close,
    .broadcast = mpi_broadcast,
    .all_gather = mpi_all_gather,
    .barrier = mpi_barrier,
    .abort = mpi_abort,
    .probe = mpi_probe,
};
