/* tiles.c - forward and backward data by matrix tiles (AMX), from TS_NHWC to TS_NHWC in bf16.
 *
 * 16 pictures' values at one pixel are the rows of a tile, so tiles are full however small the
 * pictures, a tap moves whole tiles, and those that fall on the border are left out. What a pass
 * reads is first put into tiles [pixel][16 pictures][32 channels]. The weight lies packed as the
 * instruction wants it, [16 outputs][tap][32 inputs]; to backward data outputs are inputs.
 * oneDNN 2.6, whose tiles hold pixels of one row, takes up to 5 times as long (512 channels, 4x4),
 * and about as long with few channels and large pictures. */
#include "ops/host/own_conv.h"

#if defined(__x86_64__)
#include "ops/host/pack.h"
#include "ops/host/tiles.h"

TILES void ts_tiles_open(void)
{
    /* 16 rows of 64 bytes each; static, since the compiler is told of the first bytes only */
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1,
             .bytes = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE},
             .rows = {B, B, B, B, B, B, B, B}};
    _tile_loadconfig(&all);
}

TILES void ts_tiles_close(void)
{
    _tile_release();
}

/* As many cost as much as 16; with 4 the library is as fast, with one 20 times. */
enum { LEAST_PICTURES = 8 };

/* One pass; k: what it sums over, n: what it makes. */
typedef struct plan {
    const ts_op_desc *d;
    bool data;
    ts_shape from, to;
    size_t groups; /* of 16 pictures */
    size_t k_tiles, n_tiles, taps;
} plan;

static plan plan_of(const ts_op_desc *d, ts_conv_pass pass)
{
    bool data = pass == TS_CONV_DATA;
    plan p = {.d = d, .data = data, .from = data ? d->out : d->in, .to = data ? d->in : d->out};
    p.groups = (size_t)(d->in.n + B - 1) / B;
    p.k_tiles = (size_t)(p.from.c + STEP - 1) / STEP;
    p.n_tiles = (size_t)p.to.c / B;
    p.taps = (size_t)(d->kernel * d->kernel);
    return p;
}

static bool serves(const ts_op_desc *d, const ts_md *order)
{
    const int64_t dims[] = {d->out.c, d->in.c, d->kernel, d->kernel};
    return d->type == TS_BF16 && d->in.n >= LEAST_PICTURES && (d->kernel == 1 || d->kernel == 3) &&
           d->padding == d->kernel / 2 && (d->stride == 1 || d->stride == 2) && d->in.c % B == 0 &&
           d->out.c % B == 0 && d->in.c <= MOST_CHANNELS && d->out.c <= MOST_CHANNELS &&
           d->in_layout == TS_NHWC && d->layout == TS_NHWC && ts_dnnl_has_tiles() &&
           ts_md_has_tag(order, 4, dims, TS_F32, dnnl_OIhw16i16o);
}

static bool makes_dx(const ts_op_desc *d)
{
    return d->training && d->needs_dx;
}

/* The weight of one tile of what is made, and all of it. */
static size_t tile_weight_elements(const plan *p)
{
    return p->taps * p->k_tiles * TILE;
}

static size_t weight_elements(const plan *p)
{
    return p->n_tiles * tile_weight_elements(p);
}

/* The weight as forward wants it, then as backward data does, where there is one. */
static size_t packed_bytes(const ts_op_desc *d)
{
    plan forward = plan_of(d, TS_CONV_FORWARD), data = plan_of(d, TS_CONV_DATA);
    size_t elements = weight_elements(&forward) + (makes_dx(d) ? weight_elements(&data) : 0);
    return elements * sizeof(uint16_t);
}

static void pack(const ts_op_desc *d, const float *weight, void *packed)
{
    plan forward = plan_of(d, TS_CONV_FORWARD);
    const ts_packing both[] = {TS_PACK_TILES_FORWARD, TS_PACK_TILES_DATA};
    uint16_t *to[] = {packed, (uint16_t *)packed + weight_elements(&forward)};
    /* half tiles are filled up with zeros */
    if (d->in.c % STEP || d->out.c % STEP) memset(packed, 0, packed_bytes(d));
    ts_packing_run(both, to, makes_dx(d) ? 2 : 1, d, weight);
}

static size_t scratch_bytes(const ts_op_desc *d, ts_conv_pass pass)
{
    plan p = plan_of(d, pass);
    size_t pixels = (size_t)p.from.h * (size_t)p.from.w;
    if (pass == TS_CONV_WEIGHTS) return ts_tiles_gradient_scratch_bytes(d);
    return pixels * p.groups * p.k_tiles * TILE * sizeof(uint16_t);
}

/* ---- what a pass reads, in tiles ---- */

TILES static void put_pixel(const plan *p, const uint16_t *from, size_t pixel, uint16_t *to)
{
    size_t channels = (size_t)p->from.c, pictures = (size_t)p->from.n;
    size_t picture = (size_t)p->from.h * (size_t)p->from.w * channels;
    for (size_t n = 0; n < p->groups * B; n++) {
        const uint16_t *row = from + (n < pictures ? n : 0) * picture + pixel * channels;
        uint16_t *tile = to + n / B * p->k_tiles * TILE + n % B * STEP;
        for (size_t c = 0; c < channels; c += STEP, tile += TILE) {
            size_t left = n < pictures ? channels - c : 0;
            __mmask32 here = left < STEP ? (__mmask32)((1u << left) - 1) : ~(__mmask32)0;
            _mm512_storeu_si512(tile, _mm512_maskz_loadu_epi16(here, row + c));
        }
    }
}

