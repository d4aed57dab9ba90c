/* test_model.c - what a model and its workspaces promise beyond numbers (test_model_torch.c has
 * those): places in memory, buckets, ranges of nodes, several workspaces, the same start. */
#include <math.h>

#include "models/arena.h"
#include "models/builder.h"
#include "ops/element.h"
#include "runtime/device/vector.h"
#include "tests/check.h"

enum { CLASSES = 10 };

static ts_device *device;
static ts_stream *stream;

static uint32_t word(uint64_t a, uint64_t b)
{
    return ts_random(17, a, b).v[0];
}

/* ---- the arena ---- */

static void test_arena(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 200; round++) {
        ts_buffer a[40], again[40];
        int n = 1 + (int)(word(round, 1) % 40);
        size_t sum = 0, most = 0, live[64] = {0};
        for (int i = 0; i < n; i++) {
            uint64_t k = round << 8 | (uint64_t)i;
            int first = (int)(word(k, 2) % 50);
            a[i] = (ts_buffer){word(k, 3) % 7 ? word(k, 4) % 5000 : 0, first,
                               first + (int)(word(k, 5) % 12), 0};
            sum += (a[i].bytes + 63) / 64 * 64;
            for (int t = first; t <= a[i].last; t++) live[t] += a[i].bytes;
        }
        for (int t = 0; t < 64; t++) most = live[t] > most ? live[t] : most;
        memcpy(again, a, sizeof a);
        size_t total = ts_arena_plan(a, n);
        assert_int_equal(ts_arena_plan(again, n), total);
        assert_true(total >= most && total <= sum);
        for (int i = 0; i < n; i++) {
            assert_int_equal(a[i].at, again[i].at);
            assert_int_equal(a[i].at % 64, 0);
            assert_true(a[i].at + a[i].bytes <= total);
            for (int j = 0; j < i; j++)
                assert_true(a[i].last < a[j].first || a[j].last < a[i].first ||
                            a[i].at + a[i].bytes <= a[j].at || a[j].at + a[j].bytes <= a[i].at);
        }
    }
    /* one after the other: all share the memory of the largest */
    ts_buffer chain[] = {{100, 0, 1, 0}, {640, 2, 3, 0}, {64, 4, 9, 0}};
    assert_int_equal(ts_arena_plan(chain, 3), 640);
}

/* ---- models ---- */

static ts_model *open_model(const char *name, int side, ts_type type, const char *ops,
                            size_t bucket_bytes)
{
    ts_model *m;
    ts_model_options options = {.input = {1, 3, side, side},
                                .classes = CLASSES,
                                .type = type,
                                .ops = ops,
                                .bucket_bytes = bucket_bytes};
    OK(ts_model_open(device, ts_network_find(name), &options, &m));
    OK(ts_model_init(m, 1, stream));
    return m;
}

static ts_model *open_tiny(void)
{
    return open_model("tiny", 8, TS_F32, NULL, 4096);
}

static ts_workspace *open_workspace(ts_model *m, int batch, bool training, ts_control *control)
{
    ts_workspace *w;
    ts_flat *f = ts_model_flat(m);
    OK(ts_workspace_open(m, batch, training, control, &w));
    OK(ts_workspace_refresh(w, f->parameters, f->shadow, f->statistics, stream));
    return w;
}

/* Pictures `first`, first + 1, ...: each one the same in any batch, layout and type. */
static void fill_batch(const ts_workspace *w, int first)
{
    ts_batch b = ts_workspace_batch(w);
    ts_shape s = b.shape;
    memset(b.input, 0, ts_layout_count(b.layout, s) * ts_type_bytes(b.type));
    for (int n = 0; n < s.n; n++) {
        b.labels[n] = (first + n) * 3 % CLASSES;
        for (int i = 0; i < s.c * s.h * s.w; i++) {
            size_t at = ts_layout_at(b.layout, s, n, i / (s.h * s.w), i / s.w % s.h, i % s.w);
            float x = 4 * ts_random_unit(word((uint64_t)(first + n), (uint64_t)i)) - 2;
            if (b.type == TS_BF16)
                ((uint16_t *)b.input)[at] = ts_bf16_from_float(x);
            else
                ((float *)b.input)[at] = x;
        }
    }
}

