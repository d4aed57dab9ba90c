/* test_model_torch.c - logits, loss, gradients and running statistics of our networks against what
 * PyTorch computed (fixtures/model.txt, by fixtures/make_model.py) for the same weights, which a
 * formula gives on both sides. */
#include <math.h>

#include "models/model.h"
#include "tests/check.h"

enum { BATCH = 4, CLASSES = 10, SAMPLES = 4 };

static ts_device *device;
static ts_stream *stream;
static const char *fixture;

static float value(const char *name, size_t i)
{
    uint32_t x = 0x811C9DC5u;
    for (const char *c = name; *c; c++) x = (x ^ (unsigned char)*c) * 0x01000193u;
    x += (uint32_t)i * 2654435761u;
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    x ^= x >> 16;
    return (float)((double)(x >> 8) / 8388608.0 - 1);
}

static const ts_tensor *find(const ts_model *m, const char *name)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(m, &n);
    for (int i = 0; i < n; i++)
        if (!strcmp(tensors[i].name, name)) return &tensors[i];
    fail_msg("%s has no tensor %s", ts_model_name(m), name);
    return NULL;
}

static void fill(ts_model *m)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(m, &n);
    for (int i = 0; i < n; i++) {
        const ts_tensor *t = &tensors[i];
        bool statistic = t->role == TS_TENSOR_RUNNING_MEAN || t->role == TS_TENSOR_RUNNING_VARIANCE;
        float *plain = malloc(t->count * sizeof *plain);
        float scale = t->role == TS_TENSOR_WEIGHT
                          ? sqrtf(3.0f / (float)(t->count / (size_t)t->shape[0]))
                          : 0.2f;
        for (size_t e = 0; e < t->count; e++) {
            plain[e] = scale * value(t->name, e);
            if (t->role == TS_TENSOR_GAMMA) plain[e] += 1;
            if (statistic) plain[e] = t->role == TS_TENSOR_RUNNING_VARIANCE;
        }
        ts_flat *flat = ts_model_flat(m);
        OK(ts_model_write(m, t, statistic ? flat->statistics : flat->parameters, plain, stream));
        free(plain);
    }
}

static void fill_batch(const ts_batch *b)
{
    ts_shape s = b->shape;
    size_t plane = (size_t)s.h * (size_t)s.w, i = 0;
    assert_int_equal(b->type, TS_F32);
    for (int n = 0; n < s.n; n++) {
        b->labels[n] = n * 3 % CLASSES;
        for (int c = 0; c < s.c; c++)
            for (size_t p = 0; p < plane; p++, i++) {
                size_t nchw = ((size_t)n * (size_t)s.c + (size_t)c) * plane + p;
                size_t nhwc = ((size_t)n * plane + p) * (size_t)s.c + (size_t)c;
                assert_true(b->layout == TS_NCHW || b->layout == TS_NHWC);
                ((float *)b->input)[b->layout == TS_NCHW ? nchw : nhwc] = value("input", i);
            }
    }
}

/* A line of the fixture against one of our tensors. Where a network has millions of activations, a
 * few are so near zero that rounding moves them across a ReLU, which changes the gradients before
 * it by 0.2 %, PyTorch's in single precision too; else the two differ by 1e-5. */
static void compare(const ts_model *m, const char *kind, const char *name, const float *plain,
                    size_t count, double norm, const double *samples)
{
    bool many = strcmp(ts_model_name(m), "tiny") != 0;
    double mine = 0, rms = norm / sqrt((double)count);
    for (size_t i = 0; i < count; i++) mine += (double)plain[i] * plain[i];
    mine = sqrt(mine);
    if (!(fabs(mine - norm) <= (many ? 2e-3 : 1e-5) * norm))
        fail_msg("%s: %s of %s has the norm %.7g, PyTorch's %.7g", ts_model_name(m), kind, name,
                 mine, norm);
    for (int i = 0; i < SAMPLES; i++) {
        double x = plain[((size_t)i * 7919 + 13) % count];
        if (!(fabs(x - samples[i]) <= (many ? 2e-2 : 1e-4) * rms))
            fail_msg("%s: %s of %s, sample %d is %.7g, PyTorch's %.7g (rms %.3g)", ts_model_name(m),
                     kind, name, i, x, samples[i], rms);
    }
}

/* Is `name`, "64x3x3x3", the next parameter? torchvision lists a block's projection last; we list
 * it before the batch norm that adds it. */
static void compare_names(const ts_model *m, const char *name, const char *shape, int *next)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(m, &n), *t = find(m, name);
    char mine[64] = "";
    for (int d = 0; d < t->rank; d++)
        snprintf(mine + strlen(mine), sizeof mine - strlen(mine), d ? "x%d" : "%d", t->shape[d]);
    if (strcmp(mine, shape)) fail_msg("%s is %s, torchvision's is %s", name, mine, shape);
    if (strstr(name, "downsample")) return;
    while (*next < n && strstr(tensors[*next].name, "downsample")) ++*next;
    assert_true(*next < n);
    assert_string_equal(tensors[(*next)++].name, name);
}

static void compare_logits(FILE *file, const char *name, const char *kind, const float *logits)
{
    for (int i = 0; i < BATCH * CLASSES; i++) {
        double x;
        assert_int_equal(fscanf(file, "%lf", &x), 1);
        if (!(fabs((double)logits[i] - x) <= 1e-4 * (1 + fabs(x))))
            fail_msg("%s: %s: logit %d is %.7g, PyTorch's %.7g", name, kind, i, (double)logits[i],
                     x);
    }
}

