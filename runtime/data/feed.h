/* feed.h - a loader (loader.h) for a split: which picture is item i, and how it is read.
 *
 * For training, item i is the i-th fresh sample of this rank, in the order of its epochs (echo.h):
 * item / shard.n is the epoch, the rest the position in it. For evaluation the items are the rank's
 * test batches, over and over, so that the first are there when the next evaluation begins. What an
 * item is depends on (seed, item) only, never on the number of threads or on timing. */
#ifndef TS_DATA_FEED_H
#define TS_DATA_FEED_H

#include "runtime/data/data.h"
#include "runtime/data/loader.h"

typedef struct ts_feed ts_feed;

typedef struct ts_feed_options {
    int threads; /* that read; 0: the cores this process may use, shared by `ranks` */
    int ranks;
    int prefetch; /* batches read ahead, in pinned memory and on the device each */
    double rate;  /* samples/s at most; 0: as fast as it goes */
} ts_feed_options;

/* Of records: the training split's ring is the feed's from now on. Of a data set that lives on the
 * device: no bytes move, the feed is its rate; without a rate there is none, *feed_p is NULL.
 * `augment`: crop 0 takes the middle of each picture, else a random part of it. */
ts_status ts_feed_train(ts_dataset *dataset, const ts_shard *shard, const ts_augment *augment,
                        uint64_t seed, const ts_feed_options *options, ts_feed **feed_p);
/* Of records: for `batch` of each `global` pictures of the test split, from `first` on, as `part`
 * has them; else NULL, as for a rank that has none. It is started. */
ts_status ts_feed_test(ts_dataset *dataset, const ts_shard *part, const ts_feed_options *options,
                       ts_feed **feed_p);
void ts_feed_close(ts_feed *feed);
ts_loader *ts_feed_loader(ts_feed *feed);

#endif
