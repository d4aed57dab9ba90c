/* pace.h - local steps that take a given time, so that the host device stands for a device of
 * another speed: one worker of many on a few cores, a slower worker among others.
 *
 * The work is done and then waited out, layer by layer: after each layer the compute stream sleeps
 * until that layer's share of the time has passed (a third of it for forward; within a pass by
 * multiply-adds), so a bucket of gradients is complete when it would be on that device. Work that
 * takes longer than its share is not shortened. The update and merges come on top. The time goes
 * with the workspace's batch: half of the pictures take half of it. */
#ifndef TS_TRAIN_PACE_H
#define TS_TRAIN_PACE_H

#include "models/model.h"

typedef struct ts_pace ts_pace;

/* `seconds`: of forward and backward together, for a batch of `pictures`. TS_EUSAGE on a device
 * other than the host. */
ts_status ts_pace_open(ts_device *device, const ts_model *model, double seconds, int64_t pictures,
                       ts_pace **pace_p);
/* When no step is queued any more. */
void ts_pace_close(ts_pace *pace);

/* The step's time begins when `stream` comes here. Without a pace (NULL) this does nothing, and
 * the two below are ts_workspace_forward and ts_workspace_backward over all nodes. */
ts_status ts_pace_begin(ts_pace *pace, ts_stream *stream);
ts_status ts_pace_forward(ts_pace *pace, ts_workspace *workspace, int nodes, ts_stream *stream);
ts_status ts_pace_backward(ts_pace *pace, ts_workspace *workspace, int nodes, float *gradients,
                           ts_ready *ready, void *context, ts_stream *stream);

#endif
