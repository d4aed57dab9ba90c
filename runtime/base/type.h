/* type.h - element types and the shape of an activation. */
#ifndef TS_BASE_TYPE_H
#define TS_BASE_TYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/random.h" /* TS_HD */
#include "runtime/twinstream.h"  /* ts_shape */

typedef enum ts_type { TS_F32, TS_BF16, TS_I32, TS_U8 } ts_type;

static inline size_t ts_type_bytes(ts_type type)
{
    return type == TS_BF16 ? 2 : type == TS_U8 ? 1 : 4;
}
static inline const char *ts_type_name(ts_type type)
{
    return type == TS_F32 ? "fp32" : type == TS_BF16 ? "bf16" : type == TS_I32 ? "int32" : "uint8";
}

/* bf16 by integer rounding (to nearest, ties to even; NaN stays NaN): the same bits everywhere. */
TS_HD uint16_t ts_bf16_from_float(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
TS_HD float ts_bf16_to_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline size_t ts_shape_count(ts_shape s)
{
    return (size_t)s.n * (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

#endif
