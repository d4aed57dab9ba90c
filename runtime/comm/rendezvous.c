/* rendezvous.c - see rendezvous.h. */
#include "runtime/comm/rendezvous.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"

#define RETRY_NS INT64_C(50000000)
enum { BACKLOG = 4096, FIRST_PORT = 10000, PORTS = 20000, CONNECT_S = 5 };

/* ---- who we are ---- */

static const char *variable(const char *own, const char *slurm)
{
    const char *value = getenv(own);
    return value ? value : getenv(slurm);
}

static const char *size_variable(void)
{
    return variable("TWINSTREAM_SIZE", "SLURM_STEP_NUM_TASKS");
}

bool ts_rendezvous_present(void)
{
    const char *size = size_variable();
    return getenv("TWINSTREAM_RANK") || (size && atoi(size) > 1);
}

void ts_slurm_first_host(const char *list, char *host, size_t bytes)
{
    size_t prefix = strcspn(list, ",[");
    const char *from = list + prefix, *after = "";
    int digits = 0;
    if (*from == '[') {
        digits = (int)strcspn(from + 1, ",-]");
        after = strchr(from, ']') ? strchr(from, ']') + 1 : "";
    }
    snprintf(host, bytes, "%.*s%.*s%.*s", (int)prefix, list, digits, digits ? from + 1 : "",
             (int)strcspn(after, ","), after);
}

static ts_status find_place(char *where, size_t bytes)
{
    const char *asked = getenv("TWINSTREAM_RENDEZVOUS"), *hosts = getenv("SLURM_STEP_NODELIST");
    const char *job = getenv("SLURM_JOB_ID"), *step = getenv("SLURM_STEP_ID");
    char host[256];
    if (asked) {
        TS_NEED(strlen(asked) < bytes && strchr(asked, ':'), TS_EUSAGE,
                "TWINSTREAM_RENDEZVOUS is \"%s\"; it is host:port or file:PATH", asked);
        snprintf(where, bytes, "%s", asked);
        return TS_OK;
    }
    TS_NEED(hosts && job, TS_EUSAGE,
            "TWINSTREAM_RENDEZVOUS is not set: name rank 0's host:port, or file:PATH with a path "
            "that all ranks see");
    ts_slurm_first_host(hosts, host, sizeof host);
    long number = atol(job) * 31 + (step ? atol(step) : 0);
    snprintf(where, bytes, "%s:%ld", host, FIRST_PORT + number % PORTS);
    return TS_OK;
}

ts_status ts_rendezvous_read(ts_rendezvous *r)
{
    const char *rank = variable("TWINSTREAM_RANK", "SLURM_PROCID"), *size = size_variable();
    TS_NEED(rank && size, TS_EUSAGE,
            "this process does not know who it is: set TWINSTREAM_RANK and TWINSTREAM_SIZE, or "
            "start it with srun");
    r->rank = atoi(rank);
    r->size = atoi(size);
    TS_NEED(r->size > 0 && r->rank >= 0 && r->rank < r->size, TS_EUSAGE,
            "rank \"%s\" of size \"%s\" is no rank of a job", rank, size);
    return find_place(r->where, sizeof r->where);
}

/* ---- sockets ---- */

static const char *file_of(const ts_rendezvous *r)
{
    return strncmp(r->where, "file:", 5) ? NULL : r->where + 5;
}

static int port_of(const char *place)
{
    const char *colon = strrchr(place, ':');
    return colon ? atoi(colon + 1) : 0;
}

static ts_status open_socket(int *socket_p)
{
    int yes = 1;
    *socket_p = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    TS_NEED(*socket_p >= 0, TS_ECOMM, "no socket: %s", strerror(errno));
    setsockopt(*socket_p, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    return TS_OK;
}

/* "10.0.0.1:4000 127.0.0.1:4000": every address of this host, the loopback's last. */
static void list_addresses(int port, char *text, size_t bytes)
{
    struct ifaddrs *all = NULL;
    char loopback[64];
    size_t used = 0;
    snprintf(loopback, sizeof loopback, "127.0.0.1:%d", port);
    if (getifaddrs(&all)) all = NULL;
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        char address[INET_ADDRSTRLEN];
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || i->ifa_flags & IFF_LOOPBACK)
            continue;
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)i->ifa_addr;
        if (!inet_ntop(AF_INET, &in->sin_addr, address, sizeof address)) continue;
        if (used + sizeof address + 16 + sizeof loopback < bytes)
            used += (size_t)snprintf(text + used, bytes - used, "%s:%d ", address, port);
    }
    snprintf(text + used, bytes - used, "%s", loopback);
    if (all) freeifaddrs(all);
}

