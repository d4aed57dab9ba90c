/* winograd_tiles.h - 3x3 convolutions in fp32 by Winograd's method F(4x4, 3x3) (Lavin, Gray: "Fast
 * algorithms for convolutional neural networks", CVPR 2016), for processors with AVX-512 or AVX2:
 *
 *     y = A^T [ (G w G^T) * (B^T x B) ] A                forward; backward data with w turned round
 *     dw = sum over tiles G^T [ (A dy A^T) * (B^T x B) ] G
 *
 * The library has it for AVX-512 only, and keeps all transformed tiles in memory between its three
 * steps, which with few channels is most of its time. Here a few tiles go through all steps in a
 * core's cache (winograd_few.h), or with many channels, by AVX2, the transformed tiles of some
 * pictures stay in the cache that cores share (winograd_wide.h). Served are x and y in blocks of B
 * channels, B floats being a vector, and a weight in OIhw<B>i<B>o. (bf16 by AVX-512 is no faster
 * than direct convolution by dot products, which do twice as much at once.)
 *
 * This file has what both share: how a convolution is cut into tiles, the transforms, the products.
 * A vector holds B channels of one pixel, or of one of a tile's 36 points. A strip (a row of tiles
 * of a picture) is copied with its zero border and its tiles are transformed to v
 * [point][tile][channel]; the points are multiplied with the weight's, and the sums, m
 * [point][tile][channel], are transformed back. Between two points lies a line more than their
 * elements, or they would fall into the same sets of the cache. */
#include <omp.h>

#include "ops/host/host_op.h"

enum { TILE = 4, SIDE = 6, POINTS = SIDE * SIDE, TAPS = 9, CHUNK = 16 };

/* How a convolution is cut; `ins` and `outs` are the channels that a pass reads and writes. */
typedef struct plan {
    int n, height, width, ins, outs;
    int rows, columns; /* of tiles in a picture */
    int strips;        /* of the batch */
    int together;      /* outputs of a product: B or 2 B */
} plan;

static plan plan_of(const ts_op_desc *d, ts_conv_pass pass)
{
    bool data = pass == TS_CONV_DATA;
    plan p = {.n = d->in.n,
              .height = d->in.h,
              .width = d->in.w,
              .ins = data ? d->out.c : d->in.c,
              .outs = data ? d->in.c : d->out.c};
    p.rows = (p.height + TILE - 1) / TILE;
    p.columns = (p.width + TILE - 1) / TILE;
    p.strips = p.n * p.rows;
    p.together = p.outs % (2 * B) ? B : 2 * B;
    return p;
}

/* From one point of that many elements to the next. */
static size_t point(int rows, int columns)
{
    return (size_t)rows * (size_t)columns + B;
}

