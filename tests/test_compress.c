/* test_compress.c - encoders and decoders: what each promises about its encoding, its residual and
 * its sum, on the host and on device cuda, whose bits must be the host's. */
#include <math.h>
#include "runtime/base/random.h"
#include "runtime/compress/compressor.h"
#include "tests/check.h"
#include "tests/threads.h"

enum { MOST = 64 * 321 /* five chunks and a bit */, RANKS = 4, WIRE = 8 * MOST + 64 };

static ts_device *device;
static ts_stream *stream;
static float *from, *anchor, *residual, *velocity, *to, *before; /* [MOST] */
static unsigned char *wires;                                     /* [RANKS] encodings */

static float noise(uint64_t which, size_t i)
{
    ts_random4 u = ts_random(11, i, which);
    float sum = -2;
    for (int j = 0; j < 4; j++) sum += ts_random_unit(u.v[j]);
    return sum;
}

static void fill(float *v, uint64_t which, float scale)
{
    for (size_t i = 0; i < MOST; i++) v[i] = scale * noise(which, i);
}

static int setup(void **state)
{
    (void)state;
    fill(from, 0, 1);
    fill(anchor, 1, 0.5f);
    fill(residual, 2, 0.25f);
    fill(velocity, 3, 1);
    fill(to, 4, 1);
    memset(wires, 0, (size_t)RANKS * WIRE);
    return 0;
}

static float **const vectors[] = {&from, &anchor, &residual, &velocity, &to, &before};
enum { VECTORS = sizeof vectors / sizeof *vectors };

static int group_setup(void **state)
{
    (void)state;
    OK(ts_device_open(test_device(), 0, &device));
    OK(ts_stream_open(device, TS_STREAM_COMM, "comm", &stream));
    for (int i = 0; i < VECTORS; i++)
        OK(ts_device_alloc(device, TS_MEMORY_DEVICE, MOST * sizeof(float), (void **)vectors[i]));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, (size_t)RANKS * WIRE, (void **)&wires));
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    ts_device_release(device, TS_MEMORY_DEVICE, wires);
    for (int i = 0; i < VECTORS; i++) ts_device_release(device, TS_MEMORY_DEVICE, *vectors[i]);
    ts_stream_close(stream);
    ts_device_close(device);
    return 0;
}

/* ---- compressors, and messages cut in several ways ---- */

typedef struct layout {
    size_t n;
    int n_pieces, n_raw;
    ts_stretch pieces[4], raw[4];
} layout;