/* Written aside and renamed, so that nobody reads half of it. */
static ts_status publish(const char *path, int port)
{
    char aside[TS_RENDEZVOUS_MAX + 8], text[TS_RENDEZVOUS_MAX];
    list_addresses(port, text, sizeof text);
    snprintf(aside, sizeof aside, "%s.new", path);
    FILE *out = fopen(aside, "w");
    bool written = out && fprintf(out, "%s\n", text) > 0;
    written = out && !fclose(out) && written;
    TS_NEED(written && !rename(aside, path), TS_EIO, "%s cannot be written: %s", path,
            strerror(errno));
    return TS_OK;
}

ts_status ts_rendezvous_listen(const ts_rendezvous *r, int *socket_p)
{
    const char *path = file_of(r);
    int port = path ? 0 : port_of(r->where);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    TS_NEED(!path || !ts_file_exists(path), TS_EUSAGE,
            "%s is there already: the path of a rendezvous is new for each job", path);
    TS_TRY(open_socket(socket_p));
    ts_status status = TS_OK;
    if (bind(*socket_p, (struct sockaddr *)&address, sizeof address) ||
        listen(*socket_p, BACKLOG) || getsockname(*socket_p, (struct sockaddr *)&address, &length))
        status = TS_ERROR(TS_ECOMM,
                          "rank 0 cannot listen at %s: %s; name another place in "
                          "TWINSTREAM_RENDEZVOUS",
                          r->where, strerror(errno));
    else if (path)
        status = publish(path, ntohs(address.sin_port));
    if (status) close(*socket_p);
    return status;
}

void ts_rendezvous_forget(const ts_rendezvous *r)
{
    if (file_of(r)) unlink(file_of(r));
}

/* One try at "host:port"; errno tells why not. */
static bool connect_once(const char *place, int socket)
{
    char host[256];
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    snprintf(host, sizeof host, "%.*s", (int)(strrchr(place, ':') - place), place);
    if (getaddrinfo(host, strrchr(place, ':') + 1, &hints, &found)) {
        errno = EHOSTUNREACH;
        return false;
    }
    /* an interface that swallows packets must not hold up the next place */
    const struct timeval patience = {.tv_sec = CONNECT_S}, none = {0};
    (void)setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    bool done = !connect(socket, found->ai_addr, found->ai_addrlen);
    int why = errno;
    (void)setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    freeaddrinfo(found);
    errno = done || why != EINPROGRESS ? why : ETIMEDOUT;
    return done;
}

/* The places to try: the one named, or those in the file, when it is there. */
static void find_places(const ts_rendezvous *r, char *places, size_t bytes)
{
    const char *path = file_of(r);
    FILE *in = path ? fopen(path, "r") : NULL;
    snprintf(places, bytes, "%s", path ? "" : r->where);
    if (in && !fgets(places, (int)bytes, in)) *places = '\0';
    if (in) fclose(in);
    places[strcspn(places, "\n")] = '\0';
}

ts_status ts_rendezvous_connect(const ts_rendezvous *r, int wait_s, int *socket_p)
{
    int64_t end = ts_clock_ns() + wait_s * INT64_C(1000000000);
    char reason[128] = "nothing is there";
    do {
        char places[TS_RENDEZVOUS_MAX], *rest = NULL;
        find_places(r, places, sizeof places);
        for (char *place = strtok_r(places, " ", &rest); place;
             place = strtok_r(NULL, " ", &rest)) {
            TS_TRY(open_socket(socket_p));
            if (connect_once(place, *socket_p)) return TS_OK;
            snprintf(reason, sizeof reason, "%s", strerror(errno));
            close(*socket_p);
        }
        ts_clock_sleep_ns(RETRY_NS);
    } while (ts_clock_ns() < end);
    return TS_ERROR(TS_ETIMEOUT,
                    "rank 0 was not reached at %s in %d s: %s; is it running, and does this host "
                    "reach its interface? TWINSTREAM_RENDEZVOUS names another place",
                    r->where, wait_s, reason);
}
