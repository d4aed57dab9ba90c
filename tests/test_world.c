/* test_world.c - the worlds' own calls: small blocking ones, agreement, and who is alive. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/comm/comm.h"
#include "runtime/comm/rendezvous.h"

static ts_world *world;
static int cores;

/* Ranks of odd and of even number on a core each, where there are two. */
static void bind_to_core(void)
{
    const char *by_mpi = getenv("OMPI_COMM_WORLD_RANK"), *by_tcp = getenv("TWINSTREAM_RANK");
    int rank = by_mpi ? atoi(by_mpi) : by_tcp ? atoi(by_tcp) : 0, core = 0, found = 0;
    cpu_set_t usable, one;
    assert_int_equal(sched_getaffinity(0, sizeof usable, &usable), 0);
    cores = CPU_COUNT(&usable);
    while (!CPU_ISSET(core, &usable) || (cores > 1 && found++ < rank % 2)) core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
}

static void test_identity(void **state)
{
    (void)state;
    const char *by_mpi = getenv("OMPI_COMM_WORLD_SIZE"), *by_tcp = getenv("TWINSTREAM_SIZE");
    const char *size = by_mpi ? by_mpi : by_tcp;
    assert_non_null(size);
    assert_string_equal(world->ops->name, by_mpi ? "mpi" : "tcp");
    for (int r = 0; r < world->size; r++) assert_string_equal(world->hosts[r], world->host);
    assert_int_equal(world->size, atoi(size));
    int same = cores > 1 ? (world->size + 1 - world->rank % 2) / 2 : world->size;
    assert_int_equal(world->sharers, same);
    assert_int_equal(world->local_rank, world->rank);
    assert_true(strlen(world->host) > 0);
}

static void test_broadcast(void **state)
{
    (void)state;
    static char text[100000];
    for (int root = 0; root < world->size; root++) {
        memset(text, world->rank + 'a', sizeof text);
        assert_int_equal(world->ops->broadcast(world, text, sizeof text, root), TS_OK);
        for (size_t i = 0; i < sizeof text; i++) assert_int_equal(text[i], root + 'a');
    }
}

static void test_all_gather(void **state)
{
    (void)state;
    int32_t own[2] = {world->rank, 10 * world->rank},
            *all = malloc(sizeof own * (size_t)world->size);
    assert_int_equal(world->ops->all_gather(world, own, all, sizeof own), TS_OK);
    for (int r = 0; r < world->size; r++) {
        assert_int_equal(all[2 * r], r);
        assert_int_equal(all[2 * r + 1], 10 * r);
    }
    free(all);
}

static void test_agree_all_well(void **state)
{
    (void)state;
    assert_int_equal(ts_world_agree(world, TS_OK), TS_OK);
}

/* The last rank fails: all get its status, it alone keeps its words. */
static void test_agree_one_fails(void **state)
{
    (void)state;
    int last = world->size - 1;
    ts_status mine = TS_OK;
    ts_trail_clear();
    if (world->rank == last) mine = TS_ERROR(TS_EDATA, "picture %d is torn", 41 + 1);
    assert_int_equal(ts_world_agree(world, mine), TS_EDATA);
    assert_string_equal(ts_trail_message(), world->rank == last ? "picture 42 is torn" : "");
    /* all fail alike: the first tells */
    mine = TS_ERROR(TS_EIO, "no folder");
    assert_int_equal(ts_world_agree(world, mine), TS_EIO);
    assert_string_equal(ts_trail_message(), world->rank == 0 ? "no folder" : "");
}

/* One is asked to stop: all stop. A failure elsewhere is worse. */
static void test_agree_stop(void **state)
{
    (void)state;
    ts_status mine = TS_OK;
    if (world->rank == 0) mine = TS_ERROR(TS_ESTOPPED, "a signal came");
    assert_int_equal(ts_world_agree(world, mine), TS_ESTOPPED);
    if (world->size == 1) return;
    if (world->rank == 1) mine = TS_ERROR(TS_EIO, "the disk is gone");
    assert_int_equal(ts_world_agree(world, mine), TS_EIO);
    assert_string_equal(ts_trail_message(), world->rank == 1 ? "the disk is gone" : "");
}

static void test_same(void **state)
{
    (void)state;
    char config[] = "period = 8";
    assert_int_equal(ts_world_same(world, "config", config, sizeof config), TS_OK);
    if (world->size == 1) return;
    if (world->rank > 0) config[9] = '9';
    assert_int_equal(ts_world_same(world, "config", config, sizeof config), TS_EUSAGE);
    if (world->rank == 0) {
        assert_non_null(strstr(ts_trail_message(), "config of rank 1"));
        assert_non_null(strstr(ts_trail_message(), "byte 9"));
    } else {
        assert_string_equal(ts_trail_message(), ""); /* rank 0 tells it */
    }
    /* Same beginning, another length. */
    size_t bytes = world->rank == world->size - 1 ? 4 : 5;
    assert_int_equal(ts_world_same(world, "prefix", "abcdef", bytes), TS_EUSAGE);
}

