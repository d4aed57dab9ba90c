/* The flat-vector kernels against plain loops in double precision, and what they promise beyond
 * numbers: the shadow's bits, what is not read, and the same bits from any number of threads. */
#include <math.h>
#include "runtime/base/random.h"
#include "runtime/device/vector.h"
#include "tests/check.h"
#include "tests/threads.h"

enum { MOST = 64 * 2051 }; /* several chunks of every thread and a part of one */
/* In blocks: less than a chunk, a chunk and a bit, many. */
static const size_t blocks[] = {0, 1, 3, 63, 64, 65, 513, 2051};
enum { CASES = sizeof blocks / sizeof *blocks };
/* In elements, for the kernels that need no whole blocks. */
static const size_t counts[] = {0, 1, 2, 15, 17, 63, 65, 4095, 4096, 4097, 40001, MOST - 1};
enum { COUNTS = sizeof counts / sizeof *counts };

static ts_device *device;
static ts_stream *stream;
static ts_control *control;
static float *x, *m, *g, *average, *snapshot, *before_x, *before_m;
static uint16_t *shadow;
static uint8_t *decays;

static void randomise(float *v, uint64_t which)
{
    for (size_t i = 0; i < MOST; i++) v[i] = 2 * ts_random_unit(ts_random(11, i, which).v[0]) - 1;
}

static int setup(void **state)
{
    (void)state;
    randomise(x, 0);
    randomise(m, 1);
    randomise(g, 2);
    randomise(average, 3);
    randomise(snapshot, 4);
    memcpy(before_x, x, MOST * sizeof *x);
    memcpy(before_m, m, MOST * sizeof *m);
    memset(shadow, 0xab, MOST * sizeof *shadow);
    for (size_t b = 0; b < MOST / TS_VECTOR_BLOCK; b++) decays[b] = b % 3 != 1;
    return 0;
}

static int group_setup(void **state)
{
    (void)state;
    float **vectors[] = {&x, &m, &g, &average, &snapshot, &before_x, &before_m};
    OK(ts_device_open(test_device(), 0, &device));
    OK(ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream));
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        OK(ts_device_alloc(device, TS_MEMORY_DEVICE, MOST * sizeof(float), (void **)vectors[i]));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, MOST * sizeof *shadow, (void **)&shadow));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, MOST / TS_VECTOR_BLOCK, (void **)&decays));
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, sizeof *control, (void **)&control));
    *control = (ts_control){.learning_rate = 0.1f};
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    void *memory[] = {x, m, g, average, snapshot, before_x, before_m, shadow, decays, control};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ts_device_release(device, TS_MEMORY_DEVICE, memory[i]);
    ts_stream_close(stream);
    ts_device_close(device);
    return 0;
}

static void assert_close(double found, double expected, const char *what, size_t i)
{
    if (!(fabs(found - expected) <= 4e-7 * (1 + fabs(expected))))
        fail_msg("%s[%zu] is %.9g, expected %.9g", what, i, found, expected);
}

static void assert_shadow(size_t n, bool written)
{
    for (size_t i = 0; i < MOST; i++) {
        uint16_t expected = written && i < n ? ts_bf16_from_float(x[i]) : 0xabab;
        if (shadow[i] != expected)
            fail_msg("shadow[%zu] is %04x, expected %04x", i, shadow[i], expected);
    }
}

/* What lies behind the n elements is not touched. */
static void assert_rest(const float *v, const float *before, size_t n)
{
    assert_memory_equal(v + n, before + n, (MOST - n) * sizeof *v);
}