static size_t strip_floats(const plan *p)
{
    return (size_t)(SIDE * (p->columns * TILE + SIDE - TILE) * B);
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* A convolution for this method on this processor. */
static bool is_tiled(const ts_op_desc *d, const ts_md *order)
{
    const int64_t dims[] = {d->out.c, d->in.c, d->kernel, d->kernel};
    return d->type == TS_F32 && d->kernel == 3 && d->stride == 1 && d->padding == 1 &&
           d->in_layout == LAYOUT && d->layout == LAYOUT && PROCESSOR_SERVES() &&
           ts_md_has_tag(order, 4, dims, TS_F32, WEIGHT_ORDER);
}

/* ---- the transforms, in one direction ---- */

TARGET_INLINE vector scaled(float a, vector x)
{
    return MUL(ALL(a), x);
}

/* a x + y */
TARGET_INLINE vector plus(float a, vector x, vector y)
{
    return FMA(ALL(a), x, y);
}

/* B^T: 6 pixels to 6 points. */
TARGET_INLINE void input_points(const vector *x, vector *to)
{
    vector a = plus(-4, x[2], x[4]), b = plus(-4, x[1], x[3]);
    vector c = SUB(x[4], x[2]), d = SUB(x[3], x[1]);
    to[0] = plus(4, x[0], plus(-5, x[2], x[4]));
    to[1] = ADD(a, b);
    to[2] = SUB(a, b);
    to[3] = plus(2, d, c);
    to[4] = plus(-2, d, c);
    to[5] = plus(4, x[1], plus(-5, x[3], x[5]));
}

/* A^T: 6 points to 4 pixels. */
TARGET_INLINE void output_pixels(const vector *m, vector *to)
{
    vector a = ADD(m[1], m[2]), b = SUB(m[1], m[2]), c = ADD(m[3], m[4]), d = SUB(m[3], m[4]);
    to[0] = ADD(m[0], ADD(a, c));
    to[1] = plus(2, d, b);
    to[2] = plus(4, c, a);
    to[3] = ADD(m[5], plus(8, d, b));
}

/* A: 4 pixels' gradients to 6 points. */
TARGET_INLINE void gradient_points(const vector *g, vector *to)
{
    vector a = ADD(g[0], g[2]), b = ADD(g[1], g[3]);
    vector c = plus(4, g[2], g[0]), d = plus(8, g[3], scaled(2, g[1]));
    to[0] = g[0];
    to[1] = ADD(a, b);
    to[2] = SUB(a, b);
    to[3] = ADD(c, d);
    to[4] = SUB(c, d);
    to[5] = g[3];
}

/* G: 3 taps to 6 points. */
TARGET_INLINE void tap_points(const vector *w, vector *to)
{
    vector a = scaled(-1.0f / 6, ADD(w[0], w[2])), b = scaled(-1.0f / 6, w[1]);
    vector c = plus(1.0f / 24, w[0], scaled(1.0f / 6, w[2])), d = scaled(1.0f / 12, w[1]);
    to[0] = scaled(0.25f, w[0]);
    to[1] = ADD(a, b);
    to[2] = SUB(a, b);
    to[3] = ADD(c, d);
    to[4] = SUB(c, d);
    to[5] = w[2];
}

/* G^T: 6 points to 3 taps' gradients. */
TARGET_INLINE void tap_gradients(const vector *m, vector *to)
{
    vector a = ADD(m[1], m[2]), b = SUB(m[1], m[2]), c = ADD(m[3], m[4]), d = SUB(m[3], m[4]);
    to[0] = plus(0.25f, m[0], plus(1.0f / 24, c, scaled(-1.0f / 6, a)));
    to[1] = plus(1.0f / 12, d, scaled(-1.0f / 6, b));
    to[2] = ADD(m[5], plus(1.0f / 6, c, scaled(-1.0f / 6, a)));
}

typedef void transform(const vector *from, vector *to);

/* `one` along the rows, then along the columns: [from_side][from_side] vectors to
 * [to_side][to_side], each at row * _row + column * _column. */
TARGET_INLINE void both_ways(transform *one, int from_side, int to_side, const float *from,
                             size_t from_row, size_t from_column, float *to, size_t to_row,
                             size_t to_column)
{
    vector half[SIDE][SIDE], line[SIDE], out[SIDE];
#pragma GCC unroll 6
    for (int i = 0; i < from_side; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < from_side; j++)
            line[j] = LOAD(from + (size_t)i * from_row + (size_t)j * from_column);
        one(line, out);
#pragma GCC unroll 6
        for (int j = 0; j < to_side; j++) half[j][i] = out[j];
    }
#pragma GCC unroll 6
    for (int j = 0; j < to_side; j++) {
        one(half[j], out);
#pragma GCC unroll 6
        for (int i = 0; i < to_side; i++)
            STORE(to + (size_t)i * to_row + (size_t)j * to_column, out[i]);
    }
}

/* ---- pixels ---- */

/* Where block `b` of a picture starts, in elements. */
static size_t block_at(const plan *p, int picture, int channels, int b)
{
    size_t blocks = (size_t)(channels / B);
    return ((size_t)picture * blocks + (size_t)b) * (size_t)p->height * (size_t)p->width * B;
}

/* Rows [first, first + rows) of a block, `border` zeros before each, and zeros wherever there is no
 * pixel; `line` pixels in a row. */
