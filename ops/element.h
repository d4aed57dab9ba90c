/* element.h - per-element functions of ops, shared by the host, the reference and CUDA. */
#ifndef TS_OPS_ELEMENT_H
#define TS_OPS_ELEMENT_H

#include "ops/op.h"

/* Where element (n, c, h, w) of an activation of shape `s` lies. */
TS_HD size_t ts_layout_at(ts_layout layout, ts_shape s, int n, int c, int h, int w)
{
    size_t rows = (size_t)s.h, columns = (size_t)s.w;
    if (layout == TS_NHWC)
        return (((size_t)n * rows + (size_t)h) * columns + (size_t)w) * (size_t)s.c + (size_t)c;
    int block = layout == TS_NCHW8C ? 8 : layout == TS_NCHW16C ? 16 : 1;
    size_t blocks = (size_t)((s.c + block - 1) / block);
    size_t at = ((size_t)n * blocks + (size_t)(c / block)) * rows + (size_t)h;
    return (at * columns + (size_t)w) * (size_t)block + (size_t)(c % block);
}

/* Is element `i` of dropout node `node` kept in local step `step`? */
TS_HD int ts_dropout_keeps(uint64_t seed, int64_t step, int node, uint64_t i, float probability)
{
    ts_random4 r = ts_random(seed ^ 0xD50B0A7u, (uint64_t)step, ((uint64_t)node << 40) | (i >> 2));
    return ts_random_unit(r.v[i & 3]) >= probability;
}

#endif
