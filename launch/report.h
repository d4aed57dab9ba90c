/* report.h - `twinstream report`: the program's door to the script launch/report. */
#ifndef TS_LAUNCH_REPORT_H
#define TS_LAUNCH_REPORT_H

#include "runtime/base/status.h"

/* Becomes the script; returns only when it cannot. argv[0] is the command's name. */
ts_status ts_report_command(int argc, char **argv);

#endif
