/* mpi_common.h - what the MPI world and the communicators over it share; for this folder only. */
#ifndef TS_COMM_MPI_COMMON_H
#define TS_COMM_MPI_COMMON_H

#include <mpi.h>

#include "runtime/comm/group.h"

/* Describe what an MPI call returned, in MPI's own words. */
ts_status ts_mpi_fail(const char *file, int line, const char *call, int code);
#define TS_MPI_TRY(call)                                                                           \
    do {                                                                                           \
        int ts_mpi_code = (call);                                                                  \
        if (ts_mpi_code != MPI_SUCCESS)                                                            \
            return ts_mpi_fail(__FILE__, __LINE__, #call, ts_mpi_code);                            \
    } while (0)

/* An MPI world, and memory that MPI may touch: the host device, or a test's own device over it,
 * whose name then begins with "host". */
bool ts_mpi_serves(const ts_world *world, const ts_device *device, const char **why_p);
/* Collective: a communicator of one's own over the world, whose errors return. */
ts_status ts_mpi_duplicate(ts_world *world, MPI_Comm *mpi_p);
/* How a thread waits without holding a core: it looks again at once for the first microseconds,
 * because the next message is often there already, and then sleeps, longer each time. */
typedef struct ts_mpi_wait {
    int64_t idle_since_ns; /* 0: something has just moved */
    int64_t sleep_ns;
} ts_mpi_wait;
/* Once a thread: sleeps end when they should, not up to 50 us later. */
void ts_mpi_wait_sharpen(void);
static inline void ts_mpi_wait_moved(ts_mpi_wait *wait)
{
    wait->idle_since_ns = 0;
}
/* Sleeps at most `longest_ns`; returns for how long nothing has moved, in ns. */
int64_t ts_mpi_wait_pause(ts_mpi_wait *wait, int64_t longest_ns);

extern const ts_world_ops ts_world_mpi, ts_world_tcp, ts_world_self;
extern const ts_communicator_ops ts_communicator_self, ts_communicator_nccl, ts_communicator_ring,
    ts_communicator_staged, ts_communicator_mpi;

#endif
