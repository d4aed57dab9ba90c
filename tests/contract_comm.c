/* contract_comm.c - what every communicator must do, run by each that serves this many ranks.
 *
 * The data are small integers and weights powers of two, so every order of summation gives the
 * same fp32 and results can be compared for equality. A check that fails ends all ranks: the
 * others would wait for this one for ever. */
#include <mpi.h>
#include <stdatomic.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/comm/comm.h"
#include "tests/check.h"

static ts_world *world;
static ts_device *device;
static ts_stream *compute, *comm;
static ts_communicator *c; /* under test */

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: rank %d of %d, %s: ", __FILE__, __LINE__, world->rank,         \
                    world->size, c ? c->ops->name : "no communicator");                            \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "\n");                                                                 \
            world->ops->abort(world, 1);                                                           \
        }                                                                                          \
    } while (0)
#undef OK /* check.h's leaves the other ranks waiting */
#define OK(expression) CHECK((expression) == TS_OK, "%s: %s", #expression, ts_trail())

static const char *const reduction_names[] = {"sum", "average", "weighted average"};

static float value(int rank, size_t i)
{
    return (float)((int)((i * 7 + (size_t)rank * 13 + i / 1000) % 17) - 8);
}

/* 1/2, 1/4, ... and the last one twice: they sum to 1. */
static float weight_of(int rank, int size)
{
    int halvings = rank < size - 1 ? rank + 1 : size - 1;
    return 1.0f / (float)(1 << halvings);
}

static float expected(size_t i, ts_reduction reduction)
{
    float sum = 0;
    for (int r = 0; r < world->size; r++) {
        sum += reduction == TS_WEIGHTED_AVERAGE ? weight_of(r, world->size) * value(r, i)
                                                : value(r, i);
    }
    return reduction == TS_AVERAGE ? sum / (float)world->size : sum;
}

static void *take(size_t bytes)
{
    void *memory;
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, bytes ? bytes : 1, &memory));
    return memory;
}

static void give(void *memory)
{
    ts_device_release(device, TS_MEMORY_DEVICE, memory);
}

static const size_t counts[] = {0,  1,    2,     3,     5,     15,     16,     17,
                                64, 1000, 15360, 30720, 30721, 131073, 3000007};
enum { N_COUNTS = sizeof counts / sizeof *counts };
#define CANARY 12345.0f

static void test_all_reduce(void **state)
{
    (void)state;
    float *weight = take(sizeof *weight);
    *weight = weight_of(world->rank, world->size);
    for (int k = 0; k < N_COUNTS; k++) {
        size_t n = counts[k];
        float *from = take((n + 1) * sizeof *from), *to = take((n + 1) * sizeof *to);
        for (int reduction = TS_SUM; reduction <= TS_WEIGHTED_AVERAGE; reduction++) {
            for (int in_place = 0; in_place < 2; in_place++) {
                float *out = in_place ? from : to;
                for (size_t i = 0; i < n; i++) from[i] = value(world->rank, i);
                for (size_t i = 0; i < n; i++) to[i] = CANARY;
                from[n] = to[n] = CANARY;
                OK(c->ops->all_reduce(c, out, from, n, (ts_reduction)reduction, weight));
                OK(ts_stream_sync(comm));
                for (size_t i = 0; i < n; i++) {
                    float want = expected(i, (ts_reduction)reduction);
                    CHECK(out[i] == want, "%s of %zu, in place %d: element %zu is %g, not %g",
                          reduction_names[reduction], n, in_place, i, (double)out[i], (double)want);
                    CHECK(in_place || from[i] == value(world->rank, i),
                          "%s of %zu changed its input at %zu", reduction_names[reduction], n, i);
                }
                CHECK(from[n] == CANARY && to[n] == CANARY, "%s of %zu wrote past its end",
                      reduction_names[reduction], n);
            }
        }
        give(to);
        give(from);
    }
    give(weight);
}

