/* test_shares.c - ranks with batches of their own: the division, and whole runs that must come to
 * what the mathematics says, held against runs of one rank and against each other.
 *
 * Runs are made on all ranks; what they have left is read on rank 0. */
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/comm/comm.h"
#include "runtime/train/safetensors.h"
#include "runtime/train/shares.h"
#include "runtime/train/train.h"
#include "tests/check.h"

enum { PATH = 600 };

static ts_world *world, *alone;
static char folder[64] = "/tmp/test_shares_XXXXXX";

/* ---- the division ---- */

static void test_division(void **state)
{
    static const struct {
        int size, pictures;
        ts_cost costs[3];
        int batches[3];
    } known[] = {
        {2, 32, {{0, 1, 0}, {0, 2, 0}}, {21, 11}}, /* 21.33, 10.67 */
        {3, 9, {{0, 1, 0}, {0, 1, 0}, {0, 1, 0}}, {3, 3, 3}},
        {3, 11, {{0, 1, 0}, {0, 1, 0}, {0, 1, 0}}, {4, 4, 3}}, /* equal remainders */
        {3, 6, {{0, 3, 0}, {0, 2, 0}, {0, 1, 0}}, {1, 2, 3}},  /* 1.09, 1.64, 3.27 */
        {3, 8, {{0, 1, 0}, {0, 1000, 0}, {0, 1000, 0}}, {6, 1, 1}},
        {3, 3, {{0, 1, 0}, {0, 1e6, 0}, {0, 1, 0}}, {1, 1, 1}},
        {2, 30, {{0.1, 0.1, 0}, {0.1, 0.2, 0}}, {20, 10}}, /* both 2.1 s; by speed 19.7 */
        {2, 10, {{0.2, 0.1, 0}, {0, 0.1, 0}}, {4, 6}},     /* both 0.6 s */
        {2, 10, {{5, 0.1, 0}, {0, 0.1, 0}}, {1, 9}},       /* slower with nothing than the other */
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        ts_cost costs[3];
        int batches[3];
        memcpy(costs, known[i].costs, sizeof costs);
        ts_shares_divide(known[i].size, costs, known[i].pictures, batches);
        for (int r = 0; r < known[i].size; r++)
            if (batches[r] != known[i].batches[r])
                fail_msg("case %d: rank %d has %d, by hand %d", (int)i, r, batches[r],
                         known[i].batches[r]);
    }
}

/* Whatever the costs: the sum is kept, nobody has none, no batch is a whole picture off, and those
 * that are not held at 1 would all take as long. */
static void test_division_at_random(void **state)
{
    enum { MOST = 40 };
    (void)state;
    for (int run = 0; run < 500; run++) {
        ts_cost costs[MOST];
        int batches[MOST], sum = 0;
        ts_random4 u = ts_random(11, (uint64_t)run, 0);
        int size = 1 + (int)(u.v[0] % MOST), pictures = size * (1 + (int)(u.v[1] % 70));
        for (int r = 0; r < size; r++) {
            ts_random4 v = ts_random(12, (uint64_t)run, (uint64_t)r);
            costs[r] = (ts_cost){.fixed_s = run % 2 ? ts_random_unit(v.v[0]) : 0,
                                 .picture_s = 0.01 + ts_random_unit(v.v[1])};
        }
        ts_shares_divide(size, costs, pictures, batches);
        double step = 0;
        for (int r = 0; r < size; r++) {
            double mine = costs[r].fixed_s + costs[r].picture_s * costs[r].batch;
            sum += batches[r];
            assert_true(batches[r] >= 1 && fabs(batches[r] - costs[r].batch) < 1);
            if (costs[r].batch == 1) continue;
            if (step > 0) assert_true(fabs(mine - step) < 1e-9 * step);
            step = mine;
        }
        assert_int_equal(sum, pictures);
    }
}

static void test_lists(void **state)
{
    static const char *const bad[] = {"",        "2",   "2,1,1", "2,,1",   "2,1,",
                                      "2,x",     "2,0", "2,-1",  "inf,1",  "nan,1",
                                      "measurd", "2;1", "2,1 1", "1e300,1"};
    (void)state;
    ts_cost costs[2];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (ts_shares_parse(bad[i], 2, costs) != TS_EUSAGE) fail_msg("\"%s\" is taken", bad[i]);
        assert_non_null(strstr(ts_trail_message(), bad[i]));
    }
    OK(ts_shares_parse("1.0,0.5", 2, costs));
    assert_true(costs[0].fixed_s == 0 && fabs(costs[1].picture_s / costs[0].picture_s - 2) < 1e-12);
}

