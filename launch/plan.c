/* plan.c - see plan.h. The model itself is runtime/plan. */
#include "launch/plan.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/algorithms/algorithm.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/option.h"
#include "runtime/plan/plan.h"

enum { STEPS = 240 };
#define WORTH_CHANGING                                                                             \
    0.75                /* another shape's all-reduce takes less than this share of the time       \
                         */
#define NEAR_IDEAL 1.05 /* a step this near to cocod's is better if it averages every time */

static struct settings {
    const char *ranks, *from, *all_reduce;
    int64_t per_host, period, delay, fragments, bucket_kib, seed;
    double step, bytes, bits, link, latency, inner_link, inner_latency, forward, spread, contention;
    bool json, help;
} set;

#define AT(field) offsetof(struct settings, field)
static const ts_option rows[] = {
    {"ranks", TS_OPTION_TEXT, AT(ranks), "1,2,4,8,16", NULL, 0, 0, "how many; several with commas"},
    {"per-host", TS_OPTION_INT, AT(per_host), "1", NULL, 1, 1024, "ranks of a host"},
    {"from", TS_OPTION_TEXT, AT(from), "", NULL, 0, 0,
     "a run's folder: its step without waits, and its model's parameters"},
    {"step", TS_OPTION_REAL, AT(step), "0", NULL, 0, 1e6,
     "seconds of a local step of one rank alone; required without --from"},
    {"bytes", TS_OPTION_REAL, AT(bytes), "0", NULL, 0, 1e15,
     "that are averaged; 0: ResNet18's 44.7 MB, or those of --from"},
    {"bits", TS_OPTION_REAL, AT(bits), "4.0625", NULL, 1, 32,
     "of an element in the row of --compress qsgd --exchange scatter: 4 and a norm for 512"},
    {"link-gbps", TS_OPTION_REAL, AT(link), "10", NULL, 1e-6, 1e9, "of a host, Gbit/s"},
    {"latency-us", TS_OPTION_REAL, AT(latency), "30", NULL, 0, 1e9, "between hosts, microseconds"},
    {"inner-gbps", TS_OPTION_REAL, AT(inner_link), "2400", NULL, 1e-6, 1e9,
     "between ranks of a host, Gbit/s"},
    {"inner-latency-us", TS_OPTION_REAL, AT(inner_latency), "5", NULL, 0, 1e9,
     "between ranks of a host, microseconds"},
    {"all-reduce", TS_OPTION_CHOICE, AT(all_reduce), "ring", "ring|tree|hierarchical", 0, 0,
     "one ring over all ranks; NCCL's tree; or inside hosts, across, and inside"},
    {"forward-share", TS_OPTION_REAL, AT(forward), "0.33", NULL, 0, 1,
     "of a step before the first gradients are complete"},
    {"bucket-kib", TS_OPTION_INT, AT(bucket_kib), "4096", NULL, 1, 1 << 30,
     "ssgd: gradients in a bucket, KiB; each bucket pays an all-reduce's latency"},
    {"spread", TS_OPTION_REAL, AT(spread), "0.02", NULL, 0, 10,
     "standard deviation of a step's time over its mean: stragglers"},
    {"contention", TS_OPTION_REAL, AT(contention), "0.05", NULL, 0, 10,
     "compute's slow-down beside a collective"},
    {"period", TS_OPTION_INT, AT(period), "auto", "auto", 1, TS_PLAN_LONGEST,
     "local steps between averages; auto: the fewest that hide communication"},
    {"delay", TS_OPTION_INT, AT(delay), "auto", "auto", 1, TS_PLAN_LONGEST,
     "dasgd: steps until the merge; auto: half of the period"},
    {"fragments", TS_OPTION_INT, AT(fragments), "1", NULL, 1, 64,
     "slices of the model that are averaged in turn, for another row of cocod; at most the period"},
    {"seed", TS_OPTION_INT, AT(seed), "1", NULL, 0, 0, "of the stragglers"},
    {"json", TS_OPTION_BOOL, AT(json), "no", NULL, 0, 0, "a JSON line for each row, no text"},
    {"help", TS_OPTION_BOOL, AT(help), "no", NULL, 0, 0, "this text"},
    {0}};