static void test_all_reduce_bf16(void **state)
{
    (void)state;
    if (!c->ops->all_reduce_bf16) skip();
    for (int k = 0; k < N_COUNTS; k++) {
        size_t n = counts[k];
        uint16_t *from = take((n + 1) * sizeof *from), *to = take((n + 1) * sizeof *to);
        for (int in_place = 0; in_place < 2; in_place++) {
            uint16_t *out = in_place ? from : to, canary = ts_bf16_from_float(CANARY);
            for (size_t i = 0; i < n; i++) from[i] = ts_bf16_from_float(value(world->rank, i));
            from[n] = to[n] = canary;
            OK(c->ops->all_reduce_bf16(c, out, from, n));
            OK(ts_stream_sync(comm));
            for (size_t i = 0; i < n; i++)
                CHECK(ts_bf16_to_float(out[i]) == expected(i, TS_SUM),
                      "%zu elements, in place %d: element %zu is %g, not %g", n, in_place, i,
                      (double)ts_bf16_to_float(out[i]), (double)expected(i, TS_SUM));
            CHECK(from[n] == canary && to[n] == canary, "%zu elements: wrote past its end", n);
        }
        /* sums that round are the same on all ranks */
        for (size_t i = 0; i < n; i++)
            from[i] = ts_bf16_from_float(
                ts_random_unit(ts_random(7, (uint64_t)world->rank, i).v[0]) - 0.5f);
        OK(c->ops->all_reduce_bf16(c, to, from, n));
        OK(ts_stream_sync(comm));
        OK(ts_world_same(world, "the bf16 sum", to, n * sizeof *to));
        give(to);
        give(from);
    }
}

/* Sums that do round: the same bits on all ranks and in every run, and near the truth. */
static void test_same_bits(void **state)
{
    (void)state;
    size_t n = 600011;
    float *from = take(n * sizeof *from), *to = take(n * sizeof *to), *again = take(n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        from[i] = ts_random_unit(ts_random(7, (uint64_t)world->rank, i).v[0]) - 0.5f;
    for (int k = 0; k < 3; k++) {
        OK(c->ops->all_reduce(c, k ? again : to, from, n, TS_AVERAGE, NULL));
        OK(ts_stream_sync(comm));
        CHECK(k == 0 || memcmp(to, again, n * sizeof *to) == 0, "another run, other bits");
    }
    OK(ts_world_same(world, "the average", to, n * sizeof *to));
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < world->size; r++)
            sum += ts_random_unit(ts_random(7, (uint64_t)r, i).v[0]) - 0.5f;
        double error = sum / world->size - to[i];
        CHECK(error < 1e-6 && error > -1e-6, "element %zu is off by %g", i, error);
    }
    give(again);
    give(to);
    give(from);
}

/* Many collectives of several kinds and sizes in flight: each sees the result of the one before.
 * Round k sums a shorter beginning than round k - 1, so block j is summed ROUNDS - j times. */
static void test_program_order(void **state)
{
    (void)state;
    enum { ROUNDS = 12, BLOCK = 700 };
    size_t n = ROUNDS * BLOCK;
    float *x = take(n * sizeof *x), *all = take(n * sizeof *all * (size_t)world->size);
    for (size_t i = 0; i < n; i++) x[i] = 1;
    for (int k = 0; k < ROUNDS; k++) {
        int root = k % world->size;
        OK(c->ops->all_reduce(c, x, x, (size_t)(ROUNDS - k) * BLOCK, TS_SUM, NULL));
        OK(c->ops->all_gather(c, all, x, n * sizeof *x));
        OK(c->ops->broadcast(c, all + n * (size_t)root, n * sizeof *x, root));
        OK(c->ops->all_reduce(c, x, all + n * (size_t)root, n, TS_AVERAGE, NULL));
    }
    OK(ts_stream_sync(comm));
    for (size_t i = 0; i < n; i++) {
        float want = 1;
        for (size_t k = 0; k < ROUNDS - i / BLOCK; k++) want *= (float)world->size;
        CHECK(x[i] == want, "element %zu is %g, not %g", i, (double)x[i], (double)want);
    }
    give(all);
    give(x);
}

