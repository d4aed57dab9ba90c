/* world_tcp.c - ranks that found each other by sockets, without MPI: what NCCL needs to start.
 *
 * Every rank has one connection, to rank 0, which passes things on: a world moves little and
 * rarely. A watchdog thread with a UDP socket of its own answers the others' pings and ends the
 * process when a rank aborts the job, whatever the main thread is stuck in. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/comm/mpi_common.h"
#include "runtime/comm/rendezvous.h"

enum { START_S = 120, LATE_MS = 10000, LATE_PROBE_MS = 5000, WATCH_MS = 50, PING_MS = 100 };
#define MILLISECOND INT64_C(1000000)
#define MAGIC UINT32_C(0x54535731) /* "TSW1" */

/* What each rank tells rank 0, and rank 0 all. */
typedef struct introduction {
    uint32_t magic;
    int32_t rank, size;
    char host[TS_HOST_NAME_MAX];
    struct sockaddr_in watch; /* of its watchdog */
} introduction;

typedef enum word { PING, PONG, END } word;
typedef struct datagram {
    uint32_t magic;
    int32_t word, from;
    int64_t number; /* of the ping; the exit code */
} datagram;

typedef struct tcp_world {
    ts_world base;
    int *sockets; /* rank 0: [size], to each rank; others: [1], to rank 0 */
    int watch;
    bool broken; /* a call failed: the ranks are no longer in step */
    introduction *all;
    pthread_t watchdog;
    bool watched;
    atomic_bool watching;
    pthread_mutex_t probe_lock;
    int64_t probe_number;
    _Atomic int64_t *answered;
} tcp_world;

/* ---- who answers ---- */

static void tell(tcp_world *w, int rank, word what, int64_t number)
{
    datagram d = {MAGIC, (int32_t)what, w->base.rank, number};
    const struct sockaddr_in *to = &w->all[rank].watch;
    (void)sendto(w->watch, &d, sizeof d, 0, (const struct sockaddr *)to, sizeof *to);
}

static void *watch(void *context)
{
    tcp_world *w = context;
    while (atomic_load(&w->watching)) {
        datagram d;
        struct pollfd ready = {.fd = w->watch, .events = POLLIN};
        if (poll(&ready, 1, WATCH_MS) < 1) continue;
        ssize_t n = recv(w->watch, &d, sizeof d, MSG_DONTWAIT);
        if (n != sizeof d || d.magic != MAGIC || d.from < 0 || d.from >= w->base.size) continue;
        if (d.word == PING) tell(w, d.from, PONG, d.number);
        if (d.word == PONG) atomic_store(&w->answered[d.from], d.number);
        if (d.word == END) {
            fflush(NULL);
            _Exit((int)d.number);
        }
    }
    return NULL;
}

static ts_status tcp_probe(ts_world *base, int wait_ms, bool *alive)
{
    tcp_world *w = (tcp_world *)base;
    pthread_mutex_lock(&w->probe_lock);
    int64_t number = ++w->probe_number, end = ts_clock_ns() + wait_ms * MILLISECOND, next = 0;
    int missing;
    do {
        bool again = ts_clock_ns() >= next; /* a datagram may be lost */
        if (again) next = ts_clock_ns() + PING_MS * MILLISECOND;
        missing = 0;
        for (int r = 0; r < base->size; r++) {
            alive[r] = r == base->rank || atomic_load(&w->answered[r]) == number;
            missing += !alive[r];
            if (!alive[r] && again) tell(w, r, PING, number);
        }
        if (missing) ts_clock_sleep_ns(MILLISECOND);
    } while (missing && ts_clock_ns() < end);
    pthread_mutex_unlock(&w->probe_lock);
    return TS_OK;
}

/* ---- bytes ---- */

static int socket_to(const tcp_world *w, int rank)
{
    return w->base.rank ? w->sockets[0] : w->sockets[rank];
}

