/* batch_job.h - the argument of the kernel that makes a batch, on host and CUDA. */
#ifndef TS_DATA_BATCH_JOB_H
#define TS_DATA_BATCH_JOB_H

#include "runtime/data/augment_element.h"
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
    int rank;
    int64_t turn, global; /* a shard's first and global */
} ts_batch_job;

/* The sample that is picture n of the batch, -1 past the end of the split, and its augmentation. */
TS_HD int64_t ts_batch_sample(const ts_batch_job *j, int n, ts_augmentation *augmentation_p)
{
    ts_augmentation none = {0, 0, 0};
    int64_t sample = j->first + n;
    *augmentation_p = none;
    if (j->control) {
        const ts_control *c = j->control;
        sample = ts_sample_at(c->seed, c->epoch, c->position + n, j->pool, j->rank, j->turn,
                              j->global, j->batch.shape.n, j->samples != NULL,
                              j->augment.shuffle);
        if (j->samples) sample = j->samples[sample];
        *augmentation_p =
            ts_augmentation_of(c->seed, c->epoch, sample, j->augment.crop, j->augment.flip);
    }
    return sample < j->split.n ? sample : -1;
}

#ifdef __cplusplus
extern "C"
#else
_Static_assert(sizeof(ts_batch_job) <= TS_KERNEL_ARGS_MAX, "a batch's arguments fit a kernel's");
#endif
    ts_status
    ts_batch_enqueue(const void *batch_job, void *cuda_stream);

#endif