static void test_probe(void **state)
{
    (void)state;
    bool *alive = calloc((size_t)world->size, sizeof *alive);
    /* One asks while the others wait at a blocking point: only their watchdogs can answer. */
    for (int k = 0; k < 2 * world->size; k++) {
        if (k % world->size == world->rank) {
            int64_t begin = ts_clock_ns();
            assert_int_equal(world->ops->probe(world, 5000, alive), TS_OK);
            for (int r = 0; r < world->size; r++) assert_true(alive[r]);
            /* It returns when the last has answered, not when the time is over. */
            assert_true(ts_clock_ns() - begin < INT64_C(3000000000));
        }
        assert_int_equal(world->ops->barrier(world), TS_OK);
    }
    free(alive);
}

static void test_self(void **state)
{
    (void)state;
    ts_world *self;
    assert_int_equal(ts_world_open("self", &self), TS_OK);
    assert_int_equal(self->rank, 0);
    assert_int_equal(self->size, 1);
    int own = 3, all = 0;
    bool alive = false;
    assert_int_equal(self->ops->all_gather(self, &own, &all, sizeof own), TS_OK);
    assert_int_equal(all, 3);
    assert_int_equal(self->ops->broadcast(self, &own, sizeof own, 0), TS_OK);
    assert_int_equal(self->ops->probe(self, 0, &alive), TS_OK);
    assert_true(alive);
    assert_int_equal(ts_world_agree(self, TS_OK), TS_OK);
    assert_int_equal(ts_world_agree(self, TS_ERROR(TS_EDATA, "bad")), TS_EDATA);
    assert_int_equal(ts_world_same(self, "config", "abc", 3), TS_OK);
    ts_world_close(self);
    ts_log_set_rank(world->rank, world->size, world->host);
}

static void test_names(void **state)
{
    (void)state;
    ts_world *no_world = NULL;
    assert_int_equal(ts_world_open("mpl", &no_world), TS_EUSAGE);
    assert_non_null(strstr(ts_trail_message(), "mpi"));
    ts_device *device;
    ts_stream *stream;
    ts_communicator *communicator = NULL;
    const ts_communicator_options options = {.timeout_s = 1};
    assert_int_equal(ts_device_open("host", 0, &device), TS_OK);
    assert_int_equal(ts_stream_open(device, TS_STREAM_COMM, "comm", &stream), TS_OK);
    assert_int_equal(ts_communicator_open("rign", world, stream, &options, &communicator),
                     TS_EUSAGE);
    assert_non_null(strstr(ts_trail_message(), "ring"));
    if (world->size > 1 &&
        !strcmp(world->ops->name, "tcp")) { /* no MPI, so no ring on the host's memory */
        assert_int_equal(ts_communicator_open("auto", world, stream, &options, &communicator),
                         TS_EUNSUPPORTED);
        assert_non_null(strstr(ts_trail_message(), "srun --mpi=pmix"));
        ts_stream_close(stream);
        ts_device_close(device);
        return;
    }
    const char *other = world->size == 1 ? "ring" : "self";
    assert_int_equal(ts_communicator_open(other, world, stream, &options, &communicator),
                     TS_EUNSUPPORTED);
    assert_int_equal(ts_communicator_open("auto", world, stream, &options, &communicator), TS_OK);
    assert_string_equal(communicator->ops->name, world->size == 1 ? "self" : "ring");
    ts_communicator_close(communicator);
    ts_stream_close(stream);
    ts_device_close(device);
}

static void test_slurm_hosts(void **state)
{
    static const struct {
        const char *list, *first;
    } cases[] = {{"gpu1", "gpu1"},
                 {"gpu1,gpu2", "gpu1"},
                 {"gpu[03-07,9],cpu1", "gpu03"},
                 {"gpu[3,5]", "gpu3"},
                 {"rack[1-2]-eth,other", "rack1-eth"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char host[64];
        ts_slurm_first_host(cases[i].list, host, sizeof host);
        assert_string_equal(host, cases[i].first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_agree_all_well),
        cmocka_unit_test(test_agree_one_fails),
        cmocka_unit_test(test_agree_stop),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_slurm_hosts),
    };
    bind_to_core();
    ts_status status = ts_world_open("auto", &world);
    if (status != TS_OK) {
        ts_log_failure(status);
        return ts_status_exit_code(status);
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) world->ops->abort(world, 1); /* the ranks may no longer be in step */
    ts_world_close(world);
    return 0;
}
