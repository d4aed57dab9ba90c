/* weight_gradient_tiles.c - by matrix tiles (AMX), from TS_NHWC; see weight_gradient.h.
 *
 * All pixels of a batch are put in one flat order, row, column, picture, each row with `border`
 * zeros before it. There a tap is a shift by whole batches, and the gradient a long sum
 *
 *     dw[o][i][tap] = sum over q of dy[q][o] x[phase of tap][q + shift of tap][i],
 *
 * of which an instruction takes 16 inputs x 16 outputs x STEP pixels. A stride divides x into
 * phases, stride x stride planes as large as y. x lies in tiles of 16 channels x STEP pixels, once
 * for every remainder that a shift leaves of a STEP; dy in tiles of pairs of pixels x 16 channels.
 *
 * A task is 32 inputs x 32 outputs of one row of taps or of all, which one thread sums over all
 * pixels, CHUNK at a time, since so many stay in its core's first cache. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "ops/host/host_op.h"
#include "ops/host/weight_gradient.h"

#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl")))
#define TILES __attribute__((target("amx-tile,amx-bf16")))

enum { B = 16, STEP = 32, CHUNK = 8 * STEP, LINE = 64, TILE = B * STEP, MOST_CHANNELS = 8192 };

/* The flat order, the same for x's phases and for y. */
typedef struct flat {
    int pictures, columns, border; /* pictures: with some of zeros; columns: border included */
    int copies;                    /* of x, STEP / copies pixels apart */
    size_t y_steps, x_steps;       /* x: those that shifts reach */
} flat;

static flat flat_of(const ts_op_desc *d)
{
    flat f = {.border = d->kernel / 2};
    int whole = d->in.n > STEP / 2 ? STEP / 2 : STEP / 4;
    f.pictures = (d->in.n + whole - 1) / whole * whole;
    f.copies = d->kernel == 1 || f.pictures % STEP == 0 ? 1 : STEP / whole;
    f.columns = d->out.w + f.border;
    size_t row = (size_t)f.columns * (size_t)f.pictures;
    size_t reach = 2 * (size_t)f.border * (row + (size_t)f.pictures);
    f.y_steps = ((size_t)d->out.h * row + STEP - 1) / STEP;
    f.x_steps = f.y_steps + (reach + STEP - 1) / STEP;
    return f;
}

static size_t plane_count(const ts_op_desc *d, const flat *f)
{
    return (size_t)(f->copies * d->stride * d->stride);
}

static size_t scratch_bytes(const ts_op_desc *d)
{
    flat f = flat_of(d);
    size_t x = plane_count(d, &f) * (size_t)d->in.c * f.x_steps;
    return (x + (size_t)d->out.c * f.y_steps) * STEP * sizeof(uint16_t);
}

static bool serves(const ts_op_desc *d, const ts_md *order)
{
    const int64_t dims[] = {d->out.c, d->in.c, d->kernel, d->kernel};
    return d->type == TS_BF16 && (d->kernel == 1 || d->kernel == 3) &&
           d->padding == d->kernel / 2 && (d->stride == 1 || d->stride == 2) && d->in.c % B == 0 &&
           d->out.c % B == 0 && d->in.c <= MOST_CHANNELS && d->out.c <= MOST_CHANNELS &&
           d->in_layout == TS_NHWC && d->layout == TS_NHWC && ts_dnnl_has_tiles() &&
           ts_md_has_tag(order, 4, dims, TS_F32, dnnl_OIhw16i16o);
}

/* A plane in the flat order: every `stride`-th pixel of a tensor, from (top, left) on. */
typedef struct plane {
    const uint16_t *pixels;
    ts_shape shape;
    int stride, top, left; /* top, left: of the pixel at row 0, column 0 of the flat order */
} plane;

/* The channels of STEP pixels from `pixel` on; on the border and past the pictures zeros. */
static void find_pixels(const flat *f, const plane *p, size_t pixel, const uint16_t *from[STEP])
{
    static const uint16_t zeros[MOST_CHANNELS];
    size_t picture = (size_t)p->shape.h * (size_t)p->shape.w * (size_t)p->shape.c;
    int n = (int)(pixel % (size_t)f->pictures);
    int column = (int)(pixel / (size_t)f->pictures % (size_t)f->columns);
    int row = (int)(pixel / (size_t)f->pictures / (size_t)f->columns);
    for (int i = 0; i < STEP; column++) {
        if (column == f->columns) {
            column = 0;
            row++;
        }
        int y = row * p->stride + p->top, x = column * p->stride + p->left;
        bool inside = y >= 0 && y < p->shape.h && x >= 0 && x < p->shape.w;
        size_t at = ((size_t)(inside ? y * p->shape.w + x : 0)) * (size_t)p->shape.c;
        for (; i < STEP && n < f->pictures; i++, n++)
            from[i] = inside && n < p->shape.n ? p->pixels + (size_t)n * picture + at : zeros;
        n = 0;
    }
}

