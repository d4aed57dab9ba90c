/* tiles.h - what tiles.c and tiles_gradient.c share: the tiles of a processor with AMX.
 *
 * Eight registers hold 16 rows of 64 bytes each. One instruction adds to 16x16 fp32 sums the
 * products of 16 rows a by 32 bf16 and of 16 pairs of such rows b: b[k / 2][column][k % 2]. Here
 * always 2x2 sums at once, tiles 0 to 3, from two a (4, 5) and two b (6, 7), or less where a tensor
 * ends: four loads for four instructions. */
#ifndef TS_OPS_HOST_TILES_H
#define TS_OPS_HOST_TILES_H

#include <immintrin.h>

#include "ops/host/dnnl.h"
#include "ops/host/host_op.h"

#define TILES __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512bf16")))
#define TILES_INLINE TILES static inline __attribute__((always_inline))

enum { B = 16, STEP = 32, LINE = 64, TILE = B * STEP, MOST_CHANNELS = 8192 };

/* On every thread, before and after it uses tiles. */
void ts_tiles_open(void);
void ts_tiles_close(void);

TILES_INLINE void tiles_zero(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* Sums of two a by two b: c[a][b], of 16x16 each; NULL: not wanted. */
TILES_INLINE void tiles_load(float *c[2][2])
{
    _tile_loadd(0, c[0][0], LINE);
    if (c[0][1]) _tile_loadd(1, c[0][1], LINE);
    if (c[1][0]) _tile_loadd(2, c[1][0], LINE);
    if (c[1][1]) _tile_loadd(3, c[1][1], LINE);
}

TILES_INLINE void tiles_store(float *c[2][2])
{
    _tile_stored(0, c[0][0], LINE);
    if (c[0][1]) _tile_stored(1, c[0][1], LINE);
    if (c[1][0]) _tile_stored(2, c[1][0], LINE);
    if (c[1][1]) _tile_stored(3, c[1][1], LINE);
}

/* Adds the products of n tiles each, which follow one another; a1, b1 NULL: there is no second. */
TILES_INLINE void tiles_multiply(const uint16_t *a0, const uint16_t *a1, const uint16_t *b0,
                                 const uint16_t *b1, size_t n)
{
    for (size_t i = 0; i < n * TILE; i += TILE) {
        _tile_loadd(4, a0 + i, LINE);
        _tile_loadd(6, b0 + i, LINE);
        _tile_dpbf16ps(0, 4, 6);
        if (b1) {
            _tile_loadd(7, b1 + i, LINE);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (a1) {
            _tile_loadd(5, a1 + i, LINE);
            _tile_dpbf16ps(2, 5, 6);
            if (b1) _tile_dpbf16ps(3, 5, 7);
        }
    }
}

/* Scratch, and dw from x and dy; see tiles_gradient.c. */
size_t ts_tiles_gradient_scratch_bytes(const ts_op_desc *desc);
void ts_tiles_gradient(const ts_op_desc *desc, const uint16_t *x, const uint16_t *dy, float *dw,
                       void *scratch);

#endif
