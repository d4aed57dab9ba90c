/* rehearsal.h - local steps of this rank that are really made, timed and taken back: what the
 * start of a run measures before it settles --shares or --period auto. They communicate nothing,
 * and the state is put back, so the run that follows is bit for bit the one without them. */
#ifndef TS_TRAIN_REHEARSAL_H
#define TS_TRAIN_REHEARSAL_H

#include "runtime/train/trainer.h"

typedef struct ts_rehearsal ts_rehearsal;

/* Put the state aside. Until the rehearsal is closed trainer->local_step makes steps that call
 * nobody. Before an algorithm is open. */
ts_status ts_rehearsal_open(ts_trainer *trainer, ts_rehearsal **rehearsal_p);
/* Make a few steps; their times are from one's end to the next one's. Blocks. */
ts_status ts_rehearsal_time(ts_rehearsal *rehearsal, ts_step_times *times);
/* Back to the state and the step of the beginning; blocks. */
ts_status ts_rehearsal_undo(ts_rehearsal *rehearsal);
/* Waits for both streams; undoes nothing. */
void ts_rehearsal_close(ts_rehearsal *rehearsal);

#endif
