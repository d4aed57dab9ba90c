/* nccl.c - the collectives of NCCL, on device memory.
 *
 * The ring is asked for (NCCL_ALGO) unless the user asked for something else, and few blocks, so
 * that compute keeps its processors. The communicator is non-blocking: a call that NCCL has not
 * finished is waited for here, with a time-out. NCCL itself never times out, so each collective has
 * an event before and one behind it: poll() fails when the oldest unfinished one has been running
 * for longer than the time-out, and abort() frees the kernels that spin.
 * Calls come from the main thread, poll and abort from the watchdog's; a lock keeps them apart. */
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/comm/mpi_common.h"
#include "runtime/device/cuda/library.h"
#include "runtime/device/cuda/occupant.h"

enum { SLOTS = 64, START_S = 120 };
#define SECOND INT64_C(1000000000)

#define FUNCTIONS(F)                                                                               \
    F(ncclGetVersion)                                                                              \
    F(ncclGetErrorString)                                                                          \
    F(ncclGetLastError)                                                                            \
    F(ncclGetUniqueId)                                                                             \
    F(ncclCommInitRankConfig)                                                                      \
    F(ncclCommGetAsyncError)                                                                       \
    F(ncclCommFinalize)                                                                            \
    F(ncclCommDestroy)                                                                             \
    F(ncclCommAbort)                                                                               \
    F(ncclRedOpCreatePreMulSum)                                                                    \
    F(ncclRedOpDestroy)                                                                            \
    F(ncclAllReduce)                                                                               \
    F(ncclBroadcast)                                                                               \
    F(ncclAllGather)                                                                               \
    F(ncclGroupStart)                                                                              \
    F(ncclGroupEnd)                                                                                \
    F(ncclReduceScatter)                                                                           \
    F(ncclSend)                                                                                    \
    F(ncclRecv)
TS_LIBRARY_TABLE(api, FUNCTIONS);

typedef struct nccl {
    ts_group base;
    ncclComm_t comm;
    pthread_mutex_t lock;
    bool aborted;
    int gpu;             /* the main thread's; -1: none */
    const float *weight; /* of `weighted` */
    ncclRedOp_t weighted;
    /* collective i has the events of slot i % SLOTS */
    ts_event *before[SLOTS], *behind[SLOTS];
    int64_t begun, ended; /* collectives enqueued, and known to be finished */
    int64_t running;      /* the one that `since_ns` is about */
    int64_t since_ns;
} nccl;

/* ---- the library ---- */

static ts_status open_library(void)
{
    static const ts_library library = {"NCCL", "TWINSTREAM_NCCL_LIBRARY", TS_NCCL_LIBRARY, "nccl",
                                       "libnccl.so.2"};
    int version = 0;
    if (!api.ncclGetVersion) TS_TRY(ts_library_open(&library, api_names, api.all));
    api.ncclGetVersion(&version);
    TS_NEED(version >= NCCL_VERSION_CODE, TS_EUNSUPPORTED,
            "NCCL %d is older than %d, which this build was made with; install that or build with "
            "the older one's header",
            version, NCCL_VERSION_CODE);
    return TS_OK;
}

