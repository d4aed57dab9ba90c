/* main.c - the `twinstream` program: finds the sub-command, reads the options, opens the world,
 * and turns a status into one error message and an exit code. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launch/info.h"
#include "launch/pack.h"
#include "launch/plan.h"
#include "launch/report.h"
#include "launch/stop.h"
#include "runtime/base/log.h"
#include "runtime/train/train.h"
#include "runtime/train/version.h"

typedef struct command {
    const char *name, *help;
    ts_status (*run)(ts_session *session);
    ts_status (*run_alone)(int argc, char **argv); /* without ranks, with options of its own */
} command;

static ts_status run_train(ts_session *session)
{
    ts_result r;
    TS_TRY(ts_stop_watch(ts_session_world(session)));
    TS_TRY(ts_session_train(session, &r));
    char hidden[64] = "nothing was communicated", contention[64] = "";
    if (isfinite(r.hidden))
        snprintf(hidden, sizeof hidden, "hidden communication %.1f %%", 100 * r.hidden);
    if (isfinite(r.contention))
        snprintf(contention, sizeof contention, ", contention %.1f %%", 100 * r.contention);
    ts_info("done: test accuracy %.2f %%, %.1f images/s, %s%s", 100 * r.test_accuracy,
            r.images_per_second, hidden, contention);
    if (ts_session_rank(session) == 0) printf("%s\n", r.run);
    return TS_OK;
}

static ts_status run_eval(ts_session *session)
{
    ts_result r;
    TS_TRY(ts_session_evaluate(session, &r));
    if (ts_session_rank(session) == 0)
        printf("test accuracy %.2f %%  test loss %.4f  %.1f images/s\n", 100 * r.test_accuracy,
               r.test_loss, r.images_per_second);
    return TS_OK;
}

static const command commands[] = {
    {"train", "train a network; leaves a folder with config, metrics and the model",
     .run = run_train},
    {"eval", "score a model file or a checkpoint on the test pictures", .run = run_eval},
    {"info", "devices, library versions, what serves each op, and why something is absent",
     .run = ts_info_run},
    {"plan", "forecast step time and speedup of every algorithm on a cluster you describe",
     .run_alone = ts_plan_command},
    {"pack", "a folder of JPEG pictures into a file of records, which train and eval read",
     .run_alone = ts_pack_command},
    {"report", "one HTML page on one or more runs: curves, times, speedups, timelines, tables",
     .run_alone = ts_report_command},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out)
{
    fprintf(out,
            "usage: twinstream COMMAND [--option value ...]\n"
            "       mpirun -np 4 twinstream train --model resnet18 --data cifar10:DIR "
            "--algorithm cocod --period 8\n\n"
            "Trains networks on several ranks with communication hidden behind local steps.\n\n"
            "Commands\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-7s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\ntwinstream COMMAND --help lists the options; twinstream --version the "
                 "version.\nExit codes: 0 done, 64 usage, 65 bad input data, 70 fault, 75 stopped "
                 "and saved.\n");
}

static void list_algorithms(FILE *out)
{
    fprintf(out, "\nAlgorithms\n");
    for (int i = 0; ts_algorithms[i]; i++)
        fprintf(out, "  %-13s %s, %s\n                %s\n", ts_algorithms[i]->name,
                ts_algorithms[i]->title, ts_algorithms[i]->paper, ts_algorithms[i]->rule);
}

static const command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, commands[i].name)) return &commands[i];
    return NULL;
}

static bool asks(int argc, char **argv, const char *long_form, const char *short_form)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], long_form) || !strcmp(argv[i], short_form)) return true;
    return false;
}

static ts_status help(const command *chosen)
{
    ts_config config;
    ts_option_set *options;
    TS_TRY(ts_config_open(&config, &options));
    printf("usage: twinstream %s [--option value ...]\n%s\n", chosen->name, chosen->help);
    list_algorithms(stdout);
    ts_option_set_help(options, stdout);
    ts_option_set_close(options);
    return TS_OK;
}

static ts_status unknown(const char *name)
{
    const char *near = ts_option_nearest(name, "train|eval|info|plan|pack|report");
    return TS_ERROR(TS_EUSAGE, "no command \"%s\"%s%s%s; twinstream --help lists them", name,
                    near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

int main(int argc, char **argv)
{
    ts_session *session = NULL;
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? 64 : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("twinstream %s (%s)\n", ts_version(), ts_version_commit());
        return 0;
    }
    const command *chosen = find_command(argv[1]);
    if (!chosen) return ts_session_close(NULL, unknown(argv[1]));
    if (chosen->run_alone) return ts_session_close(NULL, chosen->run_alone(argc - 1, argv + 1));
    if (asks(argc - 1, argv + 1, "--help", "-h")) return ts_session_close(NULL, help(chosen));
    if (chosen->run == run_train) ts_stop_block_signals();
    ts_status status = ts_session_open(&session);
    if (!status) status = ts_session_parse(session, argc - 1, argv + 1);
    if (!status) status = chosen->run(session);
    return ts_session_close(session, status);
}
