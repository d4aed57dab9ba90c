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
    int64_t first, item;       /* of the test split; of its ring */
    ts_augment augment;
    ts_shard shard;
} ts_batch_job;

/* A picture of the batch. */
typedef struct ts_batch_picture {
    int64_t sample;       /* -1: past the end of the split */
    int64_t label, image; /* where they lie: indices of the split's */
    ts_augmentation augmentation;
} ts_batch_picture;

TS_HD ts_batch_picture ts_batch_find(const ts_batch_job *j, int n)
{
    ts_batch_picture p = {j->first + n, 0, 0, {0, 0, 0}};
    int64_t item = j->item + n; /* the picture's number in the order of a ring */
    int copy = 0;
    if (j->control) {
        const ts_control *c = j->control;
        const ts_shard *s = &j->shard;
        int64_t epoch = c->epoch, position = c->position + n;
        if (position >= s->n) {
            position -= s->n;
            epoch++;
        }
        item = epoch * s->n + position;
        p.sample = ts_sample_at(s, c->seed, epoch, position, j->augment.shuffle);
        if (s->samples) p.sample = s->samples[p.sample];
        copy = ts_echo_copy(&j->augment.echo, c->step, s->batch, n, c->repeats);
        p.augmentation =
            ts_augmentation_of(c->seed, epoch, p.sample, copy, j->augment.crop, j->augment.flip);
    }
    if (p.sample >= j->split.n) p.sample = -1;
    if (j->split.ring) {
        int last = j->split.copies - 1;
        p.label = item % j->split.ring;
        p.image = p.label * j->split.copies + (copy < last ? copy : last);
    } else if (p.sample >= 0) {
        p.label = p.image = p.sample;
    }
    return p;
}

#ifdef __cplusplus
extern "C"
#else
_Static_assert(sizeof(ts_batch_job) <= TS_KERNEL_ARGS_MAX, "a batch's arguments fit a kernel's");
#endif
    ts_status
    ts_batch_enqueue(const void *batch_job, void *cuda_stream);

#endif
