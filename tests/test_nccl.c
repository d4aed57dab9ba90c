/* test_nccl.c - what the communicator does with each of NCCL's answers: in progress, an error at
 * once, an error later, no answer at all. A library of our own answers (nccl_standin.c); the device
 * and the world are this file's, so neither a GPU nor a second rank is needed. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include "runtime/base/clock.h"
#include "runtime/comm/mpi_common.h"
#include "tests/check.h"
#include "tests/nccl_standin.h"

static standin *nccl;

/* ---- a device that is called cuda: launches at once, its events say what the test says ---- */

/* From now on the events before a collective do not happen, or those behind it. */
static bool before_hangs, behind_hangs;
static int records;
static ts_event *unfinished[256];
static int n_unfinished;

static ts_status event_open(ts_device *device, ts_event **event_p)
{
    *event_p = malloc(sizeof **event_p);
    (*event_p)->device = device;
    return TS_OK;
}
static void event_close(ts_event *event)
{
    free(event);
}
static ts_status event_record(ts_event *event, ts_stream *stream)
{
    (void)stream;
    bool before = records++ % 2 == 0;
    if (before ? before_hangs : behind_hangs) unfinished[n_unfinished++] = event;
    return TS_OK;
}
static bool event_done(ts_event *event)
{
    for (int i = 0; i < n_unfinished; i++)
        if (unfinished[i] == event) return false;
    return true;
}
static ts_status launch(ts_stream *stream, const ts_kernel *kernel, const void *args, size_t bytes)
{
    (void)stream, (void)bytes;
    return kernel->enqueue(args, NULL);
}
static ts_status sync(ts_stream *stream)
{
    (void)stream;
    return TS_OK;
}
static const ts_device_ops device_ops = {.name = "cuda",
                                         .event_open = event_open,
                                         .event_close = event_close,
                                         .event_record = event_record,
                                         .event_done = event_done,
                                         .launch = launch,
                                         .stream_sync = sync};
static ts_device device = {&device_ops};
static ts_stream stream = {&device, "comm"};

/* ---- a world of two, of which this is rank 0 and the other says the same ---- */

static bool other_alive;

static ts_status broadcast(ts_world *world, void *data, size_t bytes, int root)
{
    (void)world, (void)data, (void)bytes, (void)root;
    return TS_OK;
}
static ts_status all_gather(ts_world *world, const void *from, void *to, size_t bytes)
{
    for (int r = 0; r < world->size; r++) memcpy((char *)to + (size_t)r * bytes, from, bytes);
    return TS_OK;
}
static ts_status probe(ts_world *world, int wait_ms, bool *alive)
{
    (void)world, (void)wait_ms;
    alive[0] = true;
    alive[1] = other_alive;
    return TS_OK;
}
static const ts_world_ops world_ops = {
    .name = "two", .broadcast = broadcast, .all_gather = all_gather, .probe = probe};
static char hosts[2][TS_HOST_NAME_MAX] = {"here", "there"};
static ts_world world = {
    .ops = &world_ops, .size = 2, .host = "here", .hosts = hosts};

/* ---- the tests ---- */

static ts_communicator *c;
static float x[8], y[16], weight;

static ts_status open_nccl(int timeout_s)
{
    return ts_communicator_open("nccl", &world, &stream,
                                &(ts_communicator_options){.timeout_s = timeout_s, .ctas = 3}, &c);
}

static int set_up(void **state)
{
    (void)state;
    memset(nccl, 0, sizeof *nccl);
    nccl->version = NCCL_VERSION_CODE;
    nccl->last_error = "Connect to 10.0.0.2<5000> failed";
    other_alive = true;
    before_hangs = behind_hangs = false;
    records = n_unfinished = 0;
    world.agreed = false;
    ts_trail_clear();
    return 0;
}

static void says(const char *words)
{
    if (!strstr(ts_trail(), words)) fail_msg("\"%s\" without \"%s\"", ts_trail(), words);
}

/* In progress at start-up and in a collective: waited for; the end is orderly. */
static void test_in_progress(void **state)
{
    (void)state;
    nccl->init = ncclInProgress;
    nccl->in_progress = 5;
    OK(open_nccl(30));
    assert_int_equal(nccl->in_progress, 0);
    assert_int_equal(nccl->config.blocking, 0);
    assert_int_equal(nccl->config.maxCTAs, 3);
    assert_int_equal(nccl->config.cgaClusterSize, 1);
    assert_string_equal(getenv("NCCL_ALGO"), "Ring");
    nccl->collective = ncclInProgress;
    nccl->in_progress = 4;
    OK(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL));
    assert_int_equal(nccl->in_progress, 0);
    OK(c->ops->poll(c));
    ts_communicator_close(c);
    assert_int_equal(nccl->finalizes, 1);
    assert_int_equal(nccl->destroys, 1);
    assert_int_equal(nccl->aborts, 0);
}