/* The averaging loop of an algorithm: compute works on, events hand the buffers over. */
static void test_beside_compute(void **state)
{
    (void)state;
    size_t n = 300000;
    float *x = take(n * sizeof *x), *snapshot = take(n * sizeof *x), *average = take(n * sizeof *x);
    float *work = take(n * sizeof *x);
    ts_event *ready, *arrived;
    OK(ts_event_open(device, &ready));
    OK(ts_event_open(device, &arrived));
    for (size_t i = 0; i < n; i++) x[i] = value(world->rank, i), work[i] = 0;
    for (int k = 0; k < 6; k++) {
        OK(ts_stream_copy(compute, snapshot, x, n * sizeof *x));
        OK(ts_stream_after(ready, compute, comm));
        OK(c->ops->all_reduce(c, average, snapshot, n, TS_SUM, NULL));
        OK(ts_event_record(arrived, comm));
        for (int j = 0; j < 3; j++) OK(ts_stream_fill(compute, work, j, n * sizeof *work));
        OK(ts_event_wait(arrived, compute));
        OK(ts_stream_copy(compute, x, average, n * sizeof *x));
    }
    OK(ts_stream_sync(compute));
    for (size_t i = 0; i < n; i++) {
        float want = expected(i, TS_SUM);
        for (int k = 1; k < 6; k++) want *= (float)world->size;
        CHECK(x[i] == want, "element %zu is %g, not %g", i, (double)x[i], (double)want);
    }
    ts_event_close(arrived);
    ts_event_close(ready);
    give(work);
    give(average);
    give(snapshot);
    give(x);
}

static unsigned char byte_of(int rank, size_t i)
{
    return (unsigned char)(i * 31 + i / 251 + (size_t)rank * 101 + 1);
}

static const size_t sizes[] = {1, 3, 1000, 61440, 61441, 1500001};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void test_broadcast(void **state)
{
    (void)state;
    for (int k = 0; k < N_SIZES; k++) {
        size_t bytes = sizes[k];
        unsigned char *data = take(bytes);
        for (int root = 0; root < world->size; root++) {
            for (size_t i = 0; i < bytes; i++) data[i] = byte_of(world->rank, i);
            OK(c->ops->broadcast(c, data, bytes, root));
            OK(ts_stream_sync(comm));
            for (size_t i = 0; i < bytes; i++)
                CHECK(data[i] == byte_of(root, i), "%zu bytes from %d: byte %zu", bytes, root, i);
        }
        give(data);
    }
    CHECK(c->ops->broadcast(c, NULL, 1, world->size) == TS_EUSAGE, "a root outside the world");
}

static void test_all_gather(void **state)
{
    (void)state;
    for (int k = 0; k < N_SIZES; k++) {
        size_t bytes = sizes[k];
        unsigned char *to = take(bytes * (size_t)world->size), *from = take(bytes);
        for (int in_place = 0; in_place < 2; in_place++) {
            unsigned char *own = in_place ? to + (size_t)world->rank * bytes : from;
            memset(to, 0, bytes * (size_t)world->size);
            for (size_t i = 0; i < bytes; i++) own[i] = byte_of(world->rank, i);
            OK(c->ops->all_gather(c, to, own, bytes));
            OK(ts_stream_sync(comm));
            for (int r = 0; r < world->size; r++) {
                for (size_t i = 0; i < bytes; i++)
                    CHECK(to[(size_t)r * bytes + i] == byte_of(r, i),
                          "%zu bytes, in place %d: byte %zu of rank %d", bytes, in_place, i, r);
            }
        }
        give(from);
        give(to);
    }
}

