/* winograd_wide.h - many channels: the points of many strips stay in the last cache that cores
 * share, and a thread makes some of the outputs, for all those strips.
 *
 * Inputs are taken in parts of PART channels, so that a product's factors fit the first cache; v is
 * [part][point][tile][channel of the part]. The weight's points are made where they are used and
 * are never in memory as a whole. What is added in which order does not depend on the threads. */
enum { PART = 128, WIDEST = 512, V_FLOATS = 1 << 20 };

/* Strips whose points are held at once. */
static int held_strips(const plan *p)
{
    int strips = V_FLOATS / (POINTS * p->ins) / p->columns;
    return strips < 1 ? 1 : least(strips, p->strips);
}

/* Of v: whole chunks. */
static int held_tiles(const plan *p)
{
    return (held_strips(p) * p->columns + CHUNK - 1) / CHUNK * CHUNK;
}

static size_t part_floats(const plan *p)
{
    return POINTS * point(held_tiles(p), PART);
}

/* Of a thread's u, the weight's points from one part to the outputs of a product. */
static size_t u_floats(const plan *p)
{
    return POINTS * point(PART, p->together);
}

/* What one thread works on: a strip; u and m; or g, the output gradients' points, and their sums.
 */
static size_t wide_thread_floats(const plan *p, bool gradient)
{
    size_t m = POINTS * point(CHUNK, p->together), u = u_floats(p) * (size_t)(p->ins / PART);
    size_t g = POINTS * point(held_tiles(p), p->together);
    size_t sums = (size_t)(POINTS * PART * p->together);
    return strip_floats(p) + (gradient ? g + sums : u + m);
}

static size_t wide_scratch_bytes(const ts_op_desc *d, ts_conv_pass pass)
{
    plan p = plan_of(d, pass);
    size_t floats = (size_t)(p.ins / PART) * part_floats(&p) +
                    (size_t)ts_host_threads() * wide_thread_floats(&p, pass == TS_CONV_WEIGHTS);
    return floats * sizeof(float);
}

static bool is_wide(int channels)
{
    return channels % PART == 0 && channels <= WIDEST;
}

static bool wide_serves(const ts_op_desc *d, const ts_md *order)
{
    /* of a smaller picture most of a tile would be padding */
    return is_wide(d->in.c) && is_wide(d->out.c) && d->in.h >= TILE && d->in.w >= TILE &&
           is_tiled(d, order);
}

/* The points of strips [first, last), a part of a strip for each thread at a time. Every thread
 * calls it. */
static void hold(const plan *p, const float *x, int first, int last, float *strip, float *v)
{
#pragma omp for collapse(2) schedule(static)
    for (int part = 0; part < p->ins / PART; part++)
        for (int s = first; s < last; s++)
            transform_strips(p, x, p->ins, part * (PART / B), PART / B, s, s + 1, false, strip,
                             v + (size_t)part * part_floats(p) +
                                 (size_t)((s - first) * p->columns) * PART,
                             point(held_tiles(p), PART));
}

/* ---- forward and backward data ---- */

/* Outputs [out, out + together) of the held strips. */
static void run_outputs(const plan *p, bool data, int first, int last, const float *v,
                        const float *weight, int out, float *y, float *strip)
{
    size_t v_point = point(held_tiles(p), PART), u_point = point(PART, p->together);
    size_t m_point = point(CHUNK, p->together);
    int parts = p->ins / PART;
    float *u = strip + strip_floats(p), *m = u + u_floats(p) * (size_t)parts;
    for (int part = 0; part < parts; part++)
        for (int in = 0; in < PART / B; in++)
            for (int o = 0; o < p->together / B; o++)
                transform_block(p, data, weight, part * (PART / B) + in, out / B + o,
                                u + (size_t)part * u_floats(p) +
                                    (size_t)(in * B * p->together + o * B),
                                (size_t)p->together, u_point);
    for (int tile = 0; tile < (last - first) * p->columns; tile += CHUNK) {
        for (int part = 0; part < parts; part++)
            for (size_t i = 0; i < POINTS; i++) {
                product q = {.a = v + (size_t)part * part_floats(p) + i * v_point +
                                  (size_t)tile * PART,
                             .b = u + (size_t)part * u_floats(p) + i * u_point,
                             .sums = m + i * m_point,
                             .a_row = PART,
                             .a_k = 1,
                             .b_k = (size_t)p->together,
                             .sums_row = (size_t)p->together,
                             .n = PART};
                multiply_all(q, CHUNK, p->together, part > 0);
            }
        finish_chunk(p, m, first, last, tile, out, y);
    }
}

/* ---- the weight's gradient ---- */

/* dw of outputs [out, out + together) over the held strips. */
static void sum_outputs(const plan *p, int first, int last, const float *v, const float *dy,
                        int out, float *dw, float *strip)
{
    size_t v_point = point(held_tiles(p), PART), g_point = point(held_tiles(p), p->together);
    size_t points = (size_t)(PART * p->together);
    float *g = strip + strip_floats(p), *sums = g + POINTS * g_point;
    transform_strips(p, dy, p->outs, out / B, p->together / B, first, last, true, strip, g,
                     g_point);
    for (int part = 0; part < p->ins / PART; part++) {
        for (size_t i = 0; i < POINTS; i++) {
            product q = {.a = v + (size_t)part * part_floats(p) + i * v_point,
                         .b = g + i * g_point,
                         .sums = sums + i * points,
                         .a_row = 1,
                         .a_k = PART,
                         .b_k = (size_t)p->together,
                         .sums_row = (size_t)p->together,
                         .n = (last - first) * p->columns};
            multiply_all(q, PART, p->together, false);
        }
        finish_gradient(p, sums, part * PART, PART, out, first > 0, dw);
    }
}

/* ---- all passes ---- */

/* `other` is the weight, for the weight's gradient dy. */
static void wide_run(const ts_op_desc *d, ts_conv_pass pass, const void *from, const void *other,
                     void *to, void *scratch)
{
    bool gradient = pass == TS_CONV_WEIGHTS;
    plan p = plan_of(d, pass);
    int step = held_strips(&p);
    float *v = scratch, *threads = v + part_floats(&p) * (size_t)(p.ins / PART);
#pragma omp parallel num_threads(ts_host_threads())
    {
        float *mine = threads + (size_t)omp_get_thread_num() * wide_thread_floats(&p, gradient);
        for (int first = 0; first < p.strips; first += step) {
            int last = least(first + step, p.strips);
            hold(&p, from, first, last, mine, v);
#pragma omp for schedule(static)
            for (int out = 0; out < p.outs; out += p.together)
                if (gradient)
                    sum_outputs(&p, first, last, v, other, out, to, mine);
                else
                    run_outputs(&p, pass == TS_CONV_DATA, first, last, v, other, out, to, mine);
        }
    }
}

const ts_own_conv WIDE = {
    .serves = wide_serves, .scratch_bytes = wide_scratch_bytes, .run = wide_run};