/* What NCCL is asked to do. */
static void test_arguments(void **state)
{
    (void)state;
    OK(open_nccl(30));
    OK(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL));
    assert_true(nccl->from == x && nccl->to == y && nccl->n == 8);
    assert_true(nccl->type == ncclFloat32 && nccl->op == ncclSum);
    assert_int_equal(c->sent_bytes, 2 * 8 * sizeof *x / 2); /* as a ring of two */
    OK(c->ops->all_reduce_bf16(c, (uint16_t *)(void *)y, (uint16_t *)(void *)x, 8));
    assert_true(nccl->from == x && nccl->to == y && nccl->n == 8);
    assert_true(nccl->type == ncclBfloat16 && nccl->op == ncclSum);
    OK(c->ops->all_reduce(c, y, y, 7, TS_AVERAGE, NULL));
    assert_true(nccl->from == y && nccl->op == ncclAvg);
    for (int i = 0; i < 3; i++) {
        OK(c->ops->all_reduce(c, y, x, 8, TS_WEIGHTED_AVERAGE, &weight));
        assert_int_equal(nccl->op, 101); /* one operation for one weight */
        assert_true(nccl->weight == &weight);
    }
    OK(c->ops->reduce_scatter(c, y, x, 4, TS_AVERAGE, NULL));
    assert_true(nccl->n == 4 && nccl->op == ncclAvg);
    OK(c->ops->broadcast(c, y, 13, 1));
    assert_true(nccl->n == 13 && nccl->type == ncclUint8 && nccl->root == 1);
    OK(c->ops->all_gather(c, y, x, 5));
    assert_true(nccl->n == 5 && nccl->type == ncclUint8);
    OK(c->ops->send(c, x, 3, 1, 0));
    assert_true(nccl->from == x && nccl->root == 1);
    OK(c->ops->receive(c, y, 3, 1, 0));
    assert_true(nccl->to == y && nccl->root == 1);
    int before = nccl->collectives;
    OK(c->ops->all_to_all(c, y, x, 4)); /* two sends and two receives, the last from rank 1 */
    assert_int_equal(nccl->collectives, before + 4);
    assert_true((char *)nccl->to == (char *)y + 4 && nccl->n == 4 && nccl->root == 1);
    assert_int_equal(nccl->groups, 1);
    assert_int_equal(nccl->group_ends, 1);
    before = nccl->collectives;
    assert_int_equal(c->ops->all_reduce(c, y, x, 8, TS_WEIGHTED_AVERAGE, NULL), TS_EUSAGE);
    assert_int_equal(c->ops->send(c, x, 3, 0, 0), TS_EUSAGE);
    assert_int_equal(nccl->collectives, before);
    ts_communicator_close(c);
}

/* A group that has begun ends, whatever happens in it. */
static void test_group_fails(void **state)
{
    (void)state;
    OK(open_nccl(30));
    nccl->collective = ncclSystemError;
    assert_int_equal(c->ops->all_to_all(c, y, x, 4), TS_ECOMM);
    says("unhandled system error");
    assert_int_equal(nccl->collectives, 1);
    assert_int_equal(nccl->groups, 1);
    assert_int_equal(nccl->group_ends, 1);
    ts_communicator_close(c);
}

static void test_start_fails(void **state)
{
    (void)state;
    nccl->init = ncclSystemError;
    assert_int_equal(open_nccl(30), TS_ECOMM);
    says("unhandled system error");
    says("Connect to 10.0.0.2<5000> failed");
    assert_int_equal(nccl->aborts, 1);
}

/* It fails after it was in progress. */
static void test_start_fails_later(void **state)
{
    (void)state;
    nccl->init = ncclInProgress;
    nccl->in_progress = 3;
    nccl->async = ncclRemoteError;
    assert_int_equal(open_nccl(30), TS_ECOMM);
    says("remote process exited");
    assert_int_equal(nccl->aborts, 1);
}

static void test_start_hangs(void **state)
{
    (void)state;
    nccl->init = ncclInProgress;
    nccl->in_progress = 1 << 30;
    other_alive = false;
    int64_t begin = ts_clock_ns();
    assert_int_equal(open_nccl(1), TS_ETIMEOUT);
    says("the start of NCCL made no progress for 1 s");
    says("rank 1 (host there) does not answer");
    assert_true(ts_clock_ns() - begin < INT64_C(5000000000));
    assert_int_equal(nccl->aborts, 1);
}