/* ---- from a run ---- */

static ts_status read_run(const char *folder, double *step_p, double *bytes_p)
{
    char path[600];
    json_error_t problem;
    double step = 0, wait = 0, input = 0, parameters = 0;
    TS_TRY(ts_file_join(path, sizeof path, folder, "run.json"));
    json_t *run = json_load_file(path, 0, &problem);
    TS_NEED(run, TS_EDATA, "%s: %s", path, problem.text);
    json_int_t again = 0;
    int bad = json_unpack(run, "{s:{s:F, s:F, s?F}, s:{s:F}, s?{s?I}}", "seconds_per_step", "step",
                          &step, "wait", &wait, "input", &input, "model", "parameters", &parameters,
                          "totals", "echo_steps", &again);
    json_decref(run);
    TS_NEED(bad || !again, TS_EDATA,
            "%s is of a run with --echo auto, whose steps were made again while an average was "
            "late: give one without, or --step",
            path);
    TS_NEED(!bad && step > wait + input, TS_EDATA, "%s holds no seconds_per_step and parameters",
            path);
    *step_p = step - wait - input;
    *bytes_p = parameters * 4;
    return TS_OK;
}

static const struct {
    const char *name, *how;
} shapes[] = {
    [TS_PLAN_RING] = {"ring", ""},
    [TS_PLAN_TREE] = {"tree", "; when training: NCCL_ALGO=Tree"},
    [TS_PLAN_HIERARCHICAL] = {"hierarchical", "; forecast only: no communicator here does it"}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static ts_plan_shape shape_of(const char *name)
{
    int i = 0;
    while (i < SHAPES - 1 && strcmp(name, shapes[i].name)) i++;
    return (ts_plan_shape)i;
}

static ts_status describe(ts_plan_cluster *c)
{
    double step = set.step, bytes = set.bytes, run_step = 0, run_bytes = 44695848;
    if (*set.from) TS_TRY(read_run(set.from, &run_step, &run_bytes));
    if (step <= 0) step = run_step;
    if (bytes <= 0) bytes = run_bytes;
    TS_NEED(step > 0, TS_EUSAGE,
            "how long is a local step? --step SECONDS, or --from RUN, the folder of a run");
    *c = (ts_plan_cluster){.per_host = (int)set.per_host,
                           .inner = {set.inner_link * 1e9 / 8, set.inner_latency * 1e-6},
                           .outer = {set.link * 1e9 / 8, set.latency * 1e-6},
                           .shape = shape_of(set.all_reduce),
                           .step_s = step,
                           .forward_share = set.forward,
                           .spread = set.spread,
                           .contention = set.contention,
                           .bytes = bytes,
                           .buckets =
                               (int)fmin(1 << 20, ceil(bytes / ((double)set.bucket_kib * 1024))),
                           .seed = (uint64_t)set.seed};
    return TS_OK;
}

/* ---- one size ---- */

typedef struct row {
    const char *name;
    ts_plan_method method;
    const char *also;     /* another algorithm with the same times, or NULL */
    const char *compress; /* or NULL */
    ts_plan_forecast f;
} row;
enum { BLOCKING, OVERLAPPED, COMPRESSED, PIPE, LOCAL, COCOD, STREAMING, DASGD, ROWS };

static ts_status forecast(const ts_plan_cluster *c, row all[ROWS])
{
    int64_t k = set.period, dasgd = set.period;
    int64_t least = ts_algorithm_least_period("dasgd", &(ts_algorithm_config){.delay = set.delay});
    TS_NEED(!k || k >= least, TS_EUSAGE,
            "delay %lld with period %lld is more averages in flight than dasgd takes: raise "
            "--period to %lld, or lower --delay",
            (long long)set.delay, (long long)k, (long long)least);
    if (!k) {
        TS_TRY(ts_plan_period(c, "cocod", 0, TS_PLAN_HIDDEN, 1, TS_PLAN_LONGEST, &k));
        TS_TRY(
            ts_plan_period(c, "dasgd", set.delay, TS_PLAN_HIDDEN, least, TS_PLAN_LONGEST, &dasgd));
        if (!k) k = TS_PLAN_LONGEST;
        if (!dasgd) dasgd = TS_PLAN_LONGEST;
    }
    int64_t fragments = set.fragments < k ? set.fragments : k;
    int64_t delay = set.delay ? set.delay : ts_plan_delay(dasgd);
    const row rows_of[ROWS] = {
        [BLOCKING] = {.name = "ssgd, blocking", .method = {"ssgd", false, 1, 1, 1}},
        [OVERLAPPED] = {.name = "ssgd", .method = {"ssgd", true, 1, 1, 1}},
        [COMPRESSED] = {.name = "ssgd, qsgd",
                        .method = {"ssgd", true, 1, 1, 1},
                        .compress = "qsgd"},
        [PIPE] = {.name = "pipe, od", .method = {"pipe", false, 1, 1, 1}, .also = "od"},
        [LOCAL] = {.name = "local", .method = {"local", false, k, 1, 1}},
        [COCOD] = {.name = "cocod", .method = {"cocod", false, k, 1, 1}, .also = "overlap-local"},
        [STREAMING] = {.name = "cocod", .method = {"cocod", false, k, 1, fragments}},
        [DASGD] = {.name = "dasgd", .method = {"dasgd", false, dasgd, delay, 1}}};
    for (int i = 0; i < ROWS; i++) {
        ts_plan_cluster sends = *c;
        all[i] = rows_of[i];
        if (all[i].compress)
            sends.bytes *= set.bits / 32; /* a scattered sum is an all-reduce of it */
        int64_t steps = STEPS > 4 * all[i].method.period ? STEPS : 4 * all[i].method.period;
        TS_TRY(ts_plan_run(&sends, &all[i].method, steps, &all[i].f));
    }
    return TS_OK;
}

static ts_status print_json(const ts_plan_cluster *c, const row *r, const char *algorithm,
                            double blocking_s)
{
    return ts_json_append(
        stdout, "standard output",
        json_pack("{s:i, s:s, s:s, s:b, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:f, s:f}", "ranks",
                  c->ranks, "algorithm", algorithm, "compress", r->compress ? r->compress : "none",
                  "overlap", r->method.overlap, "period", (json_int_t)r->method.period, "delay",
                  (json_int_t)(!strcmp(algorithm, "dasgd") ? r->method.delay : 0), "fragments",
                  (json_int_t)r->method.fragments, "step_s", r->f.step_s, "comm_s", r->f.comm_s,
                  "exposed_s", r->f.exposed_s, "hidden",
                  isfinite(r->f.hidden) ? json_real(r->f.hidden) : json_null(), "speedup",
                  r->f.speedup, "over_blocking_ssgd", blocking_s / r->f.step_s));
}

static ts_status print_rows(const ts_plan_cluster *c, const row all[ROWS])
{
    for (int i = 0; i < ROWS; i++) {
        const row *r = &all[i];
        bool delayed = i == DASGD, periodic = i >= LOCAL;
        if (i == STREAMING && r->method.fragments == 1) continue; /* cocod's own row */
        char k[24] = "", hidden[24] = "";
        if (set.json) {
            TS_TRY(print_json(c, r, r->method.algorithm, all[BLOCKING].f.step_s));
            if (r->also) TS_TRY(print_json(c, r, r->also, all[BLOCKING].f.step_s));
            continue;
        }
        if (delayed)
            snprintf(k, sizeof k, "%lld, d %lld", (long long)r->method.period,
                     (long long)r->method.delay);
        else if (i == STREAMING)
            snprintf(k, sizeof k, "%lld, P %lld", (long long)r->method.period,
                     (long long)r->method.fragments);
        else if (periodic)
            snprintf(k, sizeof k, "%lld", (long long)r->method.period);
        if (isfinite(r->f.hidden)) snprintf(hidden, sizeof hidden, "%.0f %%", 100 * r->f.hidden);
        printf("%6d  %-15s %-12s %10.3f %8.1f %% %10.3f %8s %9.2f %8.2f\n", c->ranks, r->name, k,
               r->f.step_s * 1e3, 100 * fmax(0, r->f.step_s / c->step_s - 1), r->f.exposed_s * 1e3,
               hidden, r->f.speedup, all[BLOCKING].f.step_s / r->f.step_s);
    }
    return TS_OK;
}

/* Would another shape of the all-reduce be much faster? */
static void advise_shape(ts_plan_cluster c, double seconds)
{
    ts_plan_shape mine = c.shape;
    for (int i = 0; i < SHAPES; i++) {
        c.shape = (ts_plan_shape)i;
        double other = ts_plan_all_reduce(&c, c.bytes);
        if (c.shape != mine && other < WORTH_CHANGING * seconds)
            printf("        as %s it would take %.3f ms (--all-reduce %s%s)\n", shapes[i].name,
                   other * 1e3, shapes[i].name, shapes[i].how);
    }
}

/* For where cocod's drift hurts: as many slices of the model as the period has steps are averaged
 * in turn, so that each is merged a step later. With k 1 cocod itself merges as soon. */
static ts_status advise_early(const ts_plan_cluster *c, int64_t k, double ssgd)
{
    ts_plan_forecast f;
    ts_plan_method early = {"dasgd", false, k, 1, k < 64 ? k : 64};
    if (k == 1) return TS_OK;
    TS_TRY(ts_plan_run(c, &early, STEPS > 4 * k ? STEPS : 4 * k, &f));
    if (f.step_s < ssgd)
        printf("        where its drift hurts accuracy: dasgd, k %lld, d 1, --fragments %lld "
               "--merge corrected --mix 0: %.2f times\n",
               (long long)k, (long long)early.fragments, ssgd / f.step_s);
    return TS_OK;
}

/* What to use at this size, and why. */
static ts_status advise(const ts_plan_cluster *c, const row all[ROWS])
{
    int64_t k = all[COCOD].method.period;
    double whole = ts_plan_all_reduce(c, c->bytes), latency = ts_plan_all_reduce(c, 0);
    double ssgd = fmin(all[OVERLAPPED].f.step_s, all[BLOCKING].f.step_s);
    printf("        an all-reduce takes %.3f ms, of which latency %.3f: %.2f of a step; ",
           whole * 1e3, latency * 1e3, whole / c->step_s);
    if (c->ranks == 1)
        printf("one rank has nothing to average\n");
    else if (ssgd < NEAR_IDEAL * all[COCOD].f.step_s)
        printf("use ssgd: it averages every step and is about as fast as cocod, k %lld\n",
               (long long)k);
    else {
        double few = all[COMPRESSED].f.step_s;
        bool best = few < NEAR_IDEAL * all[COCOD].f.step_s;
        if (best)
            printf(
                "use ssgd --compress qsgd --exchange scatter:\n        %.2f times ssgd's speed if "
                "encoding took no time; to average models, ",
                ssgd / few);
        printf("use cocod, k %lld: %.2f times ssgd's speed%s\n", (long long)k,
               ssgd / all[COCOD].f.step_s,
               !set.period && k == TS_PLAN_LONGEST ? ", and no period hides it" : "");
        TS_TRY(advise_early(c, k, ssgd));
        if (!best && few < ssgd)
            printf("        averaging every step all the same: ssgd --compress qsgd --exchange "
                   "scatter: %.2f times, if encoding took no time\n",
                   ssgd / few);
    }
    if (c->ranks > 1) advise_shape(*c, whole);
    return TS_OK;
}

static ts_status faster_links(ts_plan_cluster c)
{
    static const double factors[] = {1, 2, 4};
    printf(
        "\nWhat a faster link would buy at %d ranks: the step of ssgd in ms, the faster of its two "
        "ways, and the smallest\nperiod of cocod that hides\n",
        c.ranks);
    ts_plan_link outer = c.outer;
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        ts_plan_forecast f;
        int64_t k;
        c.outer.bytes_per_s = outer.bytes_per_s * factors[i];
        TS_TRY(ts_plan_run(&c, &(ts_plan_method){"ssgd", false, 1, 1, 1}, STEPS, &f));
        double blocking = f.step_s;
        TS_TRY(ts_plan_run(&c, &(ts_plan_method){"ssgd", true, 1, 1, 1}, STEPS, &f));
        TS_TRY(ts_plan_period(&c, "cocod", 0, TS_PLAN_HIDDEN, 1, TS_PLAN_LONGEST, &k));
        char period[24] = "- (none hides)";
        if (k) snprintf(period, sizeof period, "%lld", (long long)k);
        printf("  %8.6g Gbit/s  ssgd %10.3f  cocod's period %s\n", c.outer.bytes_per_s * 8e-9,
               fmin(f.step_s, blocking) * 1e3, period);
    }
    return TS_OK;
}

