/* test_cudnn.c - without a GPU: every convolution of ResNet18 and VGG16 gets a deterministic,
 * compiled cuDNN plan within the workspace cap, for the GPU that fixtures/h200.json describes (its
 * figures are a data sheet's), and so does the fused fp16 chain. Skipped where there is no cuDNN.
 */
#include <stdlib.h>

#include "models/builder.h"
#include "ops/cuda/conv.h"
#include "runtime/base/file.h"
#include "tests/check.h"

static ts_cudnn *cudnn;

static const char *const pass_names[] = {"forward", "backward data", "backward weights"};

/* Every distinct convolution of a network. */
typedef struct convs {
    ts_op_desc at[64];
    int n;
} convs;

static void add_convs(convs *all, const char *network, int pixels, int classes)
{
    ts_builder b = {.input = {1, 3, pixels, pixels}};
    OK(ts_network_find(network)->build(&b, b.input, classes));
    OK(b.status);
    for (int i = 1; i < b.n; i++) {
        ts_op_desc d = b.nodes[i].desc;
        if (d.kind != TS_OP_CONV) continue;
        d.in_layout = b.nodes[i].from ? TS_NHWC : TS_NHWC8;
        d.layout = TS_NHWC;
        d.training = true;
        d.needs_dx = b.nodes[i].from > 0;
        bool known = false;
        for (int j = 0; j < all->n; j++) {
            const ts_op_desc *o = &all->at[j];
            known |= !memcmp(&o->in, &d.in, sizeof d.in) &&
                     !memcmp(&o->out, &d.out, sizeof d.out) && o->kernel == d.kernel &&
                     o->stride == d.stride;
        }
        if (!known) all->at[all->n++] = d;
    }
}

/* How many plans there are; at least one must be. */
static int count_plans(const ts_op_desc *d, ts_op_pass pass, ts_cudnn_form form)
{
    ts_cudnn_graph *graph;
    ts_cudnn_plan plans[64], again;
    int n, same;
    char text[160];
    ts_op_describe(d, text, sizeof text);
    if (ts_cudnn_graph_open(cudnn, d, pass, form, &graph))
        fail_msg("%s, %s: %s", text, pass_names[pass], ts_trail());
    OK(ts_cudnn_plans(graph, TS_CUDNN_WORKSPACE, NULL, plans, 64, &n));
    if (n == 0) fail_msg("%s, %s%s: no plan", text, form ? "fused, " : "", pass_names[pass]);
    for (int i = 0; i < n; i++) {
        assert_true(plans[i].workspace_bytes <= TS_CUDNN_WORKSPACE);
        for (int j = 0; j < i; j++) assert_string_not_equal(plans[i].name, plans[j].name);
    }
    /* what a name names is found again: the memory of choices rests on it */
    OK(ts_cudnn_plans(graph, TS_CUDNN_WORKSPACE, plans[n - 1].name, &again, 1, &same));
    assert_int_equal(same, 1);
    assert_string_equal(again.name, plans[n - 1].name);
    assert_int_equal(again.workspace_bytes, plans[n - 1].workspace_bytes);
    ts_cudnn_plan_close(&again);
    for (int i = 0; i < n; i++) ts_cudnn_plan_close(&plans[i]);
    ts_cudnn_graph_close(graph);
    return n;
}

static void check_all(ts_type type, bool tf32, ts_cudnn_form form, const int *batches,
                      int n_batches)
{
    convs all = {.n = 0};
    int plans = 0, fewest = 1000, graphs = 0;
    add_convs(&all, "resnet18", 32, 10);
    add_convs(&all, "resnet18", 224, 1000);
    add_convs(&all, "vgg16", 32, 10);
    add_convs(&all, "vgg16", 224, 1000);
    assert_true(all.n > 30);
    for (int i = 0; i < all.n; i++)
        for (int b = 0; b < n_batches; b++)
            for (int pass = TS_FORWARD; pass <= TS_BACKWARD_WEIGHTS; pass++) {
                ts_op_desc d = all.at[i];
                d.in.n = d.out.n = batches[b];
                d.type = d.out_type = type;
                d.tf32 = tf32;
                if (pass == TS_BACKWARD_DATA && !d.needs_dx) continue;
                /* no batch norm comes before the first convolution */
                if (form == TS_CUDNN_FUSED && !d.needs_dx) continue;
                /* cuDNN's fused engines count elements in 32 bits */
                if (form == TS_CUDNN_FUSED && ts_shape_count(d.in) > INT32_MAX) continue;
                int n = count_plans(&d, (ts_op_pass)pass, form);
                plans += n;
                graphs++;
                if (n < fewest) fewest = n;
            }
    print_message("%d convolutions, %d graphs, %d plans, %d to the poorest\n", all.n, graphs, plans,
                  fewest);
}

static void test_bf16(void **state)
{
    (void)state;
    check_all(TS_BF16, false, TS_CUDNN_PLAIN, (const int[]){32, 128, 256, 512, 1024}, 5);
}

static void test_fp32(void **state)
{
    (void)state;
    check_all(TS_F32, false, TS_CUDNN_PLAIN, (const int[]){32, 1024}, 2);
}

static void test_tf32(void **state)
{
    (void)state;
    check_all(TS_F32, true, TS_CUDNN_PLAIN, (const int[]){32, 1024}, 2);
}

static void test_fused(void **state)
{
    (void)state;
    check_all(TS_BF16, false, TS_CUDNN_FUSED, (const int[]){32, 256, 1024}, 3);
}

/* A graph that makes no sense is refused in words. */
static void test_refusal(void **state)
{
    (void)state;
    ts_cudnn_graph *graph;
    ts_op_desc d = {.kind = TS_OP_CONV,
                    .in = {8, 64, 8, 8},
                    .out = {8, 64, 5, 8}, /* nothing makes five rows of these */
                    .kernel = 3,
                    .stride = 1,
                    .padding = 1,
                    .type = TS_BF16,
                    .in_layout = TS_NHWC,
                    .layout = TS_NHWC};
    assert_int_equal(ts_cudnn_graph_open(cudnn, &d, TS_FORWARD, TS_CUDNN_PLAIN, &graph),
                     TS_EDEVICE);
    assert_non_null(strstr(ts_trail(), "cuDNN"));
    assert_null(graph);
    ts_trail_clear();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),  cmocka_unit_test(test_fp32),    cmocka_unit_test(test_tf32),
        cmocka_unit_test(test_fused), cmocka_unit_test(test_refusal),
    };
    void *json;
    size_t n;
    if (argc != 2 || ts_file_read(argv[1], &json, &n)) return 1;
    if (ts_cudnn_open(json, &cudnn)) {
        printf("skipped: %s\n", ts_trail_message());
        return 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cudnn_close(cudnn);
    free(json);
    return failed;
}