static const layout layouts[] = {
    {64, 1, 0, {{0, 64}}, {{0}}},
    {4096 + 64, 1, 0, {{0, 4096 + 64}}, {{0}}},
    {MOST, 1, 0, {{0, MOST}}, {{0}}},
    {20480, 3, 3, {{64, 1728}, {1920, 9216}, {11200, 9280}}, {{0, 64}, {1792, 128}, {11136, 64}}},
    {8192, 0, 1, {{0}}, {{0, 8192}}},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static const ts_compression settings[] = {
    {.name = "bf16"},
    {.name = "qsgd", .levels = 7, .block = 512},
    {.name = "qsgd", .levels = 1, .block = 64},
    {.name = "qsgd", .levels = 127, .block = 4096},
    {.name = "qsgd", .levels = 4, .block = 1088},
    {.name = "terngrad"},
    {.name = "topk", .density = 0.01},
    {.name = "topk", .density = 0.4},
    {.name = "randomk", .density = 0.01},
    {.name = "randomk", .density = 0.3},
    {.name = "dgc", .density = 0.05},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

typedef struct under_test {
    const ts_compression *settings;
    const ts_compressor_ops *ops;
    ts_compressor *compressor;
    const layout *layout;
    size_t bytes;
} under_test;

static under_test open_it(const ts_compression *s, const layout *l)
{
    under_test u = {.settings = s, .layout = l};
    OK(ts_compressor_find(s, &u.ops));
    OK(ts_compressor_open(stream, u.ops, s, l->n, l->pieces, l->n_pieces, 1, &u.compressor));
    u.bytes = ts_compressor_bytes(u.compressor);
    assert_true(u.bytes <= WIRE);
    return u;
}

static bool is_sparse(const under_test *u)
{
    return u->settings->density > 0;
}
static bool is_dgc(const under_test *u)
{
    return !strcmp(u->settings->name, "dgc");
}
static bool is_randomk(const under_test *u)
{
    return !strcmp(u->settings->name, "randomk");
}

/* One rank, which decodes what it has encoded. */
static ts_coding alone(const under_test *u, bool feedback)
{
    return (ts_coding){.seed = 5,
                       .call = 3,
                       .first = 640,
                       .encoding = wires,
                       .from = from,
                       .residual = feedback || is_sparse(u) ? residual : NULL,
                       .feedback = feedback || is_dgc(u),
                       .velocity = is_dgc(u) ? velocity : NULL,
                       .momentum = 0.9f,
                       .to = to,
                       .ranks = 1,
                       .stride = WIRE,
                       .weight = 1};
}

static void encode(const under_test *u, const ts_coding *c)
{
    OK(ts_compressor_encode(u->compressor, c, stream));
    OK(ts_stream_sync(stream));
}

static void decode(const under_test *u, const ts_coding *c)
{
    OK(ts_compressor_decode(u->compressor, c, stream));
    OK(ts_stream_sync(stream));
}

#define FOR_ALL(u)                                                                                 \
    for (int s_ = 0; s_ < SETTINGS; s_++)                                                          \
        for (int l_ = 0; l_ < LAYOUTS; l_++)                                                       \
            for (under_test u = open_it(&settings[s_], &layouts[l_]); u.compressor;                \
                 ts_compressor_close(u.compressor), u.compressor = NULL)

/* ---- tests ---- */

static size_t round_up(size_t bytes)
{
    return (bytes + 15) / 16 * 16;
}

static void sizes_are_exact(void **state)
{
    (void)state;
    FOR_ALL(u)
    {
        size_t bytes = 0, k = 0;
        const ts_compression *s = u.settings;
        for (int i = 0; i < u.layout->n_pieces; i++) {
            size_t n = u.layout->pieces[i].n, share = (size_t)(s->density * (double)n);
            size_t blocks = s->block ? (n + (size_t)s->block - 1) / (size_t)s->block : 0;
            k += share ? share : 1;
            if (!strcmp(s->name, "bf16")) bytes += 2 * n;
            if (!strcmp(s->name, "terngrad")) bytes += 16 + n / 4;
            if (!strcmp(s->name, "qsgd"))
                bytes += round_up(4 * blocks) + n * (s->levels < 2 ? 2 : s->levels < 8 ? 4 : 8) / 8;
        }
        if (is_sparse(&u))
            bytes = round_up(k * (is_randomk(&u) ? 4 : 8) * (u.layout->n_pieces > 0));
        for (int i = 0; i < u.layout->n_raw; i++) bytes += 4 * u.layout->raw[i].n;
        assert_int_equal(u.bytes, bytes);
    }
}

static bool same(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

static bool is_raw(const layout *l, size_t i)
{
    for (int r = 0; r < l->n_raw; r++)
        if (i >= l->raw[r].at && i < l->raw[r].at + l->raw[r].n) return true;
    return false;
}

/* decode(encoding) + residual is what was to be encoded, to the last bit of the subtraction; what
 * travels in fp32 arrives as it is. */
static void the_residual_is_what_was_left_out(void **state)
{
    FOR_ALL(u)
    {
        for (int anchored = 0; anchored < 2; anchored++) {
            setup(state);
            ts_coding c = alone(&u, true);
            if (anchored) c.anchor = anchor;
            for (size_t i = 0; i < u.layout->n; i++) {
                float p = anchored ? from[i] - anchor[i] : from[i];
                if (is_raw(u.layout, i)) residual[i] = 0;
                before[i] = is_dgc(&u) ? residual[i] + fmaf(0.9f, velocity[i], p) : residual[i] + p;
            }
            encode(&u, &c);
            c.anchor = NULL;
            decode(&u, &c);
            size_t n_sent = 0;
            for (size_t i = 0; i < u.layout->n; i++) {
                float p = before[i], x = to[i];
                if (is_raw(u.layout, i)) {
                    if (!same(x, p) || residual[i] != 0)
                        fail_msg("%s: raw element %zu is %g, %g was sent", u.ops->name, i,
                                 (double)x, (double)p);
                    continue;
                }
                n_sent += x != 0;
                if (!same(residual[i], p - x))
                    fail_msg("%s: element %zu: %.9g became %.9g, its residual is %.9g", u.ops->name,
                             i, (double)p, (double)x, (double)residual[i]);
                if (is_sparse(&u) && !(same(x, p) || x == 0))
                    fail_msg("%s: element %zu: %.9g became %.9g", u.ops->name, i, (double)p,
                             (double)x);
                if (is_dgc(&u) && same(x, p)) assert_true(velocity[i] == 0);
            }
            if (u.layout->n_pieces) assert_true(n_sent > 0);
        }
    }
}

/* Over many draws the mean of what is decoded is what was encoded, but for TernGrad's clipping: 16
 * values, each drawn thousands of times, within 5.5 standard errors. */
static void unbiased_ones_are_unbiased(void **state)
{
    enum { VALUES = 16, CALLS = 10 };
    for (int s = 0; s < SETTINGS; s++) {
        under_test u = open_it(&settings[s], &layouts[1]);
        size_t n = layouts[1].n;
        bool randomk = is_randomk(&u) && u.settings->density > 0.1;
        if (u.ops->unbiased || randomk) {
            double sum[VALUES] = {0}, squares[VALUES] = {0}, draws = (double)(CALLS * n / VALUES);
            setup(state);
            double most = INFINITY, square = 0;
            float largest = 0;
            for (size_t i = 0; i < n; i++) {
                from[i] = noise(9, i % VALUES);
                square += (double)from[i] * (double)from[i];
                largest = fmaxf(largest, fabsf(from[i]));
            }
            if (!strcmp(u.ops->name, "terngrad")) most = 2.5 * sqrt(square / (double)n);
            for (uint64_t call = 0; call < CALLS; call++) {
                ts_coding c = alone(&u, false);
                c.call = call;
                c.rank = (int)call % 3;
                encode(&u, &c);
                decode(&u, &c);
                for (size_t i = 0; i < n; i++) {
                    sum[i % VALUES] += (double)to[i];
                    squares[i % VALUES] += (double)to[i] * (double)to[i];
                }
            }
            for (int v = 0; v < VALUES; v++) {
                double truth = fmax(-most, fmin(most, (double)from[v]));
                double mean = sum[v] / draws;
                double spread = sqrt(fmax(0, squares[v] / draws - mean * mean));
                double bound = 5.5 * spread / sqrt(draws) + 1e-6;
                if (!(fabs(mean - truth) <= bound))
                    fail_msg("%s, %d levels: the mean of %g is %g, off by more than %g",
                             u.ops->name, (int)u.settings->levels, truth, mean, bound);
                if (!is_randomk(&u) && fabsf(from[v]) > 0.1f && fabsf(from[v]) < 0.9f * largest)
                    assert_true(spread > 0); /* it does draw */
            }
        }
        ts_compressor_close(u.compressor);
    }
}

/* Another call or rank draws other numbers, the same draws the same; random-k's places are all
 * ranks'. */
static void draws_are_functions_of_call_and_rank(void **state)
{
    for (int s = 0; s < SETTINGS; s++) {
        under_test u = open_it(&settings[s], &layouts[3]);
        bool draws = u.ops->unbiased;
        setup(state);
        for (int which = 0; which < 4; which++) {
            ts_coding c = alone(&u, false);
            c.residual = is_sparse(&u) ? residual : NULL;
            c.feedback = false;
            c.velocity = is_dgc(&u) ? before : NULL;
            memset(before, 0, MOST * sizeof *before);
            if (which == 2) c.call++;
            if (which == 3) c.rank++;
            c.encoding = wires + which * WIRE;
            encode(&u, &c);
        }
        assert_memory_equal(wires, wires + WIRE, u.bytes);
        assert_int_equal(!memcmp(wires, wires + 2 * WIRE, u.bytes), !draws && !is_randomk(&u));
        assert_int_equal(!memcmp(wires, wires + 3 * WIRE, u.bytes), !draws);
        ts_compressor_close(u.compressor);
    }
}

/* ---- top-k, against sorting ---- */

static int larger_first(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b, u, v;
    memcpy(&u, &before[i], sizeof u);
    memcpy(&v, &before[j], sizeof v);
    u &= 0x7fffffff; /* of magnitudes, so a NaN is the largest */
    v &= 0x7fffffff;
    if (u != v) return u > v ? -1 : 1;
    return i < j ? -1 : 1;
}

static int lower_first(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    return (i > j) - (i < j);
}

enum data { NOISE, FEW_VALUES, MOST_ZERO, ALL_EQUAL, TINY, NOT_FINITE, ONE_BIT, KINDS };

static float datum(enum data kind, size_t i)
{
    float x = noise(20, i);
    uint32_t bits;
    switch (kind) {
    case FEW_VALUES:
        return floorf(3 * x);
    case MOST_ZERO:
        return i % 977 ? (i % 2 ? 0.0f : -0.0f) : x;
    case ALL_EQUAL:
        return i % 2 ? 0.75f : -0.75f;
    case TINY:
        return 1e-41f * x;
    case NOT_FINITE:
        return i % 3001 == 17 ? NAN : i % 2003 == 5 ? -INFINITY : x;
    case ONE_BIT: /* magnitudes that differ in their last bits only */
        bits = 0x3f800000u + (uint32_t)(ts_random(3, i, 0).v[0] % 700);
        memcpy(&x, &bits, sizeof x);
        return i % 2 ? x : -x;
    default:
        return x;
    }
}

static void topk_takes_the_largest(void **state)
{
    static uint32_t order[MOST];
    static const double densities[] = {1e-6, 0.1, 1};
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int d = 0; d < 3; d++)
            for (int l = 1; l < 4; l += 2) {
                ts_compression s = {.name = "topk", .density = densities[d]};
                under_test u = open_it(&s, &layouts[l]);
                ts_coding c = alone(&u, false);
                for (size_t i = 0; i < MOST; i++) from[i] = before[i] = datum(kind, i);
                encode(&u, &c);
                const uint32_t *index = (const uint32_t *)(void *)wires;
                size_t entries = 0, e = 0;
                for (int p = 0; p < u.layout->n_pieces; p++) {
                    size_t share = (size_t)(s.density * (double)u.layout->pieces[p].n);
                    entries += share ? share : 1;
                }
                const float *value = (const float *)(void *)(wires + 4 * entries);
                for (int p = 0; p < u.layout->n_pieces; p++) {
                    ts_stretch piece = u.layout->pieces[p];
                    size_t k = (size_t)(s.density * (double)piece.n);
                    k = k ? k : 1;
                    for (size_t i = 0; i < piece.n; i++) order[i] = (uint32_t)(piece.at + i);
                    qsort(order, piece.n, sizeof *order, larger_first);
                    qsort(order, k, sizeof *order, lower_first);
                    for (size_t j = 0; j < k; j++, e++)
                        if (index[e] != order[j] || !same(value[e], before[order[j]]))
                            fail_msg(
                                "data %d, density %g, layout %d: entry %zu is element %u (%g), "
                                "not %u (%g)",
                                kind, s.density, l, e, index[e], (double)value[e], order[j],
                                (double)before[order[j]]);
                }
                assert_int_equal(e, entries);
                ts_compressor_close(u.compressor);
            }
}

/* A part can be made and read by who knows nothing of the others: where the sum is scattered, the
 * rank that it belongs to. */
static void parts_are_encodings_of_their_own(void **state)
{
    (void)state;
    FOR_ALL(u)
    {
        for (int parts = 2; parts < 6 && !is_sparse(&u); parts += 3) {
            const layout *l = u.layout;
            ts_compressor *whole, *own;
            OK(ts_compressor_open(stream, u.ops, u.settings, l->n, l->pieces, l->n_pieces, parts,
                                  &whole));
            size_t bytes = ts_compressor_bytes(whole) / (size_t)parts, total = 0;
            under_test all = u;
            all.compressor = whole;
            ts_coding c = alone(&u, false);
            memset(wires, 0, WIRE); /* also what lies between the parts of an encoding */
            encode(&all, &c);
            decode(&all, &c);
            memcpy(before, to, l->n * sizeof *to);
            for (int p = 0; p < parts; p++) {
                ts_stretch part = ts_compressor_part(l->n, parts, p), pieces[4];
                unsigned char *there = wires + (size_t)p * bytes;
                int n = 0;
                for (int i = 0; i < l->n_pieces; i++) {
                    pieces[n] = ts_stretch_within(part, l->pieces[i].at, l->pieces[i].n);
                    pieces[n].at -= part.at;
                    n += pieces[n].n > 0;
                }
                total += part.n;
                if (!part.n) continue;
                OK(ts_compressor_open(stream, u.ops, u.settings, part.n, pieces, n, 1, &own));
                assert_true(ts_compressor_bytes(own) <= bytes);
                all.compressor = own;
                ts_coding mine = c;
                mine.from += part.at;
                mine.first += part.at;
                mine.encoding = wires + WIRE;
                memset(mine.encoding, 0, WIRE);
                encode(&all, &mine);
                assert_memory_equal(wires + WIRE, there, ts_compressor_bytes(own));
                mine.encoding = there;
                decode(&all, &mine);
                assert_memory_equal(to, before + part.at, part.n * sizeof *to);
                ts_compressor_close(own);
            }
            assert_int_equal(total, l->n);
            ts_compressor_close(whole);
        }
    }
}

/* More chunks than a block has threads. */
static void topk_of_a_long_vector(void **state)
{
    enum { LONG = 4096 * 300 + 64, K = LONG / 50 };
    const ts_compression s = {.name = "topk", .density = 0.02};
    const ts_stretch all = {0, LONG};
    const ts_compressor_ops *ops;
    ts_compressor *c;
    float *x, *e, *copy = malloc(LONG * sizeof *copy);
    uint32_t *order = malloc(LONG * sizeof *order);
    unsigned char *wire;
    (void)state;
    assert_non_null(copy);
    assert_non_null(order);
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, LONG * sizeof *x, (void **)&x));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, LONG * sizeof *e, (void **)&e));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, 8 * (K + 16), (void **)&wire));
    for (uint32_t i = 0; i < LONG; i++) {
        x[i] = copy[i] = floorf(1000 * noise(40, i)); /* with ties */
        order[i] = i;
    }
    OK(ts_compressor_find(&s, &ops));
    OK(ts_compressor_open(stream, ops, &s, LONG, &all, 1, 1, &c));
    ts_coding coding = {.from = x, .residual = e, .encoding = wire};
    OK(ts_compressor_encode(c, &coding, stream));
    OK(ts_stream_sync(stream));
    float *small = before;
    before = copy; /* what larger_first compares */
    qsort(order, LONG, sizeof *order, larger_first);
    before = small;
    qsort(order, K, sizeof *order, lower_first);
    assert_memory_equal(wire, order, K * sizeof *order);
    ts_compressor_close(c);
    ts_device_release(device, TS_MEMORY_DEVICE, wire);
    ts_device_release(device, TS_MEMORY_DEVICE, e);
    ts_device_release(device, TS_MEMORY_DEVICE, x);
    free(order);
    free(copy);
}

