/* element.h - per-element functions of ops, shared by the host, the reference and CUDA. */
#ifndef TS_OPS_ELEMENT_H
#define TS_OPS_ELEMENT_H

#include "ops/op.h"

/* Where element (n, c, h, w) of an activation of shape `s` lies. */
TS_HD size_t ts_layout_at(ts_layout layout, ts_shape s, int n, int c, int h, int w)
{
    size_t rows = (size_t)s.h, columns = (size_t)s.w;
    int block = ts_layout_block(layout);
    size_t blocks = (size_t)((s.c + block - 1) / block);
    if (layout == TS_NHWC || layout == TS_NHWC8)
        return (((size_t)n * rows + (size_t)h) * columns + (size_t)w) * blocks * (size_t)block +
               (size_t)c;
    size_t at = ((size_t)n * blocks + (size_t)(c / block)) * rows + (size_t)h;
    return (at * columns + (size_t)w) * (size_t)block + (size_t)(c % block);
}

/* NaN stays NaN, so that a model that has diverged shows it in its loss. */
TS_HD float ts_relu(float v)
{
    return v <= 0 ? 0 : v;
}

/* Does max pooling take v instead of the largest so far? NaN is larger than every number. */
TS_HD int ts_is_larger(float v, float most)
{
    return v > most || v != v;
}

/* Is element `i` of dropout node `node` kept in local step `step`? */
TS_HD int ts_dropout_keeps(uint64_t seed, int64_t step, int node, uint64_t i, float probability)
{
    ts_random4 r = ts_random(seed ^ 0xD50B0A7u, (uint64_t)step, ((uint64_t)node << 40) | (i >> 2));
    return ts_random_unit(r.v[i & 3]) >= probability;
}

/* Pooling: the inputs, or outputs, [from, to) of one direction. */
typedef struct ts_window {
    int from, to;
} ts_window;

/* Which of `in` inputs output `out` pools. */
TS_HD ts_window ts_input_window(const ts_op_desc *d, int out, int in)
{
    int kernel = d->kernel ? d->kernel : in, stride = d->kernel ? d->stride : in;
    ts_window w;
    w.from = out * stride - d->padding;
    w.to = w.from + kernel;
    if (w.from < 0) w.from = 0;
    if (w.to > in) w.to = in;
    return w;
}

/* Which outputs' windows hold input `at`. */
TS_HD ts_window ts_output_window(const ts_op_desc *d, int at, int in, int out)
{
    int kernel = d->kernel ? d->kernel : in, stride = d->kernel ? d->stride : in;
    int first = at + d->padding - kernel + stride; /* smallest o with o stride > at + p - k */
    ts_window w;
    w.from = first < 0 ? 0 : first / stride;
    w.to = (at + d->padding) / stride + 1;
    if (w.to > out) w.to = out;
    return w;
}

/* Average pooling: the share of output (i, j) that each input of its window has. */
TS_HD float ts_pool_share(const ts_op_desc *d, int i, int j)
{
    ts_window a = ts_input_window(d, i, d->in.h), b = ts_input_window(d, j, d->in.w);
    return 1.0f / (float)((a.to - a.from) * (b.to - b.from));
}

#endif
