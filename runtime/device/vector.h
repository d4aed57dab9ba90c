/* vector.h - arithmetic on flat vectors: each call is one kernel and one pass over memory.
 *
 * n counts elements. Per-element functions live in vector_element.h, with explicit fmaf and no
 * contraction, so that host and CUDA give the same bits whatever the vector width. */
#ifndef TS_DEVICE_VECTOR_H
#define TS_DEVICE_VECTOR_H

#include "runtime/device/control.h"
#include "runtime/device/device.h"

enum { TS_VECTOR_BLOCK = 64 }; /* tensors in a flat buffer are padded to this many elements */

/* SGD with momentum, as PyTorch defines it:
 *   g' = g + weight_decay x (where the block decays) ; m <- momentum m + g'
 *   d = nesterov ? g' + momentum m : m               ; x <- x - learning_rate d
 * and shadow <- bf16(x). With `carried`, g has its momentum in it already (a compressor's momentum
 * correction) and m gathers that of the weight decay alone: two parts of the same sum. */
typedef struct ts_sgd {
    size_t n;                  /* a multiple of TS_VECTOR_BLOCK */
    float *x;                  /* [n] fp32 master parameters */
    uint16_t *shadow;          /* [n] bf16 copy, or NULL */
    float *m;                  /* [n] momentum */
    const float *g;            /* [n] gradients */
    const uint8_t *decays;     /* [n / TS_VECTOR_BLOCK] 1 where weight decay applies; NULL: all */
    const ts_control *control; /* learning_rate is read when the kernel runs */
    float momentum, weight_decay;
    bool nesterov, carried;
} ts_sgd;
ts_status ts_vector_sgd(ts_stream *stream, const ts_sgd *sgd);

/* x <- a x + b avg + c s, shadow <- bf16(x). avg or s may be NULL when its factor is 0.
 * CoCoD's merge is (1, 1, -1), DaSGD's (xi, 1 - xi, 0), Local-SGD's (0, 1, 0). With a = 0, x is
 * not read; with a = 1, b = 1, c = -1 the sum is x + (avg - s). */
typedef struct ts_merge {
    size_t n;
    float *x;
    uint16_t *shadow; /* or NULL */
    const float *average;
    const float *snapshot;
    float a, b, c;
} ts_merge;
ts_status ts_vector_merge(ts_stream *stream, const ts_merge *merge);

/* A step of an outer model by momentum over what ranks have found (SlowMo, arXiv:1910.00643, with
 * v = learning rate * u):  v <- momentum v + (z - average) ; z <- z - rate v ; average <- z
 * `average` may hold the change average - z instead. */
typedef struct ts_outer {
    size_t n;
    float *z, *v;
    float *average;
    float momentum, rate;
    bool change;
} ts_outer;
ts_status ts_vector_outer(ts_stream *stream, const ts_outer *outer);

/* to[i] <- bf16(from[i]) and back. */
ts_status ts_vector_to_bf16(ts_stream *stream, size_t n, uint16_t *to, const float *from);
ts_status ts_vector_from_bf16(ts_stream *stream, size_t n, float *to, const uint16_t *from);
/* x <- factor x. */
ts_status ts_vector_scale(ts_stream *stream, size_t n, float *x, float factor);

#endif
