/* winograd_few.h - few channels: a chunk of strips goes through all steps in a core's cache.
 *
 * Products take a whole chunk: of tiles that a last, shorter one lacks they make sums that nobody
 * reads. The weight's gradient is summed over the chunks of a group of strips, then over the
 * groups: what is added in which order does not depend on the threads. */
static int chunk_strips(const plan *p)
{
    return CHUNK / p->columns;
}

/* Of strips, for the gradient. */
static int groups_of(const plan *p)
{
    return 256 / p->ins;
}

/* What one thread works on: a strip, v, m; and for the gradient the sums of all points. */
static size_t few_thread_floats(const plan *p, bool gradient)
{
    size_t floats = strip_floats(p) + POINTS * (point(CHUNK, p->ins) + point(CHUNK, p->together));
    return floats + (gradient ? (size_t)(POINTS * p->ins * p->together) : 0);
}

static size_t few_scratch_bytes(const ts_op_desc *d, ts_conv_pass pass)
{
    bool gradient = pass == TS_CONV_WEIGHTS;
    plan p = plan_of(d, pass);
    size_t floats = (size_t)ts_host_threads() * few_thread_floats(&p, gradient);
    if (gradient)
        floats += (size_t)groups_of(&p) * TAPS * (size_t)p.ins * (size_t)p.outs;
    else
        floats += POINTS * point(p.ins, p.outs);
    return floats * sizeof(float);
}

/* What multiply_all knows. */
static bool is_few(int channels)
{
    return channels == B || channels == 16 || channels == 32 || channels == 64 || channels == 128;
}

static bool few_serves(const ts_op_desc *d, const ts_md *order)
{
    return is_few(d->in.c) && is_few(d->out.c) && d->in.w <= TILE * CHUNK && is_tiled(d, order);
}

/* ---- forward and backward data ---- */

static void run_chunk(const plan *p, int first, int last, const float *x, const float *u, float *y,
                      float *scratch)
{
    size_t v_point = point(CHUNK, p->ins), m_point = point(CHUNK, p->together);
    float *v = scratch + strip_floats(p), *m = v + POINTS * v_point;
    transform_strips(p, x, p->ins, 0, p->ins / B, first, last, false, scratch, v, v_point);
    for (int o = 0; o < p->outs; o += p->together) {
        for (size_t i = 0; i < POINTS; i++) {
            product q = {.a = v + i * v_point,
                         .b = u + i * point(p->ins, p->outs) + o,
                         .sums = m + i * m_point,
                         .a_row = (size_t)p->ins,
                         .a_k = 1,
                         .b_k = (size_t)p->outs,
                         .sums_row = (size_t)p->together,
                         .n = p->ins};
            multiply_all(q, CHUNK, p->together, false);
        }
        finish_chunk(p, m, first, last, 0, o, y);
    }
}

static void few_convolve(const ts_op_desc *d, ts_conv_pass pass, const float *from,
                         const float *weight, float *to, void *scratch)
{
    plan p = plan_of(d, pass);
    int step = chunk_strips(&p);
    float *u = scratch, *threads = u + POINTS * point(p.ins, p.outs);
#pragma omp parallel num_threads(ts_host_threads())
    {
        float *mine = threads + (size_t)omp_get_thread_num() * few_thread_floats(&p, false);
#pragma omp for collapse(2) schedule(static)
        for (int in = 0; in < p.ins / B; in++)
            for (int out = 0; out < p.outs / B; out++)
                transform_block(&p, pass == TS_CONV_DATA, weight, in, out,
                                u + (size_t)in * B * (size_t)p.outs + (size_t)out * B,
                                (size_t)p.outs, point(p.ins, p.outs));
#pragma omp for schedule(static)
        for (int first = 0; first < p.strips; first += step)
            run_chunk(&p, first, least(first + step, p.strips), from, u, to, mine);
    }
}

/* ---- the weight's gradient ---- */

/* dw of outputs [out, out + together) over the strips of one group. */
static void run_group(const plan *p, int group, int out, const float *x, const float *dy, float *dw,
                      float *scratch)
{
    size_t v_point = point(CHUNK, p->ins), g_point = point(CHUNK, p->together);
    float *v = scratch + strip_floats(p), *g = v + POINTS * v_point, *sums = g + POINTS * g_point;
    int groups = groups_of(p), end = (int)((int64_t)p->strips * (group + 1) / groups);
    size_t points = (size_t)p->ins * (size_t)p->together;
    memset(sums, 0, POINTS * points * sizeof *sums);
    for (int s = (int)((int64_t)p->strips * group / groups); s < end; s += chunk_strips(p)) {
        int last = least(s + chunk_strips(p), end);
        transform_strips(p, x, p->ins, 0, p->ins / B, s, last, false, scratch, v, v_point);
        transform_strips(p, dy, p->outs, out / B, p->together / B, s, last, true, scratch, g,
                         g_point);
        for (size_t i = 0; i < POINTS; i++) {
            product q = {.a = v + i * v_point,
                         .b = g + i * g_point,
                         .sums = sums + i * points,
                         .a_row = 1,
                         .a_k = (size_t)p->ins,
                         .b_k = (size_t)p->together,
                         .sums_row = (size_t)p->together,
                         .n = (last - s) * p->columns};
            multiply_all(q, p->ins, p->together, true);
        }
    }
    finish_gradient(p, sums, 0, p->ins, out, false, dw);
}

static void few_gradient(const ts_op_desc *d, const float *x, const float *dy, float *dw,
                         void *scratch)
{
    plan p = plan_of(d, TS_CONV_WEIGHTS);
    int groups = groups_of(&p);
    size_t weights = (size_t)TAPS * (size_t)p.ins * (size_t)p.outs;
    float *parts = scratch, *threads = parts + (size_t)groups * weights;
#pragma omp parallel for collapse(2) schedule(static) num_threads(ts_host_threads())
    for (int group = 0; group < groups; group++)
        for (int out = 0; out < p.outs; out += p.together) {
            float *mine = threads + (size_t)omp_get_thread_num() * few_thread_floats(&p, true);
            run_group(&p, group, out, x, dy, parts + (size_t)group * weights, mine);
        }
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < weights; i++) {
        float sum = 0;
        for (int group = 0; group < groups; group++) sum += parts[(size_t)group * weights + i];
        dw[i] = sum;
    }
}

static void few_run(const ts_op_desc *d, ts_conv_pass pass, const void *from, const void *other,
                    void *to, void *scratch)
{
    if (pass == TS_CONV_WEIGHTS)
        few_gradient(d, from, other, to, scratch);
    else
        few_convolve(d, pass, from, other, to, scratch);
}

const ts_own_conv FEW = {.serves = few_serves, .scratch_bytes = few_scratch_bytes, .run = few_run};