static ts_status gone(const tcp_world *w, const char *what, int rank, const char *why)
{
    return TS_ERROR(TS_EPEER, "in a %s: rank %d (host %s) has gone: %s", what, rank,
                    w->base.hosts ? w->base.hosts[rank] : "unknown", why);
}

/* Waits for the socket; a rank may be late for as long as it likes, as long as its process answers.
 */
static ts_status wait_for(tcp_world *w, const char *what, int rank, short events)
{
    struct pollfd ready = {.fd = socket_to(w, rank), .events = events};
    while (poll(&ready, 1, LATE_MS) < 1) {
        char silent[512];
        int n = w->watched ? ts_world_silent(&w->base, LATE_PROBE_MS, silent, sizeof silent) : 0;
        TS_NEED(n == 0, TS_EPEER,
                "waiting in a %s: %s %s not answer; the process is stopped or has ended, or its "
                "host is unreachable",
                what, silent, n > 1 ? "do" : "does");
    }
    return TS_OK;
}

static ts_status move(tcp_world *w, const char *what, int rank, void *data, size_t bytes, bool out)
{
    char *at = data;
    while (bytes) {
        TS_TRY(wait_for(w, what, rank, out ? POLLOUT : POLLIN));
        ssize_t n = out ? send(socket_to(w, rank), at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : recv(socket_to(w, rank), at, bytes, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) return gone(w, what, rank, n ? strerror(errno) : "it closed its connection");
        at += n;
        bytes -= (size_t)n;
    }
    return TS_OK;
}

static ts_status give(tcp_world *w, const char *what, int rank, const void *data, size_t bytes)
{
    return move(w, what, rank, (void *)(uintptr_t)data, bytes, true);
}

static ts_status take(tcp_world *w, const char *what, int rank, void *data, size_t bytes)
{
    return move(w, what, rank, data, bytes, false);
}

/* ---- blocking calls ---- */

/* From rank 0 to all but `except`. */
static ts_status spread(tcp_world *w, const char *what, void *data, size_t bytes, int except)
{
    if (w->base.rank) return w->base.rank == except ? TS_OK : take(w, what, 0, data, bytes);
    for (int r = 1; r < w->base.size; r++)
        if (r != except) TS_TRY(give(w, what, r, data, bytes));
    return TS_OK;
}

static ts_status keep(tcp_world *w, ts_status status)
{
    w->broken |= status != TS_OK;
    return status;
}

static ts_status broadcast(tcp_world *w, void *data, size_t bytes, int root)
{
    if (root && w->base.rank == root) TS_TRY(give(w, "broadcast", 0, data, bytes));
    if (root && w->base.rank == 0) TS_TRY(take(w, "broadcast", root, data, bytes));
    return spread(w, "broadcast", data, bytes, root);
}

static ts_status all_gather(tcp_world *w, const char *what, const void *from, void *to,
                            size_t bytes)
{
    char *all = to;
    if (w->base.rank) TS_TRY(give(w, what, 0, from, bytes));
    if (w->base.rank == 0 && from != to) memcpy(to, from, bytes);
    for (int r = 1; r < w->base.size && w->base.rank == 0; r++)
        TS_TRY(take(w, what, r, all + (size_t)r * bytes, bytes));
    return spread(w, what, to, bytes * (size_t)w->base.size, 0);
}

static ts_status tcp_broadcast(ts_world *base, void *data, size_t bytes, int root)
{
    TS_NEED(root >= 0 && root < base->size, TS_EUSAGE, "broadcast from rank %d of %d", root,
            base->size);
    return keep((tcp_world *)base, broadcast((tcp_world *)base, data, bytes, root));
}

static ts_status tcp_all_gather(ts_world *base, const void *from, void *to, size_t bytes)
{
    return keep((tcp_world *)base, all_gather((tcp_world *)base, "all-gather", from, to, bytes));
}

static ts_status tcp_barrier(ts_world *base)
{
    tcp_world *w = (tcp_world *)base;
    char mine = 0, *all = calloc((size_t)base->size, 1);
    TS_NEED(all, TS_ENOMEM, "no memory for a barrier of %d ranks", base->size);
    ts_status status = keep(w, all_gather(w, "barrier", &mine, all, 1));
    free(all);
    return status;
}

static void tcp_abort(ts_world *base, int exit_code)
{
    tcp_world *w = (tcp_world *)base;
    fflush(NULL);
    for (int again = 0; again < 3; again++) {
        for (int r = 0; r < base->size; r++)
            if (r != base->rank) tell(w, r, END, exit_code);
        ts_clock_sleep_ns(10 * MILLISECOND);
    }
    _Exit(exit_code);
}

/* ---- life ---- */

static ts_status open_watch(tcp_world *w, struct sockaddr_in *own)
{
    socklen_t length = sizeof *own;
    *own = (struct sockaddr_in){.sin_family = AF_INET};
    w->watch = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    TS_NEED(w->watch >= 0 && !bind(w->watch, (struct sockaddr *)own, sizeof *own) &&
                !getsockname(w->watch, (struct sockaddr *)own, &length),
            TS_ECOMM, "no socket for the watchdog: %s", strerror(errno));
    return TS_OK;
}

/* Rank 0 hears from a newcomer, and finds out its address. */
static ts_status welcome(tcp_world *w, int socket)
{
    introduction i;
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t n = recv(socket, &i, sizeof i, MSG_WAITALL);
    if (n != sizeof i || i.magic != MAGIC) { /* a stranger */
        close(socket);
        return TS_OK;
    }
    TS_NEED(i.size == w->base.size && i.rank > 0 && i.rank < i.size && w->sockets[i.rank] < 0,
            TS_EUSAGE,
            "a process of host %s says it is rank %d of %d; this job has %d ranks, and each once: "
            "give every rank the same size",
            i.host, i.rank, i.size, w->base.size);
    TS_NEED(!getpeername(socket, (struct sockaddr *)&from, &length), TS_ECOMM,
            "a connection without an address: %s", strerror(errno));
    i.watch.sin_addr = from.sin_addr;
    w->sockets[i.rank] = socket;
    w->all[i.rank] = i;
    return TS_OK;
}

static ts_status gather(tcp_world *w, int listener)
{
    int64_t end = ts_clock_ns() + START_S * INT64_C(1000000000);
    int there = 1, size = w->base.size;
    while (there < size) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        int socket = poll(&ready, 1, 1000) > 0 ? accept(listener, NULL, NULL) : -1;
        if (socket >= 0) TS_TRY(welcome(w, socket));
        there = 1;
        int missing = 0;
        for (int r = size - 1; r > 0; r--) {
            there += w->sockets[r] >= 0;
            if (w->sockets[r] < 0) missing = r;
        }
        TS_NEED(there == size || ts_clock_ns() < end, TS_ETIMEOUT,
                "only %d of %d ranks came within %d s; rank %d is the first that did not", there,
                size, START_S, missing);
    }
    return TS_OK;
}

