/* loader.c - see loader.h.
 *
 * A chunk goes through four counters that only grow: opened (threads may make it), uploaded (its
 * copy is queued), cleared (the copy has happened: its pinned slot is free), released (compute no
 * longer needs it: its device slot is free once what was queued then has run). Slot c % chunks of
 * either ring holds chunk c, so a chunk is opened when the one `chunks` before it is cleared, and
 * uploaded when the one `chunks` before it is released. */
#include "runtime/data/loader.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"

typedef struct slot {
    int missing;              /* items not made yet; guarded */
    int64_t due_ns;           /* by the rate */
    ts_event *copied, *freed; /* the upload has happened; compute is past the device slot */
} slot;

typedef struct worker {
    ts_loader *loader;
    int number;
    pthread_t thread;
} worker;

struct ts_loader {
    ts_device *device;
    ts_loader_options o;
    ts_stream *copy;
    uint8_t *bytes, *staged; /* device, pinned */
    uint16_t *labels, *staged_labels;
    slot *slots;
    worker *workers;
    int running;                                 /* threads */
    int64_t uploaded, cleared, released, waited; /* chunks; waited: that compute waits for */
    int64_t due_ns;                              /* of the chunk opened last */
    bool taken;                                  /* the rate's clock runs */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, made;
    int64_t opened, next; /* chunks; the item to make next */
    bool closing;
    ts_status status;
    char trail[1024];
};

static slot *slot_of(const ts_loader *l, int64_t chunk)
{
    return &l->slots[chunk % l->o.chunks];
}

/* ---- making ---- */

static ts_status make_item(ts_loader *l, int thread, int64_t item)
{
    size_t place = (size_t)(item % ts_loader_ring(l));
    return l->o.make(l->o.context, thread, item, l->staged + place * l->o.bytes,
                     &l->staged_labels[place]);
}

/* With the lock held: an item is made, or could not be. */
static void take_result(ts_loader *l, int64_t item, ts_status status)
{
    if (status && !l->status) {
        l->status = status;
        snprintf(l->trail, sizeof l->trail, "%s", ts_trail());
    }
    if (--slot_of(l, item / l->o.chunk)->missing == 0 || status) pthread_cond_signal(&l->made);
}

static void *work(void *context)
{
    worker *w = context;
    ts_loader *l = w->loader;
    char name[16];
    snprintf(name, sizeof name, "loader %d", w->number % 1000);
    pthread_setname_np(pthread_self(), name);
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->closing && !l->status && l->next / l->o.chunk >= l->opened)
            pthread_cond_wait(&l->work, &l->lock);
        if (l->closing || l->status) break;
        int64_t item = l->next++;
        pthread_mutex_unlock(&l->lock);
        ts_status status = make_item(l, w->number, item);
        pthread_mutex_lock(&l->lock);
        take_result(l, item, status);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* Of a chunk, by the rate. */
static int64_t period_ns(const ts_loader *l)
{
    return l->o.rate > 0 ? (int64_t)(1e9 * l->o.chunk / l->o.rate) : 0;
}

/* There is room for another chunk. */
static void open_chunk(ts_loader *l)
{
    int64_t now = ts_clock_ns();
    pthread_mutex_lock(&l->lock);
    slot *s = slot_of(l, l->opened);
    s->missing = l->o.make ? l->o.chunk : 0;
    if (l->due_ns < now) l->due_ns = now;
    l->due_ns += period_ns(l);
    s->due_ns = l->due_ns;
    l->opened++;
    pthread_mutex_unlock(&l->lock);
    pthread_cond_broadcast(&l->work);
}

/* Is the chunk, which is opened, made and due? */
static ts_status is_ready(ts_loader *l, int64_t chunk, bool *ready_p)
{
    slot *s = slot_of(l, chunk);
    pthread_mutex_lock(&l->lock);
    ts_status status = l->status;
    if (status) ts_trail_set(l->trail);
    *ready_p = chunk < l->opened && s->missing == 0 && s->due_ns <= ts_clock_ns();
    pthread_mutex_unlock(&l->lock);
    return status;
}