static bool is_statistic(const ts_tensor *t)
{
    return t->role == TS_TENSOR_RUNNING_MEAN || t->role == TS_TENSOR_RUNNING_VARIANCE;
}

static void *copy_of(const void *from, size_t bytes)
{
    void *copy = malloc(bytes);
    memcpy(copy, from, bytes);
    return copy;
}

static size_t count_set(const float *v, size_t n)
{
    size_t set = 0;
    for (size_t i = 0; i < n; i++) set += v[i] != 0 || signbit(v[i]);
    return set;
}

/* Whatever lies in `vector` outside of tensors' elements is zero. */
static void check_padding(ts_model *m, const float *vector)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(m, &n);
    for (int i = 0; i < n; i++) {
        const ts_tensor *t = &tensors[i];
        if (is_statistic(t)) continue;
        float *plain = malloc(t->count * sizeof *plain);
        OK(ts_model_read(m, t, vector, plain, stream));
        size_t expected = count_set(plain, t->count);
        if (count_set(vector + t->slice.at, t->slice.n) != expected)
            fail_msg("%s: padding of %s is not zero", ts_model_name(m), t->name);
        free(plain);
    }
}

static void test_flat_layout(void **state)
{
    static const struct {
        const char *name;
        int side;
        size_t count;
    } cases[] = {
        {"mlp", 8, 64 * 192 + 64 + 10 * 64 + 10},
        {"tiny", 8, 4082},
        {"resnet18", 32, 11173962},
        {"resnet20", 32, 272474},
        {"vgg16", 32, 14724042},
    };
    (void)state;
    enum { N = sizeof cases / sizeof *cases };
    for (int k = 0; k < 2 * N; k++) {
        ts_type type = k < N ? TS_F32 : TS_BF16;
        ts_model *m = open_model(cases[k % N].name, cases[k % N].side, type, NULL, 1 << 20);
        ts_flat *f = ts_model_flat(m);
        int n;
        const ts_tensor *tensors = ts_model_tensors(m, &n);
        size_t end = 0, void_biases = 0, real = 0, statistics_end = 0;
        assert_int_equal(ts_model_parameter_count(m), cases[k % N].count);
        for (int i = 0; i < n; i++) {
            const ts_tensor *t = &tensors[i];
            size_t product = 1;
            for (int d = 0; d < t->rank; d++) product *= (size_t)t->shape[d];
            assert_int_equal(product, t->count);
            if (t->role == TS_TENSOR_VOID_BIAS) {
                assert_int_equal(t->slice.n, 0);
                void_biases += t->count;
            } else if (is_statistic(t)) {
                assert_true(t->slice.at >= statistics_end && t->slice.n == t->count);
                if (t->role == TS_TENSOR_RUNNING_MEAN) assert_int_equal(t->slice.at % 64, 0);
                statistics_end = t->slice.at + t->slice.n;
            } else {
                assert_true(t->slice.at == end && t->slice.n % 64 == 0 && t->slice.n >= t->count);
                /* decay where the weights are, not on batch norm and biases */
                for (size_t b = end / 64; b < (end + t->slice.n) / 64; b++)
                    assert_int_equal(f->decays[b], t->role == TS_TENSOR_WEIGHT);
                end += t->slice.n;
                real += t->count;
            }
        }
        assert_int_equal(end, f->n);
        assert_int_equal(real, cases[k % N].count);
        assert_true(statistics_end <= f->n_statistics);
        /* what PyTorch counts and we do not */
        assert_int_equal(void_biases, strcmp(cases[k % N].name, "vgg16") ? 0 : 14728266 - 14724042);
        check_padding(m, f->parameters);
        for (size_t i = 0; f->shadow && i < f->n; i++)
            if (f->shadow[i] != ts_bf16_from_float(f->parameters[i]))
                fail_msg("shadow of element %zu", i);
        ts_model_close(m);
    }
}

