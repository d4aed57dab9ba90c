/* own_conv.c - see own_conv.h: which kernels serve. */
#include "ops/host/own_conv.h"

static const ts_own_conv *const all[] = {
#if defined(__x86_64__)
    &ts_own_conv_tiles, &ts_own_conv_avx512_few, &ts_own_conv_avx2_few, &ts_own_conv_avx2_wide,
#endif
    NULL};

const ts_own_conv *ts_own_conv_find(const ts_op_desc *desc, const ts_md *order)
{
    const ts_own_conv *const *own = all;
    while (*own && !(*own)->serves(desc, order)) own++;
    return *own;
}