/* ---- what comes back ---- */

/* Inputs that the code can hold come back as they are. */
static void exact_inputs_come_back(void **state)
{
    static const ts_compression exact[] = {
        {.name = "bf16"},
        {.name = "qsgd", .levels = 7, .block = 64},
        {.name = "qsgd", .levels = 127, .block = 512},
        {.name = "qsgd", .levels = 1, .block = 512},
        {.name = "terngrad"},
        {.name = "topk", .density = 1},
        {.name = "randomk", .density = 1},
        {.name = "dgc", .density = 1},
    };
    for (size_t s = 0; s < sizeof exact / sizeof *exact; s++)
        for (int l = 0; l < LAYOUTS; l++)
            for (int feedback = 0; feedback < 2; feedback++) {
                under_test u = open_it(&exact[s], &layouts[l]);
                int levels = exact[s].levels ? (int)exact[s].levels : 1;
                setup(state);
                memset(residual, 0, MOST * sizeof *residual);
                memset(velocity, 0, MOST * sizeof *velocity);
                /* every block holds its norm, level * step for each level, and 0 */
                for (size_t i = 0; i < MOST; i++) {
                    int level = levels > 1 ? (int)(i % 64) * levels / 63 : i % 4 > 0;
                    from[i] = 0.125f * (float)(i % 3 == 1 ? -level : level);
                    if (is_sparse(&u)) from[i] = noise(0, i);
                    if (!strcmp(exact[s].name, "bf16"))
                        from[i] = ts_bf16_to_float(ts_bf16_from_float(noise(0, i)));
                }
                memcpy(before, from, MOST * sizeof *before);
                ts_coding c = alone(&u, feedback);
                encode(&u, &c);
                decode(&u, &c);
                for (size_t i = 0; i < u.layout->n; i++)
                    if (to[i] != before[i])
                        fail_msg("%s, %d levels, layout %d: element %zu was %.9g and is %.9g",
                                 u.ops->name, levels, l, i, (double)before[i], (double)to[i]);
                ts_compressor_close(u.compressor);
            }
}

