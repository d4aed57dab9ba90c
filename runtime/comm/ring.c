/* ring.c - our own collectives over MPI_Isend and MPI_Irecv, run on the stream's thread.
 *
 * An all-reduce is a reduce-scatter and an all-gather around the ring (Patarasuk and Yuan, 2009):
 * each rank sends 2 (size - 1) / size of the vector, the least there is. Segments travel in chunks,
 * several in flight, so the sums are formed while the wire works; between messages the thread
 * sleeps, so compute keeps its core. An element's terms are always added in the same order, by one
 * rank, and the sum is copied to the others: all ranks get the same bits, in every run.
 * What surprised: MPI moves nothing while nobody calls it, yet on TCP the kernel's socket buffers
 * cover sleeps of 200 us, so polling costs no bandwidth. And chunks must be below Open MPI's eager
 * limit on TCP, 64 KiB: a larger message asks first, and its question and answer stand in line
 * behind our own data, which made 44.7 MB at 1 Gbit/s take 577 ms instead of 374 ms. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/comm/mpi_common.h"

enum {
    CHUNK_BYTES = 60 * 1024,
    WINDOW = 16,  /* messages in flight each way */
    TAG_RING = 0, /* a user's tag t travels as t + 1 */
};
#define LONGEST_SLEEP_NS INT64_C(200000)

typedef struct ring {
    ts_group base;
    MPI_Comm mpi;
    float *slots;   /* [WINDOW][CHUNK_BYTES / 4] what arrives to be added */
    float *partial; /* reduce-scatter: partial sums on their way; grows once */
    size_t partial_n;
} ring;

/* One collective as a stream of messages. Message i is chunk i % chunks of step i / chunks; in
 * step k a rank sends segment first - k to one neighbour and receives segment first - k - 1 from
 * the other, modulo `segments`. In the first `reduce_steps` what arrives is added to, later it
 * arrives in its place. With `pairs` there is no ring: in step k rank first sends to the rank k + 1
 * places on its segment of `from`, and receives its own from the rank k + 1 places back. */
typedef struct flow {
    char what[48];        /* for errors */
    int left, right, tag; /* receive from, send to; -1: does not. With `pairs` only that it does */
    int steps, reduce_steps, segments, first;
    size_t chunks;
    size_t segment_bytes, bytes; /* of a segment (the last may be shorter) and of them all */
    char *to;
    const char *from;
    char *partial; /* where partial sums lie; NULL: in their place in `to` */
    float weight;  /* each own term times this, when `weighted` */
    float divisor; /* each sum by this, when above 1 */
    bool weighted;
    bool bf16; /* what is summed; else fp32 */
    bool pairs;
} flow;

/* ---- arithmetic: loops that the compiler vectorises ---- */

static void add_to(float *restrict to, const float *restrict from, const float *restrict arrived,
                   size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = from[i] + arrived[i];
}

static void add_in(float *restrict x, const float *restrict arrived, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += arrived[i];
}

static void add_weighted_to(float *restrict to, const float *restrict from,
                            const float *restrict arrived, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = weight * from[i] + arrived[i];
}

static void add_weighted_in(float *restrict x, const float *restrict arrived, float weight,
                            size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = weight * x[i] + arrived[i];
}

static void weigh(float *to, const float *from, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = weight * from[i];
}

/* `to` may be `from`. */
static void add_bf16(uint16_t *to, const uint16_t *from, const uint16_t *arrived, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = ts_bf16_from_float(ts_bf16_to_float(from[i]) + ts_bf16_to_float(arrived[i]));
}

static void divide(float *x, float divisor, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] /= divisor;
}

/* ---- one message ---- */

typedef struct message {
    int step, peer;
    size_t at;       /* its byte in the vector */
    size_t in_chunk; /* its byte in the segment */
    size_t bytes;    /* 0 where the last segment is short: both sides know and skip it */
} message;

static message find(const flow *f, size_t i, bool sent)
{
    message m = {.step = (int)(i / f->chunks), .in_chunk = i % f->chunks * CHUNK_BYTES};
    int segment = !f->pairs ? f->first - m.step - !sent
                  : sent    ? f->first + m.step + 1
                            : f->first - m.step - 1;
    segment %= f->segments;
    if (segment < 0) segment += f->segments;
    m.peer = f->pairs ? segment : sent ? f->right : f->left;
    m.at = (size_t)segment * f->segment_bytes + m.in_chunk;
    size_t left = m.in_chunk < f->segment_bytes ? f->segment_bytes - m.in_chunk : 0;
    if (m.at + left > f->bytes) left = m.at < f->bytes ? f->bytes - m.at : 0;
    m.bytes = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    return m;
}

