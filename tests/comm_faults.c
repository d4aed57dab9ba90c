/* comm_faults.c - a job that loses a rank in the middle of its all-reduces; comm_faults.sh reads
 * what the others say.
 *
 *   comm_faults stop|kill RANK    RANK stops (SIGSTOP) or kills (SIGKILL) itself
 *
 * Two ways lead to the news. Where the launcher lets the others run on, the ring times out and
 * names the silent rank. Where it ends them with SIGTERM (plain mpirun, when a rank dies of a
 * signal), there is about a second before SIGKILL: a thread that waits for the signal asks who
 * still answers, which tells a lost rank from a user who wants the job to stop. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/comm/comm.h"

enum { N = 4000000, TIMEOUT_S = 3 };

static ts_world *world;
static atomic_bool failed;

static void *wait_for_sigterm(void *context)
{
    sigset_t *terminate = context;
    int signal_number = 0;
    sigwait(terminate, &signal_number);
    if (atomic_load(&failed)) return NULL; /* the job ends because of what was said already */
    bool *alive = calloc((size_t)world->size, sizeof *alive);
    if (alive) world->ops->probe(world, 300, alive);
    int exit_code = 75;
    for (int r = 0; alive && r < world->size; r++) {
        if (alive[r]) continue;
        ts_log_failure(TS_ERROR(TS_EPEER, "told to end because rank %d does not answer", r));
        exit_code = 70;
    }
    /* The others ask at the same moment: this rank must not look lost to them. */
    ts_clock_sleep_ns(300000000);
    _Exit(exit_code);
}

static ts_status average_for_ever(ts_stream *stream, ts_communicator *communicator, float *x,
                                  int signal_number, int victim)
{
    for (int k = 0;; k++) {
        TS_TRY(communicator->ops->all_reduce(communicator, x, x, N, TS_AVERAGE, NULL));
        if (k == 5 && world->rank == victim) {
            ts_clock_sleep_ns(2000000);
            raise(signal_number);
        }
        TS_TRY(ts_stream_sync(stream));
    }
}

static ts_status run(int signal_number, int victim)
{
    ts_device *device;
    ts_stream *stream;
    ts_communicator *communicator;
    void *x;
    TS_TRY(ts_device_open("host", 0, &device));
    TS_TRY(ts_stream_open(device, TS_STREAM_COMM, "comm", &stream));
    TS_TRY(ts_communicator_open("ring", world, stream,
                                &(ts_communicator_options){.timeout_s = TIMEOUT_S}, &communicator));
    TS_TRY(ts_device_alloc(device, TS_MEMORY_DEVICE, N * sizeof(float), &x));
    memset(x, 0, N * sizeof(float));
    return average_for_ever(stream, communicator, x, signal_number, victim);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 64;
    int signal_number = strcmp(argv[1], "stop") == 0 ? SIGSTOP : SIGKILL;
    /* Before the first thread starts, so that every thread leaves SIGTERM to the one below. */
    static sigset_t terminate;
    sigemptyset(&terminate);
    sigaddset(&terminate, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &terminate, NULL);

    ts_status status = ts_world_open("auto", &world);
    if (status != TS_OK) {
        ts_log_failure(status);
        return ts_status_exit_code(status);
    }
    pthread_t waiter;
    if (pthread_create(&waiter, NULL, wait_for_sigterm, &terminate)) return 70;
    ts_log_set_phase("all-reduces");
    status = run(signal_number, atoi(argv[2]));
    atomic_store(&failed, true);
    ts_log_failure(status);
    fprintf(stderr, "aborts with %d\n", ts_status_exit_code(status));
    world->ops->abort(world, ts_status_exit_code(status));
    return 70;
}
