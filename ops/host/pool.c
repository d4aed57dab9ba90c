/* pool.c - pooling. Backward gathers: each input pixel sums what the windows over it send, so
 * nothing is written twice and the order is fixed; dy2 is added on the way. */
#include "ops/element.h"
#include "ops/host/host_op.h"

/* Elements between neighbours, for any layout: channels of a block lie side by side. */
typedef struct map {
    size_t picture, block, row, column;
    int lanes, blocks;
    bool bf16;
} map;

static map map_of(ts_layout layout, ts_shape s, ts_type type)
{
    bool last = layout == TS_NHWC;
    int lanes = last ? s.c : ts_layout_block(layout);
    map m = {.lanes = lanes, .blocks = (s.c + lanes - 1) / lanes, .bf16 = type == TS_BF16};
    m.column = (size_t)lanes;
    m.row = m.column * (size_t)s.w;
    m.block = m.row * (size_t)s.h;
    m.picture = m.block * (size_t)m.blocks;
    return m;
}

/* Where channel c of picture n starts. */
static size_t channel_at(const map *m, int n, int c)
{
    return (size_t)n * m->picture + (size_t)(c / m->lanes) * m->block + (size_t)(c % m->lanes);
}

static bool pool_serves(const ts_op_desc *d)
{
    (void)d;
    return true;
}

static size_t place_at(const ts_op_desc *d, int n, int c, int h, int w)
{
    return (((size_t)n * (size_t)d->out.h + (size_t)h) * (size_t)d->out.w + (size_t)w) *
               (size_t)d->out.c +
           (size_t)c;
}

static void pool_size(ts_op *op)
{
    if (op->desc.kind == TS_OP_MAX_POOL && op->desc.training)
        op->saved_bytes = ts_shape_count(op->desc.out) * sizeof(int32_t);
}

TS_INLINE void forward_channels(const ts_op_run *r, const map *x, const map *y, int n, int h, int w,
                                bool bf16, bool max)
{
    const ts_op_desc *d = &r->op->desc;
    ts_window rows = ts_input_window(d, h, d->in.h), columns = ts_input_window(d, w, d->in.w);
    float share = ts_pool_share(d, h, w);
    int32_t *place = r->args.saved;
    for (int c = 0; c < d->in.c; c++) {
        size_t from = channel_at(x, n, c);
        float most = -__builtin_inff(), sum = 0;
        int best = rows.from * d->in.w + columns.from;
        for (int i = rows.from; i < rows.to; i++)
            for (int j = columns.from; j < columns.to; j++) {
                size_t at = from + (size_t)i * x->row + (size_t)j * x->column;
                float v = ts_host_load(r->args.x, at, bf16);
                sum += v;
                if (ts_is_larger(v, most)) {
                    most = v;
                    best = i * d->in.w + j;
                }
            }
        size_t to = channel_at(y, n, c) + (size_t)h * y->row + (size_t)w * y->column;
        ts_host_store(r->args.y, to, max ? most : sum * share, bf16);
        if (max && d->training) place[place_at(d, n, c, h, w)] = best;
    }
}

/* Global average pooling has one output a channel: up to 16 channels that lie side by side go
 * together, in the order of the general loops. */
enum { SIDE_BY_SIDE = 16 };

static bool is_global_average(const ts_op_desc *d)
{
    return d->kind == TS_OP_AVERAGE_POOL && !d->kernel;
}

/* How many channels from `c` on lie side by side. */
static int channels_together(const ts_op_desc *d, const map *m, int c)
{
    int width = m->lanes - c % m->lanes, left = d->in.c - c;
    width = width < left ? width : left;
    return width < SIDE_BY_SIDE ? width : SIDE_BY_SIDE;
}

TS_INLINE void average(const ts_op_run *r, const map *x, const map *y, int n, int c, int width,
                       bool bf16)
{
    const ts_op_desc *d = &r->op->desc;
    size_t at = channel_at(x, n, c);
    float sum[SIDE_BY_SIDE] = {0}, share = ts_pool_share(d, 0, 0);
    for (int p = 0; p < d->in.h * d->in.w; p++, at += x->column)
        for (int i = 0; i < width; i++) sum[i] += ts_host_load(r->args.x, at + (size_t)i, bf16);
    for (int i = 0; i < width; i++)
        ts_host_store(r->args.y, channel_at(y, n, c + i), sum[i] * share, bf16);
}