/* 8 channels of 8 pixels, turned, into each of `copies`. */
WIDE static void turn(const uint16_t *const from[8], size_t channel, uint16_t *const *to,
                      int copies)
{
    __m128i a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = _mm_loadu_si128((const __m128i_u *)(from[i] + channel));
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            a[4 * i + 2 * j] = _mm_unpacklo_epi32(b[4 * i + j], b[4 * i + 2 + j]);
            a[4 * i + 2 * j + 1] = _mm_unpackhi_epi32(b[4 * i + j], b[4 * i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi64(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi64(a[i], a[i + 4]);
    }
    for (int k = 0; k < copies; k++)
        for (int i = 0; i < 8; i++) _mm_storeu_si128((__m128i_u *)(to[k] + i * STEP), b[i]);
}

/* A STEP of a phase of x into its copies, `apart` elements from each other:
 * to[block of 16 channels][step][channel][pixel]. A few pixels are read to the end at a time: where
 * pictures are a power of two apart, they share sets of the cache. */
static void turn_step(const flat *f, const uint16_t *const from[STEP], int channels, size_t step,
                      size_t apart, uint16_t *to)
{
    for (size_t i = 0; i < STEP; i += 8) {
        uint16_t *starts[STEP / 8];
        int n = 0;
        for (int k = 0; k < f->copies; k++) {
            size_t pixel = step * STEP + i, first = (size_t)(k * STEP / f->copies);
            if (pixel < first || pixel - first >= f->x_steps * STEP) continue;
            pixel -= first;
            starts[n++] = to + (size_t)k * apart + pixel / STEP * TILE + pixel % STEP;
        }
        for (size_t c = 0; c < (size_t)channels; c += 8) {
            uint16_t *at[STEP / 8];
            for (int k = 0; k < n; k++)
                at[k] = starts[k] + c / B * f->x_steps * TILE + c % B * STEP;
            turn(from + i, c, at, n);
        }
    }
}

/* A STEP of dy: to[block of 16 channels][step][pair of pixels][channel][pixel]. */
WIDE static void pair_step(const uint16_t *const from[STEP], int channels, size_t steps,
                           uint16_t *to)
{
    for (size_t c = 0; c < (size_t)channels; c += B)
        for (size_t i = 0; i < STEP; i += 2) {
            __m256i_u a = _mm256_loadu_si256((const __m256i_u *)(from[i] + c));
            __m256i_u b = _mm256_loadu_si256((const __m256i_u *)(from[i + 1] + c));
            __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16);
            _mm512_storeu_si512(to + c / B * steps * TILE + i * B,
                                _mm512_or_si512(_mm512_cvtepu16_epi32(a), high));
        }
}

/* Where a tap along one side falls: at phase (tap - padding) mod stride, so many pixels on. */
static void place_tap(const ts_op_desc *d, int tap, int *phase, int *shift)
{
    int at = tap - d->padding;
    *phase = (at + d->stride) % d->stride;
    *shift = (at - *phase) / d->stride + d->kernel / 2;
}

static bool has_phase(const ts_op_desc *d, int wanted)
{
    for (int tap = 0; tap < d->kernel; tap++) {
        int phase, shift;
        place_tap(d, tap, &phase, &shift);
        if (phase == wanted) return true;
    }
    return false;
}

/* Inputs and outputs of a task, in tiles: one or two of each. */
typedef struct task {
    const uint16_t *x, *dy; /* x: first channel of the first plane */
    float *dw;
    size_t x_tile, y_tile, i_tile, o_tile; /* from a tile's elements to the next one's: x, dy, dw */
    bool two_ins, two_outs;
} task;

/* One tap over some steps of x and dy: tiles 0 to 3 are sums, 4 and 5 inputs, 6 and 7 outputs. */
TILES static void add_tap(const task *t, const uint16_t *x, const uint16_t *dy, size_t steps,
                          bool first, float *dw)
{
    float *dw1 = dw + t->i_tile, *dw2 = dw + t->o_tile, *dw3 = dw2 + t->i_tile;
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, dw, LINE);
        if (t->two_ins) _tile_loadd(1, dw1, LINE);
        if (t->two_outs) _tile_loadd(2, dw2, LINE);
        if (t->two_ins && t->two_outs) _tile_loadd(3, dw3, LINE);
    }
    for (const uint16_t *end = x + steps * TILE; x < end; x += TILE, dy += TILE) {
        _tile_loadd(4, x, LINE);
        _tile_loadd(6, dy, LINE);
        _tile_dpbf16ps(0, 4, 6);
        if (t->two_ins) {
            _tile_loadd(5, x + t->x_tile, LINE);
            _tile_dpbf16ps(1, 5, 6);
        }
        if (t->two_outs) {
            _tile_loadd(7, dy + t->y_tile, LINE);
            _tile_dpbf16ps(2, 4, 7);
            if (t->two_ins) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, dw, LINE);
    if (t->two_ins) _tile_stored(1, dw1, LINE);
    if (t->two_outs) _tile_stored(2, dw2, LINE);
    if (t->two_ins && t->two_outs) _tile_stored(3, dw3, LINE);
}

