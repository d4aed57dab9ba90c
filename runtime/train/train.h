/* train.h - the training loop and evaluation.
 *
 * A run: open everything for a config, enqueue local steps, let the algorithm's hooks do the
 * rest, evaluate the consensus model now and then, leave a folder behind. The host stays at most
 * `run-ahead` steps ahead of the device; in the steady state nothing is allocated. */
#ifndef TS_TRAIN_TRAIN_H
#define TS_TRAIN_TRAIN_H

#include "runtime/train/config.h"

/* Train as `config` says; collective over `world`. TS_ESTOPPED after ts_train_stop: the state is
 * saved. `options` is the table over `config`; it is saved with the run, and what was to be chosen
 * (--period auto) stands in it afterwards. */
ts_status ts_train(ts_world *world, const ts_config *config, ts_option_set *options,
                   ts_result *result);
/* Evaluate config->weights (a model file, or a checkpoint whose ranks are averaged). */
ts_status ts_evaluate(ts_world *world, const ts_config *config, ts_result *result);

#endif
