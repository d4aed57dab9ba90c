/* augment_element.h - which sample is where and how it is augmented: functions of (seed, epoch,
 * sample) alone, the same on host and CUDA. */
#ifndef TS_DATA_AUGMENT_ELEMENT_H
#define TS_DATA_AUGMENT_ELEMENT_H

#include "runtime/data/data.h"

/* The sample at a rank's `position` of an epoch. All ranks share one order of the pool and take
 * turns in it: of each `global` samples in a row this rank has `batch`, from `first` on. Or, where
 * the rank has samples of its own, each has its own order, and this is a place among them. */
TS_HD int64_t ts_sample_at(const ts_shard *s, uint64_t seed, int64_t epoch, int64_t position,
                           int shuffle)
{
    int own = s->samples != NULL, batch = s->batch;
    int64_t i = own ? position : position / batch * s->global + s->first + position % batch;
    if (!shuffle) return i;
    uint64_t stream = (uint64_t)epoch << 20 | (own ? (uint64_t)s->rank + 1 : 0);
    return (int64_t)ts_random_permute(seed, stream, (uint64_t)s->pool, (uint64_t)i);
}

typedef struct ts_augmentation {
    int flip, dx, dy; /* the source pixel of (x, y) is (x + dx, y + dy), mirrored first */
} ts_augmentation;

/* The words that augment a sample; `copy`: which of the uses that an echo makes of it. */
TS_HD ts_random4 ts_augmentation_words(uint64_t seed, int64_t epoch, int64_t sample, int copy)
{
    return ts_random(seed ^ UINT64_C(0xA06E47A7104), (uint64_t)epoch | (uint64_t)copy << 40,
                     (uint64_t)sample);
}

/* `crop`: zero padding on each side, of which a window of the picture's size is taken. */
TS_HD ts_augmentation ts_augmentation_of(uint64_t seed, int64_t epoch, int64_t sample, int copy,
                                         int crop, int flip)
{
    ts_random4 r = ts_augmentation_words(seed, epoch, sample, copy);
    uint32_t places = 2u * (uint32_t)crop + 1u;
    ts_augmentation a;
    a.flip = flip && (r.v[0] & 1u);
    a.dx = (int)(((uint64_t)r.v[1] * places) >> 32) - crop;
    a.dy = (int)(((uint64_t)r.v[2] * places) >> 32) - crop;
    return a;
}

#endif