static bool is_loopback(struct in_addr address)
{
    return ntohl(address.s_addr) >> 24 == 127;
}

/* Where rank 0's watchdog is, as seen from here: the other end of our connection. A rank that
 * rank 0 has heard from over loopback is on the same host, so at the same address. */
static ts_status find_first(tcp_world *w)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    TS_NEED(!getpeername(w->sockets[0], (struct sockaddr *)&peer, &length), TS_ECOMM,
            "the connection to rank 0 has no address: %s", strerror(errno));
    for (int r = 0; r < w->base.size; r++)
        if (r == 0 || (is_loopback(w->all[r].watch.sin_addr) && !is_loopback(peer.sin_addr)))
            w->all[r].watch.sin_addr = peer.sin_addr;
    return TS_OK;
}

static ts_status join(tcp_world *w, const ts_rendezvous *place)
{
    ts_world *base = &w->base;
    int size = base->size, yes = 1, listener = -1;
    introduction own = {.magic = MAGIC, .rank = base->rank, .size = size};
    gethostname(base->host, sizeof base->host - 1);
    memcpy(own.host, base->host, sizeof own.host);
    TS_TRY(open_watch(w, &own.watch));
    w->all[base->rank] = own;
    if (base->rank) {
        TS_TRY(ts_rendezvous_connect(place, START_S, &w->sockets[0]));
        TS_TRY(give(w, "greeting", 0, &own, sizeof own));
    } else {
        TS_TRY(ts_rendezvous_listen(place, &listener));
        ts_status status = gather(w, listener);
        close(listener);
        ts_rendezvous_forget(place);
        TS_TRY(status);
    }
    size_t bytes = (size_t)size * sizeof *w->all;
    TS_TRY(spread(w, "greeting", w->all, bytes, 0));
    if (base->rank) TS_TRY(find_first(w));
    for (int i = 0; i < (base->rank ? 1 : size); i++)
        if (w->sockets[i] >= 0)
            setsockopt(w->sockets[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    for (int r = 0; r < size; r++) {
        memcpy(base->hosts[r], w->all[r].host, TS_HOST_NAME_MAX);
        base->local_rank += r < base->rank && !strcmp(base->hosts[r], base->host);
    }
    ts_log_set_rank(base->rank, size, base->host);
    return TS_OK;
}

static void release(tcp_world *w)
{
    for (int i = 0; w->sockets && i < (w->base.rank ? 1 : w->base.size); i++)
        if (w->sockets[i] >= 0) close(w->sockets[i]);
    if (w->watch >= 0) close(w->watch);
    pthread_mutex_destroy(&w->probe_lock);
    free((void *)w->answered);
    free(w->base.hosts);
    free(w->all);
    free(w->sockets);
    free(w);
}

static ts_status open_parts(tcp_world *w)
{
    ts_rendezvous place;
    TS_TRY(ts_rendezvous_read(&place));
    w->base.rank = place.rank;
    w->base.size = place.size;
    size_t size = (size_t)place.size;
    w->sockets = malloc(size * sizeof *w->sockets);
    w->all = calloc(size, sizeof *w->all);
    w->answered = calloc(size, sizeof *w->answered);
    w->base.hosts = calloc(size, sizeof *w->base.hosts);
    TS_NEED(w->sockets && w->all && w->answered && w->base.hosts, TS_ENOMEM,
            "no memory for a world of %zu ranks", size);
    for (size_t r = 0; r < size; r++) w->sockets[r] = -1;
    ts_log_set_rank(place.rank, place.size, "");
    TS_TRY(join(w, &place));
    atomic_store(&w->watching, true);
    int code = pthread_create(&w->watchdog, NULL, watch, w);
    TS_NEED(!code, TS_ENOMEM, "no watchdog thread: %s", strerror(code));
    w->watched = true;
    return TS_OK;
}

static ts_status tcp_open(ts_world **world_p)
{
    tcp_world *w = calloc(1, sizeof *w);
    TS_NEED(w, TS_ENOMEM, "no memory for a world");
    w->base.ops = &ts_world_tcp;
    w->watch = -1;
    pthread_mutex_init(&w->probe_lock, NULL);
    ts_status status = open_parts(w);
    if (status) {
        release(w);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *world_p = &w->base;
    return TS_OK;
}

static void tcp_close(ts_world *base)
{
    tcp_world *w = (tcp_world *)base;
    ts_status status = w->broken ? TS_ERROR(TS_EPEER, "the world cannot be closed: a rank is gone")
                                 : tcp_barrier(base);
    if (status) {
        ts_log_failure(status);
        tcp_abort(base, ts_status_exit_code(status));
    }
    atomic_store(&w->watching, false);
    pthread_join(w->watchdog, NULL);
    release(w);
}

const ts_world_ops ts_world_tcp = {
    .name = "tcp",
    .present = ts_rendezvous_present,
    .open = tcp_open,
    .close = tcp_close,
    .broadcast = tcp_broadcast,
    .all_gather = tcp_all_gather,
    .barrier = tcp_barrier,
    .abort = tcp_abort,
    .probe = tcp_probe,
};
