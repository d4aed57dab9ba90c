/* batch_norm.cu - batch norm on CUDA: sums, one small kernel for the channels, one pass to apply.
 *
 * Plain grids and a fixed order: each block sums its rows of up to 256 channels, a warp a channel
 * adds the blocks' sums, so results do not depend on what else runs, and nothing
 * waits for free processors (a grid barrier beside a collective would). An activation is rows x
 * channels (NHWC), eight channels a thread. The maths is norm_element.h's. */
#include "ops/cuda/cuda_op.h"
#include "ops/cuda/element.cuh"
#include "ops/norm_element.h"

enum { THREADS = 256, WARP = 32, LANES_MAX = 32, PARTS_MAX = 512 };

typedef struct norm_args {
    ts_op_desc d;
    const void *x, *residual, *dy, *dy2;
    void *y, *dx, *dresidual;
    const float *weight, *bias;
    float *dweight, *dbias, *running;
    float *saved;   /* [4][c] mean, inverse, gain, bias */
    float *factors; /* [3][c] backward: scale, slope, shift; inference: gain, bias */
    double *sums;   /* [parts][2][c] */
    int rows, parts;
    bool bf16;
    ts_norm_mask mask;
} norm_args;

/* Parts of the rows that are summed apart: enough blocks for every processor, rows for each. */
static int parts_of(const ts_op_desc *d)
{
    int rows = d->in.n * d->in.h * d->in.w, vectors = d->in.c / TS_VEC;
    int groups = (vectors + LANES_MAX - 1) / LANES_MAX;
    int parts = 4 * ts_cuda_processors() / groups, most = (rows + 63) / 64;
    if (parts > most) parts = most;
    if (parts > PARTS_MAX) parts = PARTS_MAX;
    return parts < 1 ? 1 : parts;
}

static norm_args norm_of(const ts_op_run *r)
{
    const ts_op_args *a = &r->args;
    const ts_op_desc *d = &r->op->desc;
    norm_args k;
    memset(&k, 0, sizeof k);
    k.d = *d;
    k.x = a->x;
    k.residual = d->add ? a->residual : NULL;
    k.y = a->y;
    k.dy = a->dy;
    k.dy2 = a->dy2;
    k.dx = a->dx;
    k.dresidual = a->dresidual;
    k.weight = a->weight;
    k.bias = a->bias;
    k.dweight = a->dweight;
    k.dbias = a->dbias;
    k.running = a->running;
    k.saved = (float *)a->saved;
    k.rows = d->in.n * d->in.h * d->in.w;
    k.parts = parts_of(d);
    k.sums = (double *)a->scratch;
    k.factors = (float *)(k.sums + (size_t)k.parts * 2 * (size_t)d->in.c);
    k.bf16 = d->type == TS_BF16;
    k.mask = ts_norm_mask_of(d);
    return k;
}

static const char *norm_refuses(const ts_op_desc *d)
{
    bool rows = d->in_layout == TS_NHWC || (d->in_layout == TS_NCHW && d->in.h * d->in.w == 1);
    if (!rows || d->layout != d->in_layout) return "batch norm is served in NHWC";
    if (ts_shape_count(d->in) / TS_VEC > UINT32_MAX / 2) return "more than 2^34 elements";
    return d->in.c % TS_VEC ? "batch norm is served for multiples of 8 channels" : NULL;
}

static void norm_size(ts_op *op)
{
    const ts_op_desc *d = &op->desc;
    size_t c = (size_t)d->in.c;
    op->saved_bytes = d->training ? 4 * c * sizeof(float) : 0;
    op->scratch_bytes = (size_t)parts_of(d) * 2 * c * sizeof(double) + 3 * c * sizeof(float);
}

/* The gradient behind the ReLU of eight channels from c on, whose x is given. */
__device__ static ts_vec gradient_at(const norm_args &k, size_t v, int c, ts_vec x)
{
    size_t channels = (size_t)k.d.in.c;
    ts_vec g = ts_load8(k.dy, v, k.bf16), g2 = {}, y = {}, gain = {}, bias = {};
    if (k.dy2) g2 = ts_load8(k.dy2, v, k.bf16);
    if (k.mask == TS_MASK_Y) y = ts_load8(k.y, v, k.bf16);
    if (k.mask == TS_MASK_X) {
        gain = ts_load8(k.saved + 2 * channels, (size_t)c / TS_VEC, false);
        bias = ts_load8(k.saved + 3 * channels, (size_t)c / TS_VEC, false);
    }
#pragma unroll
    for (int i = 0; i < TS_VEC; i++) {
        if (k.dy2) g.f[i] += g2.f[i];
        g.f[i] = ts_norm_masked(g.f[i], k.mask, x.f[i], gain.f[i], bias.f[i], y.f[i]);
    }
    return g;
}