/* Without threads: make what is missing here. */
static ts_status make_here(ts_loader *l, int64_t chunk)
{
    while (slot_of(l, chunk)->missing) {
        ts_status status = make_item(l, 0, l->next);
        take_result(l, l->next++, status);
        TS_TRY(status);
    }
    return TS_OK;
}

static ts_status wait_until_ready(ts_loader *l, int64_t chunk)
{
    slot *s = slot_of(l, chunk);
    if (l->o.make && !l->o.threads) TS_TRY(make_here(l, chunk));
    pthread_mutex_lock(&l->lock);
    while (s->missing && !l->status) pthread_cond_wait(&l->made, &l->lock);
    ts_status status = l->status;
    if (status) ts_trail_set(l->trail);
    pthread_mutex_unlock(&l->lock);
    TS_TRY(status);
    ts_clock_sleep_ns(s->due_ns - ts_clock_ns());
    return TS_OK;
}

/* ---- moving ---- */

static ts_status upload(ts_loader *l, int64_t chunk)
{
    slot *s = slot_of(l, chunk);
    size_t place = (size_t)(chunk % l->o.chunks) * (size_t)l->o.chunk, n = (size_t)l->o.chunk;
    if (!l->copy) return TS_OK;
    TS_TRY(ts_event_wait(s->freed, l->copy));
    TS_TRY(ts_stream_copy(l->copy, l->bytes + place * l->o.bytes, l->staged + place * l->o.bytes,
                          n * l->o.bytes));
    TS_TRY(ts_stream_copy(l->copy, l->labels + place, l->staged_labels + place,
                          n * sizeof *l->labels));
    return ts_event_record(s->copied, l->copy);
}

/* The chunks opened before the first take are due as if they had been opened now. */
static void begin_clock(ts_loader *l)
{
    if (l->taken) return;
    l->taken = true;
    l->due_ns = ts_clock_ns();
    for (int64_t c = l->uploaded; c < l->opened; c++)
        slot_of(l, c)->due_ns = l->due_ns += period_ns(l);
}

/* Everything that can go on without waiting. */
static ts_status pump(ts_loader *l)
{
    bool ready = true;
    begin_clock(l);
    for (; l->cleared < l->uploaded; l->cleared++) {
        if (l->copy && !ts_event_done(slot_of(l, l->cleared)->copied)) break;
        open_chunk(l);
    }
    while (l->uploaded < l->released + l->o.chunks) {
        TS_TRY(is_ready(l, l->uploaded, &ready));
        if (!ready) break;
        TS_TRY(upload(l, l->uploaded++));
    }
    return TS_OK;
}

ts_status ts_loader_has(ts_loader *l, int64_t end, bool *has_p)
{
    TS_TRY(pump(l));
    *has_p = l->uploaded * l->o.chunk >= end;
    return TS_OK;
}

ts_status ts_loader_take(ts_loader *l, int64_t first, int64_t end, ts_stream *compute)
{
    int64_t last = (end - 1) / l->o.chunk;
    for (; (l->released + 1) * l->o.chunk <= first; l->released++)
        if (l->copy) TS_TRY(ts_event_record(slot_of(l, l->released)->freed, compute));
    TS_TRY(pump(l));
    while (l->uploaded <= last) {
        if (l->uploaded == l->opened) /* every pinned slot is being copied */
            TS_TRY(ts_event_sync(slot_of(l, l->cleared)->copied));
        else
            TS_TRY(wait_until_ready(l, l->uploaded));
        TS_TRY(pump(l));
    }
    for (; l->waited <= last; l->waited++)
        if (l->copy) TS_TRY(ts_event_wait(slot_of(l, l->waited)->copied, compute));
    return TS_OK;
}

/* ---- open, start, close ---- */

static ts_status alloc(ts_loader *l, ts_memory kind, size_t bytes, void **memory_p)
{
    TS_TRY(ts_device_alloc(l->device, kind, bytes, memory_p));
    if (kind == TS_MEMORY_PINNED)
        memset(*memory_p, 0, bytes);
    else
        TS_TRY(ts_stream_fill(l->copy, *memory_p, 0, bytes));
    return TS_OK;
}