static void test_read_and_write(void **state)
{
    static const char *const names[] = {"mlp", "tiny", "tiny"};
    (void)state;
    for (int k = 0; k < 3; k++) {
        ts_model *m = open_model(names[k], 8, k == 2 ? TS_BF16 : TS_F32, NULL, 4096);
        ts_flat *f = ts_model_flat(m);
        int n;
        const ts_tensor *tensors = ts_model_tensors(m, &n);
        for (int pass = 0; pass < 2; pass++) /* all are written before any is read */
            for (int i = 0; i < n; i++) {
                const ts_tensor *t = &tensors[i];
                float *vector = is_statistic(t) ? f->statistics : f->momentum;
                uint32_t *plain = malloc(2 * t->count * sizeof *plain), *back = plain + t->count;
                for (size_t e = 0; e < t->count; e++) plain[e] = word((uint64_t)i + 99, e);
                if (pass == 0) {
                    OK(ts_model_write(m, t, vector, (float *)plain, stream));
                } else {
                    OK(ts_model_read(m, t, vector, (float *)back, stream));
                    assert_memory_equal(plain, back, t->count * sizeof *plain);
                }
                free(plain);
            }
        ts_model_close(m);
    }
}

static void test_init(void **state)
{
    (void)state;
    ts_model *models[] = {open_tiny(), open_model("tiny", 8, TS_F32, "reference", 4096),
                          open_model("tiny", 8, TS_BF16, NULL, 1)};
    int n;
    const ts_tensor *tensors[3];
    for (int k = 0; k < 3; k++) tensors[k] = ts_model_tensors(models[k], &n);
    for (int i = 0; i < n; i++) {
        float *plain[3];
        size_t count = tensors[0][i].count;
        for (int k = 0; k < 3; k++) {
            ts_flat *f = ts_model_flat(models[k]);
            const ts_tensor *t = &tensors[k][i];
            plain[k] = malloc(count * sizeof(float));
            assert_string_equal(t->name, tensors[0][i].name);
            OK(ts_model_read(models[k], t, is_statistic(t) ? f->statistics : f->parameters,
                             plain[k], stream));
            assert_memory_equal(plain[k], plain[0], count * sizeof(float));
        }
        ts_tensor_role role = tensors[0][i].role;
        bool one = role == TS_TENSOR_GAMMA || role == TS_TENSOR_RUNNING_VARIANCE;
        for (size_t e = 0; e < count && role != TS_TENSOR_WEIGHT && role != TS_TENSOR_BIAS; e++)
            assert_true(plain[0][e] == (one ? 1.0f : 0.0f));
        if (!strcmp(tensors[0][i].name, "conv3.weight")) { /* Kaiming normal, fan-out 16 * 9 */
            double sum = 0, squares = 0;
            for (size_t e = 0; e < count; e++) {
                sum += (double)plain[0][e];
                squares += (double)plain[0][e] * (double)plain[0][e];
            }
            assert_true(fabs(sum / (double)count) < 0.01);
            assert_true(fabs(sqrt(squares / (double)count) - sqrt(2.0 / 144)) < 0.01);
        }
        if (!strcmp(tensors[0][i].name, "fc.weight")) /* uniform, 1 / sqrt(fan-in) */
            for (size_t e = 0; e < count; e++) {
                assert_true(fabsf(plain[0][e]) <= 0.25f);
                for (size_t o = 0; o < e; o++) assert_true(plain[0][o] != plain[0][e]);
            }
        for (int k = 0; k < 3; k++) free(plain[k]);
    }
    ts_flat *f = ts_model_flat(models[0]);
    float *before = copy_of(f->parameters, f->n * sizeof(float));
    memset(f->momentum, 1, f->n * sizeof(float));
    OK(ts_model_init(models[0], 2, stream));
    assert_memory_not_equal(before, f->parameters, f->n * sizeof(float));
    for (size_t i = 0; i < f->n; i++) assert_true(f->momentum[i] == 0);
    OK(ts_model_init(models[0], 1, stream));
    assert_memory_equal(before, f->parameters, f->n * sizeof(float));
    free(before);
    ts_model *mlp = open_model("mlp", 8, TS_F32, NULL, 4096), *same = open_tiny();
    assert_true(ts_model_signature(models[0]) == ts_model_signature(same));
    assert_true(ts_model_signature(models[0]) != ts_model_signature(mlp));
    ts_model_close(same);
    ts_model_close(mlp);
    for (int k = 0; k < 3; k++) ts_model_close(models[k]);
}

