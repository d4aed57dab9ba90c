/* vector_element.h - what vector.h does to one element; host and CUDA kernels both call these.
 *
 * Every product that is added is an explicit fmaf and contraction is off everywhere, so an
 * element's bits depend neither on the device nor on the width of a vector. */
#ifndef TS_DEVICE_VECTOR_ELEMENT_H
#define TS_DEVICE_VECTOR_ELEMENT_H

#include <math.h>

#include "runtime/base/type.h"

/* One SGD step: returns the new x, updates *m. `decay` is 0 where weight decay does not apply. */
TS_HD float ts_sgd_element(float x, float *m, float g, float learning_rate, float momentum,
                           float decay, int nesterov)
{
    float decayed = fmaf(decay, x, g);
    float m1 = fmaf(momentum, *m, decayed);
    float direction = nesterov ? fmaf(momentum, m1, decayed) : m1;
    *m = m1;
    return fmaf(-learning_rate, direction, x);
}

/* The same where g carries its momentum: *m is that of the weight decay. */
TS_HD float ts_sgd_carried_element(float x, float *m, float g, float learning_rate, float momentum,
                                   float decay, int nesterov)
{
    float decayed = decay * x;
    float m1 = fmaf(momentum, *m, decayed);
    float direction = g + (nesterov ? fmaf(momentum, m1, decayed) : m1);
    *m = m1;
    return fmaf(-learning_rate, direction, x);
}

/* The terms of a merge whose factor is not 0. */
enum { TS_MERGE_X = 1, TS_MERGE_AVERAGE = 2, TS_MERGE_SNAPSHOT = 4 };
TS_HD int ts_merge_terms(float a, float b, float c)
{
    return (a != 0 ? TS_MERGE_X : 0) | (b != 0 ? TS_MERGE_AVERAGE : 0) |
           (c != 0 ? TS_MERGE_SNAPSHOT : 0);
}

/* a x + (b average + c snapshot), of the terms that there are; the others are not used, whatever
 * they hold. With (1, 1, -1) both steps are plain: average - snapshot, then x plus that. */
TS_HD float ts_merge_element(int terms, float x, float average, float snapshot, float a, float b,
                             float c)
{
    float sum = 0;
    if (terms & TS_MERGE_AVERAGE) sum = b * average;
    if (terms & TS_MERGE_SNAPSHOT)
        sum = terms & TS_MERGE_AVERAGE ? fmaf(c, snapshot, sum) : c * snapshot;
    if (!(terms & TS_MERGE_X)) return sum;
    return terms == TS_MERGE_X ? a * x : fmaf(a, x, sum);
}

/* An outer step: returns the new z, updates *v. `average` less z is given where `change`. */
TS_HD float ts_outer_element(float z, float *v, float average, float momentum, float rate,
                             int change)
{
    float v1 = fmaf(momentum, *v, change ? -average : z - average);
    *v = v1;
    return fmaf(-rate, v1, z);
}

#endif