/* Rank a's block for rank b is what byte_of says of rank a + 16 b. */
static void test_all_to_all(void **state)
{
    (void)state;
    for (int k = 0; k < N_SIZES; k++) {
        size_t bytes = sizes[k], all = bytes * (size_t)world->size;
        unsigned char *to = take(all + 1), *from = take(all);
        to[all] = 77;
        for (int r = 0; r < world->size; r++)
            for (size_t i = 0; i < bytes; i++)
                from[(size_t)r * bytes + i] = byte_of(world->rank + 16 * r, i);
        OK(c->ops->all_to_all(c, to, from, bytes));
        OK(ts_stream_sync(comm));
        for (int r = 0; r < world->size; r++)
            for (size_t i = 0; i < bytes; i++) {
                size_t at = (size_t)r * bytes + i;
                CHECK(to[at] == byte_of(r + 16 * world->rank, i), "%zu bytes: byte %zu of rank %d",
                      bytes, i, r);
                CHECK(from[at] == byte_of(world->rank + 16 * r, i), "%zu bytes: input changed",
                      bytes);
            }
        CHECK(to[all] == 77, "%zu bytes: written past the end", bytes);
        give(from);
        give(to);
    }
}

static void test_reduce_scatter(void **state)
{
    (void)state;
    float *weight = take(sizeof *weight);
    *weight = weight_of(world->rank, world->size);
    for (int k = 0; k < N_SIZES; k++) {
        size_t n = sizes[k] / 2 + 1, all = n * (size_t)world->size;
        float *from = take(all * sizeof *from), *to = take((n + 1) * sizeof *to);
        for (int reduction = TS_SUM; reduction <= TS_WEIGHTED_AVERAGE; reduction++) {
            for (size_t i = 0; i < all; i++) from[i] = value(world->rank, i);
            to[n] = CANARY;
            OK(c->ops->reduce_scatter(c, to, from, n, (ts_reduction)reduction, weight));
            OK(ts_stream_sync(comm));
            for (size_t i = 0; i < n; i++) {
                float want = expected((size_t)world->rank * n + i, (ts_reduction)reduction);
                CHECK(to[i] == want, "%s of %zu: element %zu is %g, not %g",
                      reduction_names[reduction], n, i, (double)to[i], (double)want);
            }
            for (size_t i = 0; i < all; i++)
                CHECK(from[i] == value(world->rank, i), "%s of %zu changed its input at %zu",
                      reduction_names[reduction], n, i);
            CHECK(to[n] == CANARY, "%s of %zu wrote past its end", reduction_names[reduction], n);
        }
        give(to);
        give(from);
    }
    give(weight);
}

/* A parcel goes around: every rank adds 1 to each byte. */
static void test_send_receive(void **state)
{
    (void)state;
    int last = world->size - 1, next = (world->rank + 1) % world->size;
    int before = (world->rank + last) % world->size;
    unsigned char byte = 0;
    CHECK(c->ops->send(c, &byte, 1, world->rank, 0) == TS_EUSAGE, "a rank sent to itself");
    CHECK(c->ops->receive(c, &byte, 1, world->size, 0) == TS_EUSAGE, "a peer outside the world");
    for (int k = 0; k < N_SIZES && world->size > 1; k++) {
        size_t bytes = sizes[k];
        unsigned char *data = take(bytes);
        for (size_t i = 0; i < bytes; i++) data[i] = byte_of(0, i);
        if (world->rank == 0) {
            OK(c->ops->send(c, data, bytes, next, 5 + k));
            OK(ts_stream_sync(comm));
            memset(data, 0, bytes);
        }
        OK(c->ops->receive(c, data, bytes, before, 5 + k));
        OK(ts_stream_sync(comm));
        for (size_t i = 0; i < bytes; i++) {
            unsigned char want = (unsigned char)(byte_of(0, i) + before);
            CHECK(data[i] == want, "%zu bytes: byte %zu is %d, not %d", bytes, i, data[i], want);
            data[i]++;
        }
        if (world->rank != 0) {
            OK(c->ops->send(c, data, bytes, next, 5 + k));
            OK(ts_stream_sync(comm));
        }
        give(data);
    }
}