/* ---- workspaces ---- */

/* Every element of every parameter NaN; padding stays. */
static void spoil(ts_model *m, float *vector)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(m, &n);
    for (int i = 0; i < n; i++) {
        if (is_statistic(&tensors[i])) continue;
        float *plain = malloc(tensors[i].count * sizeof *plain);
        memset(plain, 0xff, tensors[i].count * sizeof *plain);
        OK(ts_model_write(m, &tensors[i], vector, plain, stream));
        free(plain);
    }
}

/* What ready() saw: each bucket's gradients when it was called. */
typedef struct seen {
    ts_model *model;
    int next;
    float *gradients;
} seen;

static ts_status ready(void *context, int bucket)
{
    seen *s = context;
    const ts_flat *f = ts_model_flat(s->model);
    ts_slice b = f->buckets[bucket];
    assert_int_equal(bucket, s->next++); /* the same order on all ranks */
    TS_TRY(ts_stream_sync(stream));
    memcpy(s->gradients + b.at, f->gradients + b.at, b.n * sizeof(float));
    return TS_OK;
}

static void test_buckets(void **state)
{
    static const size_t sizes[] = {1, 600, 4096, 1 << 30};
    (void)state;
    for (int k = 0; k < 8; k++) {
        ts_control control = {0};
        ts_model *m = open_model("tiny", 8, k < 4 ? TS_F32 : TS_BF16, NULL, sizes[k % 4]);
        ts_flat *f = ts_model_flat(m);
        ts_workspace *w = open_workspace(m, 3, true, &control);
        size_t end = f->n;
        for (int b = 0; b < f->n_buckets; b++) { /* from the last parameter to the first */
            assert_int_equal(f->buckets[b].at + f->buckets[b].n, end);
            assert_true(f->buckets[b].n > 0 && f->buckets[b].at % 64 == 0);
            end = f->buckets[b].at;
            if (end) assert_true(f->buckets[b].n * sizeof(float) >= sizes[k % 4]);
        }
        assert_int_equal(end, 0);
        if (sizes[k % 4] == 1) assert_int_equal(f->n_buckets, 14);
        if (sizes[k % 4] == 1 << 30) assert_int_equal(f->n_buckets, 1);
        seen s = {m, 0, malloc(f->n * sizeof(float))};
        spoil(m, f->gradients); /* they are written, not added to */
        fill_batch(w, 0);
        OK(ts_workspace_forward(w, 0, ts_model_nodes(m), stream));
        OK(ts_workspace_backward(w, 0, ts_model_nodes(m), f->gradients, ready, &s, stream));
        OK(ts_stream_sync(stream));
        assert_int_equal(s.next, f->n_buckets);
        assert_memory_equal(s.gradients, f->gradients, f->n * sizeof(float));
        check_padding(m, f->gradients);
        free(s.gradients);
        ts_workspace_close(w);
        ts_model_close(m);
    }
}

/* One forward and backward from the same start, in ranges cut at `cut`; gradients malloc. */
static float *step(int cut, ts_control *control)
{
    ts_model *m = open_tiny();
    ts_flat *f = ts_model_flat(m);
    ts_workspace *w = open_workspace(m, 5, true, control);
    int n = ts_model_nodes(m);
    fill_batch(w, 0);
    OK(ts_workspace_forward(w, 0, cut, stream));
    OK(ts_workspace_forward(w, cut, n, stream));
    OK(ts_workspace_backward(w, cut, n, f->gradients, NULL, NULL, stream));
    OK(ts_workspace_backward(w, 0, cut, f->gradients, NULL, NULL, stream));
    OK(ts_stream_sync(stream));
    float *gradients = copy_of(f->gradients, f->n * sizeof(float));
    ts_workspace_close(w);
    ts_model_close(m);
    return gradients;
}

