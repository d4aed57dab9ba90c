/* mpi_common.c - errors of MPI in words, and waiting. */
#include "runtime/comm/mpi_common.h"

#include <string.h>
#include <sys/prctl.h>

#include "runtime/base/clock.h"

enum { SPIN_NS = 5000, FIRST_SLEEP_NS = 50000 };

ts_status ts_mpi_fail(const char *file, int line, const char *call, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
    text[length] = '\0';
    return ts_status_fail(file, line, TS_ECOMM, "%.*s failed: %s (code %d)",
                          (int)strcspn(call, "("), call, text, code);
}

void ts_mpi_wait_sharpen(void)
{
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

int64_t ts_mpi_wait_pause(ts_mpi_wait *wait, int64_t longest_ns)
{
    int64_t now = ts_clock_ns();
    if (!wait->idle_since_ns) {
        wait->idle_since_ns = now;
        wait->sleep_ns = FIRST_SLEEP_NS;
        return 0;
    }
    int64_t idle = now - wait->idle_since_ns;
    if (idle < SPIN_NS) return idle;
    ts_clock_sleep_ns(wait->sleep_ns);
    wait->sleep_ns = wait->sleep_ns * 2 < longest_ns ? wait->sleep_ns * 2 : longest_ns;
    return idle;
}
