/* data.h - data sets that live on the device as bytes, and batches made from them there.
 *
 * Order and augmentation are functions of (seed, epoch, sample): the same run whatever the number
 * of threads, the same bits on host and CUDA (augment_element.h). */
#ifndef TS_DATA_DATA_H
#define TS_DATA_DATA_H

#include "models/model.h" /* ts_batch */
#include "runtime/device/control.h"
#include "runtime/device/device.h"

typedef struct ts_split {
    int64_t n;
    uint8_t *images;      /* device, [n][c][h][w] as in the files */
    uint8_t *labels;      /* device, [n] */
    uint8_t *host_labels; /* a copy, for shards by class */
} ts_split;

typedef struct ts_dataset {
    const char *name; /* "cifar10", "cifar100", "synthetic" */
    ts_device *device;
    ts_shape picture; /* n is 1 */
    int classes;
    float mean[3], std[3]; /* of a channel, in units of a byte's 0..255 */
    ts_split train, test;
} ts_dataset;

/* `source`: "cifar10:DIR" and "cifar100:DIR" (the original binary layout; DIR holds the .bin
 * files or the folder of the download), "synthetic" or "synthetic:train=N,test=N,size=S,
 * classes=C,seed=X". A missing folder, a file of the wrong size or a label out of range is
 * TS_EDATA that says which file, what was found and what was expected. Blocks. */
ts_status ts_dataset_open(ts_device *device, const char *source, ts_dataset **dataset_p);
void ts_dataset_close(ts_dataset *dataset);

/* Which samples a rank sees. */
typedef struct ts_shard {
    int64_t n;        /* samples of this rank in an epoch, a multiple of the batch */
    int64_t pool;     /* samples it draws from */
    int32_t *samples; /* device, [pool] this rank's own samples; NULL: all of the split, in turns
                         of one common shuffled order: of each `global` `batch` from `first` on */
    int rank, batch;
    int64_t first, global;
} ts_shard;
/* `batches` [size] of all ranks; a rank's share of the split is in proportion to its own, so that
 * all have as many steps in an epoch. `skew` 0: one common shuffled order (IID). 0 < skew <= 1:
 * that share of the split is dealt out sorted by class, the rest in turn (non-IID); each rank
 * shuffles its own. The last incomplete global batch of an epoch is dropped. TS_EUSAGE when the
 * batches together exceed the split. */
ts_status ts_shard_open(const ts_dataset *dataset, int rank, int size, const int *batches,
                        double skew, uint64_t seed, ts_shard *shard);
void ts_shard_close(const ts_dataset *dataset, ts_shard *shard);

typedef struct ts_augment {
    bool flip;
    int crop; /* pixels of zero padding before a random crop; 0: none */
    bool shuffle;
} ts_augment;

/* Enqueue: fill `batch` with this rank's samples at the control block's epoch and position:
 * gather, crop, flip, normalise, cast, lay out, in one pass; labels as int32. */
ts_status ts_data_train_batch(const ts_dataset *dataset, const ts_shard *shard,
                              const ts_augment *augment, const ts_control *control,
                              const ts_batch *batch, ts_stream *stream);
/* Enqueue: samples first, first + 1, ... of the test split, not augmented; places past the end
 * get label -1, which the loss ignores. */
ts_status ts_data_test_batch(const ts_dataset *dataset, int64_t first, const ts_batch *batch,
                             ts_stream *stream);

#endif