static void test_ranges_of_nodes(void **state)
{
    (void)state;
    ts_model *m = open_tiny();
    ts_control whole = {0};
    float *expected = step(0, &whole);
    assert_true(whole.samples == 5 && whole.loss_sum > 0 && whole.not_finite == 0);
    for (int cut = 1; cut < ts_model_nodes(m); cut++) {
        ts_control control = {0};
        float *gradients = step(cut, &control);
        assert_memory_equal(gradients, expected, ts_model_flat(m)->n * sizeof(float));
        assert_true(control.loss_sum == whole.loss_sum);
        free(gradients);
    }
    free(expected);
    ts_model_close(m);
}

static void test_evaluation(void **state)
{
    (void)state;
    ts_control control = {0};
    ts_model *m = open_tiny();
    ts_flat *f = ts_model_flat(m);
    int n = ts_model_nodes(m);
    ts_workspace *w = open_workspace(m, 4, false, &control);
    ts_workspace *training = open_workspace(m, 4, true, &control);
    assert_true(ts_workspace_bytes(w) < ts_workspace_bytes(training));
    float *parameters = copy_of(f->parameters, f->n * sizeof(float));
    float *statistics = copy_of(f->statistics, f->n_statistics * sizeof(float));
    fill_batch(w, 0);
    OK(ts_workspace_forward(w, 0, n, stream));
    OK(ts_stream_sync(stream));
    assert_memory_equal(parameters, f->parameters, f->n * sizeof(float));
    assert_memory_equal(statistics, f->statistics, f->n_statistics * sizeof(float));
    assert_int_equal(control.samples, 4);
    assert_int_equal(ts_workspace_backward(w, 0, n, f->gradients, NULL, NULL, stream), TS_EUSAGE);
    fill_batch(training, 0);
    OK(ts_workspace_forward(training, 0, n, stream));
    OK(ts_stream_sync(stream));
    assert_memory_equal(parameters, f->parameters, f->n * sizeof(float));
    assert_memory_not_equal(statistics, f->statistics, f->n_statistics * sizeof(float));
    free(statistics);
    free(parameters);
    ts_workspace_close(training);
    ts_workspace_close(w);
    ts_model_close(m);
}

static void near(const float *a, const float *b, int n, float tolerance)
{
    for (int i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= tolerance * (1 + fabsf(b[i]))))
            fail_msg("element %d is %g, not %g", i, (double)a[i], (double)b[i]);
}

static void test_several_workspaces(void **state)
{
    (void)state;
    ts_control control = {0};
    ts_model *m = open_tiny(), *half = open_model("tiny", 8, TS_BF16, NULL, 4096);
    ts_flat *f = ts_model_flat(m);
    int n = ts_model_nodes(m);
    float *expected = step(0, &control);
    ts_workspace *five = open_workspace(m, 5, true, &control);
    ts_workspace *seven = open_workspace(m, 7, false, &control);
    ts_workspace *one = open_workspace(m, 1, false, &control);
    ts_workspace *bf16 = open_workspace(half, 7, false, &control);
    /* a picture's logits are the same in any batch */
    fill_batch(seven, 0);
    OK(ts_workspace_forward(seven, 0, n, stream));
    fill_batch(bf16, 0);
    OK(ts_workspace_forward(bf16, 0, n, stream));
    for (int i = 0; i < 7; i++) {
        OK(ts_stream_sync(stream));
        fill_batch(one, i);
        OK(ts_workspace_forward(one, 0, n, stream));
        OK(ts_stream_sync(stream));
        near(ts_workspace_logits(one), ts_workspace_logits(seven) + i * CLASSES, CLASSES, 1e-5f);
    }
    near(ts_workspace_logits(bf16), ts_workspace_logits(seven), 7 * CLASSES, 3e-2f);
    /* work in one between forward and backward of another changes nothing */
    fill_batch(five, 0);
    OK(ts_workspace_forward(five, 0, n, stream));
    OK(ts_workspace_forward(seven, 0, n, stream));
    OK(ts_workspace_backward(five, 0, n, f->gradients, NULL, NULL, stream));
    OK(ts_stream_sync(stream));
    assert_memory_equal(f->gradients, expected, f->n * sizeof(float));
    /* other weights, by refresh: all zero but the last bias */
    float *zeros = calloc(f->n, sizeof *zeros);
    float ones[CLASSES];
    int tensors;
    const ts_tensor *t = ts_model_tensors(m, &tensors);
    while (strcmp(t->name, "fc.bias")) t++;
    for (int i = 0; i < CLASSES; i++) ones[i] = (float)i;
    OK(ts_model_write(m, t, zeros, ones, stream));
    OK(ts_workspace_refresh(one, zeros, NULL, f->statistics, stream));
    OK(ts_workspace_forward(one, 0, n, stream));
    OK(ts_stream_sync(stream));
    assert_memory_equal(ts_workspace_logits(one), ones, sizeof ones);
    free(zeros);
    free(expected);
    ts_workspace_close(bf16);
    ts_workspace_close(one);
    ts_workspace_close(seven);
    ts_workspace_close(five);
    ts_model_close(half);
    ts_model_close(m);
}

