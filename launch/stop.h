/* stop.h - signals that end a training run. */
#ifndef TS_LAUNCH_STOP_H
#define TS_LAUNCH_STOP_H

#include "runtime/comm/comm.h"

/* Block SIGTERM, SIGUSR1 and SIGINT in this thread and those it starts; call before any thread. */
void ts_stop_block_signals(void);
/* Start the thread that waits for them. On a signal it asks whether every rank still answers:
 * mpirun sends SIGTERM to the others when a rank dies, and then the run ends at once with exit code
 * 70 and the name of the silent rank; else the run is told to stop, saves and ends with 75. A
 * second SIGINT ends the program at once. */
ts_status ts_stop_watch(ts_world *world);

#endif