static void evaluate(ts_model *m, float *logits)
{
    ts_workspace *w;
    ts_control control = {0};
    ts_flat *flat = ts_model_flat(m);
    OK(ts_workspace_open(m, BATCH, false, &control, &w));
    ts_batch batch = ts_workspace_batch(w);
    fill_batch(&batch);
    OK(ts_workspace_refresh(w, flat->parameters, NULL, flat->statistics, stream));
    OK(ts_workspace_forward(w, 0, ts_model_nodes(m), stream));
    OK(ts_stream_sync(stream));
    memcpy(logits, ts_workspace_logits(w), BATCH * CLASSES * sizeof *logits);
    ts_workspace_close(w);
}

/* The lines of one network, up to "end". */
static void check_network(FILE *file, const char *ops)
{
    char name[64], kind[32];
    int size;
    size_t parameters;
    if (fscanf(file, " %63s %d %zu", name, &size, &parameters) != 3) fail_msg("bad fixture");
    ts_model_options options = {.input = {1, 3, size, size},
                                .classes = CLASSES,
                                .type = TS_F32,
                                .ops = ops,
                                .bucket_bytes = 1 << 20};
    ts_model *m;
    ts_workspace *w;
    ts_control control = {0};
    OK(ts_model_open(device, ts_network_find(name), &options, &m));
    /* PyTorch counts VGG's void biases too: one for each channel of a convolution */
    size_t void_biases = strcmp(name, "vgg16") ? 0 : 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512;
    assert_int_equal(ts_model_parameter_count(m) + void_biases, parameters);
    OK(ts_workspace_open(m, BATCH, true, &control, &w));
    ts_batch batch = ts_workspace_batch(w);
    ts_flat *flat = ts_model_flat(m);
    fill(m);
    fill_batch(&batch);
    OK(ts_workspace_refresh(w, flat->parameters, NULL, flat->statistics, stream));
    OK(ts_workspace_forward(w, 0, ts_model_nodes(m), stream));
    OK(ts_stream_sync(stream));
    float logits[BATCH * CLASSES]; /* backward may use their memory again */
    memcpy(logits, ts_workspace_logits(w), sizeof logits);
    OK(ts_workspace_backward(w, 0, ts_model_nodes(m), flat->gradients, NULL, NULL, stream));
    OK(ts_stream_sync(stream));
    int gradients = 0, next = 0, named = 0, all;
    while (fscanf(file, " %31s", kind) == 1 && strcmp(kind, "end")) {
        double x, norm, samples[SAMPLES];
        size_t count;
        if (!strcmp(kind, "loss")) {
            assert_int_equal(fscanf(file, "%lf", &x), 1);
            assert_true(fabs(control.loss_sum / BATCH - x) <= 1e-4 * fabs(x));
            continue;
        }
        if (!strcmp(kind, "logits")) {
            compare_logits(file, name, kind, logits);
            continue;
        }
        if (!strcmp(kind, "evaluation")) { /* by the running statistics after one step */
            evaluate(m, logits);
            compare_logits(file, name, kind, logits);
            continue;
        }
        char tensor[64], shape[32];
        if (!strcmp(kind, "parameter")) {
            assert_int_equal(fscanf(file, " %63s %31s", tensor, shape), 2);
            compare_names(m, tensor, shape, &next);
            named++;
            continue;
        }
        assert_int_equal(fscanf(file, " %63s %zu %lf", tensor, &count, &norm), 3);
        for (int i = 0; i < SAMPLES; i++) assert_int_equal(fscanf(file, "%lf", &samples[i]), 1);
        const ts_tensor *t = find(m, tensor);
        assert_int_equal(t->count, count);
        float *plain = malloc(count * sizeof *plain);
        bool running = !strcmp(kind, "running");
        OK(ts_model_read(m, t, running ? flat->statistics : flat->gradients, plain, stream));
        compare(m, kind, tensor, plain, count, norm, samples);
        gradients += !running;
        free(plain);
    }
    print_message("%s at %d pixels, ops %s: %d gradients agree\n", name, size, ops ? ops : "auto",
                  gradients);
    const ts_tensor *tensors = ts_model_tensors(m, &all);
    for (int i = 0; i < all; i++)
        named -= tensors[i].role < TS_TENSOR_RUNNING_MEAN || tensors[i].role == TS_TENSOR_VOID_BIAS;
    assert_int_equal(named, 0); /* neither has one that the other has not */
    assert_true(gradients > 10);
    ts_workspace_close(w);
    ts_model_close(m);
}

static void test_against_pytorch(void **state)
{
    (void)state;
    char word[32];
    FILE *file = fopen(fixture, "r");
    assert_non_null(file);
    int networks = 0;
    while (fscanf(file, " %31s", word) == 1) {
        assert_string_equal(word, "network");
        long at = ftell(file);
        check_network(file, NULL);
        if (!networks++) { /* the first is small enough for plain loops */
            fseek(file, at, SEEK_SET);
            check_network(file, "reference");
        }
    }
    fclose(file);
    assert_int_equal(networks, 5);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_pytorch)};
    fixture = argc > 1 ? argv[1] : "";
    if (ts_device_open("host", 0, &device) ||
        ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &stream))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_stream_close(stream);
    ts_device_close(device);
    return failed;
}
