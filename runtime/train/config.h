/* config.h - everything a run can be told, one struct and one table (config.c). */
#ifndef TS_TRAIN_CONFIG_H
#define TS_TRAIN_CONFIG_H

#include "runtime/algorithms/algorithm.h"
#include "runtime/base/option.h"

typedef struct ts_config {
    /* model */
    const char *model, *type, *ops;
    double smoothing;
    /* data */
    const char *data, *echo_at;
    int64_t batch, crop, echo_most, prefetch, loader_threads;
    bool flip, shuffle;
    double skew, echo, input_rate;
    const char *shares, *rebalance;
    /* optimisation */
    double epochs;
    int64_t steps;
    double learning_rate, warmup, final_ratio, gamma, momentum, weight_decay;
    bool scale_learning_rate, nesterov, decay_all;
    const char *schedule, *milestones;
    int64_t seed;
    /* algorithm */
    const char *algorithm, *momentum_policy, *statistics;
    ts_algorithm_config algorithm_config;
    ts_compression compression;
    /* device and communication */
    const char *device, *communicator;
    int64_t bucket_kib, timeout, run_ahead, nccl_ctas;
    double pace;
    bool graphs;
    /* the run */
    const char *run, *label, *resume, *weights;
    int64_t log_every, settle, keep;
    double evaluate_every, checkpoint_every;
    bool timeline, export_model, verbose;
} ts_config;

/* The option table over one ts_config, with its values: parser, --help and saved config.
 * Release with ts_option_set_close; `config` must outlive it. */
ts_status ts_config_open(ts_config *config, ts_option_set **set_p);

#endif
