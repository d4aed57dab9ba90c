/* ranks.h - what the ranks of a run must have in common, and must not: checked before the first
 * collective of training. */
#ifndef TS_TRAIN_RANKS_H
#define TS_TRAIN_RANKS_H

#include "runtime/train/trainer.h"

/* TS_EUSAGE on all ranks when they run different builds, when their models, steps or data do not
 * fit together, or when two of them have the same GPU and TWINSTREAM_SHARE_GPU is not 1. */
ts_status ts_ranks_check(ts_trainer *trainer);
/* A line for each rank's GPU. */
void ts_ranks_announce(const ts_trainer *trainer);

#endif
