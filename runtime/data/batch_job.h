/* batch_job.h - the argument of the kernel that makes a batch, on host and CUDA. */
#ifndef TS_DATA_BATCH_JOB_H
#define TS_DATA_BATCH_JOB_H

#include "runtime/data/data.h"

enum { TS_CHANNELS = 3 };

typedef struct ts_batch_job {
    ts_split split;
    ts_shape picture;
    float mean[TS_CHANNELS], scale[TS_CHANNELS];
    ts_batch batch;
    const ts_control *control; /* training; NULL: the test split from `first` on */
    int64_t first;
    ts_augment augment;
    int64_t pool;
    const int32_t *samples;
    int rank, size;
} ts_batch_job;

#ifdef __cplusplus
extern "C"
#else
_Static_assert(sizeof(ts_batch_job) <= TS_KERNEL_ARGS_MAX, "a batch's arguments fit a kernel's");
#endif
    ts_status
    ts_batch_enqueue(const void *batch_job, void *cuda_stream);

#endif