/* `carried`: g holds its momentum already, m only that of the weight decay. */
static void check_sgd(void **state, bool carried)
{
    for (int nesterov = 0; nesterov < 2; nesterov++)
        for (int masked = 0; masked < 2; masked++)
            for (int i = 0; i < CASES; i++) {
                setup(state);
                ts_sgd sgd = {.n = blocks[i] * TS_VECTOR_BLOCK,
                              .x = x,
                              .shadow = i % 2 ? shadow : NULL,
                              .m = m,
                              .g = g,
                              .decays = masked ? decays : NULL,
                              .control = control,
                              .momentum = 0.9f,
                              .weight_decay = 0.05f,
                              .nesterov = nesterov,
                              .carried = carried};
                OK(ts_vector_sgd(stream, &sgd));
                OK(ts_stream_sync(stream));
                for (size_t k = 0; k < sgd.n; k++) {
                    bool decay = !masked || decays[k / TS_VECTOR_BLOCK];
                    double added = carried ? g[k] : 0;
                    double gradient = g[k] - added + (decay ? 0.05 * before_x[k] : 0);
                    double momentum = 0.9 * before_m[k] + gradient;
                    double direction = nesterov ? gradient + 0.9 * momentum : momentum;
                    direction += added;
                    assert_close(m[k], momentum, "m", k);
                    assert_close(x[k], before_x[k] - 0.1 * direction, "x", k);
                }
                assert_rest(x, before_x, sgd.n);
                assert_rest(m, before_m, sgd.n);
                assert_shadow(sgd.n, sgd.shadow != NULL);
            }
}

static void sgd_is_pytorchs(void **state)
{
    check_sgd(state, false);
}

static void sgd_takes_a_gradient_with_its_momentum(void **state)
{
    check_sgd(state, true);
}

/* The learning rate is what control holds when the kernel runs, not when it is enqueued. */
static void the_learning_rate_is_read_late(void **state)
{
    (void)state;
    ts_sgd sgd = {.n = 64, .x = x, .m = m, .g = g, .control = control};
    ts_graph *graph;
    OK(ts_stream_capture_begin(stream));
    OK(ts_vector_sgd(stream, &sgd));
    OK(ts_stream_capture_end(stream, &graph));
    control->learning_rate = 0.5f;
    OK(ts_graph_launch(graph, stream));
    OK(ts_stream_sync(stream));
    control->learning_rate = 0.1f;
    for (size_t i = 0; i < 64; i++) assert_close(x[i], before_x[i] - 0.5 * g[i], "x", i);
    ts_graph_close(graph);
    sgd.n = 65;
    assert_int_equal(ts_vector_sgd(stream, &sgd), TS_EUSAGE);
}

typedef struct factors {
    float a, b, c;
} factors;
static const factors merges[] = {
    {1, 1, -1}, {0.25f, 0.75f, 0}, {0, 1, 0},     {0.5f, 0, 0}, {0.5f, 0.25f, 2},
    {0, 0, 0},  {0, 0, 3},         {0.5f, 0, -2}, {0, 2, -1},
};
enum { MERGES = sizeof merges / sizeof *merges };

static void merge_is_the_sum(void **state)
{
    for (int f = 0; f < MERGES; f++)
        for (int i = 0; i < COUNTS; i++) {
            setup(state);
            factors k = merges[f];
            ts_merge merge = {.n = counts[i],
                              .x = x,
                              .shadow = i % 2 ? shadow : NULL,
                              .average = k.b != 0 ? average : NULL,
                              .snapshot = k.c != 0 ? snapshot : NULL,
                              .a = k.a,
                              .b = k.b,
                              .c = k.c};
            if (k.a == 0)
                for (size_t e = 0; e < merge.n; e++) x[e] = NAN; /* is not read */
            OK(ts_vector_merge(stream, &merge));
            OK(ts_stream_sync(stream));
            for (size_t e = 0; e < merge.n; e++)
                assert_close(x[e],
                             (double)k.a * before_x[e] + (double)k.b * average[e] +
                                 (double)k.c * snapshot[e],
                             "x", e);
            assert_rest(x, before_x, merge.n);
            assert_shadow(merge.n, merge.shadow != NULL);
        }
}

/* The special cases are exact: with one rank the average is the snapshot and nothing changes. */
static void merge_is_exact_where_it_matters(void **state)
{
    (void)state;
    ts_merge merge = {
        .n = MOST, .x = x, .average = average, .snapshot = snapshot, .a = 1, .b = 1, .c = -1};
    OK(ts_vector_merge(stream, &merge));
    OK(ts_stream_sync(stream));
    for (size_t i = 0; i < MOST; i++) {
        float difference = average[i] - snapshot[i], sum = before_x[i] + difference;
        assert_memory_equal(&x[i], &sum, sizeof sum);
    }
    memcpy(x, before_x, MOST * sizeof *x);
    merge.snapshot = average;
    OK(ts_vector_merge(stream, &merge));
    OK(ts_stream_sync(stream));
    assert_memory_equal(x, before_x, MOST * sizeof *x);
    merge = (ts_merge){.n = MOST, .x = x, .average = average, .a = 0, .b = 1, .c = 0};
    OK(ts_vector_merge(stream, &merge));
    OK(ts_stream_sync(stream));
    assert_memory_equal(x, average, MOST * sizeof *x);
    merge = (ts_merge){.n = 1, .x = x, .b = 1};
    assert_int_equal(ts_vector_merge(stream, &merge), TS_EUSAGE);
    merge = (ts_merge){.n = 1, .x = x, .c = 1};
    assert_int_equal(ts_vector_merge(stream, &merge), TS_EUSAGE);
}

