/* tune.h - `--period auto` and `--delay auto`: numbers for this machine, network and model.
 *
 * At the start of a run a few local steps and averages are really made and timed; the period is the
 * smallest at which compute waits for less than 1 % of a step, by the rule of runtime/plan. The
 * state is put back, so the run that follows is bit for bit the one with that number given. Timing
 * differs from run to run, and so may the number: nobody gets it without asking. */
#ifndef TS_TRAIN_TUNE_H
#define TS_TRAIN_TUNE_H

#include "runtime/train/trainer.h"

/* Settle what is auto in trainer->options, the same on every rank, and save it with the run; a run
 * that resumes `from` a checkpoint (NULL: it does not) takes the checkpoint's. Before an algorithm
 * is open; blocks. Collective. */
ts_status ts_tune(ts_trainer *trainer, const char *from);

#endif
