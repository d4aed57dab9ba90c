/* watchdog.h - ends the job when a collective fails while the host waits for the device.
 *
 * Most waits of the host are for streams whose own calls fail in time. A blocking library call
 * (MPI_Allreduce) does not, and NCCL's errors are seen only by asking. The watchdog asks. */
#ifndef TS_TRAIN_WATCHDOG_H
#define TS_TRAIN_WATCHDOG_H

#include "runtime/comm/comm.h"

typedef struct ts_watchdog ts_watchdog;

/* Polls `communicator` from a thread of its own. When it reports a failure the watchdog aborts the
 * communicator; when the rank has not ended a few seconds later it says what happened and ends
 * the job. One rank needs none: *watchdog_p is NULL then. */
ts_status ts_watchdog_open(ts_communicator *communicator, ts_watchdog **watchdog_p);
/* Before the communicator is closed. NULL is fine. */
void ts_watchdog_close(ts_watchdog *watchdog);

#endif
