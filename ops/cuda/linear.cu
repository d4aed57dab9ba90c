/* linear.cu - linear layers on CUDA: products by cuBLAS, bias and ReLU by a kernel.
 *
 * Weights are PyTorch's [out][in]; bf16 products take the bf16 copy of the weight and accumulate
 * in fp32. */
#include "ops/cuda/cublas.h"
#include "ops/cuda/cuda_op.h"
#include "ops/cuda/element.cuh"

enum { THREADS = 256 };

typedef struct sizes {
    int n, in, out;
} sizes;

static sizes sizes_of(const ts_op_desc *d)
{
    sizes s = {d->in.n, d->in.c * d->in.h * d->in.w, d->out.c};
    return s;
}

static const char *linear_refuses(const ts_op_desc *d)
{
    return ts_layout_is_flat(d->in_layout, d->in) && ts_layout_is_flat(d->layout, d->out)
               ? NULL
               : "a linear layer is served on flat rows";
}

/* Scratch: cuBLAS's workspace; the product before bias, or y's gradient in x's type. */
static void linear_size(ts_op *op)
{
    sizes s = sizes_of(&op->desc);
    op->scratch_bytes = TS_CUBLAS_WORKSPACE + (size_t)s.n * (size_t)s.out * sizeof(float);
}

static void *behind_workspace(const ts_op_run *r)
{
    return (char *)r->args.scratch + TS_CUBLAS_WORKSPACE;
}

static const void *weight_of(const ts_op_run *r)
{
    return r->op->desc.type == TS_BF16 ? (const void *)r->args.shadow : r->args.weight;
}

/* y <- product + bias, ReLU. */
__global__ static void __launch_bounds__(THREADS)
    add_bias(const float *product, const float *bias, void *y, size_t n, int out, bool relu,
             bool bf16)
{
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n;
         i += (size_t)gridDim.x * THREADS) {
        float v = product[i] + bias[i % (size_t)out];
        ts_store(y, i, relu ? ts_relu(v) : v, bf16);
    }
}

typedef struct gradient {
    const void *y, *dy, *dy2;
    void *to;
    size_t n;
    bool relu, from_bf16, to_bf16;
} gradient;

/* to <- dy + dy2 where y > 0. */
__global__ static void __launch_bounds__(THREADS) mask_gradient(gradient k)
{
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < k.n;
         i += (size_t)gridDim.x * THREADS) {
        float g = ts_load(k.dy, i, k.from_bf16);
        if (k.dy2) g += ts_load(k.dy2, i, k.from_bf16);
        if (k.relu && !(ts_load(k.y, i, k.from_bf16) > 0)) g = 0;
        ts_store(k.to, i, g, k.to_bf16);
    }
}

/* A thread a column: the sum over the batch, in order. */
__global__ static void __launch_bounds__(THREADS)
    sum_columns(const void *g, float *to, int n, int out, bool bf16)
{
    int o = (int)(blockIdx.x * THREADS + threadIdx.x);
    double sum = 0;
    if (o >= out) return;
    for (int i = 0; i < n; i++) sum += ts_load(g, (size_t)i * (size_t)out + (size_t)o, bf16);
    to[o] = (float)sum;
}

static ts_status launch_mask(const ts_op_run *r, sizes s, void *cuda_stream)
{
    const ts_op_desc *d = &r->op->desc;
    gradient k = {r->args.y,
                  r->args.dy,
                  r->args.dy2,
                  behind_workspace(r),
                  (size_t)s.n * (size_t)s.out,
                  d->relu,
                  d->out_type == TS_BF16,
                  d->type == TS_BF16};
    mask_gradient<<<ts_cuda_blocks(k.n, THREADS), THREADS, 0, (cudaStream_t)cuda_stream>>>(k);
    return TS_CUDA_LAUNCHED("linear gradient");
}

/* A product of the op's types; the caller sets the factors. */
static ts_product product_of(const ts_op_run *r)
{
    ts_product p = {};
    p.type = p.to_type = r->op->desc.type;
    p.tf32 = r->op->desc.tf32;
    p.workspace = r->args.scratch;
    return p;
}

static ts_status linear_forward(const ts_op_run *r, void *cuda_stream)
{
    const ts_op_desc *d = &r->op->desc;
    sizes s = sizes_of(d);
    float *product = (float *)behind_workspace(r);
    ts_product p = product_of(r); /* x [n][in] w [out][in]^T */
    p.rows = s.n, p.columns = s.out, p.inner = s.in;
    p.a = r->args.x, p.b = weight_of(r), p.b_transposed = true;
    p.to = product, p.to_type = TS_F32;
    TS_TRY(ts_cublas_product(&p, cuda_stream));
    size_t n = (size_t)s.n * (size_t)s.out;
    add_bias<<<ts_cuda_blocks(n, THREADS), THREADS, 0, (cudaStream_t)cuda_stream>>>(
        product, r->args.bias, r->args.y, n, s.out, d->relu, d->out_type == TS_BF16);
    return TS_CUDA_LAUNCHED("bias");
}

static ts_status linear_backward_data(const ts_op_run *r, void *cuda_stream)
{
    sizes s = sizes_of(&r->op->desc);
    TS_TRY(launch_mask(r, s, cuda_stream));
    ts_product p = product_of(r); /* g [n][out] w [out][in] */
    p.rows = s.n, p.columns = s.in, p.inner = s.out;
    p.a = behind_workspace(r), p.b = weight_of(r), p.to = r->args.dx;
    return ts_cublas_product(&p, cuda_stream);
}

static ts_status linear_backward_weights(const ts_op_run *r, void *cuda_stream)
{
    sizes s = sizes_of(&r->op->desc);
    TS_TRY(launch_mask(r, s, cuda_stream));
    sum_columns<<<(unsigned)((s.out + THREADS - 1) / THREADS), THREADS, 0,
                  (cudaStream_t)cuda_stream>>>(behind_workspace(r), r->args.dbias, s.n, s.out,
                                               r->op->desc.type == TS_BF16);
    TS_TRY(TS_CUDA_LAUNCHED("bias gradient"));
    ts_product p = product_of(r); /* g [n][out]^T x [n][in] */
    p.rows = s.out, p.columns = s.in, p.inner = s.n;
    p.a = behind_workspace(r), p.a_transposed = true, p.b = r->args.x;
    p.to = r->args.dweight, p.to_type = TS_F32;
    return ts_cublas_product(&p, cuda_stream);
}

const ts_cuda_kind ts_cuda_linear = {linear_refuses, linear_size, linear_forward,
                                     linear_backward_data, linear_backward_weights};