/* v <- momentum v + (z - average) ; z <- z - rate v ; average <- z, where z is x and v is m. */
static void outer_is_slow_momentum(void **state)
{
    for (int change = 0; change < 2; change++)
        for (int i = 0; i < COUNTS; i++) {
            setup(state);
            ts_outer outer = {.n = counts[i],
                              .z = x,
                              .v = m,
                              .average = g,
                              .momentum = 0.7f,
                              .rate = 0.9f,
                              .change = change};
            for (size_t e = 0; e < MOST; e++)
                g[e] = average[e] - (change && e < outer.n ? x[e] : 0);
            OK(ts_vector_outer(stream, &outer));
            OK(ts_stream_sync(stream));
            for (size_t e = 0; e < outer.n; e++) {
                double v = (double)0.7f * before_m[e] + ((double)before_x[e] - average[e]);
                assert_close(m[e], v, "v", e);
                assert_close(x[e], before_x[e] - (double)0.9f * v, "z", e);
            }
            assert_memory_equal(g, x, outer.n * sizeof *g);
            assert_rest(x, before_x, outer.n);
            assert_rest(m, before_m, outer.n);
            assert_rest(g, average, outer.n);
        }
}

/* Rounding to nearest even, by the definition: no bf16 is nearer, and of two the even one. */
static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    float special[] = {0.0f,        -0.0f,       1.0f,    INFINITY, -INFINITY,
                       1.00390625f, 1.01171875f, 3.4e38f, 1e-40f};
    memcpy(g, special, sizeof special);
    uint32_t nan_bits = 0x7f800001; /* its payload is below the 16 bits that stay */
    memcpy(&g[9], &nan_bits, sizeof nan_bits);
    OK(ts_vector_to_bf16(stream, MOST - 1, shadow, g));
    OK(ts_vector_from_bf16(stream, MOST - 1, x, shadow));
    OK(ts_stream_sync(stream));
    assert_int_equal(shadow[0], 0x0000);
    assert_int_equal(shadow[1], 0x8000);
    assert_int_equal(shadow[2], 0x3f80);
    assert_int_equal(shadow[3], 0x7f80);
    assert_int_equal(shadow[4], 0xff80);
    assert_int_equal(shadow[5], 0x3f80); /* half way, down to even */
    assert_int_equal(shadow[6], 0x3f82); /* half way, up to even */
    assert_int_equal(shadow[7], 0x7f80); /* above the largest: infinity */
    assert_true(isnan(x[9]));
    for (size_t i = 10; i < MOST - 1; i++) {
        uint16_t h = shadow[i];
        double here = fabs((double)x[i] - g[i]);
        double above = fabs((double)ts_bf16_to_float((uint16_t)(h + 1)) - g[i]);
        double below = fabs((double)ts_bf16_to_float((uint16_t)(h - 1)) - g[i]);
        if (here > above || here > below || (h % 2 && (here == above || here == below)))
            fail_msg("bf16 of %.9g is %.9g", (double)g[i], (double)x[i]);
    }
    assert_int_equal(shadow[MOST - 1], 0xabab);
    assert_rest(x, before_x, MOST - 1);
}

static void scales(void **state)
{
    for (int i = 0; i < COUNTS; i++) {
        setup(state);
        OK(ts_vector_scale(stream, counts[i], x, -0.3f));
        OK(ts_stream_sync(stream));
        for (size_t k = 0; k < counts[i]; k++) assert_close(x[k], -0.3 * before_x[k], "x", k);
        assert_rest(x, before_x, counts[i]);
    }
}

