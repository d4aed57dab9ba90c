/* loss.cu - softmax cross-entropy and dropout on CUDA.
 *
 * A warp a sample makes its loss; one block then adds the losses in a fixed order into the control
 * block, which the host reads later behind an event. */
#include "ops/cuda/cuda_op.h"
#include "ops/cuda/element.cuh"

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP };
#define ALL 0xffffffffu

typedef struct entropy {
    const float *x;
    float *y, *dx, *losses;
    int32_t *hits; /* [n] was the label the largest logit? */
    const int32_t *labels;
    ts_control *control;
    int n, classes;
    float smoothing;
} entropy;

__device__ static float warp_sum(float v)
{
    for (int o = WARP / 2; o; o /= 2) v += __shfl_xor_sync(ALL, v, o);
    return v;
}

/* log of the sum of exponentials of a row, and where its largest entry is: the first of equals. */
__device__ static float log_total(const float *x, int classes, int lane, int *best_p)
{
    float most = -INFINITY, sum = 0;
    int best = classes;
    for (int c = lane; c < classes; c += WARP)
        if (x[c] > most) {
            most = x[c];
            best = c;
        }
    for (int o = WARP / 2; o; o /= 2) {
        float other = __shfl_xor_sync(ALL, most, o);
        int place = __shfl_xor_sync(ALL, best, o);
        if (other > most || (other == most && place < best)) {
            most = other;
            best = place;
        }
    }
    for (int c = lane; c < classes; c += WARP) sum += expf(x[c] - most);
    *best_p = best;
    return most + logf(warp_sum(sum));
}

__global__ static void __launch_bounds__(THREADS) sample_losses(entropy k)
{
    const int lane = (int)threadIdx.x % WARP, n = (int)blockIdx.x * WARPS + (int)threadIdx.x / WARP;
    if (n >= k.n) return;
    const float *x = k.x + (size_t)n * (size_t)k.classes;
    int best, label = k.labels[n];
    float total = log_total(x, k.classes, lane, &best), sum = 0;
    for (int c = lane; c < k.classes; c += WARP) sum += x[c];
    sum = warp_sum(sum);
    if (lane) return;
    float loss = 0;
    if (label >= 0)
        loss = total - (1 - k.smoothing) * x[label] - k.smoothing * sum / (float)k.classes;
    k.losses[n] = loss;
    k.hits[n] = best == label;
    if (k.y) k.y[n] = loss;
}

__global__ static void __launch_bounds__(THREADS) add_losses(entropy k)
{
    __shared__ double losses[THREADS];
    __shared__ int counts[3][THREADS]; /* samples, hits, not finite */
    int t = (int)threadIdx.x, samples = 0, hits = 0, bad = 0;
    double sum = 0;
    for (int n = t; n < k.n; n += THREADS) {
        if (k.labels[n] < 0) continue;
        bool finite = isfinite(k.losses[n]);
        samples++;
        bad += !finite;
        hits += finite && k.hits[n];
        sum += finite ? (double)k.losses[n] : 0;
    }
    losses[t] = sum;
    counts[0][t] = samples;
    counts[1][t] = hits;
    counts[2][t] = bad;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t >= half) continue;
        losses[t] += losses[t + half];
        for (int i = 0; i < 3; i++) counts[i][t] += counts[i][t + half];
    }
    if (t) return;
    k.control->loss_sum += losses[0];
    k.control->samples += counts[0][0];
    k.control->correct += counts[1][0];
    k.control->not_finite += counts[2][0];
}

__global__ static void __launch_bounds__(THREADS) gradients(entropy k)
{
    __shared__ int count;
    const int lane = (int)threadIdx.x % WARP, n = (int)blockIdx.x * WARPS + (int)threadIdx.x / WARP;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    int mine = 0;
    for (int i = (int)threadIdx.x; i < k.n; i += THREADS) mine += k.labels[i] >= 0;
    atomicAdd(&count, mine); /* whole numbers: the order does not show */
    __syncthreads();
    if (n >= k.n) return;
    size_t at = (size_t)n * (size_t)k.classes;
    int best, label = k.labels[n];
    float total = log_total(k.x + at, k.classes, lane, &best);
    for (int c = lane; c < k.classes; c += WARP) {
        float target = (c == label ? 1 - k.smoothing : 0) + k.smoothing / (float)k.classes;
        k.dx[at + (size_t)c] =
            label < 0 ? 0 : (expf(k.x[at + (size_t)c] - total) - target) / (float)count;
    }
}