/* ---- runs ---- */

static bool on_host(void)
{
    return !strcmp(test_device(), "host");
}

/* What all runs share. */
static const char *const base_settings[][2] = {
    {"model", "mlp"},        {"data", "synthetic:train=230,test=50,size=8"},
    {"type", "fp32"},        {"batch", "8"},
    {"steps", "12"},         {"learning-rate", "0.05"},
    {"algorithm", "ssgd"},   {"scale-learning-rate", "no"},
    {"evaluate-every", "0"},
};

static void set(ts_option_set *options, const char *key, const char *value)
{
    OK(ts_option_set_value(options, key, value, "test"));
}

static void open_config(ts_config *config, ts_option_set **options_p)
{
    OK(ts_config_open(config, options_p));
    for (size_t i = 0; i < sizeof base_settings / sizeof *base_settings; i++)
        set(*options_p, base_settings[i][0], base_settings[i][1]);
    set(*options_p, "device", test_device());
}

/* `settings`: key, value, ..., NULL. */
static void train(ts_world *w, const char *name, const char *const *settings, ts_result *result)
{
    ts_config config;
    ts_option_set *options;
    char run[PATH];
    open_config(&config, &options);
    OK(ts_file_join(run, sizeof run, folder, name));
    set(options, "run", run);
    for (int i = 0; settings[i]; i += 2) set(options, settings[i], settings[i + 1]);
    OK(ts_train(w, &config, options, result));
    ts_option_set_close(options);
}

#define TRAIN(name, result, ...)                                                                   \
    train(world, name, (const char *const[]){__VA_ARGS__, NULL}, result)

/* The largest difference between the models of two runs, relative to the largest weight. */
static double distance(const char *a, const char *b)
{
    double most = 0, largest = 0;
    char path[2][PATH];
    ts_safetensors *file[2];
    const ts_file_tensor *t[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], PATH, "%s/%s/model.safetensors", folder, i ? b : a);
        OK(ts_safetensors_open(path[i], &file[i]));
    }
    static const char *const names[] = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"};
    for (int n = 0; n < 4; n++) {
        for (int i = 0; i < 2; i++) assert_non_null(t[i] = ts_safetensors_find(file[i], names[n]));
        for (size_t at = 0; at < t[0]->bytes; at += sizeof(float)) {
            float x, y;
            memcpy(&x, (const char *)t[0]->data + at, sizeof x);
            memcpy(&y, (const char *)t[1]->data + at, sizeof y);
            most = fmax(most, fabs((double)x - y));
            largest = fmax(largest, fabs((double)x));
        }
    }
    for (int i = 0; i < 2; i++) ts_safetensors_close(file[i]);
    return most / largest;
}

static bool same_bytes(const char *a, const char *b)
{
    char path[PATH];
    void *bytes[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/model.safetensors", folder, i ? b : a);
        OK(ts_file_read(path, &bytes[i], &n[i]));
    }
    bool same = n[0] == n[1] && !memcmp(bytes[0], bytes[1], n[0]);
    for (int i = 0; i < 2; i++) free(bytes[i]);
    return same;
}

/* At the end of a run, by its run.json. */
static void batches_of(const char *name, int *batches)
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s/run.json", folder, name);
    json_t *run = json_load_file(path, 0, NULL), *list = json_object_get(run, "batches");
    assert_int_equal(json_array_size(list), world->size);
    for (int r = 0; r < world->size; r++)
        batches[r] = (int)json_integer_value(json_array_get(list, (size_t)r));
    json_decref(run);
}

/* Rank 0 looks, and all ranks fail together: none is left waiting in the next run. */
static void expect(bool seen, const char *what, int line)
{
    int fine = seen;
    OK(world->ops->broadcast(world, &fine, sizeof fine, 0));
    if (!fine) fail_msg("line %d: %s", line, what);
}
#define EXPECT(condition) expect(world->rank || (condition), #condition, __LINE__)

static const char *shares(void)
{
    return world->size == 2 ? "2,1" : "3,2,1";
}

/* S-SGD's mean gradient is that over all pictures: the run of one rank on the same pictures, over
 * the end of an epoch, with momentum and augmentation. Momentum being linear, so is Local-SGD with
 * k = 1. */
