/* stop.c - one thread takes the signals, so that it may do what a handler may not. */
#include "launch/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/train/train.h"

enum { PROBE_MS = 1000 }; /* an answer may queue behind a ring's data */

static sigset_t stop_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGINT);
    return set;
}

void ts_stop_block_signals(void)
{
    sigset_t set = stop_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Ends the program when some rank is gone. */
static void check_ranks(ts_world *world)
{
    bool *alive = calloc((size_t)world->size, sizeof *alive);
    if (!alive || world->ops->probe(world, PROBE_MS, alive)) {
        free(alive);
        return;
    }
    char silent[256] = "";
    for (int r = 0; r < world->size; r++) {
        size_t used = strlen(silent);
        if (!alive[r] && used < sizeof silent - 16)
            snprintf(silent + used, sizeof silent - used, "%s%d", used ? ", " : "", r);
    }
    free(alive);
    if (!*silent) return;
    ts_log_failure(TS_ERROR(TS_EPEER,
                            "rank %s does not answer: it died or its host is gone; resume from the "
                            "last checkpoint",
                            silent));
    ts_clock_sleep_ns(PROBE_MS * INT64_C(1000000)); /* the others still ask whether we are alive */
    _Exit(ts_status_exit_code(TS_EPEER));
}

static void *watch(void *argument)
{
    ts_world *world = argument;
    sigset_t set = stop_signals();
    for (int interrupts = 0;;) {
        int number;
        if (sigwait(&set, &number)) continue;
        if (number == SIGINT && interrupts++) _Exit(128 + SIGINT);
        if (world->size > 1) check_ranks(world);
        ts_train_stop();
    }
    return NULL;
}

ts_status ts_stop_watch(ts_world *world)
{
    pthread_t thread;
    int reason = pthread_create(&thread, NULL, watch, world);
    TS_NEED(!reason, TS_ENOMEM, "cannot start a thread: %s", strerror(reason));
    pthread_detach(thread);
    return TS_OK;
}
