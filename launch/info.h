/* info.h - `twinstream info`: what this machine and build offer. */
#ifndef TS_LAUNCH_INFO_H
#define TS_LAUNCH_INFO_H

#include "runtime/train/session.h"

ts_status ts_info_run(ts_session *session);

#endif
