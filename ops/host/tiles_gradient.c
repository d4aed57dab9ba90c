/* tiles_gradient.c - a weight's gradient by matrix tiles (AMX), from x and dy in TS_NHWC and bf16.
 *
 * All pixels of a batch are put in one flat order, row, column, picture. Rows of x begin `border`
 * zeros early, with `border` rows of zeros above the first; rows of dy end as many zeros late.
 * There a tap is a shift by whole batches, and the gradient a long sum
 *
 *     dw[o][i][tap] = sum over q of dy[q][o] x[phase of tap][q + shift of tap][i],
 *
 * of which an instruction takes 16 inputs x 16 outputs x STEP pixels. A stride divides x into
 * phases, stride x stride planes as large as y. x lies in tiles of 16 channels x STEP pixels, once
 * for every remainder that a shift leaves of a STEP; dy in tiles of pairs of pixels x 16 channels.
 *
 * A task is 32 inputs x 32 outputs of one row of taps or of all, which one thread sums over all
 * pixels, CHUNK at a time, since so many stay in its core's first cache. */
#include "ops/op.h"

#if defined(__x86_64__)
#include "ops/host/tiles.h"

enum { CHUNK = 8 }; /* steps */

/* The flat order, the same for x's phases and for y. */
typedef struct flat {
    int pictures, columns, border; /* pictures: with some of zeros; columns: border included */
    int phases, copies;            /* of x; copies are STEP / copies pixels apart */
    size_t y_steps, x_steps;       /* x: those that shifts reach */
} flat;

static flat flat_of(const ts_op_desc *d)
{
    flat f = {.border = d->kernel / 2, .phases = d->kernel == 1 ? 1 : d->stride * d->stride};
    /* shifts are whole batches, so all leave multiples of this of a STEP */
    int multiple = d->in.n > STEP / 4 ? STEP / 2 : STEP / 4;
    f.pictures = (d->in.n + multiple - 1) / multiple * multiple;
    f.copies = d->kernel == 1 || f.pictures % STEP == 0 ? 1 : STEP / multiple;
    f.columns = d->out.w + f.border;
    size_t row = (size_t)f.columns * (size_t)f.pictures;
    size_t reach = 2 * (size_t)f.border * (row + (size_t)f.pictures);
    f.y_steps = ((size_t)d->out.h * row + STEP - 1) / STEP;
    f.x_steps = f.y_steps + (reach + STEP - 1) / STEP;
    return f;
}

/* Of all planes of x. */
static size_t x_elements(const ts_op_desc *d, const flat *f)
{
    return (size_t)(f->copies * f->phases * d->in.c) * f->x_steps * STEP;
}

