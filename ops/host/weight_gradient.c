/* weight_gradient.c - see weight_gradient.h: which processor's code serves. */
#include "ops/host/weight_gradient.h"

static const ts_weight_gradient *const all[] = {
#if defined(__x86_64__)
    &ts_weight_gradient_tiles, &ts_weight_gradient_dots,
#endif
    NULL};

const ts_weight_gradient *ts_weight_gradient_find(const ts_op_desc *desc, const ts_md *order)
{
    const ts_weight_gradient *const *w = all;
    while (*w && !(*w)->serves(desc, order)) w++;
    return *w;
}
