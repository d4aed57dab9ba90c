/* data.h - data sets as bytes, and batches made from them on the device. Small data sets live there
 * as a whole; of large ones a feed keeps what the next steps need in a ring (feed.h).
 *
 * Order and augmentation are functions of (seed, epoch, sample): the same run whatever the number
 * of threads, the same bits on host and CUDA (augment_element.h). */
#ifndef TS_DATA_DATA_H
#define TS_DATA_DATA_H

#include "models/model.h" /* ts_batch */
#include "runtime/data/echo.h"
#include "runtime/device/control.h"
#include "runtime/device/device.h"

typedef struct ts_split {
    int64_t n;
    uint8_t *images;       /* device, [n][c][h][w] as in the files; or [ring][copies][c][h][w] */
    uint16_t *labels;      /* device, [n]; or [ring] */
    uint16_t *host_labels; /* [n], a copy, for shards by class */
    int64_t ring; /* 0: all n lie there; else so many, which a feed fills in turn and owns */
    int copies;   /* of a ring: pictures of a sample, more than 1 for an echo that needs them */
} ts_split;

typedef struct ts_records ts_records;

typedef struct ts_dataset {
    const char *name; /* "cifar10", "cifar100", "synthetic", "records" */
    ts_device *device;
    ts_shape picture; /* n is 1 */
    int classes;
    float mean[3], std[3]; /* of a channel, in units of a byte's 0..255 */
    ts_split train, test;
    ts_records *records; /* where the pictures are read; NULL: they live on the device */
} ts_dataset;

/* `source`: "cifar10:DIR" and "cifar100:DIR" (the original binary layout; DIR holds the .bin
 * files or the folder of the download), "synthetic" or "synthetic:train=N,test=N,size=S,
 * classes=C,seed=X", "records:FILE[,size=S,...]" (records.h). A missing folder, a file of the wrong
 * size or a label out of range is TS_EDATA that says which file, what was found and what was
 * expected. Blocks. */
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
    ts_echo echo;
} ts_augment;

/* Enqueue: fill `batch` with this rank's samples at the control block's epoch and position, which
 * goes on in the next epoch where the batch crosses its end: gather, crop, flip, normalise, cast,
 * lay out, in one pass; labels as int32. Pictures of a ring were cropped when they were read. */
ts_status ts_data_train_batch(const ts_dataset *dataset, const ts_shard *shard,
                              const ts_augment *augment, const ts_control *control,
                              const ts_batch *batch, ts_stream *stream);
/* Enqueue: samples first, first + 1, ... of the test split, not augmented; places past the end
 * get label -1, which the loss ignores. `item`: of a ring, the feed's number of the first. */
ts_status ts_data_test_batch(const ts_dataset *dataset, int64_t first, int64_t item,
                             const ts_batch *batch, ts_stream *stream);

#endif
