/* session.h - a session from inside: what `twinstream info` needs beyond the public calls. */
#ifndef TS_TRAIN_SESSION_H
#define TS_TRAIN_SESSION_H

#include "runtime/train/train.h"

const ts_config *ts_session_config(const ts_session *session);
ts_world *ts_session_world(ts_session *session);

#endif
