/* checkpoint.h - the whole state of a run on disk, and the model alone.
 *
 * <run>/checkpoints/step-<n>/rank-<r>.safetensors: parameters under torchvision's names with the
 * prefix "model.", momentum, statistics, the algorithm's parts, the control block. Every rank
 * writes its own file to a temporary folder; when all agree that theirs is on disk, the folder is
 * renamed: a folder without ".partial" is complete. The last n are kept. */
#ifndef TS_TRAIN_CHECKPOINT_H
#define TS_TRAIN_CHECKPOINT_H

#include "runtime/train/trainer.h"

/* Waits for both streams, then saves; merges nothing, so that saving changes nothing.
 * Collective. A failure on any rank leaves earlier checkpoints as they were. */
ts_status ts_checkpoint_save(ts_trainer *trainer);
/* `from`: a checkpoint's folder, or a run's for its newest. TS_EDATA when it is cut off,
 * corrupted, of another version, model, size or algorithm. Collective. */
ts_status ts_checkpoint_load(ts_trainer *trainer, const char *from);
/* The period and delay that a checkpoint's run had; `from` as above. Collective. */
ts_status ts_checkpoint_schedule(ts_trainer *trainer, const char *from, int64_t *period_p,
                                 int64_t *delay_p);
/* The batches [size] of a checkpoint's run; not found when it did not keep them or when they add up
 * to another sum than this run's. Collective. */
ts_status ts_checkpoint_batches(ts_trainer *trainer, const char *from, int *batches, bool *found_p);
/* TS_EUSAGE when the run's folder holds a checkpoint of a later step than the trainer's, which
 * would count as newer than all that this run saves. */
ts_status ts_checkpoint_check_folder(const ts_trainer *trainer);
/* Does the run's folder hold a complete checkpoint? */
bool ts_checkpoint_exists(const char *run);

/* The model alone, as PyTorch loads it: a tensor for each of the model's, from device vectors.
 * `batches` is what PyTorch calls num_batches_tracked. */
ts_status ts_model_export(ts_model *model, const float *parameters, const float *statistics,
                          int64_t batches, const char *path, ts_stream *stream);
/* Into device vectors. `from`: a model file, a checkpoint's folder (the mean over its ranks), or a
 * run's for its model or its newest checkpoint, the later one. TS_EDATA names a tensor that is
 * missing or has another shape. */
ts_status ts_model_import(ts_model *model, float *parameters, float *statistics, const char *from,
                          ts_stream *stream);

#endif