/* ---- bytes on the wire: what the ring gives to MPI, seen by taking MPI's place ---- */

static _Atomic int64_t handed_over;

int MPI_Isend(const void *data, int n, MPI_Datatype type, int to, int tag, MPI_Comm mpi,
              MPI_Request *request)
{
    int size = 0;
    PMPI_Type_size(type, &size);
    atomic_fetch_add(&handed_over, (int64_t)n * size);
    return PMPI_Isend(data, n, type, to, tag, mpi, request);
}

/* The bytes that `call` says it sends, and those that it sent. */
#define SENDS(call)                                                                                \
    do {                                                                                           \
        int64_t said = c->sent_bytes, sent = atomic_load(&handed_over);                            \
        OK(call);                                                                                  \
        said = c->sent_bytes - said;                                                               \
        OK(ts_stream_sync(comm));                                                                  \
        sent = atomic_load(&handed_over) - sent;                                                   \
        total += said;                                                                             \
        if (!strcmp(c->ops->name, "ring") || !strcmp(c->ops->name, "staged"))                      \
            CHECK(said == sent, "%s: says %lld bytes, sent %lld", #call, (long long)said,          \
                  (long long)sent);                                                                \
    } while (0)

static void test_sent_bytes(void **state)
{
    (void)state;
    size_t most = counts[N_COUNTS - 1];
    int64_t others = world->size - 1;
    float *x = take(most * (size_t)world->size * sizeof *x), *y = take(most * sizeof *y);
    float *z = take(most * (size_t)world->size * sizeof *z);
    memset(x, 0, most * (size_t)world->size * sizeof *x);
    for (int k = 0; k < N_COUNTS; k++) {
        size_t n = counts[k];
        int64_t all[64], total = 0, sum = 0;
        SENDS(c->ops->all_reduce(c, x, x, n, TS_AVERAGE, NULL));
        OK(world->ops->all_gather(world, &total, all, sizeof total));
        for (int r = 0; r < world->size; r++) sum += all[r];
        CHECK(sum == 2 * others * (int64_t)n * 4, "an all-reduce of %zu sends %lld in all", n,
              (long long)sum);
        if (c->ops->all_reduce_bf16)
            SENDS(c->ops->all_reduce_bf16(c, (uint16_t *)(void *)x, (uint16_t *)(void *)x, n));
        total = 0;
        SENDS(c->ops->all_gather(c, x, y, 3 * n));
        CHECK(total == others * 3 * (int64_t)n, "an all-gather sends %lld", (long long)total);
        SENDS(c->ops->reduce_scatter(c, y, x, n, TS_SUM, NULL));
        total = 0;
        SENDS(c->ops->all_to_all(c, z, x, 3 * n));
        CHECK(total == others * 3 * (int64_t)n, "an all-to-all sends %lld", (long long)total);
        for (int root = 0; root < world->size; root++) SENDS(c->ops->broadcast(c, x, n, root));
    }
    give(z);
    give(y);
    give(x);
}

static void test_healthy(void **state)
{
    (void)state;
    OK(c->ops->poll(c));
    CHECK(c->ops->all_reduce(c, NULL, NULL, 5, TS_WEIGHTED_AVERAGE, NULL) == TS_EUSAGE ||
              world->size == 1,
          "a weighted average without a weight");
}