size_t ts_tiles_gradient_scratch_bytes(const ts_op_desc *d)
{
    flat f = flat_of(d);
    return (x_elements(d, &f) + (size_t)d->out.c * f.y_steps * STEP) * sizeof(uint16_t);
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
    for (int i = 0; i < STEP; column++) { /* each time the pictures left of one pixel */
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
TILES static void turn(const uint16_t *const from[8], size_t channel, uint16_t *const *to,
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
TILES static void pair_step(const uint16_t *const from[STEP], int channels, size_t steps,
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

/* Inputs and outputs of a task: x[input tile], dy[output tile], dw[input tile][output tile], of the
 * first step, plane and tap; NULL: there is no second. */
typedef struct task {
    const uint16_t *x[2], *dy[2];
    float *dw[2][2];
} task;

static const uint16_t *after(const uint16_t *from, size_t elements)
{
    return from ? from + elements : NULL;
}

/* One tap over some steps of x and dy, so far from the task's. */
TILES static void add_tap(const task *t, size_t x, size_t dy, size_t steps, bool first, int tap)
{
    float *dw[2][2];
    for (int i = 0; i < 2; i++)
        for (int o = 0; o < 2; o++) dw[i][o] = t->dw[i][o] ? t->dw[i][o] + tap * B * B : NULL;
    if (first)
        tiles_zero();
    else
        tiles_load(dw);
    tiles_multiply(t->x[0] + x, after(t->x[1], x), t->dy[0] + dy, after(t->dy[1], dy), steps);
    tiles_store(dw);
}

/* Rows [row, end) of the kernel. */
static void run_task(const ts_op_desc *d, const flat *f, const task *t, int row, int end)
{
    size_t plane = (size_t)d->in.c / B * f->x_steps * TILE;
    for (size_t at = 0; at < f->y_steps; at += CHUNK)
        for (int r = row; r < end; r++)
            for (int s = 0; s < d->kernel; s++) {
                int top, left, down, right;
                place_tap(d, r, &top, &down);
                place_tap(d, s, &left, &right);
                size_t shift = (size_t)(down * f->columns + right) * (size_t)f->pictures;
                size_t copy = shift % STEP * (size_t)f->copies / STEP;
                size_t number = copy * (size_t)f->phases + (size_t)(top * d->stride + left);
                size_t steps = f->y_steps - at < CHUNK ? f->y_steps - at : CHUNK;
                add_tap(t, number * plane + (at + shift / STEP) * TILE, at * TILE, steps, at == 0,
                        r * d->kernel + s);
            }
}

/* Copies of the phases of x, then dy. */
static void lay_out(const ts_op_desc *d, const flat *f, const uint16_t *x, const uint16_t *dy,
                    uint16_t *to)
{
    int back = f->border * d->stride;
    size_t plane_elements = (size_t)d->in.c * f->x_steps * STEP;
    for (int i = 0; i < f->phases; i++) {
        int top = i / d->stride, left = i % d->stride;
        plane p = {x, d->in, d->stride, top - back, left - back};
#pragma omp for schedule(static) nowait
        for (size_t step = 0; step < f->x_steps + (f->copies > 1); step++) {
            const uint16_t *from[STEP];
            find_pixels(f, &p, step * STEP, from);
            turn_step(f, from, d->in.c, step, (size_t)f->phases * plane_elements,
                      to + (size_t)i * plane_elements);
        }
    }
    to += x_elements(d, f);
    plane p = {dy, d->out, 1, 0, 0};
#pragma omp for schedule(static)
    for (size_t step = 0; step < f->y_steps; step++) {
        const uint16_t *from[STEP];
        find_pixels(f, &p, step * STEP, from);
        pair_step(from, d->out.c, f->y_steps, to + step * TILE);
    }
}

void ts_tiles_gradient(const ts_op_desc *d, const uint16_t *x, const uint16_t *dy, float *dw,
                       void *scratch)
{
    flat f = flat_of(d);
    uint16_t *planes = scratch;
    const uint16_t *pairs = planes + x_elements(d, &f);
    int ins = d->in.c / B, outs = d->out.c / B, taps = d->kernel * d->kernel;
    /* with few blocks for many threads a row of taps is a task */
    bool few = (ins + 1) / 2 * ((outs + 1) / 2) < 4 * ts_host_threads();
    int rows = few ? 1 : d->kernel;
#pragma omp parallel num_threads(ts_host_threads())
    {
        lay_out(d, &f, x, dy, planes);
        ts_tiles_open();
#pragma omp for collapse(3) schedule(static)
        for (int o = 0; o < outs; o += 2)
            for (int i = 0; i < ins; i += 2)
                for (int r = 0; r < d->kernel; r += rows) {
                    task t = {{0}};
                    for (int a = 0; a < 2 && i + a < ins; a++)
                        t.x[a] = planes + (size_t)(i + a) * f.x_steps * TILE;
                    for (int b = 0; b < 2 && o + b < outs; b++)
                        t.dy[b] = pairs + (size_t)(o + b) * f.y_steps * TILE;
                    for (int a = 0; a < 2 && t.x[a]; a++)
                        for (int b = 0; b < 2 && t.dy[b]; b++)
                            t.dw[a][b] = dw + (size_t)(((o + b) * ins + i + a) * taps) * B * B;
                    run_task(d, &f, &t, r, r + rows);
                }
        ts_tiles_close();
    }
}
#endif