static void test_mean_over_all_pictures(void **state)
{
    (void)state;
    ts_result one, many;
    const char *batch = world->size == 2 ? "16" : "24";
    if (world->size == 1) skip();
    if (world->rank == 0) train(alone, "one", (const char *const[]){"batch", batch, NULL}, &one);
    ts_log_set_rank(world->rank, world->size, world->host); /* the world of one has changed it */
    TRAIN("ssgd", &many, "shares", shares());
    EXPECT(distance("one", "ssgd") < 1e-5);
    EXPECT(fabs(one.test_loss - many.test_loss) < 1e-5);
    TRAIN("blocking", &many, "shares", shares(), "overlap", "no");
    EXPECT(distance("one", "blocking") < 1e-5);
    TRAIN("local", &many, "shares", shares(), "algorithm", "local", "period", "1");
    EXPECT(distance("one", "local") < 1e-5);
    TRAIN("equal", &many, "shares", "equal");
    EXPECT(distance("one", "equal") < 1e-5);
    /* what else there is to come to is far away */
    TRAIN("other", &many, "shares", shares(), "seed", "2");
    EXPECT(distance("one", "other") > 1e-2);
}

/* Stopped in the middle of an epoch of 14 or 9 steps, and gone on bit for bit. */
static void test_resume(void **state)
{
    static const char *const algorithms[] = {"ssgd", "local", "cocod", "dasgd"};
    (void)state;
    ts_result r;
    char from[PATH], whole[32];
    int step = world->size == 2 ? 6 : 4;
    if (world->size == 1) skip();
    for (int i = 0; i < 8; i++) {
        if (!on_host() && i != 4) continue; /* the emulated GPU is slow */
        snprintf(whole, sizeof whole, "whole%d", i);
        snprintf(from, sizeof from, "%s/%s/checkpoints/step-%08d", folder, whole, step);
        const char *algorithm = algorithms[i / 2], *skew = i % 2 ? "0.5" : "0";
        TRAIN(whole, &r, "shares", shares(), "algorithm", algorithm, "period", "3", "skew", skew,
              "steps", "20", "checkpoint-every", "0.2", "keep", "99");
        TRAIN("again", &r, "shares", shares(), "algorithm", algorithm, "period", "3", "skew", skew,
              "steps", "20", "resume", from);
        EXPECT(same_bytes(whole, "again"));
    }
    /* gone on with equal batches: the place in the epoch is kept, and so the pictures are the same
     */
    snprintf(from, sizeof from, "%s/unequal/checkpoints/step-%08d", folder, step);
    TRAIN("unequal", &r, "shares", shares(), "checkpoint-every", "0.2", "keep", "99");
    TRAIN("again", &r, "shares", "equal", "resume", from);
    EXPECT(distance("unequal", "again") > 0 && distance("unequal", "again") < 1e-5);
}

/* A checkpoint is the mean of its ranks' models, weighted as the run's own consensus of that step:
 * the end of a run of 5 steps. */
static void test_consensus_of_a_checkpoint(void **state)
{
    (void)state;
    ts_result r, score;
    ts_config config;
    ts_option_set *options;
    char from[PATH];
    const char *every = world->size == 2 ? "0.35" : "0.5"; /* of 14 or 9 steps: after 5 */
    if (world->size == 1) skip();
#define DRIFTING                                                                                   \
    "shares", shares(), "algorithm", "local", "period", "4", "learning-rate", "0.3", "schedule",   \
        "constant"
    TRAIN("long", &r, DRIFTING, "steps", "6", "checkpoint-every", every);
    TRAIN("short", &r, DRIFTING, "steps", "5");
    snprintf(from, sizeof from, "%s/long/checkpoints/step-%08d", folder, 5);
    if (world->rank == 0) {
        open_config(&config, &options);
        set(options, "weights", from);
        OK(ts_evaluate(alone, &config, &score));
        ts_option_set_close(options);
    }
    ts_log_set_rank(world->rank, world->size, world->host);
    EXPECT(fabs(score.test_loss - r.test_loss) < 1e-6);
}

/* Rank 0 is twice as fast as the others. Measuring leaves no trace: the run is, bit for bit, the
 * one with these batches given. */