/* All ranks but the last start an all-reduce; this must end them, and tell why. */
static void stuck(const char *name, bool aborts, const char *why)
{
    ts_stream *stream;
    ts_communicator *ours;
    float *x = take(100000 * sizeof *x);
    memset(x, 0, 100000 * sizeof *x);
    OK(ts_stream_open(device, TS_STREAM_COMM, "stuck", &stream));
    OK(ts_communicator_open(name, world, stream, &(ts_communicator_options){.timeout_s = 1},
                            &ours));
    if (world->rank != world->size - 1) {
        int64_t begin = ts_clock_ns();
        OK(ours->ops->all_reduce(ours, x, x, 100000, TS_SUM, NULL));
        ts_clock_sleep_ns(50000000);
        if (aborts) ours->ops->abort(ours);
        ts_status status = ts_stream_sync(stream);
        double seconds = (double)(ts_clock_ns() - begin) * 1e-9;
        CHECK(status == (aborts ? TS_ECOMM : TS_ETIMEOUT), "status %s: %s", ts_status_text(status),
              ts_trail());
        CHECK(strstr(ts_trail_message(), why), "\"%s\" without \"%s\"", ts_trail_message(), why);
        CHECK(seconds < (aborts ? 1 : 4), "it took %.1f s", seconds);
        CHECK(ours->ops->poll(ours) == status, "poll knows nothing of it");
    }
    OK(world->ops->barrier(world));
    ts_communicator_close(ours);
    ts_stream_close(stream);
    give(x);
}

/* The ring, which on a GPU is within staged. */
static const char *stuck_name(void)
{
    return strcmp(device->ops->name, "cuda") ? "ring" : "staged";
}

static void test_abort(void **state)
{
    (void)state;
    stuck(stuck_name(), true, "aborted");
}

static void test_time_out(void **state)
{
    (void)state;
    stuck(stuck_name(), false, "every rank's process answers");
}

static int run_contract(const ts_communicator_ops *ops)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_reduce),    cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_program_order), cmocka_unit_test(test_beside_compute),
        cmocka_unit_test(test_broadcast),     cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_all_to_all),    cmocka_unit_test(test_reduce_scatter),
        cmocka_unit_test(test_send_receive),  cmocka_unit_test(test_all_reduce_bf16),
        cmocka_unit_test(test_sent_bytes),    cmocka_unit_test(test_healthy),
    };
    OK(ts_communicator_open(ops->name, world, comm, &(ts_communicator_options){.timeout_s = 30},
                            &c));
    int64_t begin = ts_clock_ns();
    int failed = cmocka_run_group_tests_name(ops->name, tests, NULL, NULL);
    if (world->rank == 0)
        printf("%s, %d ranks: %.1f s\n", ops->name, world->size,
               (double)(ts_clock_ns() - begin) * 1e-9);
    ts_communicator_close(c);
    c = NULL;
    return failed;
}

int main(void)
{
    static const struct CMUnitTest stuck_tests[] = {
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_time_out),
    };
    ts_status status = ts_world_open("auto", &world);
    if (status == TS_OK) status = ts_device_open(test_device(), world->local_rank, &device);
    if (status == TS_OK) status = ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &compute);
    if (status == TS_OK) status = ts_stream_open(device, TS_STREAM_COMM, "comm", &comm);
    if (status != TS_OK) {
        ts_log_failure(status);
        return 1;
    }
    int failed = 0, served = 0;
    for (const ts_communicator_ops *const *ops = ts_communicators; *ops; ops++) {
        if (!(*ops)->serves(world, device, NULL)) continue;
        served++;
        failed += run_contract(*ops);
    }
    bool mpi = !strcmp(world->ops->name, "mpi"), cuda = !strcmp(device->ops->name, "cuda");
    CHECK(served >= (world->size > 1 && !cuda ? 2 : 1), "%d communicators serve", served);
    if (world->size > 1 && mpi)
        failed += cmocka_run_group_tests_name("stuck", stuck_tests, NULL, NULL);
    ts_stream_close(comm);
    ts_stream_close(compute);
    ts_device_close(device);
    ts_world_close(world);
    return failed;
}