/* Rows [row, end) of the kernel. */
static void run_task(const ts_op_desc *d, const flat *f, const task *t, int row, int end)
{
    size_t plane = (size_t)d->in.c / B * f->x_steps * TILE;
    for (size_t at = 0; at < f->y_steps; at += CHUNK / STEP)
        for (int r = row; r < end; r++)
            for (int s = 0; s < d->kernel; s++) {
                int top, left, down, right;
                place_tap(d, r, &top, &down);
                place_tap(d, s, &left, &right);
                size_t shift = (size_t)(down * f->columns + right) * (size_t)f->pictures;
                size_t copy = shift % STEP * (size_t)f->copies / STEP;
                size_t from = (copy * (size_t)d->stride + (size_t)top) * (size_t)d->stride;
                size_t steps = f->y_steps - at < CHUNK / STEP ? f->y_steps - at : CHUNK / STEP;
                add_tap(t, t->x + (from + (size_t)left) * plane + (at + shift / STEP) * TILE,
                        t->dy + at * TILE, steps, at == 0,
                        t->dw + (size_t)(r * d->kernel + s) * B * B);
            }
}

/* Every tile of 16 rows of 64 bytes. Static, since the compiler is told of its first bytes only. */
TILES static void open_tiles(void)
{
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1,
             .bytes = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE},
             .rows = {B, B, B, B, B, B, B, B}};
    _tile_loadconfig(&all);
}

TILES static void close_tiles(void)
{
    _tile_release();
}

/* Copies of the phases of x, then dy. */
static void lay_out(const ts_op_desc *d, const flat *f, const uint16_t *x, const uint16_t *dy,
                    uint16_t *to)
{
    int phases = d->stride * d->stride, back = f->border * d->stride;
    size_t plane_elements = (size_t)d->in.c * f->x_steps * STEP;
    for (int i = 0; i < phases; i++) {
        int top = i / d->stride, left = i % d->stride;
        plane p = {x, d->in, d->stride, top - back, left - back};
        if (!has_phase(d, top) || !has_phase(d, left)) continue;
#pragma omp for schedule(static) nowait
        for (size_t step = 0; step < f->x_steps + (f->copies > 1); step++) {
            const uint16_t *from[STEP];
            find_pixels(f, &p, step * STEP, from);
            turn_step(f, from, d->in.c, step, (size_t)phases * plane_elements,
                      to + (size_t)i * plane_elements);
        }
    }
    to += plane_count(d, f) * plane_elements;
    plane p = {dy, d->out, 1, 0, 0};
#pragma omp for schedule(static)
    for (size_t step = 0; step < f->y_steps; step++) {
        const uint16_t *from[STEP];
        find_pixels(f, &p, step * STEP, from);
        pair_step(from, d->out.c, f->y_steps, to + step * TILE);
    }
}

static void run(const ts_op_desc *d, const uint16_t *x, const uint16_t *dy, float *dw,
                void *scratch)
{
    flat f = flat_of(d);
    uint16_t *planes = scratch;
    const uint16_t *pairs = planes + plane_count(d, &f) * (size_t)d->in.c * f.x_steps * STEP;
    int ins = d->in.c / B, outs = d->out.c / B, taps = d->kernel * d->kernel;
    /* with few blocks for many threads a row of taps is a task */
    bool few = (ins + 1) / 2 * ((outs + 1) / 2) < 4 * ts_host_threads();
    int rows = few ? 1 : d->kernel;
#pragma omp parallel num_threads(ts_host_threads())
    {
        lay_out(d, &f, x, dy, planes);
        open_tiles();
#pragma omp for collapse(3) schedule(static)
        for (int o = 0; o < outs; o += 2)
            for (int i = 0; i < ins; i += 2)
                for (int r = 0; r < d->kernel; r += rows) {
                    size_t block = (size_t)taps * B * B;
                    task t = {.x = planes + (size_t)i * f.x_steps * TILE,
                              .dy = pairs + (size_t)o * f.y_steps * TILE,
                              .dw = dw + (size_t)(o * ins + i) * block,
                              .x_tile = f.x_steps * TILE,
                              .y_tile = f.y_steps * TILE,
                              .i_tile = block,
                              .o_tile = (size_t)ins * block,
                              .two_ins = i + 1 < ins,
                              .two_outs = o + 1 < outs};
                    run_task(d, &f, &t, r, r + rows);
                }
        close_tiles();
    }
}

const ts_weight_gradient ts_weight_gradient_tiles = {
    .serves = serves, .scratch_bytes = scratch_bytes, .run = run};
#endif