static void test_measured(void **state)
{
    (void)state;
    ts_result r;
    int batches[3] = {0};
    char list[64];
    if (world->size == 1 || !on_host()) skip();
    TRAIN("measured", &r, "shares", "measured", "rebalance", "no", "algorithm", "cocod", "pace",
          world->rank ? "0.08" : "0.04");
    if (world->rank == 0) batches_of("measured", batches);
    EXPECT(batches[0] > 1.5 * batches[1] && batches[0] < 2.6 * batches[1]);
    OK(world->ops->broadcast(world, batches, sizeof batches, 0));
    snprintf(list, sizeof list, world->size == 2 ? "%d,%d" : "%d,%d,%d", batches[0], batches[1],
             batches[2]);
    TRAIN("given", &r, "shares", list, "algorithm", "cocod");
    EXPECT(same_bytes("measured", "given"));
}

/* Of the lines of metrics.jsonl those of kind "shares", one behind the other. */
static const char *history(const char *name)
{
    static char text[4000];
    char path[PATH], line[1000];
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (*text = 0; fgets(line, sizeof line, f);)
        if (strstr(line, "\"shares\"")) strncat(text, line, sizeof text - strlen(text) - 1);
    fclose(f);
    return text;
}

/* Ranks alike (on the emulated GPU rank 0 is slower) have batches 14 and 2, and after the first of
 * two epochs others; a resume from there goes on with those, not with the list, bit for bit. A list
 * alone stays. */
static void test_rebalance(void **state)
{
    (void)state;
    ts_result r;
    int batches[2];
    char from[PATH];
    const char *pace = on_host() ? "0.08" : "0", *model = on_host() ? "mlp" : "tiny";
    if (world->size != 2) skip();
#define TWO_EPOCHS                                                                                 \
    "shares", "7,1", "algorithm", "cocod", "period", "3", "steps", "28", "model", model
    if (!world->rank) setenv("TWINSTREAM_EMULATED_SLOW_US", "2000", 1); /* of the emulated GPU */
    TRAIN("drifts", &r, TWO_EPOCHS, "rebalance", "yes", "checkpoint-every", "1", "pace", pace);
    unsetenv("TWINSTREAM_EMULATED_SLOW_US");
    if (world->rank == 0) batches_of("drifts", batches);
    EXPECT(batches[0] < (on_host() ? 11 : 14) && batches[0] + batches[1] == 16);
    EXPECT(strstr(history("drifts"), "\"step\":0,\"batches\":[14,2]") != NULL);
    EXPECT(strstr(history("drifts"), "\"step\":14,") != NULL);
    snprintf(from, sizeof from, "%s/drifts/checkpoints/step-%08d", folder, 14);
    TRAIN("goes-on", &r, TWO_EPOCHS, "rebalance", "yes", "resume", from);
    EXPECT(same_bytes("drifts", "goes-on"));
    TRAIN("stays", &r, TWO_EPOCHS);
    if (world->rank == 0) batches_of("stays", batches);
    EXPECT(batches[0] == 14 && batches[1] == 2 && !same_bytes("drifts", "stays"));
}

/* One rank has everything, whatever its speed. */
static void test_one_rank(void **state)
{
    static const char *const values[] = {"measured", "3"};
    (void)state;
    ts_result r;
    if (world->size != 1) skip();
    TRAIN("plain", &r, "algorithm", "cocod");
    for (int i = 0; i < 2; i++) {
        TRAIN("shares", &r, "algorithm", "cocod", "shares", values[i], "rebalance", "yes");
        EXPECT(same_bytes("plain", "shares"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_division), cmocka_unit_test(test_division_at_random),
        cmocka_unit_test(test_lists),    cmocka_unit_test(test_mean_over_all_pictures),
        cmocka_unit_test(test_resume),   cmocka_unit_test(test_consensus_of_a_checkpoint),
        cmocka_unit_test(test_measured), cmocka_unit_test(test_rebalance),
        cmocka_unit_test(test_one_rank),
    };
    if (ts_world_open("auto", &world) || ts_world_open("self", &alone)) return 1;
    ts_log_set_rank(world->rank, world->size, world->host);
    ts_log_set_level(TS_LOG_WARN);
    if (world->rank == 0 && !mkdtemp(folder)) return 1;
    if (world->ops->broadcast(world, folder, sizeof folder, 0)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed && world->size > 1) world->ops->abort(world, 1);
    (void)world->ops->barrier(world);
    if (world->rank == 0) (void)ts_file_remove_folder(folder);
    ts_world_close(alone);
    ts_world_close(world);
    return failed;
}
