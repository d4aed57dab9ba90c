/* dataset.h - what a source of pictures hands to dataset.c: bytes in host memory. */
#ifndef TS_DATA_DATASET_H
#define TS_DATA_DATASET_H

#include "runtime/data/data.h"

typedef struct ts_pictures {
    int64_t n;
    uint8_t *images;  /* [n][c][h][w], malloc */
    uint16_t *labels; /* [n], malloc */
} ts_pictures;

/* A channel's mean and deviation from the sums of n bytes and of their squares. */
void ts_dataset_moments(double sum, double squares, double n, float *mean_p, float *std_p);

typedef struct ts_source {
    const char *name; /* "cifar10": what stands before ':' in --data */
    /* Fills the picture shape, classes and both splits; `argument` is what stands behind ':'. */
    ts_status (*load)(const char *argument, ts_dataset *dataset, ts_pictures *train,
                      ts_pictures *test);
    /* Instead of load, for pictures that stay in their file and are read while training runs
     * (feed.h): fills shape, classes, mean, deviation, and of both splits all but the memory. */
    ts_status (*open)(const char *argument, ts_dataset *dataset);
} ts_source;

extern const ts_source ts_source_cifar10, ts_source_cifar100, ts_source_synthetic,
    ts_source_records;

#endif