/* ---- threads -------------------------------------------------------------------------------- */

typedef struct outcome {
    float x[4][MOST], m[MOST];
    uint16_t shadow[MOST];
    double sum;
    int threads;
} outcome;

static bool is_cuda(void)
{
    return !strcmp(stream->device->ops->name, "cuda");
}

static void run_everything(void **state, int threads, outcome *o)
{
    setup(state);
    threads_args args = {threads, &o->threads};
    if (!is_cuda()) OK(ts_stream_launch(stream, &threads_kernel, &args, sizeof args));
    ts_sgd sgd = {.n = MOST,
                  .x = x,
                  .shadow = shadow,
                  .m = m,
                  .g = g,
                  .decays = decays,
                  .control = control,
                  .momentum = 0.9f,
                  .weight_decay = 0.01f,
                  .nesterov = true};
    OK(ts_vector_sgd(stream, &sgd));
    sgd.carried = true;
    OK(ts_vector_sgd(stream, &sgd));
    OK(ts_stream_copy(stream, o->x[0], x, MOST * sizeof *x));
    ts_merge merge = {.n = MOST - 7,
                      .x = x,
                      .shadow = shadow,
                      .average = average,
                      .snapshot = snapshot,
                      .a = 0.3f,
                      .b = 0.7f,
                      .c = -0.9f};
    OK(ts_vector_merge(stream, &merge));
    OK(ts_stream_copy(stream, o->x[1], x, MOST * sizeof *x));
    ts_outer outer = {
        .n = MOST - 5, .z = x, .v = m, .average = average, .momentum = 0.6f, .rate = 0.8f};
    OK(ts_vector_outer(stream, &outer));
    outer.change = true;
    OK(ts_vector_outer(stream, &outer));
    OK(ts_stream_copy(stream, o->x[3], average, MOST * sizeof *x));
    OK(ts_vector_scale(stream, MOST - 9, x, 1.7f));
    OK(ts_vector_to_bf16(stream, MOST - 11, shadow, x));
    OK(ts_stream_copy(stream, o->shadow, shadow, MOST * sizeof *shadow));
    OK(ts_vector_from_bf16(stream, MOST - 13, x, shadow));
    OK(ts_stream_copy(stream, o->x[2], x, MOST * sizeof *x));
    OK(ts_stream_copy(stream, o->m, m, MOST * sizeof *m));
    OK(ts_stream_sync(stream));
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
    run_everything(state, 1, one);
    for (int threads = 2; threads <= 5; threads++) {
        run_everything(state, threads, many);
#ifdef _OPENMP
        assert_int_equal(many->threads, threads);
#endif
        many->threads = one->threads;
        assert_memory_equal(many, one, sizeof *one);
    }
    free(one);
    free(many);
}

/* Every kernel on both devices, on the same memory: no bit differs. */
static void cuda_has_the_hosts_bits(void **state)
{
    if (!is_cuda()) skip(); /* with TWINSTREAM_TEST_DEVICE=cuda */
    outcome *theirs = calloc(1, sizeof *theirs), *hosts = calloc(1, sizeof *hosts);
    ts_device *host;
    ts_stream *under_test = stream;
    run_everything(state, 1, theirs);
    OK(ts_device_open("host", 0, &host));
    OK(ts_stream_open(host, TS_STREAM_COMPUTE, "host", &stream));
    run_everything(state, 1, hosts);
    hosts->threads = theirs->threads;
    assert_memory_equal(hosts, theirs, sizeof *hosts);
    ts_stream_close(stream);
    ts_device_close(host);
    stream = under_test;
    free(hosts);
    free(theirs);
}

#define CASE(test) cmocka_unit_test_setup(test, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(sgd_is_pytorchs),
        CASE(sgd_takes_a_gradient_with_its_momentum),
        CASE(the_learning_rate_is_read_late),
        CASE(merge_is_the_sum),
        CASE(merge_is_exact_where_it_matters),
        CASE(outer_is_slow_momentum),
        CASE(bf16_rounds_to_nearest_even),
        CASE(scales),
        CASE(threads_do_not_show),
        CASE(cuda_has_the_hosts_bits),
    };
    return cmocka_run_group_tests_name("vector", tests, group_setup, group_teardown);
}