TARGET static void copy_strip(const plan *p, const float *x, size_t block, int first, int rows,
                              int border, int line, float *to)
{
    for (int i = 0; i < rows; i++, to += (size_t)line * B) {
        int row = first + i, width = row < 0 || row >= p->height ? 0 : p->width;
        size_t at = block + (size_t)row * (size_t)p->width * B;
        float *pixel = to;
        for (int j = 0; j < border; j++, pixel += B) STORE(pixel, ZERO());
        for (int j = 0; j < width; j++, pixel += B, at += B) STORE(pixel, LOAD(x + at));
        for (; pixel < to + (size_t)line * B; pixel += B) STORE(pixel, ZERO());
    }
}

/* The points of one tile, whose corner is `from` in a strip with lines of `line` pixels. */
TARGET static void transform_tile(const float *from, int line, bool gradient, float *to,
                                  size_t point)
{
    if (gradient)
        both_ways(gradient_points, TILE, SIDE, from, (size_t)line * B, B, to, SIDE * point, point);
    else
        both_ways(input_points, SIDE, SIDE, from, (size_t)line * B, B, to, SIDE * point, point);
}

/* The points of all tiles of strips [first, last): blocks [block, block + blocks) of `all`
 * channels; in v `point` from one to the next. */
TARGET static void transform_strips(const plan *p, const float *x, int all, int block, int blocks,
                                    int first, int last, bool gradient, float *strip, float *v,
                                    size_t point)
{
    int border = gradient ? 0 : 1, line = p->columns * TILE + 2 * border, channels = blocks * B;
    for (int s = first; s < last; s++)
        for (int b = 0; b < blocks; b++) {
            int picture = s / p->rows, row = s % p->rows * TILE - border;
            copy_strip(p, x, block_at(p, picture, all, block + b), row, TILE + 2 * border, border,
                       line, strip);
            for (int c = 0; c < p->columns; c++) {
                size_t tile = (size_t)((s - first) * p->columns + c);
                transform_tile(strip + (size_t)c * TILE * B, line, gradient,
                               v + tile * (size_t)channels + (size_t)b * B, point);
            }
        }
}

/* ---- products ---- */

/* sums [row][column] (+)= a [row][k] b [k][column]. */
typedef struct product {
    const float *a, *b;
    float *sums;
    size_t a_row, a_k, b_k, sums_row;
    int n; /* of k */
} product;

