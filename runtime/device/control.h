/* control.h - everything that changes from step to step, in one small block of device memory.
 *
 * Kernels take a pointer to it, never a scalar that changes, so a captured step is never
 * captured again. The tick kernel (runtime/train/schedule.h) advances it at the end of each
 * local step; the loss kernel adds to the sums. */
#ifndef TS_DEVICE_CONTROL_H
#define TS_DEVICE_CONTROL_H

#include <stdint.h>

typedef struct ts_control {
    int64_t step;     /* local steps finished */
    int64_t epoch;    /* passes over the training set finished by this rank */
    int64_t position; /* samples of this rank's share taken in this epoch */
    uint64_t seed;    /* of shuffling, augmentation and dropout */
    float learning_rate;
    float averaging_weight; /* this rank's share in a weighted average */
    /* Sums since the start of the run; readers take differences. */
    double loss_sum; /* over samples */
    int64_t correct; /* top-1 */
    int64_t samples;
    int64_t not_finite; /* samples whose loss was not finite; they do not enter loss_sum */
    struct {
        double loss_sum;
        int64_t samples;
    } evaluated;     /* what these were at the last evaluation; the host writes them */
    int64_t repeats; /* times that an automatic echo has used the batch at `position` before */
    int64_t echoed;  /* local steps made while an average was late, which `step` does not count */
} ts_control;

#endif
