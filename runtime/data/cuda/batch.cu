/* batch.cu - one kernel makes a batch on CUDA: a block a picture, a thread a pixel, with the
 * functions of augment_element.h and so the host's bits. */
#include "runtime/data/augment_element.h"
#include "runtime/data/batch_job.h"
#include "runtime/device/cuda/cuda.h"

enum { THREADS = 256 };

__device__ static void put(const ts_batch_job *j, size_t at, float x)
{
    if (j->batch.type == TS_BF16)
        ((uint16_t *)j->batch.input)[at] = ts_bf16_from_float(x);
    else
        ((float *)j->batch.input)[at] = x;
}

/* Element of channel c of a pixel of picture n. */
__device__ static size_t place(const ts_batch *b, int n, int pixel, int c)
{
    size_t pixels = (size_t)b->shape.h * (size_t)b->shape.w;
    size_t picture = (size_t)n * (size_t)b->shape.c * pixels;
    return b->layout == TS_NHWC ? picture + (size_t)pixel * (size_t)b->shape.c + (size_t)c
                                : picture + (size_t)c * pixels + (size_t)pixel;
}

__global__ static void __launch_bounds__(THREADS) make_batch(ts_batch_job j)
{
    const int n = (int)blockIdx.x, width = j.picture.w, plane = j.picture.h * width;
    int64_t sample = j.first + n;
    ts_augmentation a = {0, 0, 0};
    if (j.control) {
        const ts_control *c = j.control;
        sample = ts_sample_at(c->seed, c->epoch, c->position + n, j.pool, j.rank, j.size,
                              j.batch.shape.n, j.samples != NULL, j.augment.shuffle);
        if (j.samples) sample = j.samples[sample];
        a = ts_augmentation_of(c->seed, c->epoch, sample, j.augment.crop, j.augment.flip);
    }
    bool real = sample < j.split.n;
    if (threadIdx.x == 0) j.batch.labels[n] = real ? j.split.labels[sample] : -1;
    const uint8_t *image =
        j.split.images + (real ? (size_t)sample : 0) * (size_t)plane * (size_t)j.picture.c;
    for (int pixel = (int)threadIdx.x; pixel < plane; pixel += THREADS) {
        int x = pixel % width, y = pixel / width;
        int from_x = (a.flip ? width - 1 - x : x) + a.dx, from_y = y + a.dy;
        bool inside = from_x >= 0 && from_x < width && from_y >= 0 && from_y < j.picture.h;
        for (int c = 0; c < j.picture.c; c++) {
            uint8_t byte =
                inside ? image[(size_t)c * (size_t)plane + (size_t)(from_y * width + from_x)] : 0;
            put(&j, place(&j.batch, n, pixel, c), ((float)byte - j.mean[c]) * j.scale[c]);
        }
    }
}

ts_status ts_batch_enqueue(const void *args, void *cuda_stream)
{
    const ts_batch_job *j = (const ts_batch_job *)args;
    TS_NEED(ts_layout_block(j->batch.layout) == 1, TS_EUNSUPPORTED,
            "a batch in a blocked layout on CUDA");
    make_batch<<<(unsigned)j->batch.shape.n, THREADS, 0, (cudaStream_t)cuda_stream>>>(*j);
    return TS_CUDA_LAUNCHED("make_batch");
}