static void test_collective_fails(void **state)
{
    (void)state;
    OK(open_nccl(30));
    nccl->collective = ncclSystemError;
    assert_int_equal(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL), TS_ECOMM);
    says("all-reduce: unhandled system error");
    nccl->collective = ncclSuccess;
    /* it is the end of the communicator: the ranks are no longer in step */
    assert_int_equal(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL), TS_ECOMM);
    says("all-reduce: unhandled system error");
    assert_int_equal(c->ops->poll(c), TS_ECOMM);
    assert_int_equal(nccl->collectives, 1);
    ts_communicator_close(c);
    assert_int_equal(nccl->aborts, 1);
    assert_int_equal(nccl->destroys, 0);
}

/* An asynchronous error: poll finds it, later calls repeat it. */
static void test_error_later(void **state)
{
    (void)state;
    OK(open_nccl(30));
    OK(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL));
    OK(c->ops->poll(c));
    nccl->async = ncclRemoteError;
    assert_int_equal(c->ops->poll(c), TS_ECOMM);
    says("remote process exited");
    nccl->async = ncclSuccess;
    assert_int_equal(c->ops->poll(c), TS_ECOMM);
    assert_int_equal(c->ops->broadcast(c, y, 4, 0), TS_ECOMM);
    says("remote process exited");
    ts_communicator_close(c);
    assert_int_equal(nccl->aborts, 1);
}

/* A collective that runs and never ends; one that has not begun is left alone. */
static void test_time_out(void **state)
{
    (void)state;
    OK(open_nccl(1));
    for (int i = 0; i < 200; i++) OK(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL));
    OK(c->ops->poll(c));
    ts_clock_sleep_ns(INT64_C(1200000000));
    OK(c->ops->poll(c)); /* all of them ended */
    behind_hangs = true;
    OK(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL));
    OK(c->ops->poll(c));
    other_alive = false;
    ts_clock_sleep_ns(INT64_C(1200000000));
    assert_int_equal(c->ops->poll(c), TS_ETIMEOUT);
    says("a collective of communicator nccl made no progress for 1 s");
    says("rank 1 (host there) does not answer");
    ts_communicator_close(c);
    assert_int_equal(nccl->aborts, 1);
}

/* Its stream still waits for compute: that is no time-out, however long it takes. */
static void test_waits_for_compute(void **state)
{
    (void)state;
    OK(open_nccl(1));
    before_hangs = behind_hangs = true;
    OK(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL));
    for (int i = 0; i < 3; i++) {
        OK(c->ops->poll(c));
        ts_clock_sleep_ns(INT64_C(600000000));
    }
    OK(c->ops->poll(c));
    ts_communicator_close(c);
}

static void *abort_soon(void *context)
{
    ts_clock_sleep_ns(200000000);
    c->ops->abort(c);
    return context;
}

/* From another thread, while this one waits for NCCL to take a collective. */
static void test_abort(void **state)
{
    (void)state;
    pthread_t thread;
    OK(open_nccl(30));
    nccl->collective = ncclInProgress;
    nccl->in_progress = 1 << 30;
    assert_int_equal(pthread_create(&thread, NULL, abort_soon, NULL), 0);
    int64_t begin = ts_clock_ns();
    assert_int_equal(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL), TS_ECOMM);
    says("aborted");
    assert_true(ts_clock_ns() - begin < INT64_C(5000000000));
    pthread_join(thread, NULL);
    c->ops->abort(c);
    assert_int_equal(nccl->aborts, 1);
    assert_int_equal(c->ops->all_reduce(c, y, x, 8, TS_SUM, NULL), TS_ECOMM);
    ts_communicator_close(c);
    assert_int_equal(nccl->aborts, 1);
}

static void test_too_old(void **state)
{
    (void)state;
    nccl->version = 21000;
    assert_int_equal(open_nccl(30), TS_EUNSUPPORTED);
    says("NCCL 21000 is older than");
    assert_int_equal(nccl->inits, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_in_progress, set_up),
        cmocka_unit_test_setup(test_arguments, set_up),
        cmocka_unit_test_setup(test_group_fails, set_up),
        cmocka_unit_test_setup(test_start_fails, set_up),
        cmocka_unit_test_setup(test_start_fails_later, set_up),
        cmocka_unit_test_setup(test_start_hangs, set_up),
        cmocka_unit_test_setup(test_collective_fails, set_up),
        cmocka_unit_test_setup(test_error_later, set_up),
        cmocka_unit_test_setup(test_time_out, set_up),
        cmocka_unit_test_setup(test_waits_for_compute, set_up),
        cmocka_unit_test_setup(test_abort, set_up),
        cmocka_unit_test_setup(test_too_old, set_up),
    };
    const char *file = getenv("TWINSTREAM_NCCL_LIBRARY");
    void *library = file ? dlopen(file, RTLD_NOW) : NULL;
    nccl = library ? dlsym(library, "the_standin") : NULL;
    if (!nccl) {
        fprintf(stderr, "no stand-in for NCCL: %s\n", dlerror());
        return 1;
    }
    unsetenv("NCCL_ALGO");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