TS_INLINE void spread(const ts_op_run *r, const map *dx, const map *dy, int n, int c, int width,
                      bool bf16)
{
    const ts_op_desc *d = &r->op->desc;
    size_t at = channel_at(dx, n, c);
    float part[SIDE_BY_SIDE], share = ts_pool_share(d, 0, 0);
    for (int i = 0; i < width; i++) {
        size_t from = channel_at(dy, n, c + i);
        float g = ts_host_load(r->args.dy, from, bf16);
        if (r->args.dy2) g += ts_host_load(r->args.dy2, from, bf16);
        part[i] = g * share;
    }
    for (int p = 0; p < d->in.h * d->in.w; p++, at += dx->column)
        for (int i = 0; i < width; i++) ts_host_store(r->args.dx, at + (size_t)i, part[i], bf16);
}

/* `in` and `out`: of x and y, or dx and dy. */
static void pool_globally(const ts_op_run *r, const map *in, const map *out, bool backward)
{
    const ts_op_desc *d = &r->op->desc;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < d->in.n; n++)
        for (int c = 0, width; c < d->in.c; c += width) {
            width = channels_together(d, in, c);
#define CASE(FULL, BF16, BACKWARD)                                                                 \
    if ((width == SIDE_BY_SIDE) == FULL && in->bf16 == BF16 && backward == BACKWARD)               \
        (BACKWARD ? spread : average)(r, in, out, n, c, FULL ? SIDE_BY_SIDE : width, BF16);
            CASE(true, false, false)
            CASE(true, false, true)
            CASE(true, true, false)
            CASE(true, true, true)
            CASE(false, false, false)
            CASE(false, false, true)
            CASE(false, true, false)
            CASE(false, true, true)
#undef CASE
        }
}

static ts_status pool_forward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    map x = map_of(d->in_layout, d->in, d->type), y = map_of(d->layout, d->out, d->type);
    bool max = d->kind == TS_OP_MAX_POOL;
    if (y.lanes > 1 && d->out.c % y.lanes) /* padding channels are zero */
        memset(r->args.y, 0, ts_layout_count(d->layout, d->out) * ts_type_bytes(d->type));
    if (is_global_average(d)) {
        pool_globally(r, &x, &y, false);
        return TS_OK;
    }
#pragma omp parallel for collapse(2)
    for (int n = 0; n < d->out.n; n++)
        for (int h = 0; h < d->out.h; h++)
            for (int w = 0; w < d->out.w; w++) {
                if (x.bf16)
                    forward_channels(r, &x, &y, n, h, w, true, max);
                else
                    forward_channels(r, &x, &y, n, h, w, false, max);
            }
    return TS_OK;
}

TS_INLINE void backward_channels(const ts_op_run *r, const map *dx, const map *dy, int n, int h,
                                 int w, bool bf16, bool max)
{
    const ts_op_desc *d = &r->op->desc;
    ts_window rows = ts_output_window(d, h, d->in.h, d->out.h);
    ts_window columns = ts_output_window(d, w, d->in.w, d->out.w);
    const int32_t *place = r->args.saved;
    float all = ts_pool_share(d, 0, 0); /* what global pooling shares */
    for (int c = 0; c < d->in.c; c++) {
        size_t from = channel_at(dy, n, c);
        float sum = 0;
        for (int i = rows.from; i < rows.to; i++)
            for (int j = columns.from; j < columns.to; j++) {
                size_t at = from + (size_t)i * dy->row + (size_t)j * dy->column;
                float g = ts_host_load(r->args.dy, at, bf16);
                if (r->args.dy2) g += ts_host_load(r->args.dy2, at, bf16);
                if (max)
                    sum += place[place_at(d, n, c, i, j)] == h * d->in.w + w ? g : 0;
                else
                    sum += g * (d->kernel ? ts_pool_share(d, i, j) : all);
            }
        ts_host_store(r->args.dx,
                      channel_at(dx, n, c) + (size_t)h * dx->row + (size_t)w * dx->column, sum,
                      bf16);
    }
}

static ts_status pool_backward(const ts_op_run *r)
{
    const ts_op_desc *d = &r->op->desc;
    map dx = map_of(d->in_layout, d->in, d->type), dy = map_of(d->layout, d->out, d->type);
    bool max = d->kind == TS_OP_MAX_POOL;
    if (dx.lanes > 1 && d->in.c % dx.lanes)
        memset(r->args.dx, 0, ts_layout_count(d->in_layout, d->in) * ts_type_bytes(d->type));
    if (is_global_average(d)) {
        pool_globally(r, &dx, &dy, true);
        return TS_OK;
    }
#pragma omp parallel for collapse(2)
    for (int n = 0; n < d->in.n; n++)
        for (int h = 0; h < d->in.h; h++)
            for (int w = 0; w < d->in.w; w++) {
                if (dx.bf16)
                    backward_channels(r, &dx, &dy, n, h, w, true, max);
                else
                    backward_channels(r, &dx, &dy, n, h, w, false, max);
            }
    return TS_OK;
}

const ts_host_kind ts_host_pool = {
    .serves = pool_serves,
    .size = pool_size,
    .forward = pool_forward,
    .backward_data = pool_backward,
};