static char *partial_place(const flow *f, const message *m)
{
    return f->partial ? f->partial + m->in_chunk : f->to + m->at;
}

/* Where a message is sent from. The first step sends this rank's own terms. */
static const char *source(const flow *f, const message *m)
{
    if (f->reduce_steps == 0) return (f->pairs ? f->from : f->to) + m->at;
    if (m->step > 0) return partial_place(f, m);
    if (!f->weighted) return f->from + m->at;
    char *place = partial_place(f, m);
    weigh((float *)place, (const float *)(f->from + m->at), f->weight, m->bytes / sizeof(float));
    return place;
}

static void arrive(const flow *f, const message *m, const float *arrived)
{
    if (m->step >= f->reduce_steps || m->bytes == 0) return;
    if (f->bf16) {
        add_bf16((uint16_t *)(f->to + m->at), (const uint16_t *)(f->from + m->at),
                 (const uint16_t *)(const void *)arrived, m->bytes / sizeof(uint16_t));
        return;
    }
    bool last = m->step == f->reduce_steps - 1;
    size_t n = m->bytes / sizeof(float);
    const float *own = (const float *)(f->from + m->at);
    float *sum = (float *)(last && f->partial ? f->to + m->in_chunk : partial_place(f, m));
    if (f->weighted) {
        if (sum == own) {
            add_weighted_in(sum, arrived, f->weight, n);
        } else {
            add_weighted_to(sum, own, arrived, f->weight, n);
        }
    } else if (sum == own) {
        add_in(sum, arrived, n);
    } else {
        add_to(sum, own, arrived, n);
    }
    if (last && f->divisor > 1) divide(sum, f->divisor, n);
}

/* ---- the flow ---- */

typedef struct progress {
    size_t total, posted, done;
    MPI_Request requests[WINDOW];
} progress;

/* Not posted before its memory is free: an arrival must not land on what is still being sent. */
static bool may_receive(const flow *f, const progress *in, const progress *out)
{
    if (in->posted == in->total || in->posted - in->done == WINDOW) return false;
    size_t reduced = f->chunks * (size_t)f->reduce_steps;
    return reduced == 0 || in->posted < reduced || out->done > in->posted - reduced;
}

/* A step sends what the step before received; a chain (one segment) passes on what just came. */
static bool may_send(const flow *f, const progress *in, const progress *out)
{
    if (out->posted == out->total || out->posted - out->done == WINDOW) return false;
    if (in->total == 0 || f->pairs) return true;
    size_t lag = f->segments > 1 ? f->chunks : 0;
    return out->posted < lag || in->done > out->posted - lag;
}

static ts_status post_all(ring *r, const flow *f, progress *in, progress *out, bool *moved)
{
    for (; may_receive(f, in, out); in->posted++, *moved = true) {
        message m = find(f, in->posted, false);
        size_t slot = in->posted % WINDOW;
        in->requests[slot] = MPI_REQUEST_NULL;
        if (m.bytes == 0) continue;
        void *at = m.step < f->reduce_steps ? (char *)r->slots + slot * CHUNK_BYTES : f->to + m.at;
        TS_MPI_TRY(
            MPI_Irecv(at, (int)m.bytes, MPI_BYTE, m.peer, f->tag, r->mpi, &in->requests[slot]));
    }
    for (; may_send(f, in, out); out->posted++, *moved = true) {
        message m = find(f, out->posted, true);
        size_t slot = out->posted % WINDOW;
        out->requests[slot] = MPI_REQUEST_NULL;
        if (m.bytes == 0) continue;
        TS_MPI_TRY(MPI_Isend(source(f, &m), (int)m.bytes, MPI_BYTE, m.peer, f->tag, r->mpi,
                             &out->requests[slot]));
    }
    return TS_OK;
}

static ts_status complete(ring *r, const flow *f, progress *in, progress *out, bool *moved)
{
    /* Chunks of all steps share `partial`, so a sum waits until the one before has left. */
    if (in->done < in->posted && (!f->partial || out->done > in->done)) {
        size_t slot = in->done % WINDOW;
        int there = 0;
        TS_MPI_TRY(MPI_Test(&in->requests[slot], &there, MPI_STATUS_IGNORE));
        if (there) {
            message m = find(f, in->done, false);
            arrive(f, &m, (float *)((char *)r->slots + slot * CHUNK_BYTES));
            in->done++;
            *moved = true;
        }
    }
    while (out->done < out->posted) {
        int gone = 0;
        TS_MPI_TRY(MPI_Test(&out->requests[out->done % WINDOW], &gone, MPI_STATUS_IGNORE));
        if (!gone) break;
        out->done++;
        *moved = true;
    }
    return TS_OK;
}

