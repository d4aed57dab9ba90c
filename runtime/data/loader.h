/* loader.h - items made by threads ahead of the device, staged, and copied into a ring there.
 *
 * Items are numbered; each is `bytes` of pictures and a label. Threads make them in order, in
 * chunks of a batch, into a ring of pinned memory; whole chunks are copied to a ring on the device
 * by a copy stream, ahead of compute, which waits for the copy's event and nothing else. Item i
 * lies at i % ring on the device. One thread, the trainer's, calls everything here; what it calls
 * in a step never blocks while the items are there in time.
 *
 * With a rate, items come no faster than that: a chunk is due its time after the one before it, or
 * after there was room for it, counted from the first take. Without `make` there are no bytes and
 * no ring: the rate is all there is, and stands for a loader of that speed before a data set that
 * lives on the device. */
#ifndef TS_DATA_LOADER_H
#define TS_DATA_LOADER_H

#include "runtime/device/device.h"

typedef struct ts_loader ts_loader;

typedef struct ts_loader_options {
    int chunk;    /* items */
    int chunks;   /* in each ring, at least 3: two that compute reads, the rest is prefetch */
    int threads;  /* that make items; 0: they are made where they are needed, in ts_loader_take */
    size_t bytes; /* of an item */
    double rate;  /* items/s at most; 0: as fast as they are made */
    /* Item `item` into `bytes` and `label_p`; called by thread `thread` of `threads`. */
    ts_status (*make)(void *context, int thread, int64_t item, uint8_t *bytes, uint16_t *label_p);
    void *context;
} ts_loader_options;

/* The rings' memory is zeroed. Blocks. */
ts_status ts_loader_open(ts_device *device, const ts_loader_options *options, ts_loader **loader_p);
/* Waits for the items that are being made and the copies under way. */
void ts_loader_close(ts_loader *loader);
/* Device memory: [ring] items; chunk x chunks of them. NULL and 0 without `make`. */
uint8_t *ts_loader_bytes(const ts_loader *loader);
uint16_t *ts_loader_labels(const ts_loader *loader);
int64_t ts_loader_ring(const ts_loader *loader);

/* Begin to make items, from `first` on (or from the begin of its chunk). Once. */
ts_status ts_loader_start(ts_loader *loader, int64_t first);
/* Would a take up to `end` go without waiting for items to be made? Never blocks. */
ts_status ts_loader_has(ts_loader *loader, int64_t end, bool *has_p);
/* What is queued on compute from now on finds items [first, end) in the ring, and none before
 * `first`: their places are free when what is queued now has run. first and end never go back;
 * end - first is at most two chunks less one. Blocks until the last of them is made. A failure of
 * `make` comes back from here. */
ts_status ts_loader_take(ts_loader *loader, int64_t first, int64_t end, ts_stream *compute);

#endif