/* A NaN or an infinity arrives as something that is not finite; zeros stay zeros, and so does a
 * block too small for its reciprocal. */
static void nothing_not_finite_is_lost(void **state)
{
    FOR_ALL(u)
    {
        for (int kind = 0; kind < 2 && u.layout->n_pieces; kind++) {
            size_t place = u.layout->pieces[0].at + 3;
            setup(state);
            from[place] = kind ? INFINITY : NAN;
            ts_coding c = alone(&u, false);
            if (is_randomk(&u)) { /* it must be where random-k looks */
                for (size_t i = 0; i < u.layout->n; i++) from[i] = from[place];
            }
            encode(&u, &c);
            decode(&u, &c);
            int found = 0;
            for (size_t i = 0; i < u.layout->n; i++) found += !isfinite(to[i]);
            assert_true(found > 0);
            if (!is_randomk(&u)) assert_false(isfinite(to[place]));
        }
        for (int kind = 0; kind < 2; kind++) {
            setup(state);
            for (size_t i = 0; i < MOST; i++) from[i] = kind && i % 2 ? 1e-44f : 0;
            ts_coding c = alone(&u, false);
            c.feedback = false;
            if (is_dgc(&u)) memset(velocity, 0, MOST * sizeof *velocity);
            encode(&u, &c);
            decode(&u, &c);
            for (size_t i = 0; i < u.layout->n; i++) assert_true(fabsf(to[i]) <= 1e-41f);
        }
    }
}

