/* winograd.c - see winograd.h: which processor's code serves. */
#include "ops/host/winograd.h"

static const ts_winograd *const all[] = {
#if defined(__x86_64__)
    &ts_winograd_avx512_few, &ts_winograd_avx2_few, &ts_winograd_avx2_wide,
#endif
    NULL};

const ts_winograd *ts_winograd_find(const ts_op_desc *desc, const ts_md *order)
{
    const ts_winograd *const *w = all;
    while (*w && !(*w)->serves(desc, order)) w++;
    return *w;
}