/* Where along one side a tap reads for output `at`; -1: nowhere. */
static int source(const plan *p, int at, int tap, int side)
{
    const ts_op_desc *d = p->d;
    int from = p->data ? at + d->padding - tap : at * d->stride + tap - d->padding;
    if (p->data && from % d->stride) return -1;
    if (p->data) from /= d->stride;
    return from < 0 || from >= side ? -1 : from;
}

/* ---- one row of pixels ---- */

/* A tile of what is made: 16 pictures at one pixel; column -1: none. */
typedef struct unit {
    int column;
    size_t group;
} unit;

/* The tile that a unit reads for a tap, or zeros. */
static const uint16_t *unit_tile(const plan *p, const uint16_t *tiles, unit u, int row, int tap)
{
    static const uint16_t zeros[MOST_CHANNELS / STEP * TILE];
    int column = u.column < 0 ? -1 : source(p, u.column, tap, p->from.w);
    if (column < 0) return zeros;
    size_t pixel = (size_t)row * (size_t)p->from.w + (size_t)column;
    return tiles + (pixel * p->groups + u.group) * p->k_tiles * TILE;
}

TILES static void store_unit(const plan *p, unit u, int row, size_t tile, float *sums[2],
                             uint16_t *to)
{
    size_t pixel = (size_t)row * (size_t)p->to.w + (size_t)u.column;
    size_t picture = (size_t)p->to.h * (size_t)p->to.w;
    for (size_t i = 0; i < B && u.group * B + i < (size_t)p->to.n; i++) {
        uint16_t *at = to + ((u.group * B + i) * picture + pixel) * (size_t)p->to.c + tile * B;
        __m512 low = _mm512_loadu_ps(sums[0] + i * B);
        if (sums[1])
            _mm512_storeu_si512(
                at, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(sums[1] + i * B), low));
        else
            _mm256_storeu_si256((__m256i_u *)at, (__m256i)_mm512_cvtneps_pbh(low));
    }
}

/* Two units of a row by tiles `tile` and the next one of what is made. */
TILES static void run_units(const plan *p, const unit u[2], int row, size_t tile,
                            const uint16_t *tiles, const uint16_t *weight, uint16_t *to)
{
    float sums[4][B * B];
    bool two = u[1].column >= 0, two_tiles = tile + 1 < p->n_tiles;
    float *c[2][2] = {{sums[0], two_tiles ? sums[1] : NULL},
                      {two ? sums[2] : NULL, two && two_tiles ? sums[3] : NULL}};
    size_t next = tile_weight_elements(p);
    weight += tile * next;
    tiles_zero();
    for (int r = 0; r < p->d->kernel; r++) {
        int from = source(p, row, r, p->from.h);
        for (int s = 0; from >= 0 && s < p->d->kernel; s++) {
            const uint16_t *a0 = unit_tile(p, tiles, u[0], from, s);
            const uint16_t *a1 = unit_tile(p, tiles, u[1], from, s);
            const uint16_t *b = weight + (size_t)(r * p->d->kernel + s) * p->k_tiles * TILE;
            if (a0 == a1) continue; /* zeros, as units share no other tile */
            tiles_multiply(a0, two ? a1 : NULL, b, two_tiles ? b + next : NULL, p->k_tiles);
        }
    }
    tiles_store(c);
    for (int i = 0; i <= two; i++) store_unit(p, u[i], row, tile, c[i], to);
}

/* Units that read by the same taps go together: to backward data every stride-th. */
static void run_row(const plan *p, int row, size_t tile, const uint16_t *tiles,
                    const uint16_t *weight, uint16_t *to)
{
    int step = p->data ? p->d->stride : 1;
    for (int phase = 0; phase < step; phase++) {
        unit u[2];
        int n = 0;
        for (int column = phase; column < p->to.w; column += step)
            for (size_t group = 0; group < p->groups; group++) {
                u[n++] = (unit){column, group};
                if (n == 2) run_units(p, u, row, tile, tiles, weight, to);
                n %= 2;
            }
        u[1].column = -1;
        if (n) run_units(p, u, row, tile, tiles, weight, to);
    }
}

static void run(const ts_op_desc *d, ts_conv_pass pass, const void *from, const void *other,
                void *to, void *scratch)
{
    plan p = plan_of(d, pass), forward = plan_of(d, TS_CONV_FORWARD);
    const uint16_t *weight = (const uint16_t *)other + (p.data ? weight_elements(&forward) : 0);
    size_t pixels = (size_t)p.from.h * (size_t)p.from.w;
    if (pass == TS_CONV_WEIGHTS) {
        ts_tiles_gradient(d, from, other, to, scratch);
        return;
    }
#pragma omp parallel num_threads(ts_host_threads())
    {
#pragma omp for schedule(static)
        for (size_t pixel = 0; pixel < pixels; pixel++)
            put_pixel(&p, from, pixel, (uint16_t *)scratch + pixel * p.groups * p.k_tiles * TILE);
        ts_tiles_open();
#pragma omp for collapse(2) schedule(static)
        for (size_t tile = 0; tile < p.n_tiles; tile += 2)
            for (int row = 0; row < p.to.h; row++) run_row(&p, row, tile, scratch, weight, to);
        ts_tiles_close();
    }
}

const ts_own_conv ts_own_conv_tiles = {.serves = serves,
                                       .packed_bytes = packed_bytes,
                                       .pack = pack,
                                       .scratch_bytes = scratch_bytes,
                                       .run = run};
#endif