/* A batch norm that adds its own input, and the same by way of a pool that changes nothing. */
static ts_status build_own(ts_builder *b, bool around, int classes)
{
    int x = ts_build_conv(b, ts_build_input(b), "a", 8, 3, 1, 1);
    x = ts_build_batch_norm(b, x, "b", around ? ts_build_average_pool(b, x, 1, 1) : x, true);
    ts_build_linear(b, ts_build_average_pool(b, x, 0, 0), "c", classes, false);
    return TS_OK;
}

static ts_status build_direct(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    return build_own(b, false, classes);
}

static ts_status build_around(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    return build_own(b, true, classes);
}

/* The gradients of one batch, malloc. */
static float *gradients_of(const ts_network *network, int *n_p)
{
    ts_control control = {0};
    OK(ts_network_add(network));
    ts_model *m = open_model(network->name, 8, TS_F32, NULL, 4096);
    ts_flat *f = ts_model_flat(m);
    ts_workspace *w = open_workspace(m, 3, true, &control);
    fill_batch(w, 0);
    OK(ts_workspace_forward(w, 0, ts_model_nodes(m), stream));
    OK(ts_workspace_backward(w, 0, ts_model_nodes(m), f->gradients, NULL, NULL, stream));
    OK(ts_stream_sync(stream));
    *n_p = (int)f->n;
    float *gradients = copy_of(f->gradients, f->n * sizeof(float));
    ts_workspace_close(w);
    ts_model_close(m);
    return gradients;
}

static void test_one_node_read_twice_by_another(void **state)
{
    static const ts_network networks[] = {{"direct", build_direct, ""},
                                          {"around", build_around, ""}};
    (void)state;
    float *gradients[2];
    int n = 0;
    for (int k = 0; k < 2; k++) gradients[k] = gradients_of(&networks[k], &n);
    near(gradients[0], gradients[1], n, 1e-6f);
    free(gradients[0]);
    free(gradients[1]);
}

/* A pool and a dropout that read the picture have nobody to hand a gradient to. */
static ts_status build_pooled(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_average_pool(b, ts_build_input(b), 2, 2);
    ts_build_linear(b, ts_build_conv(b, x, "a", 8, 3, 1, 1), "b", classes, false);
    return TS_OK;
}

static ts_status build_dropped(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_dropout(b, ts_build_input(b), 0.2f);
    ts_build_linear(b, x, "a", classes, false);
    return TS_OK;
}

static void test_what_reads_the_picture(void **state)
{
    static const ts_network networks[] = {{"pooled", build_pooled, ""},
                                          {"dropped", build_dropped, ""}};
    (void)state;
    for (int k = 0; k < 2; k++) {
        int n;
        float *gradients = gradients_of(&networks[k], &n), sum = 0;
        for (int i = 0; i < n; i++) sum += fabsf(gradients[i]);
        assert_true(sum > 0 && isfinite(sum));
        free(gradients);
    }
}

