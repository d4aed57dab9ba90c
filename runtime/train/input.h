/* input.h - a local step's samples where they may come late: the hook that makes compute wait for
 * them, or, with --echo auto, train on the last batch once more; and so while an average is late.
 *
 * The wait stands in the trace as a span "input" on the compute stream, from when compute comes to
 * it to when the samples are there. The host waits as well while they are being read: that is late
 * only for what compute would do next. */
#ifndef TS_TRAIN_INPUT_H
#define TS_TRAIN_INPUT_H

#include "runtime/train/trainer.h"

/* What --echo and --echo-at say; auto is no echo where nothing is ever late. */
ts_echo ts_input_echo(const ts_trainer *trainer);
ts_feed_options ts_input_reading(const ts_config *config, const ts_world *world);

/* trainer->feed <- a new one for trainer->shard as it is now, in place of one that is closed; NULL
 * where samples are never late. Nothing that reads the training set is queued. */
ts_status ts_input_feed(ts_trainer *trainer);
/* Begin to read where the control block stands; *input_p is NULL where nothing is ever late: neither
 * samples nor, with an automatic echo, averages. Blocks. */
ts_status ts_input_open(ts_trainer *trainer, ts_input **input_p);
void ts_input_close(ts_input *input);
/* Between the begin of local step trainer->step and its batch. Waits only for what is not read. */
ts_status ts_input_step(ts_input *input);

/* May the step that comes next take the last one's batch once more? Not where there is no automatic
 * echo, or that was used often enough. */
bool ts_input_can_repeat(const ts_input *input);
/* It shall. */
void ts_input_repeat(ts_input *input);
/* Enqueue: the step that came of it is not counted. */
ts_status ts_input_repeated(ts_input *input);

/* Fresh samples of this rank that are in use or used up after `step` local steps, `control` being
 * the control block then. */
int64_t ts_input_fresh(const ts_trainer *trainer, const ts_control *control, int64_t step);

#endif
