/* pack.c - 16x16 blocks of fp32 weights to the pairs of bf16 that dot-product instructions take.
 * oneDNN 2.6's own reorder of these orders is a generic one and took 7 % of a ResNet18 step. */
#include "ops/host/pack.h"

enum { B = 16 };

ts_packing ts_packing_find(const ts_op_desc *d, const ts_md *order, const ts_md *wanted)
{
    const int64_t dims[] = {d->out.c, d->in.c, d->kernel, d->kernel};
    if (d->in.c % B || d->out.c % B || !ts_md_has_tag(order, 4, dims, TS_F32, dnnl_OIhw16i16o))
        return TS_PACK_NONE;
    if (ts_md_has_tag(wanted, 4, dims, TS_BF16, dnnl_OIhw8i16o2i)) return TS_PACK_FORWARD;
    if (ts_md_has_tag(wanted, 4, dims, TS_BF16, dnnl_OIhw8o16i2o)) return TS_PACK_DATA;
    if (ts_md_has_tag(wanted, 4, dims, TS_BF16, dnnl_IOhw8o16i2o)) return TS_PACK_DATA_IO;
    return TS_PACK_NONE;
}

static uint32_t pair(float low, float high)
{
    return (uint32_t)ts_bf16_from_float(low) | (uint32_t)ts_bf16_from_float(high) << 16;
}

/* from [i][o] -> to [i / 2][o][2]: two rows side by side. */
static void pack_rows(const float *from, uint32_t *to)
{
    for (int i = 0; i < B / 2; i++)
#pragma omp simd
        for (int o = 0; o < B; o++)
            to[i * B + o] = pair(from[2 * i * B + o], from[(2 * i + 1) * B + o]);
}

/* from [i][o] -> to [o / 2][i][2]: two columns side by side. */
static void pack_columns(const float *from, uint32_t *to)
{
    for (int o = 0; o < B / 2; o++)
#pragma omp simd
        for (int i = 0; i < B; i++)
            to[o * B + i] = pair(from[i * B + 2 * o], from[i * B + 2 * o + 1]);
}

/* Where the block of outputs o, inputs i and tap k goes, in blocks. */
static size_t target_block(ts_packing packing, const ts_op_desc *d, int o, int i, int k)
{
    int outs = d->out.c / B, ins = d->in.c / B, taps = d->kernel * d->kernel;
    switch (packing) {
    case TS_PACK_DATA_IO:
        return (size_t)((i * outs + o) * taps + k);
    case TS_PACK_TILES_FORWARD:
        return (size_t)(((o * taps + k) * ((ins + 1) / 2)) * 2 + i);
    case TS_PACK_TILES_DATA:
        return (size_t)(((i * taps + k) * ((outs + 1) / 2)) * 2 + o);
    default:
        return (size_t)((o * ins + i) * taps + k);
    }
}

static void pack_block(ts_packing packing, const float *from, uint16_t *to, size_t target)
{
    uint32_t *pairs = (uint32_t *)(void *)to + target * B * B / 2;
    if (packing == TS_PACK_FORWARD || packing == TS_PACK_TILES_FORWARD)
        pack_rows(from, pairs);
    else
        pack_columns(from, pairs);
}

void ts_packing_run(const ts_packing *packings, uint16_t *const *to, int n, const ts_op_desc *d,
                    const float *from)
{
    int outs = d->out.c / B, ins = d->in.c / B, taps = d->kernel * d->kernel;
#pragma omp parallel for collapse(2)
    for (int o = 0; o < outs; o++)
        for (int i = 0; i < ins; i++)
            for (int k = 0; k < taps; k++)
                for (int p = 0; p < n; p++)
                    pack_block(packings[p], from + (size_t)((o * ins + i) * taps + k) * B * B,
                               to[p], target_block(packings[p], d, o, i, k));
}
