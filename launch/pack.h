/* pack.h - `twinstream pack`: a folder of JPEG pictures becomes a file of records. */
#ifndef TS_LAUNCH_PACK_H
#define TS_LAUNCH_PACK_H

#include "runtime/base/status.h"

ts_status ts_pack_command(int argc, char **argv);

#endif