void ts_comm_nccl_version(char *text, size_t bytes)
{
    int v = 0;
    if (open_library()) {
        snprintf(text, bytes, "absent: %s", ts_trail_message());
        ts_trail_clear();
        return;
    }
    api.ncclGetVersion(&v);
    snprintf(text, bytes, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
}

static bool nccl_serves(const ts_world *world, const ts_device *device, const char **why_p)
{
    static char missing[256];
    const char *why = NULL;
    if (world->size == 1)
        why = "it is for several ranks";
    else if (strcmp(device->ops->name, "cuda") != 0)
        why = "it works on CUDA memory";
    else if (open_library()) {
        snprintf(missing, sizeof missing, "%s", ts_trail_message());
        ts_trail_clear();
        why = missing;
    }
    if (why && why_p) *why_p = why;
    return !why;
}

static ts_status check(const nccl *c, ncclResult_t result, const char *what)
{
    if (result == ncclSuccess) return TS_OK;
    return TS_ERROR(TS_ECOMM, "NCCL: %s: %s; %s", what, api.ncclGetErrorString(result),
                    api.ncclGetLastError(c->comm));
}

static bool failed(ncclResult_t result)
{
    return result != ncclSuccess && result != ncclInProgress;
}

/* A non-blocking communicator answers a call with "in progress": wait until it is through. */
static ts_status finish(nccl *c, ncclResult_t result, const char *what, int timeout_s)
{
    int64_t begin = ts_clock_ns(), sleep_ns = 1000;
    while (result == ncclInProgress) {
        TS_NEED(!atomic_load(&c->base.stop), TS_ECOMM, "communicator nccl was aborted in its %s",
                what);
        TS_NEED(timeout_s <= 0 || ts_clock_ns() - begin < timeout_s * SECOND, TS_ETIMEOUT,
                "NCCL's %s made no progress for %d s", what, timeout_s);
        ts_clock_sleep_ns(sleep_ns);
        if (sleep_ns < 1000000) sleep_ns *= 2;
        ncclResult_t asked = api.ncclCommGetAsyncError(c->comm, &result);
        if (asked != ncclSuccess) result = asked;
    }
    return check(c, result, what);
}

/* ---- a collective ---- */

static ts_status reduction_of(nccl *c, const ts_collective *call, ncclRedOp_t *op_p)
{
    *op_p = call->reduction == TS_SUM ? ncclSum : ncclAvg;
    if (call->reduction != TS_WEIGHTED_AVERAGE) return TS_OK;
    if (c->weight != call->weight) {
        if (c->weight) api.ncclRedOpDestroy(c->weighted, c->comm);
        c->weight = NULL;
        TS_TRY(check(c,
                     api.ncclRedOpCreatePreMulSum(&c->weighted, (void *)(uintptr_t)call->weight,
                                                  ncclFloat32, ncclScalarDevice, c->comm),
                     "a weighted sum"));
        c->weight = call->weight;
    }
    *op_p = c->weighted;
    return TS_OK;
}

typedef ncclResult_t issue(nccl *c, const ts_collective *call, ncclRedOp_t op, cudaStream_t stream);

static ts_status issue_locked(nccl *c, const ts_collective *call, issue *function, const char *what,
                              void *cuda_stream)
{
    ts_stream *stream = c->base.base.stream;
    int slot = (int)(c->begun % SLOTS);
    ncclRedOp_t op;
    TS_TRY(ts_fault_get(&c->base.fault));
    TS_NEED(!c->aborted, TS_ECOMM, "communicator nccl was aborted");
    TS_TRY(reduction_of(c, call, &op));
    TS_TRY(ts_event_record(c->before[slot], stream));
    TS_TRY(finish(c, function(c, call, op, (cudaStream_t)cuda_stream), what, c->base.timeout_s));
    TS_TRY(ts_event_record(c->behind[slot], stream));
    c->begun++;
    return TS_OK;
}

static ts_status enqueue(const void *args, void *cuda_stream, issue *function, const char *what)
{
    const ts_collective *call = args;
    nccl *c = (nccl *)call->communicator;
    pthread_mutex_lock(&c->lock);
    ts_status status = issue_locked(c, call, function, what, cuda_stream);
    ts_fault_keep(&c->base.fault, status);
    pthread_mutex_unlock(&c->lock);
    return status;
}

static ncclResult_t issue_all_reduce(nccl *c, const ts_collective *a, ncclRedOp_t op,
                                     cudaStream_t stream)
{
    ncclDataType_t type = a->type == TS_BF16 ? ncclBfloat16 : ncclFloat32;
    return api.ncclAllReduce(a->from, a->to, a->n, type, op, c->comm, stream);
}

static ncclResult_t issue_reduce_scatter(nccl *c, const ts_collective *a, ncclRedOp_t op,
                                         cudaStream_t stream)
{
    return api.ncclReduceScatter(a->from, a->to, a->n, ncclFloat32, op, c->comm, stream);
}

static ncclResult_t issue_broadcast(nccl *c, const ts_collective *a, ncclRedOp_t op,
                                    cudaStream_t stream)
{
    (void)op;
    return api.ncclBroadcast(a->from, a->to, a->n, ncclUint8, a->peer, c->comm, stream);
}

static ncclResult_t issue_all_gather(nccl *c, const ts_collective *a, ncclRedOp_t op,
                                     cudaStream_t stream)
{
    (void)op;
    return api.ncclAllGather(a->from, a->to, a->n, ncclUint8, c->comm, stream);
}

static ncclResult_t issue_send(nccl *c, const ts_collective *a, ncclRedOp_t op, cudaStream_t stream)
{
    (void)op;
    return api.ncclSend(a->from, a->n, ncclUint8, a->peer, c->comm, stream);
}

static ncclResult_t issue_receive(nccl *c, const ts_collective *a, ncclRedOp_t op,
                                  cudaStream_t stream)
{
    (void)op;
    return api.ncclRecv(a->to, a->n, ncclUint8, a->peer, c->comm, stream);
}

/* A group's calls begin at its end, which speaks for them all. */
static ncclResult_t issue_all_to_all(nccl *c, const ts_collective *a, ncclRedOp_t op,
                                     cudaStream_t stream)
{
    (void)op;
    const char *from = a->from;
    char *to = a->to;
    ncclResult_t result = api.ncclGroupStart();
    if (result != ncclSuccess) return result;
    for (int i = 0; i < 2 * c->base.base.world->size && !failed(result); i++) {
        int peer = i / 2;
        size_t at = (size_t)peer * a->n;
        result = i % 2 ? api.ncclRecv(to + at, a->n, ncclUint8, peer, c->comm, stream)
                       : api.ncclSend(from + at, a->n, ncclUint8, peer, c->comm, stream);
    }
    ncclResult_t ended = api.ncclGroupEnd();
    return failed(result) ? result : ended;
}

#define KERNEL(name, text)                                                                         \
    static ts_status enqueue_##name(const void *args, void *cuda_stream)                           \
    {                                                                                              \
        return enqueue(args, cuda_stream, issue_##name, text);                                     \
    }
KERNEL(all_reduce, "all-reduce")
KERNEL(reduce_scatter, "reduce-scatter")
KERNEL(broadcast, "broadcast")
KERNEL(all_gather, "all-gather")
KERNEL(all_to_all, "all-to-all")
KERNEL(send, "send")
KERNEL(receive, "receive")

static const ts_group_kernels kernels = {
    .all_reduce = {"nccl_all_reduce", NULL, ts_collective_accesses, enqueue_all_reduce},
    .broadcast = {"nccl_broadcast", NULL, ts_collective_accesses, enqueue_broadcast},
    .all_gather = {"nccl_all_gather", NULL, ts_collective_accesses, enqueue_all_gather},
    .all_to_all = {"nccl_all_to_all", NULL, ts_collective_accesses, enqueue_all_to_all},
    .reduce_scatter = {"nccl_reduce_scatter", NULL, ts_collective_accesses, enqueue_reduce_scatter},
    .send = {"nccl_send", NULL, ts_collective_accesses, enqueue_send},
    .receive = {"nccl_receive", NULL, ts_collective_accesses, enqueue_receive},
};

/* ---- the watchdog's side ---- */

/* Has the oldest unfinished collective been running for longer than the time-out? One that still
 * waits for compute is not running. */
static bool is_stuck(nccl *c)
{
    if (c->ended < c->begun - SLOTS) c->ended = c->begun - SLOTS; /* their slots are others' now */
    while (c->ended < c->begun && ts_event_done(c->behind[c->ended % SLOTS])) c->ended++;
    if (c->ended == c->begun || !ts_event_done(c->before[c->ended % SLOTS])) {
        c->running = -1;
        return false;
    }
    if (c->running != c->ended) {
        c->running = c->ended;
        c->since_ns = ts_clock_ns();
    }
    int timeout_s = c->base.timeout_s;
    return timeout_s > 0 && ts_clock_ns() - c->since_ns > timeout_s * SECOND;
}

/* A new thread's CUDA calls would open a context on GPU 0. */
static void use_gpu(const nccl *c)
{
    if (c->gpu >= 0) (void)cudaSetDevice(c->gpu);
}

static ts_status nccl_poll(ts_communicator *communicator)
{
    nccl *c = (nccl *)communicator;
    use_gpu(c);
    TS_TRY(ts_fault_get(&c->base.fault));
    /* the main thread is in a call, which has its own time-out */
    if (pthread_mutex_trylock(&c->lock)) return TS_OK;
    ncclResult_t result = ncclSuccess, asked = ncclSuccess;
    bool stuck = false;
    if (!c->aborted) {
        asked = api.ncclCommGetAsyncError(c->comm, &result);
        stuck = is_stuck(c);
    }
    if (asked != ncclSuccess) result = asked;
    ts_status status = TS_OK;
    if (failed(result))
        status = check(c, result, "a collective under way");
    else if (stuck)
        status = ts_world_timed_out(communicator->world, "a collective of communicator nccl",
                                    c->base.timeout_s, -1);
    ts_fault_keep(&c->base.fault, status);
    pthread_mutex_unlock(&c->lock);
    return status;
}

/* Frees the communicator and whoever spins in it. */
static void abort_locked(nccl *c)
{
    if (!c->aborted && c->comm) api.ncclCommAbort(c->comm);
    c->aborted = true;
}

static void nccl_abort(ts_communicator *communicator)
{
    nccl *c = (nccl *)communicator;
    use_gpu(c);
    atomic_store(&c->base.stop, true); /* a call that waits for NCCL gives up, and the lock */
    pthread_mutex_lock(&c->lock);
    abort_locked(c);
    pthread_mutex_unlock(&c->lock);
}

/* ---- life ---- */

/* What is asked of NCCL by its variables, unless the user has set them. */
static void set_variables(const ts_world *world)
{
    char own_host[TS_HOST_NAME_MAX + 16];
    setenv("NCCL_ALGO", "Ring", 0);
    setenv("NCCL_PROTO", "Simple", 0);
    setenv("NCCL_GRAPH_REGISTER", "0", 0);
    if (!strcasestr(getenv("NCCL_ALGO"), "ring"))
        ts_warn("NCCL_ALGO=%s: all-reduce will not be a ring", getenv("NCCL_ALGO"));
    if (!ts_device_may_be_shared()) return;
    /* Before 2.30 NCCL refuses two ranks of one host on one GPU; as ranks of two hosts they may,
     * and talk by sockets. */
    int version = 0;
    api.ncclGetVersion(&version);
    snprintf(own_host, sizeof own_host, "%s-%d", world->host, world->rank);
    if (version < 23000)
        setenv("NCCL_HOSTID", own_host, 0);
    else
        setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
}

static ts_status connect_ranks(nccl *c, const ts_communicator_options *options)
{
    ts_world *world = c->base.base.world;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    int version = 0;
    memset(&id, 0, sizeof id);
    api.ncclGetVersion(&version);
    TS_TRY(ts_world_same(world, "the version of NCCL", &version, sizeof version));
    ts_status status = TS_OK;
    if (world->rank == 0) status = check(c, api.ncclGetUniqueId(&id), "an id for the ranks");
    TS_TRY(ts_world_agree(world, status));
    TS_TRY(world->ops->broadcast(world, &id, sizeof id, 0));
    config.blocking = 0;
    config.cgaClusterSize = 1;
    config.minCTAs = 1;
    config.maxCTAs = options->ctas > 0 ? options->ctas : TS_COMM_BLOCKS;
    int timeout_s = options->timeout_s > 0 ? options->timeout_s : START_S;
    ncclResult_t result =
        api.ncclCommInitRankConfig(&c->comm, world->size, id, world->rank, &config);
    status = finish(c, result, "start-up", timeout_s);
    if (status == TS_ETIMEOUT) {
        ts_trail_clear();
        status = ts_world_timed_out(world, "the start of NCCL", timeout_s, -1);
    }
    /* a rank that failed must not leave the others to wait for the whole time-out */
    return ts_world_agree(world, status);
}

static void release(nccl *c)
{
    for (int i = 0; i < SLOTS; i++) {
        ts_event_close(c->before[i]);
        ts_event_close(c->behind[i]);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void nccl_close(ts_communicator *communicator)
{
    nccl *c = (nccl *)communicator;
    bool healthy = !c->aborted && ts_group_end(&c->base);
    if (healthy && c->weight) api.ncclRedOpDestroy(c->weighted, c->comm);
    if (healthy && finish(c, api.ncclCommFinalize(c->comm), "the end", START_S) == TS_OK)
        api.ncclCommDestroy(c->comm);
    else
        abort_locked(c);
    ts_trail_clear();
    release(c);
}

static ts_status nccl_open(ts_world *world, ts_stream *stream,
                           const ts_communicator_options *options, ts_communicator **communicator_p)
{
    TS_TRY(open_library());
    set_variables(world);
    nccl *c = calloc(1, sizeof *c);
    TS_NEED(c, TS_ENOMEM, "no memory for a communicator");
    ts_group_init(&c->base, &ts_communicator_nccl, &kernels, world, stream, options);
    pthread_mutex_init(&c->lock, NULL);
    c->running = -1;
    if (cudaGetDevice(&c->gpu)) c->gpu = -1;
    ts_status status = TS_OK;
    for (int i = 0; i < SLOTS && !status; i++) {
        status = ts_event_open(stream->device, &c->before[i]);
        if (!status) status = ts_event_open(stream->device, &c->behind[i]);
    }
    if (!status) status = connect_ranks(c, options);
    if (status) {
        abort_locked(c);
        release(c);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *communicator_p = &c->base.base;
    return TS_OK;
}

const ts_communicator_ops ts_communicator_nccl = {
    .name = "nccl",
    .serves = nccl_serves,
    .open = nccl_open,
    .close = nccl_close,
    .all_reduce = ts_group_all_reduce,
    .all_reduce_bf16 = ts_group_all_reduce_bf16,
    .broadcast = ts_group_broadcast,
    .all_gather = ts_group_all_gather,
    .all_to_all = ts_group_all_to_all,
    .reduce_scatter = ts_group_reduce_scatter,
    .send = ts_group_send,
    .receive = ts_group_receive,
    .poll = nccl_poll,
    .abort = nccl_abort,
};