/* The sum over ranks, by plain loops: in the order of the ranks, each by its weight, from the
 * anchor on. */
static void sums_are_in_the_order_of_ranks(void **state)
{
    FOR_ALL(u)
    {
        int ranks = is_randomk(&u) ? 1 : RANKS;
        for (int form = 0; form < 4; form++) {
            bool weighted = form & 1 && !is_randomk(&u), anchored = form & 2;
            float *decoded = calloc(MOST, sizeof *decoded), *sum = calloc(MOST, sizeof *sum);
            assert_non_null(decoded);
            assert_non_null(sum);
            setup(state);
            ts_coding c = alone(&u, true);
            for (size_t i = 0; anchored && i < u.layout->n; i++) sum[i] = anchor[i];
            for (int r = 0; r < ranks; r++) {
                float weight = weighted ? 0.1f * (float)(r + 1) : 1 / (float)RANKS;
                fill(from, 30 + (uint64_t)r, 1);
                c.rank = r;
                c.encoding = wires + r * WIRE;
                c.anchor = NULL;
                c.ranks = 1;
                c.weight = 1;
                c.weighted = false;
                encode(&u, &c);
                decode(&u, &c);
                memcpy(c.encoding + u.bytes, &weight, sizeof weight);
                for (size_t i = 0; i < u.layout->n; i++) sum[i] = fmaf(weight, to[i], sum[i]);
            }
            c.encoding = wires;
            c.ranks = ranks;
            c.weight = 1 / (float)RANKS;
            c.weighted = weighted;
            c.anchor = anchored ? anchor : NULL;
            decode(&u, &c);
            for (size_t i = 0; i < u.layout->n; i++) {
                if (to[i] != sum[i])
                    fail_msg("%s, form %d: element %zu is %.9g, not %.9g", u.ops->name, form, i,
                             (double)to[i], (double)sum[i]);
                if (anchored) assert_true(same(anchor[i], to[i]));
            }
            free(sum);
            free(decoded);
        }
    }
}

