/* clock.c - POSIX clocks. */
#include "runtime/base/clock.h"

#include <errno.h>
#include <time.h>

static int64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t ts_clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t ts_clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

void ts_clock_sleep_ns(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    while (ns > 0 && nanosleep(&t, &t) && errno == EINTR) continue;
}