static ts_status run_messages(ring *r, const flow *f)
{
    size_t total = (size_t)f->steps * f->chunks;
    progress in = {.total = f->left >= 0 ? total : 0}, out = {.total = f->right >= 0 ? total : 0};
    ts_mpi_wait wait = {0};
    while (in.done < in.total || out.done < out.total) {
        bool moved = false;
        TS_TRY(post_all(r, f, &in, &out, &moved));
        TS_TRY(complete(r, f, &in, &out, &moved));
        if (moved) {
            ts_mpi_wait_moved(&wait);
            continue;
        }
        int waited_for =
            in.done < in.posted ? find(f, in.done, false).peer : find(f, out.done, true).peer;
        TS_NEED(!atomic_load(&r->base.stop), TS_ECOMM,
                "%s was aborted while it waited for rank %d (host %s)", f->what, waited_for,
                r->base.base.world->hosts[waited_for]);
        int64_t idle_ns = ts_mpi_wait_pause(&wait, LONGEST_SLEEP_NS);
        if (r->base.timeout_s > 0 && idle_ns / 1000000000 >= r->base.timeout_s) {
            TS_TRY(ts_world_timed_out(r->base.base.world, f->what, r->base.timeout_s, waited_for));
        }
    }
    return TS_OK;
}

/* The first failure ends the communicator: messages may be under way, and the ranks are no longer
 * in step. */
static ts_status run_flow(ring *r, const flow *f)
{
    TS_TRY(ts_fault_get(&r->base.fault));
    ts_mpi_wait_sharpen();
    ts_status status = run_messages(r, f);
    if (status != TS_OK) ts_status_pass(__FILE__, __LINE__, status);
    return ts_fault_keep(&r->base.fault, status);
}

/* ---- the collectives ---- */