/* ---- the same bits everywhere ---- */

typedef struct outcome {
    float residual[MOST], velocity[MOST], to[MOST], anchor[MOST];
    unsigned char wires[2 * WIRE];
    int threads;
} outcome;

static bool is_cuda(void)
{
    return !strcmp(device->ops->name, "cuda");
}

/* Two rounds of two ranks, with all that may change. */
static void run_two(void **state, const under_test *u, bool anchored, bool nesterov, outcome *o)
{
    setup(state);
    for (int round = 0; round < 2; round++) {
        ts_coding c = alone(u, true);
        c.anchor = anchored ? anchor : NULL;
        c.nesterov = nesterov;
        c.call = 70 + (uint64_t)round;
        for (int r = 0; r < 2; r++) {
            c.rank = r;
            c.encoding = wires + r * WIRE;
            encode(u, &c);
            *(float *)(void *)(c.encoding + u->bytes) = 0.3f + (float)r;
        }
        memcpy(o->wires, wires, 2 * WIRE);
        c.encoding = wires;
        c.ranks = is_randomk(u) ? 1 : 2;
        c.weighted = !is_randomk(u);
        decode(u, &c);
    }
    memcpy(o->residual, residual, sizeof o->residual);
    memcpy(o->velocity, velocity, sizeof o->velocity);
    memcpy(o->to, to, sizeof o->to);
    memcpy(o->anchor, anchor, sizeof o->anchor);
}

