/* watchdog.c - see watchdog.h. */
#include "runtime/train/watchdog.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/base/log.h"

enum { POLL_MS = 200, GRACE_MS = 3000 };

struct ts_watchdog {
    ts_communicator *communicator;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t closing;
    bool closed;
};

/* Waits so long, or until the watchdog is closed; says which. */
static bool closed_within(ts_watchdog *w, int ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&w->lock);
    while (!w->closed && !pthread_cond_timedwait(&w->closing, &w->lock, &until)) {
    }
    bool closed = w->closed;
    pthread_mutex_unlock(&w->lock);
    return closed;
}

static void *watch(void *context)
{
    ts_watchdog *w = context;
    ts_communicator *c = w->communicator;
    ts_status status = TS_OK;
    while (!status) {
        if (closed_within(w, POLL_MS)) return NULL;
        status = c->ops->poll(c);
    }
    c->ops->abort(c);
    if (closed_within(w, GRACE_MS)) return NULL;
    ts_log_failure(status);
    c->world->ops->abort(c->world, ts_status_exit_code(status));
    return NULL;
}

ts_status ts_watchdog_open(ts_communicator *communicator, ts_watchdog **watchdog_p)
{
    *watchdog_p = NULL;
    if (communicator->world->size == 1) return TS_OK;
    ts_watchdog *w = calloc(1, sizeof *w);
    TS_NEED(w, TS_ENOMEM, "no memory for a watchdog");
    w->communicator = communicator;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->closing, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&w->lock, NULL);
    if (pthread_create(&w->thread, NULL, watch, w)) {
        free(w);
        return TS_ERROR(TS_EDEVICE, "cannot start the watchdog's thread");
    }
    *watchdog_p = w;
    return TS_OK;
}

void ts_watchdog_close(ts_watchdog *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    pthread_cond_signal(&w->closing);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->closing);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
