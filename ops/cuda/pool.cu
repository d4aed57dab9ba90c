/* pool.cu - pooling on CUDA: a thread an element, channels side by side (NHWC) or not. Backward
 * gathers, as on the host: each input pixel sums what the windows over it send, in a fixed order.
 */
#include "ops/cuda/cuda_op.h"
#include "ops/cuda/element.cuh"

enum { THREADS = 256 };

/* Elements from one picture, row, column, channel to the next. */
typedef struct strides {
    size_t n, h, w, c;
} strides;

typedef struct pool {
    ts_op_desc d;
    strides in, out;
    const void *x, *dy, *dy2;
    void *y, *dx;
    int32_t *place; /* [out] the input pixel of each maximum, by element of y in n, h, w, c order */
    bool bf16, max;
} pool;

typedef struct place {
    int n, h, w, c;
} place;

static strides strides_of(ts_layout layout, ts_shape s)
{
    size_t c = (size_t)s.c, h = (size_t)s.h, w = (size_t)s.w;
    strides last = {h * w * c, w * c, c, 1}, first = {c * h * w, w, 1, h * w};
    return layout == TS_NHWC ? last : first;
}

__device__ static size_t at(const strides &s, int n, int h, int w, int c)
{
    return (size_t)n * s.n + (size_t)h * s.h + (size_t)w * s.w + (size_t)c * s.c;
}

/* The i-th element in n, h, w, c order. */
__device__ static place place_of(ts_shape s, size_t i)
{
    place p;
    p.c = (int)(i % (size_t)s.c);
    i /= (size_t)s.c;
    p.w = (int)(i % (size_t)s.w);
    i /= (size_t)s.w;
    p.h = (int)(i % (size_t)s.h);
    p.n = (int)(i / (size_t)s.h);
    return p;
}

__global__ static void __launch_bounds__(THREADS) forward(const __grid_constant__ pool k)
{
    const ts_op_desc &d = k.d;
    const size_t all = (size_t)d.out.n * (size_t)d.out.h * (size_t)d.out.w * (size_t)d.out.c;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < all;
         i += (size_t)gridDim.x * THREADS) {
        place p = place_of(d.out, i);
        ts_window rows = ts_input_window(&d, p.h, d.in.h),
                  columns = ts_input_window(&d, p.w, d.in.w);
        float most = -INFINITY, sum = 0;
        int best = rows.from * d.in.w + columns.from;
        for (int h = rows.from; h < rows.to; h++)
            for (int w = columns.from; w < columns.to; w++) {
                float v = ts_load(k.x, at(k.in, p.n, h, w, p.c), k.bf16);
                sum += v;
                if (ts_is_larger(v, most)) {
                    most = v;
                    best = h * d.in.w + w;
                }
            }
        float share = ts_pool_share(&d, p.h, p.w);
        ts_store(k.y, at(k.out, p.n, p.h, p.w, p.c), k.max ? most : sum * share, k.bf16);
        if (k.max && d.training) k.place[i] = best;
    }
}

__global__ static void __launch_bounds__(THREADS) backward(const __grid_constant__ pool k)
{
    const ts_op_desc &d = k.d;
    const size_t all = (size_t)d.in.n * (size_t)d.in.h * (size_t)d.in.w * (size_t)d.in.c;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < all;
         i += (size_t)gridDim.x * THREADS) {
        place p = place_of(d.in, i);
        ts_window rows = ts_output_window(&d, p.h, d.in.h, d.out.h);
        ts_window columns = ts_output_window(&d, p.w, d.in.w, d.out.w);
        float sum = 0;
        for (int h = rows.from; h < rows.to; h++)
            for (int w = columns.from; w < columns.to; w++) {
                size_t from = at(k.out, p.n, h, w, p.c);
                float g = ts_load(k.dy, from, k.bf16);
                if (k.dy2) g += ts_load(k.dy2, from, k.bf16);
                if (k.max) {
                    size_t o = (((size_t)p.n * d.out.h + h) * d.out.w + w) * d.out.c + p.c;
                    sum += k.place[o] == p.h * d.in.w + p.w ? g : 0;
                } else {
                    sum += g * ts_pool_share(&d, h, w);
                }
            }
        ts_store(k.dx, at(k.in, p.n, p.h, p.w, p.c), sum, k.bf16);
    }
}

static pool pool_of(const ts_op_run *r)
{
    const ts_op_args *a = &r->args;
    const ts_op_desc *d = &r->op->desc;
    pool k = {*d,
              strides_of(d->in_layout, d->in),
              strides_of(d->layout, d->out),
              a->x,
              a->dy,
              a->dy2,
              a->y,
              a->dx,
              (int32_t *)a->saved,
              d->type == TS_BF16,
              d->kind == TS_OP_MAX_POOL};
    return k;
}

static const char *pool_refuses(const ts_op_desc *d)
{
    bool in = d->in_layout == TS_NHWC || d->in_layout == TS_NCHW;
    bool out = d->layout == TS_NHWC || d->layout == TS_NCHW;
    return in && out ? NULL : "pooling is served in NHWC and NCHW";
}

static void pool_size(ts_op *op)
{
    if (op->desc.kind == TS_OP_MAX_POOL && op->desc.training)
        op->saved_bytes = ts_shape_count(op->desc.out) * sizeof(int32_t);
}

static ts_status pool_forward(const ts_op_run *r, void *cuda_stream)
{
    pool k = pool_of(r);
    forward<<<ts_cuda_blocks(ts_shape_count(k.d.out), THREADS), THREADS, 0,
              (cudaStream_t)cuda_stream>>>(k);
    return TS_CUDA_LAUNCHED("pooling forward");
}

static ts_status pool_backward(const ts_op_run *r, void *cuda_stream)
{
    pool k = pool_of(r);
    backward<<<ts_cuda_blocks(ts_shape_count(k.d.in), THREADS), THREADS, 0,
               (cudaStream_t)cuda_stream>>>(k);
    return TS_CUDA_LAUNCHED("pooling backward");
}

const ts_cuda_kind ts_cuda_pool = {pool_refuses, pool_size, pool_forward, pool_backward, NULL};
