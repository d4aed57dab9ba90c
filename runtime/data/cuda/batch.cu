/* batch.cu - one kernel makes a batch on CUDA: a block a picture, a thread a pixel, with the
 * functions of augment_element.h and so the host's bits. */
#include "ops/cuda/element.cuh"
#include "runtime/data/batch_job.h"

enum { THREADS = 256 };

__global__ static void __launch_bounds__(THREADS) make_batch(ts_batch_job j)
{
    const int n = (int)blockIdx.x, width = j.picture.w, plane = j.picture.h * width;
    const ts_batch_picture p = ts_batch_find(&j, n);
    const ts_augmentation a = p.augmentation;
    if (threadIdx.x == 0) j.batch.labels[n] = p.sample < 0 ? -1 : j.split.labels[p.label];
    const uint8_t *image = j.split.images + (size_t)p.image * (size_t)plane * (size_t)j.picture.c;
    for (int pixel = (int)threadIdx.x; pixel < plane; pixel += THREADS) {
        int x = pixel % width, y = pixel / width;
        int from_x = (a.flip ? width - 1 - x : x) + a.dx, from_y = y + a.dy;
        bool inside = from_x >= 0 && from_x < width && from_y >= 0 && from_y < j.picture.h;
        ts_vec v = {};
#pragma unroll
        for (int c = 0; c < TS_CHANNELS; c++) {
            if (c >= j.picture.c) break;
            uint8_t byte =
                inside ? image[(size_t)c * (size_t)plane + (size_t)(from_y * width + from_x)] : 0;
            v.f[c] = ((float)byte - j.mean[c]) * j.scale[c];
            if (j.batch.layout != TS_NHWC8)
                ts_store(j.batch.input, ts_layout_at(j.batch.layout, j.batch.shape, n, c, y, x),
                         v.f[c], j.batch.type == TS_BF16);
        }
        if (j.batch.layout == TS_NHWC8) /* padding and all in one go */
            ts_store8(j.batch.input, (size_t)n * (size_t)plane + (size_t)pixel, v,
                      j.batch.type == TS_BF16);
    }
}

ts_status ts_batch_enqueue(const void *args, void *cuda_stream)
{
    const ts_batch_job *j = (const ts_batch_job *)args;
    TS_NEED(j->batch.layout == TS_NHWC8 || ts_layout_block(j->batch.layout) == 1, TS_EUNSUPPORTED,
            "a batch in a blocked layout on CUDA");
    make_batch<<<(unsigned)j->batch.shape.n, THREADS, 0, (cudaStream_t)cuda_stream>>>(*j);
    return TS_CUDA_LAUNCHED("make_batch");
}