static ts_status open_rings(ts_loader *l)
{
    size_t n = (size_t)l->o.chunk * (size_t)l->o.chunks;
    TS_TRY(ts_stream_open(l->device, TS_STREAM_COPY, "upload", &l->copy));
    TS_TRY(alloc(l, TS_MEMORY_DEVICE, n * l->o.bytes, (void **)&l->bytes));
    TS_TRY(alloc(l, TS_MEMORY_DEVICE, n * sizeof *l->labels, (void **)&l->labels));
    TS_TRY(alloc(l, TS_MEMORY_PINNED, n * l->o.bytes, (void **)&l->staged));
    TS_TRY(alloc(l, TS_MEMORY_PINNED, n * sizeof *l->labels, (void **)&l->staged_labels));
    for (int i = 0; i < l->o.chunks; i++) {
        TS_TRY(ts_event_open(l->device, &l->slots[i].copied));
        TS_TRY(ts_event_open(l->device, &l->slots[i].freed));
    }
    return ts_stream_sync(l->copy);
}

ts_status ts_loader_open(ts_device *device, const ts_loader_options *options, ts_loader **loader_p)
{
    ts_status status;
    *loader_p = NULL;
    ts_loader *l = calloc(1, sizeof *l);
    TS_NEED(l, TS_ENOMEM, "no memory for a loader");
    l->device = device;
    l->o = *options;
    if (!l->o.make) l->o.threads = 0;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->made, NULL);
    l->slots = calloc((size_t)l->o.chunks, sizeof *l->slots);
    l->workers = calloc((size_t)l->o.threads + 1, sizeof *l->workers);
    if (!l->slots || !l->workers) {
        status = TS_ERROR(TS_ENOMEM, "no memory for a loader of %d chunks", l->o.chunks);
        goto fail;
    }
    if (l->o.make) TS_TRY_TO(status, fail, open_rings(l));
    *loader_p = l;
    return TS_OK;
fail:
    ts_loader_close(l);
    return status;
}

ts_status ts_loader_start(ts_loader *l, int64_t first)
{
    int64_t chunk = first / l->o.chunk;
    l->opened = l->uploaded = l->cleared = l->released = l->waited = chunk;
    l->next = chunk * l->o.chunk;
    for (int i = 0; i < l->o.chunks; i++) open_chunk(l);
    /* Signals are for the thread that runs main(). */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    for (; l->running < l->o.threads && !error; l->running += !error) {
        worker *w = &l->workers[l->running];
        *w = (worker){.loader = l, .number = l->running};
        error = pthread_create(&w->thread, NULL, work, w);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    TS_NEED(!error, TS_EDEVICE, "cannot start thread %d of %d that read pictures: %s",
            l->running + 1, l->o.threads, strerror(error));
    return TS_OK;
}

void ts_loader_close(ts_loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    pthread_mutex_unlock(&l->lock);
    pthread_cond_broadcast(&l->work);
    for (int i = 0; i < l->running; i++) pthread_join(l->workers[i].thread, NULL);
    ts_stream_close(l->copy);
    for (int i = 0; l->slots && i < l->o.chunks; i++) {
        if (l->slots[i].freed) ts_event_close(l->slots[i].freed);
        if (l->slots[i].copied) ts_event_close(l->slots[i].copied);
    }
    ts_device_release(l->device, TS_MEMORY_PINNED, l->staged_labels);
    ts_device_release(l->device, TS_MEMORY_PINNED, l->staged);
    ts_device_release(l->device, TS_MEMORY_DEVICE, l->labels);
    ts_device_release(l->device, TS_MEMORY_DEVICE, l->bytes);
    free(l->workers);
    free(l->slots);
    pthread_cond_destroy(&l->made);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

uint8_t *ts_loader_bytes(const ts_loader *loader)
{
    return loader->bytes;
}

uint16_t *ts_loader_labels(const ts_loader *loader)
{
    return loader->labels;
}

int64_t ts_loader_ring(const ts_loader *loader)
{
    return loader->o.make ? (int64_t)loader->o.chunk * loader->o.chunks : 0;
}