static flow around(const ring *r, const char *what, size_t segment_bytes, size_t bytes)
{
    const ts_world *world = r->base.base.world;
    flow f = {.left = (world->rank + world->size - 1) % world->size,
              .right = (world->rank + 1) % world->size,
              .tag = TAG_RING,
              .segments = world->size,
              .segment_bytes = segment_bytes,
              .bytes = bytes,
              .chunks = (segment_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES};
    snprintf(f.what, sizeof f.what, "%s of %zu bytes", what, bytes);
    return f;
}

static void set_reduction(flow *f, const ts_collective *call)
{
    f->to = call->to;
    f->from = call->from;
    f->reduce_steps = f->segments - 1;
    f->weighted = call->reduction == TS_WEIGHTED_AVERAGE;
    if (f->weighted) f->weight = *call->weight;
    if (call->reduction == TS_AVERAGE) f->divisor = (float)f->segments;
}

static ts_status run_all_reduce(const void *args)
{
    const ts_collective *call = args;
    ring *r = (ring *)call->communicator;
    const ts_world *world = call->communicator->world;
    size_t element = ts_type_bytes(call->type);
    flow f = around(r, "all-reduce", ts_group_segment(call->n, world->size) * element,
                    call->n * element);
    set_reduction(&f, call);
    f.bf16 = call->type == TS_BF16;
    f.steps = 2 * f.reduce_steps;
    f.first = world->rank;
    return run_flow(r, &f);
}

static ts_status run_reduce_scatter(const void *args)
{
    const ts_collective *call = args;
    ring *r = (ring *)call->communicator;
    const ts_world *world = call->communicator->world;
    if (r->partial_n < call->n) {
        free(r->partial);
        r->partial = malloc(call->n * sizeof(float));
        r->partial_n = r->partial ? call->n : 0;
        TS_NEED(r->partial, TS_ENOMEM, "no memory for %zu partial sums", call->n);
    }
    size_t bytes = call->n * sizeof(float);
    flow f = around(r, "reduce-scatter", bytes, bytes * (size_t)world->size);
    set_reduction(&f, call);
    f.partial = (char *)r->partial;
    f.steps = f.reduce_steps;
    f.first = world->rank - 1; /* so that this rank's own segment arrives last */
    return run_flow(r, &f);
}

static ts_status run_all_gather(const void *args)
{
    const ts_collective *call = args;
    ring *r = (ring *)call->communicator;
    const ts_world *world = call->communicator->world;
    flow f = around(r, "all-gather", call->n, call->n * (size_t)world->size);
    f.to = call->to;
    f.steps = f.segments - 1;
    f.first = world->rank;
    char *own = f.to + (size_t)world->rank * call->n;
    if (own != call->from) memcpy(own, call->from, call->n);
    return run_flow(r, &f);
}

static ts_status run_all_to_all(const void *args)
{
    const ts_collective *call = args;
    ring *r = (ring *)call->communicator;
    const ts_world *world = call->communicator->world;
    size_t own = (size_t)world->rank * call->n;
    flow f = around(r, "all-to-all", call->n, call->n * (size_t)world->size);
    f.to = call->to;
    f.from = call->from;
    f.steps = f.segments - 1;
    f.first = world->rank;
    f.pairs = true;
    memcpy(f.to + own, f.from + own, call->n);
    return run_flow(r, &f);
}

/* A chain from the root around to the rank before it. */
static ts_status run_broadcast(const void *args)
{
    const ts_collective *call = args;
    ring *r = (ring *)call->communicator;
    const ts_world *world = call->communicator->world;
    flow f = around(r, "broadcast", call->n, call->n);
    f.to = call->to;
    f.steps = f.segments = 1;
    if (world->rank == call->peer) f.left = -1;
    if (f.right == call->peer) f.right = -1;
    return run_flow(r, &f);
}

static ts_status run_pair(const ts_collective *call, const char *what, bool sends)
{
    ring *r = (ring *)call->communicator;
    flow f = around(r, what, call->n, call->n);
    /* What is sent is only read. */
    f.to = sends ? (char *)(uintptr_t)call->from : call->to;
    f.steps = f.segments = 1;
    f.tag = call->tag + 1;
    f.left = sends ? -1 : call->peer;
    f.right = sends ? call->peer : -1;
    return run_flow(r, &f);
}

static ts_status run_send(const void *args)
{
    return run_pair(args, "send", true);
}

static ts_status run_receive(const void *args)
{
    return run_pair(args, "receive", false);
}

static const ts_group_kernels kernels = {
    .all_reduce = {.name = "ring_all_reduce",
                   .run = run_all_reduce,
                   .accesses = ts_collective_accesses},
    .broadcast = {.name = "ring_broadcast",
                  .run = run_broadcast,
                  .accesses = ts_collective_accesses},
    .all_gather = {.name = "ring_all_gather",
                   .run = run_all_gather,
                   .accesses = ts_collective_accesses},
    .all_to_all = {.name = "ring_all_to_all",
                   .run = run_all_to_all,
                   .accesses = ts_collective_accesses},
    .reduce_scatter = {.name = "ring_reduce_scatter",
                       .run = run_reduce_scatter,
                       .accesses = ts_collective_accesses},
    .send = {.name = "ring_send", .run = run_send, .accesses = ts_collective_accesses},
    .receive = {.name = "ring_receive", .run = run_receive, .accesses = ts_collective_accesses},
};

/* ---- life ---- */

static bool ring_serves(const ts_world *world, const ts_device *device, const char **why_p)
{
    if (world->size == 1 && why_p) *why_p = "it is for several ranks";
    return world->size > 1 && ts_mpi_serves(world, device, why_p);
}

static ts_status ring_open(ts_world *world, ts_stream *stream,
                           const ts_communicator_options *options, ts_communicator **communicator_p)
{
    ring *r = calloc(1, sizeof *r);
    TS_NEED(r, TS_ENOMEM, "no memory for a ring");
    ts_status status;
    r->slots = aligned_alloc(64, (size_t)WINDOW * CHUNK_BYTES);
    if (!r->slots) {
        status = TS_ERROR(TS_ENOMEM, "no memory for the ring's %d bytes", WINDOW * CHUNK_BYTES);
        goto fail;
    }
    ts_group_init(&r->base, &ts_communicator_ring, &kernels, world, stream, options);
    TS_TRY_TO(status, fail, ts_mpi_duplicate(world, &r->mpi));
    *communicator_p = &r->base.base;
    return TS_OK;
fail:
    free(r->slots);
    free(r);
    return status;
}

static void ring_close(ts_communicator *communicator)
{
    ring *r = (ring *)communicator;
    /* After a failure late messages may still land in the slots, so they stay. */
    if (!ts_group_end(&r->base)) return;
    MPI_Comm_free(&r->mpi);
    free(r->partial);
    free(r->slots);
    free(r);
}

const ts_communicator_ops ts_communicator_ring = {
    .name = "ring",
    .serves = ring_serves,
    .open = ring_open,
    .close = ring_close,
    .all_reduce = ts_group_all_reduce,
    .all_reduce_bf16 = ts_group_all_reduce_bf16,
    .broadcast = ts_group_broadcast,
    .all_gather = ts_group_all_gather,
    .all_to_all = ts_group_all_to_all,
    .reduce_scatter = ts_group_reduce_scatter,
    .send = ts_group_send,
    .receive = ts_group_receive,
    .poll = ts_group_poll,
    .abort = ts_group_abort,
};