static void threads_do_not_show(void **state)
{
#ifdef __SANITIZE_THREAD__
    skip(); /* the OpenMP library is not instrumented: every hand-over would look like a race */
#endif
    if (is_cuda()) skip(); /* cuda_has_the_hosts_bits */
    outcome *one = calloc(1, sizeof *one), *many = calloc(1, sizeof *many);
    assert_non_null(one);
    assert_non_null(many);
    FOR_ALL(u)
    {
        threads_args few = {1, &one->threads}, more = {3, &many->threads};
        OK(ts_stream_launch(stream, &threads_kernel, &few, sizeof few));
        run_two(state, &u, true, false, one);
        OK(ts_stream_launch(stream, &threads_kernel, &more, sizeof more));
        run_two(state, &u, true, false, many);
#ifdef _OPENMP
        assert_int_equal(many->threads, 3);
#endif
        many->threads = one->threads;
        assert_memory_equal(one, many, sizeof *one);
    }
    threads_args few = {1, &one->threads};
    OK(ts_stream_launch(stream, &threads_kernel, &few, sizeof few));
    OK(ts_stream_sync(stream));
    free(many);
    free(one);
}

static void cuda_has_the_hosts_bits(void **state)
{
    if (!is_cuda()) skip(); /* with TWINSTREAM_TEST_DEVICE=cuda */
    outcome *theirs = calloc(1, sizeof *theirs), *hosts = calloc(1, sizeof *hosts);
    ts_device *host, *cuda = device;
    ts_stream *host_stream, *cuda_stream = stream;
    assert_non_null(theirs);
    assert_non_null(hosts);
    OK(ts_device_open("host", 0, &host));
    OK(ts_stream_open(host, TS_STREAM_COMM, "host", &host_stream));
    for (int s = 0; s < SETTINGS; s++)
        for (int l = 0; l < LAYOUTS; l++)
            for (int form = 0; form < 2; form++) {
                for (int on_host = 0; on_host < 2; on_host++) {
                    device = on_host ? host : cuda;
                    stream = on_host ? host_stream : cuda_stream;
                    under_test u = open_it(&settings[s], &layouts[l]);
                    run_two(state, &u, form, form, on_host ? hosts : theirs);
                    ts_compressor_close(u.compressor);
                }
                if (memcmp(theirs, hosts, sizeof *hosts))
                    fail_msg("%s, setting %d, layout %d: other bits", settings[s].name, s, l);
            }
    device = cuda;
    stream = cuda_stream;
    ts_stream_close(host_stream);
    ts_device_close(host);
    free(hosts);
    free(theirs);
}

