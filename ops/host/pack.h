/* pack.h - weights from the flat buffers' order to what bf16 convolutions want. */
#ifndef TS_OPS_HOST_PACK_H
#define TS_OPS_HOST_PACK_H

#include "ops/host/dnnl.h"

/* How a weight is packed; NONE: the library's reorder must do it. */
typedef enum ts_packing {
    TS_PACK_NONE,
    TS_PACK_FORWARD,       /* OIhw16i16o fp32 -> OIhw8i16o2i bf16 */
    TS_PACK_DATA,          /* OIhw16i16o fp32 -> OIhw8o16i2o bf16 */
    TS_PACK_DATA_IO,       /* OIhw16i16o fp32 -> IOhw8o16i2o bf16 */
    TS_PACK_TILES_FORWARD, /* OIhw16i16o fp32 -> [o / 16][tap][i / 32][16][16 o][2 i] bf16 */
    TS_PACK_TILES_DATA     /* OIhw16i16o fp32 -> [i / 16][tap][o / 32][16][16 i][2 o] bf16 */
} ts_packing;

/* The packing from `order` to `wanted`, for a weight of these dimensions. */
ts_packing ts_packing_find(const ts_op_desc *desc, const ts_md *order, const ts_md *wanted);
/* All n packings while the weight passes by once: to[i] <- from, as packings[i] says. */
void ts_packing_run(const ts_packing *packings, uint16_t *const *to, int n, const ts_op_desc *desc,
                    const float *from);

#endif