/* A constant a_row makes addresses of constants. */
TARGET_INLINE void multiply(product q, size_t a_row, int rows, int blocks, bool add)
{
    vector sum[ROWS_OF_ONE][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int o = 0; o < blocks; o++)
            sum[r][o] = add ? LOAD(q.sums + (size_t)r * q.sums_row + (size_t)o * B) : ZERO();
    for (int k = 0; k < q.n; k++, q.a += q.a_k, q.b += q.b_k) {
        vector b[2];
#pragma GCC unroll 2
        for (int o = 0; o < blocks; o++) {
            b[o] = LOAD(q.b + (size_t)o * B);
            KEEP(b[o]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vector a = ALL(q.a[(size_t)r * a_row]);
#pragma GCC unroll 2
            for (int o = 0; o < blocks; o++) sum[r][o] = FMA(a, b[o], sum[r][o]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int o = 0; o < blocks; o++)
            STORE(q.sums + (size_t)r * q.sums_row + (size_t)o * B, sum[r][o]);
}

/* `rows` is a multiple of B; `together` columns, B or 2 B. The gradient's a is transposed: its
 * a_row is 1. */
TARGET static void multiply_all(product q, int rows, int together, bool add)
{
    int step = together == B ? ROWS_OF_ONE : ROWS_OF_TWO;
    for (int r = 0; r < rows; r += step) {
#define CASE(ROW)                                                                                  \
    if (q.a_row == ROW && together == B)                                                           \
        multiply(q, ROW, ROWS_OF_ONE, 1, add);                                                     \
    else if (q.a_row == ROW)                                                                       \
        multiply(q, ROW, ROWS_OF_TWO, 2, add);
        CASE(1)
        CASE(8)
        CASE(16)
        CASE(32)
        CASE(64)
        CASE(128)
#undef CASE
        q.a += (size_t)step * q.a_row;
        q.sums += (size_t)step * q.sums_row;
    }
}

/* ---- the ends ---- */

/* One tile's pixels from its points' sums. */
TARGET static void finish_tile(const plan *p, const float *m, size_t point, int row, int column,
                               float *y, size_t block)
{
    size_t line = (size_t)p->width * B;
    size_t at = block + (size_t)row * line + (size_t)column * B;
    if (row + TILE <= p->height && column + TILE <= p->width) {
        both_ways(output_pixels, SIDE, TILE, m, SIDE * point, point, y + at, line, B);
        return;
    }
    float tile[TILE][TILE][B];
    both_ways(output_pixels, SIDE, TILE, m, SIDE * point, point, tile[0][0], sizeof tile[0] / 4, B);
    for (int i = 0; i < TILE && row + i < p->height; i++, at += line)
        for (int j = 0; j < TILE && column + j < p->width; j++)
            memcpy(y + at + (size_t)j * B, tile[i][j], sizeof tile[i][j]);
}

/* The pixels of a chunk's tiles: from `tile` on, of those of strips [first, last). */
static void finish_chunk(const plan *p, const float *m, int first, int last, int tile, int out,
                         float *y)
{
    int end = least(tile + CHUNK, (last - first) * p->columns);
    for (int o = 0; o < p->together / B; o++)
        for (int t = tile; t < end; t++) {
            int s = first + t / p->columns;
            finish_tile(p, m + (size_t)((t - tile) * p->together + o * B),
                        point(CHUNK, p->together), s % p->rows * TILE, t % p->columns * TILE, y,
                        block_at(p, s / p->rows, p->outs, out / B + o));
        }
}

/* One input's (forward) or output's (data) taps of a BxB block, all lanes, to their points. */
TARGET static void transform_taps(const float *block, bool data, int lane, float *to, size_t point)
{
    float taps[TAPS][B];
    for (int i = 0; i < TAPS; i++) {
        const float *tap = block + (size_t)i * B * B;
        if (data) /* turned round, inputs side by side */
            STORE(taps[TAPS - 1 - i], column(tap + lane));
        else
            STORE(taps[i], LOAD(tap + lane * B));
    }
    both_ways(tap_points, 3, SIDE, taps[0], (size_t)3 * B, B, to, SIDE * point, point);
}

/* The points of the weights from block `in` of what the pass reads to block `out`: B rows of u. */
static void transform_block(const plan *p, bool data, const float *weight, int in, int out,
                            float *u, size_t row, size_t point)
{
    size_t at = (size_t)(data ? in * (p->outs / B) + out : out * (p->ins / B) + in);
    for (int lane = 0; lane < B; lane++)
        transform_taps(weight + at * TAPS * B * B, data, lane, u + (size_t)lane * row, point);
}

/* dw from inputs [in, in + ins) to `together` outputs from the sums of their points,
 * [point][input][output]; added to what is there, or written. */
TARGET static void finish_gradient(const plan *p, const float *sums, int in, int ins, int out,
                                   bool add, float *dw)
{
    size_t row = (size_t)p->together, point = (size_t)ins * row;
    for (int o = 0; o < p->together / B; o++)
        for (int i = 0; i < ins; i++) {
            float taps[TAPS][B];
            size_t block = (size_t)((out / B + o) * (p->ins / B) + (in + i) / B);
            float *to = dw + block * TAPS * B * B + (size_t)(i % B) * B;
            both_ways(tap_gradients, SIDE, 3, sums + (size_t)i * row + (size_t)o * B, SIDE * point,
                      point, taps[0], (size_t)3 * B, B);
            for (int t = 0; t < TAPS; t++, to += B * B)
                STORE(to, add ? ADD(LOAD(to), LOAD(taps[t])) : LOAD(taps[t]));
        }
}