/* Sums of e and e^2 (forward: e is x - center), or of g and g e (backward: e is x - mean). */
__global__ static void __launch_bounds__(THREADS) sum_rows(norm_args k, bool backward)
{
    __shared__ float shared[2][THREADS][TS_VEC];
    const int vectors = k.d.in.c / TS_VEC, lanes = vectors < LANES_MAX ? vectors : LANES_MAX;
    const int lane = (int)threadIdx.x % lanes, row0 = (int)threadIdx.x / lanes;
    const int rows_at_once = THREADS / lanes, vector = (int)blockIdx.x * lanes + lane;
    const int part = (int)blockIdx.y, each = (k.rows + k.parts - 1) / k.parts;
    const int first = part * each, last = first + each < k.rows ? first + each : k.rows;
    ts_vec sum = {}, sum2 = {}, center;
    if (vector < vectors && row0 < rows_at_once) {
        if (backward)
            for (int i = 0; i < TS_VEC; i++) center.f[i] = k.saved[vector * TS_VEC + i];
        else
            center = ts_load8(k.x, (size_t)vector, k.bf16);
#pragma unroll 4 /* so many loads are under way at once */
        for (int row = first + row0; row < last; row += rows_at_once) {
            size_t v = (size_t)row * (size_t)vectors + (size_t)vector;
            ts_vec x = ts_load8(k.x, v, k.bf16), g;
            if (backward) g = gradient_at(k, v, vector * TS_VEC, x);
#pragma unroll
            for (int i = 0; i < TS_VEC; i++) {
                float e = x.f[i] - center.f[i], t = backward ? g.f[i] : e;
                sum.f[i] += t;
                sum2.f[i] = fmaf(t, e, sum2.f[i]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < TS_VEC; i++) {
        shared[0][threadIdx.x][i] = sum.f[i];
        shared[1][threadIdx.x][i] = sum2.f[i];
    }
    __syncthreads();
    /* thread t adds the rows of one channel, in order */
    for (int t = (int)threadIdx.x; t < 2 * lanes * TS_VEC; t += THREADS) {
        int which = t / (lanes * TS_VEC), at = t % (lanes * TS_VEC);
        int c = (int)blockIdx.x * lanes * TS_VEC + at;
        double total = 0;
        for (int row = 0; row < rows_at_once; row++)
            total += shared[which][row * lanes + at / TS_VEC][at % TS_VEC];
        if (c < k.d.in.c)
            k.sums[((size_t)part * 2 + (size_t)which) * (size_t)k.d.in.c + (size_t)c] = total;
    }
}

/* A warp adds the parts of a channel: each lane its own in order, then all lanes as a tree. */
__device__ static void add_parts(const norm_args &k, int c, double *sum, double *sum2)
{
    *sum = *sum2 = 0;
    for (int part = (int)threadIdx.x % WARP; part < k.parts; part += WARP) {
        const double *at = k.sums + (size_t)part * 2 * (size_t)k.d.in.c + c;
        *sum += at[0];
        *sum2 += at[k.d.in.c];
    }
    for (int o = WARP / 2; o; o /= 2) {
        *sum += __shfl_xor_sync(0xffffffffu, *sum, o);
        *sum2 += __shfl_xor_sync(0xffffffffu, *sum2, o);
    }
}

__device__ static int channel_of_warp(void)
{
    return (int)(blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP);
}

__global__ static void __launch_bounds__(THREADS) forward_channels(norm_args k)
{
    int c = channel_of_warp(), n = k.d.in.c;
    double sum, squares;
    if (c >= n) return;
    add_parts(k, c, &sum, &squares);
    if (threadIdx.x % WARP) return;
    ts_norm_channel s =
        ts_norm_forward_channel(&k.d, sum, squares, ts_load(k.x, (size_t)c, k.bf16), k.rows,
                                k.weight[c], k.bias[c], k.running[c], k.running[n + c]);
    k.running[c] = s.running_mean;
    k.running[n + c] = s.running_variance;
    k.saved[c] = s.mean;
    k.saved[n + c] = s.inverse;
    k.saved[2 * n + c] = s.gain;
    k.saved[3 * n + c] = s.bias;
}

__global__ static void __launch_bounds__(THREADS) inference_channels(norm_args k)
{
    int c = (int)(blockIdx.x * THREADS + threadIdx.x), n = k.d.in.c;
    if (c >= n) return;
    ts_norm_inference_channel(&k.d, k.weight[c], k.bias[c], k.running[c], k.running[n + c],
                              &k.factors[c], &k.factors[n + c]);
}

__global__ static void __launch_bounds__(THREADS) backward_channels(norm_args k)
{
    int c = channel_of_warp(), n = k.d.in.c;
    double sum, dot;
    if (c >= n) return;
    add_parts(k, c, &sum, &dot);
    if (threadIdx.x % WARP) return;
    ts_norm_gradient g =
        ts_norm_backward_channel(sum, dot, k.rows, k.saved[c], k.saved[n + c], k.weight[c]);
    k.dweight[c] = g.dweight;
    k.dbias[c] = g.dbias;
    k.factors[c] = g.scale;
    k.factors[n + c] = g.slope;
    k.factors[2 * n + c] = g.shift;
}

/* y from gain and bias, which lie one behind the other at `factors`. */
__global__ static void __launch_bounds__(THREADS) apply(norm_args k, const float *factors)
{
    const unsigned vectors = (unsigned)k.d.in.c / TS_VEC, all = (unsigned)k.rows * vectors;
    for (unsigned v = blockIdx.x * THREADS + threadIdx.x; v < all; v += gridDim.x * THREADS) {
        unsigned c = v % vectors;
        ts_vec x = ts_load8(k.x, v, k.bf16), gain = ts_load8(factors, c, false);
        ts_vec bias = ts_load8(factors + k.d.in.c, c, false), r = {};
        if (k.residual) r = ts_load8(k.residual, v, k.bf16);
#pragma unroll
        for (int i = 0; i < TS_VEC; i++)
            x.f[i] = ts_norm_apply(x.f[i], gain.f[i], bias.f[i], r.f[i], k.d.relu);
        ts_store8(k.y, v, x, k.bf16);
    }
}

__global__ static void __launch_bounds__(THREADS) unapply(norm_args k)
{
    const unsigned channels = (unsigned)k.d.in.c, vectors = channels / TS_VEC;
    const unsigned all = (unsigned)k.rows * vectors;
    for (unsigned v = blockIdx.x * THREADS + threadIdx.x; v < all; v += gridDim.x * THREADS) {
        unsigned c = v % vectors;
        ts_vec x = ts_load8(k.x, v, k.bf16), g = gradient_at(k, v, (int)c * TS_VEC, x);
        if (k.dresidual) ts_store8(k.dresidual, v, g, k.bf16);
        if (!k.dx) continue;
        ts_vec scale = ts_load8(k.factors, c, false);
        ts_vec slope = ts_load8(k.factors + channels, c, false);
        ts_vec shift = ts_load8(k.factors + 2 * channels, c, false);
#pragma unroll
        for (int i = 0; i < TS_VEC; i++)
            x.f[i] = ts_norm_dx(g.f[i], x.f[i], scale.f[i], slope.f[i], shift.f[i]);
        ts_store8(k.dx, v, x, k.bf16);
    }
}

static unsigned channel_blocks(const norm_args *k)
{
    return (unsigned)((k->d.in.c + THREADS - 1) / THREADS);
}

static unsigned warp_blocks(const norm_args *k)
{
    return (unsigned)((k->d.in.c + THREADS / WARP - 1) / (THREADS / WARP));
}

static dim3 sum_grid(const norm_args *k)
{
    int vectors = k->d.in.c / TS_VEC;
    return dim3((unsigned)((vectors + LANES_MAX - 1) / LANES_MAX), (unsigned)k->parts);
}

static unsigned apply_blocks(const norm_args *k)
{
    return ts_cuda_blocks((size_t)k->rows * (size_t)k->d.in.c / TS_VEC, THREADS);
}

static ts_status norm_forward(const ts_op_run *r, void *cuda_stream)
{
    norm_args k = norm_of(r);
    cudaStream_t stream = (cudaStream_t)cuda_stream;
    if (k.d.training) {
        sum_rows<<<sum_grid(&k), THREADS, 0, stream>>>(k, false);
        forward_channels<<<warp_blocks(&k), THREADS, 0, stream>>>(k);
        apply<<<apply_blocks(&k), THREADS, 0, stream>>>(k, k.saved + 2 * k.d.in.c);
    } else {
        inference_channels<<<channel_blocks(&k), THREADS, 0, stream>>>(k);
        apply<<<apply_blocks(&k), THREADS, 0, stream>>>(k, k.factors);
    }
    return TS_CUDA_LAUNCHED("batch norm forward");
}

static ts_status norm_backward(const ts_op_run *r, void *cuda_stream)
{
    norm_args k = norm_of(r);
    cudaStream_t stream = (cudaStream_t)cuda_stream;
    sum_rows<<<sum_grid(&k), THREADS, 0, stream>>>(k, true);
    backward_channels<<<warp_blocks(&k), THREADS, 0, stream>>>(k);
    if (k.dx || k.dresidual) unapply<<<apply_blocks(&k), THREADS, 0, stream>>>(k);
    return TS_CUDA_LAUNCHED("batch norm backward");
}

const ts_cuda_kind ts_cuda_batch_norm = {norm_refuses, norm_size, norm_forward, norm_backward,
                                         NULL};