/* ---- networks that are refused ---- */

static ts_status build_thrice(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_conv(b, ts_build_input(b), "a", 8, 3, 1, 1);
    int y = ts_build_batch_norm(b, x, "b", x, true);
    y = ts_build_batch_norm(b, y, "c", x, true);
    ts_build_linear(b, y, "d", classes, false);
    return TS_OK;
}

static ts_status build_endless(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    (void)classes;
    ts_build_conv(b, ts_build_input(b), "a", 8, 3, 1, 1);
    return TS_OK;
}

static ts_status build_wordy(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    ts_build_linear(b, ts_build_input(b), "a.name.of.far.more.characters.than.a.node.can.have",
                    classes, false);
    return TS_OK;
}

static ts_status build_twice(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_conv(b, ts_build_input(b), "a", 8, 3, 1, 1);
    x = ts_build_batch_norm(b, x, "a", -1, true);
    ts_build_linear(b, x, "b", classes, false);
    return TS_OK;
}

static ts_status build_nameless(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    ts_build_linear(b, ts_build_input(b), "", classes, false);
    return TS_OK;
}

static ts_status build_strideless(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_conv(b, ts_build_input(b), "a", 8, 3, 0, 1);
    ts_build_linear(b, x, "b", classes, false);
    return TS_OK;
}

static ts_status build_padded(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_max_pool(b, ts_build_input(b), 2, 2, 2);
    ts_build_linear(b, x, "a", classes, false);
    return TS_OK;
}

static void refused(const ts_network *network, int side, const char *part)
{
    ts_model *m;
    ts_model_options options = {.input = {1, 3, side, side}, .classes = 10, .bucket_bytes = 1};
    assert_int_equal(ts_model_open(device, network, &options, &m), TS_EUSAGE);
    if (!strstr(ts_trail_message(), part))
        fail_msg("\"%s\" is not in \"%s\"", part, ts_trail_message());
}

static void test_bad_networks(void **state)
{
    static const ts_network thrice = {"thrice", build_thrice, ""};
    static const ts_network endless = {"endless", build_endless, ""};
    static const ts_network wordy = {"wordy", build_wordy, ""};
    static const ts_network twice = {"twice", build_twice, ""};
    static const ts_network nameless = {"nameless", build_nameless, ""};
    static const ts_network strideless = {"strideless", build_strideless, ""};
    static const ts_network padded = {"padded", build_padded, ""};
    static const ts_network taken = {"tiny", build_endless, ""};
    (void)state;
    refused(&thrice, 8, "is read 3 times");
    refused(&endless, 8, "must end in a linear layer");
    refused(&wordy, 8, "at most 47 characters");
    refused(&twice, 8, "nodes 1 and 2 are both called a");
    refused(&nameless, 8, "node 1 has parameters and no name");
    refused(&strideless, 8, "windows of 3 pixels, 0 apart");
    refused(&padded, 8, "windows of 2 pixels with a padding of 2");
    refused(&ts_network_vgg16, 100, "100x100");
    assert_int_equal(ts_network_add(&taken), TS_EUSAGE);
    OK(ts_network_add(&endless));
    assert_ptr_equal(ts_network_find("endless"), &endless);
    ts_networks_forget();
    assert_null(ts_network_find("endless"));
    assert_non_null(ts_network_find("tiny"));
    assert_null(ts_network_find("none"));
}

/* Five halvings leave nothing of 16 pixels; PyTorch refuses it too. */
static void test_too_small_pictures(void **state)
{
    (void)state;
    refused(&ts_network_vgg16, 16, "too small");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_flat_layout),
        cmocka_unit_test(test_read_and_write),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_ranges_of_nodes),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_several_workspaces),
        cmocka_unit_test(test_one_node_read_twice_by_another),
        cmocka_unit_test(test_what_reads_the_picture),
        cmocka_unit_test(test_bad_networks),
        cmocka_unit_test(test_too_small_pictures),
    };
    if (ts_device_open("host", 0, &device) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(stream);
    ts_device_close(device);
    return failed;
}
