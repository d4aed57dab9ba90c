/* plan.h - `twinstream plan`: time per step and time speedup of every algorithm on a cluster that
 * is described, not there. */
#ifndef TS_LAUNCH_PLAN_H
#define TS_LAUNCH_PLAN_H

#include "runtime/base/status.h"

/* argv[0] is the command's name. */
ts_status ts_plan_command(int argc, char **argv);

#endif