static entropy entropy_of(const ts_op_run *r)
{
    const ts_op_args *a = &r->args;
    const ts_op_desc *d = &r->op->desc;
    float *losses = (float *)a->scratch;
    entropy k = {
        (const float *)a->x, (float *)a->y, (float *)a->dx, losses,  (int32_t *)(losses + d->in.n),
        a->labels,           a->control,    d->in.n,        d->in.c, d->smoothing};
    return k;
}

static const char *entropy_refuses(const ts_op_desc *d)
{
    bool rows =
        d->type == TS_F32 && d->in.h == 1 && d->in.w == 1 && ts_layout_block(d->in_layout) == 1;
    return rows ? NULL : "cross-entropy is served on fp32 logits";
}

static void entropy_size(ts_op *op)
{
    op->scratch_bytes = (size_t)op->desc.in.n * (sizeof(float) + sizeof(int32_t));
}

static unsigned sample_blocks(const entropy *k)
{
    return (unsigned)((k->n + WARPS - 1) / WARPS);
}

static ts_status entropy_forward(const ts_op_run *r, void *cuda_stream)
{
    entropy k = entropy_of(r);
    sample_losses<<<sample_blocks(&k), THREADS, 0, (cudaStream_t)cuda_stream>>>(k);
    add_losses<<<1, THREADS, 0, (cudaStream_t)cuda_stream>>>(k);
    return TS_CUDA_LAUNCHED("cross-entropy forward");
}

static ts_status entropy_backward(const ts_op_run *r, void *cuda_stream)
{
    entropy k = entropy_of(r);
    gradients<<<sample_blocks(&k), THREADS, 0, (cudaStream_t)cuda_stream>>>(k);
    return TS_CUDA_LAUNCHED("cross-entropy backward");
}

const ts_cuda_kind ts_cuda_cross_entropy = {entropy_refuses, entropy_size, entropy_forward,
                                            entropy_backward, NULL};

/* ---- dropout; the mask counts elements in n, c, h, w order, so only that order is served ---- */

typedef struct dropout {
    const void *from, *from2;
    void *to;
    const ts_control *control;
    size_t n;
    float scale, probability;
    int node;
    bool bf16, training;
} dropout;

__global__ static void __launch_bounds__(THREADS) drop(dropout k)
{
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < k.n;
         i += (size_t)gridDim.x * THREADS) {
        float v = ts_load(k.from, i, k.bf16);
        if (k.from2) v += ts_load(k.from2, i, k.bf16);
        bool kept = !k.training ||
                    ts_dropout_keeps(k.control->seed, k.control->step, k.node, i, k.probability);
        ts_store(k.to, i, kept ? v * k.scale : 0, k.bf16);
    }
}

static ts_status launch_drop(const ts_op_run *r, const void *from, const void *from2, void *to,
                             void *cuda_stream)
{
    const ts_op_desc *d = &r->op->desc;
    dropout k = {from,
                 from2,
                 to,
                 r->args.control,
                 ts_shape_count(d->in),
                 d->training ? 1 / (1 - d->probability) : 1,
                 d->probability,
                 d->node,
                 d->type == TS_BF16,
                 d->training};
    drop<<<ts_cuda_blocks(k.n, THREADS), THREADS, 0, (cudaStream_t)cuda_stream>>>(k);
    return TS_CUDA_LAUNCHED("dropout");
}

static const char *dropout_refuses(const ts_op_desc *d)
{
    bool plain = d->in_layout == TS_NCHW || (d->in.h * d->in.w == 1 && d->in_layout == TS_NHWC);
    return plain && d->layout == d->in_layout ? NULL : "dropout is served in NCHW";
}

static void dropout_size(ts_op *op)
{
    (void)op;
}

static ts_status dropout_forward(const ts_op_run *r, void *cuda_stream)
{
    return launch_drop(r, r->args.x, NULL, r->args.y, cuda_stream);
}

static ts_status dropout_backward(const ts_op_run *r, void *cuda_stream)
{
    return launch_drop(r, r->args.dy, r->args.dy2, r->args.dx, cuda_stream);
}

const ts_cuda_kind ts_cuda_dropout = {dropout_refuses, dropout_size, dropout_forward,
                                      dropout_backward, NULL};