/* ---- what is refused ---- */

static void senseless_settings_are_refused(void **state)
{
    static const ts_compression bad[] = {
        {.name = "qgsd"},
        {.name = "qsgd", .levels = 0, .block = 512},
        {.name = "qsgd", .levels = 128, .block = 512},
        {.name = "qsgd", .levels = 7, .block = 100},
        {.name = "qsgd", .levels = 7, .block = 8192},
        {.name = "topk", .density = 0},
        {.name = "randomk", .density = 1.5},
        {.name = "dgc", .density = -1},
        {.name = "dgc", .density = 0.1, .feedback = "no"},
    };
    const ts_compressor_ops *ops;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ts_compressor_find(&bad[i], &ops), TS_EUSAGE);
        assert_null(ops);
    }
    OK(ts_compressor_find(&(ts_compression){.name = "none"}, &ops));
    assert_null(ops);
    OK(ts_compressor_find(&(ts_compression){0}, &ops));
    assert_null(ops);
    ts_compressor *c = NULL;
    ts_compression topk = {.name = "topk", .density = 0.1};
    static const struct {
        size_t n;
        ts_stretch pieces[2];
        int n_pieces, parts;
    } cuts[] = {
        {100, {{0, 100}}, 1, 1},           {128, {{0, 100}}, 1, 1}, {128, {{64, 128}}, 1, 1},
        {192, {{128, 64}, {0, 64}}, 2, 1}, {128, {{0, 128}}, 1, 2},
    };
    OK(ts_compressor_find(&topk, &ops));
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        assert_int_equal(ts_compressor_open(stream, ops, &topk, cuts[i].n, cuts[i].pieces,
                                            cuts[i].n_pieces, cuts[i].parts, &c),
                         TS_EUSAGE);
    assert_null(c);
    under_test u = open_it(&topk, &layouts[0]);
    ts_coding coding = alone(&u, true);
    coding.residual = NULL;
    assert_int_equal(ts_compressor_encode(u.compressor, &coding, stream), TS_EUSAGE);
    ts_compressor_close(u.compressor);
}

/* Feedback is what the names say, else what suits the compressor. */
static void feedback_is_chosen(void **state)
{
    (void)state;
    for (const ts_compressor_ops *const *ops = ts_compressors; *ops; ops++) {
        bool random = !strcmp((*ops)->name, "qsgd") || !strcmp((*ops)->name, "terngrad");
        ts_compression s = {.name = (*ops)->name, .feedback = "auto"};
        assert_int_equal(ts_compression_feedback(&s, *ops), !random);
        s.feedback = "yes";
        assert_true(ts_compression_feedback(&s, *ops));
        s.feedback = "no";
        assert_false(ts_compression_feedback(&s, *ops));
    }
}

#define CASE(test) cmocka_unit_test_setup(test, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(sizes_are_exact),
        CASE(the_residual_is_what_was_left_out),
        CASE(unbiased_ones_are_unbiased),
        CASE(draws_are_functions_of_call_and_rank),
        CASE(topk_takes_the_largest),
        CASE(topk_of_a_long_vector),
        CASE(parts_are_encodings_of_their_own),
        CASE(exact_inputs_come_back),
        CASE(nothing_not_finite_is_lost),
        CASE(sums_are_in_the_order_of_ranks),
        CASE(threads_do_not_show),
        CASE(cuda_has_the_hosts_bits),
        CASE(senseless_settings_are_refused),
        CASE(feedback_is_chosen),
    };
    return cmocka_run_group_tests_name("compress", tests, group_setup, group_teardown);
}