static void assumptions(const ts_plan_cluster *c)
{
    printf(
        "\nAssumed: a local step of %.6g s alone, spread %g (log-normal, independent), compute "
        "%g %% slower beside a\ncollective; %.4g MB averaged in fp32, with qsgd in %g bits an "
        "element, encoded in no time; an all-reduce as %s\n(the formula is in "
        "runtime/plan/plan.h); a collective begins when the last rank has come and ends for all "
        "at once;\noverlapped S-SGD sends %d buckets from %g of a step on; hosts of %d, %g "
        "Gbit/s and %g us between them, %g Gbit/s\nand %g us inside; no other traffic. Hidden "
        "means below %g %% of a step. Accuracy is not forecast: a longer period\ndrifts further. "
        "overlap-local's times are cocod's; P fragments are averaged in turn.\n",
        c->step_s, c->spread, 100 * c->contention, c->bytes * 1e-6, set.bits, set.all_reduce,
        c->buckets, c->forward_share, c->per_host, set.link, set.latency, set.inner_link,
        set.inner_latency, 100 * TS_PLAN_HIDDEN);
}

static ts_status plan(void)
{
    ts_plan_cluster c;
    TS_TRY(describe(&c));
    if (!set.json)
        printf("%6s  %-15s %-12s %10s %10s %10s %8s %9s %8s\n%6s  %-15s %-12s %10s %10s %10s %8s "
               "%9s %8s\n",
               "ranks", "algorithm", "period", "step", "over", "exposed", "hidden", "speedup",
               "over", "", "", "", "(ms)", "alone", "(ms)", "", "(1 rank)", "blocking");
    for (const char *at = set.ranks; *at;) {
        char *end;
        row all[ROWS];
        long n = strtol(at, &end, 10);
        TS_NEED(end != at && n > 0 && n <= 1 << 20 && (*end == ',' || !*end), TS_EUSAGE,
                "ranks \"%s\" is not a list of sizes such as 16,256", set.ranks);
        c.ranks = (int)n;
        TS_TRY(forecast(&c, all));
        TS_TRY(print_rows(&c, all));
        if (!set.json) TS_TRY(advise(&c, all));
        at = *end ? end + 1 : end;
    }
    if (set.json) return TS_OK;
    if (c.ranks > 1) TS_TRY(faster_links(c));
    assumptions(&c);
    return TS_OK;
}

ts_status ts_plan_command(int argc, char **argv)
{
    const ts_option_group groups[] = {{"Plan", rows, &set}};
    ts_option_set *options;
    TS_TRY(ts_option_set_open(groups, 1, &options));
    ts_status status = ts_option_set_parse(options, argc, argv);
    if (!status && set.help) {
        printf("usage: twinstream plan --step SECONDS [--option value ...]\n"
               "forecasts the time of a local step and the time speedup of every algorithm\n");
        ts_option_set_help(options, stdout);
    } else if (!status) {
        status = plan();
    }
    ts_option_set_close(options);
    return status;
}
