/* train.c - a run from config to result: open everything, loop, close everything. */
#include "runtime/train/train.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/device/vector.h"
#include "runtime/train/checkpoint.h"
#include "runtime/train/input.h"
#include "runtime/train/ranks.h"
#include "runtime/train/shares.h"
#include "runtime/train/trainer.h"
#include "runtime/train/tune.h"

enum {
    STAMPS = 1 << 16,
    ASK_EVERY = 20,  /* steps, whether the run is told to stop */
    NAMES_BYTES = 96 /* of what lies in a run's folder */
};

static atomic_bool stop_asked;

void ts_train_stop(void)
{
    atomic_store(&stop_asked, true);
}

/* ---- from config to structs ---- */

static ts_status parse_milestones(const char *text, int64_t total, ts_schedule *schedule)
{
    const char *at = text;
    while (*at) {
        char *end;
        double share = strtod(at, &end);
        TS_NEED(end != at && (*end == ',' || !*end) && share > 0 && share < 1, TS_EUSAGE,
                "milestones \"%s\" is not a list of shares between 0 and 1, such as 0.5,0.75",
                text);
        TS_NEED(schedule->n_milestones < TS_MILESTONES_MAX, TS_EUSAGE,
                "milestones \"%s\" holds more than %d", text, TS_MILESTONES_MAX);
        schedule->milestones[schedule->n_milestones++] = llround(share * (double)total);
        at = *end ? end + 1 : end;
    }
    return TS_OK;
}

static ts_status make_schedule(ts_trainer *t)
{
    const ts_config *c = t->config;
    ts_schedule *s = &t->schedule;
    s->kind = !strcmp(c->schedule, "step")        ? TS_SCHEDULE_STEP
              : !strcmp(c->schedule, "cosine")    ? TS_SCHEDULE_COSINE
              : !strcmp(c->schedule, "one-cycle") ? TS_SCHEDULE_ONE_CYCLE
                                                  : TS_SCHEDULE_CONSTANT;
    s->peak = (float)(c->learning_rate * (c->scale_learning_rate ? t->world->size : 1));
    s->final_ratio = (float)c->final_ratio;
    s->gamma = (float)c->gamma;
    s->total = t->total;
    s->warmup = llround(c->warmup * t->per_epoch);
    if (s->kind == TS_SCHEDULE_ONE_CYCLE && s->warmup == 0) s->warmup = t->total / 4;
    TS_NEED(s->warmup < t->total, TS_EUSAGE,
            "warmup %g takes %lld local steps, the whole run has %lld: lower --warmup or raise "
            "--epochs",
            c->warmup, (long long)s->warmup, (long long)t->total);
    return s->kind == TS_SCHEDULE_STEP ? parse_milestones(c->milestones, t->total, s) : TS_OK;
}

static ts_momentum_policy momentum_policy(const char *name)
{
    return !strcmp(name, "average") ? TS_MOMENTUM_AVERAGE
           : !strcmp(name, "zero")  ? TS_MOMENTUM_ZERO
                                    : TS_MOMENTUM_KEEP;
}

/* Model, data and what belongs to them: also what evaluation alone needs. */
static ts_status open_model(ts_trainer *t)
{
    const ts_config *c = t->config;
    const ts_network *network = ts_network_find(c->model);
    if (!network) {
        char names[256] = "";
        for (int i = 0; ts_networks()[i]; i++)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? "|" : "",
                     ts_networks()[i]->name);
        const char *near = ts_option_nearest(c->model, names);
        return TS_ERROR(TS_EUSAGE, "no model \"%s\"%s%s%s; there are %s", c->model,
                        near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "",
                        names);
    }
    TS_TRY(ts_device_open(c->device, t->world->local_rank, &t->device));
    TS_TRY(ts_stream_open(t->device, TS_STREAM_COMPUTE, "compute", &t->compute));
    TS_TRY(ts_dataset_open(t->device, c->data, &t->dataset));
    ts_model_options options = {
        .input = t->dataset->picture,
        .classes = t->dataset->classes,
        .type =
            !strcmp(c->type, "bf16") || (!strcmp(c->type, "auto") && ts_op_prefers_bf16(t->device))
                ? TS_BF16
                : TS_F32,
        .tf32 = !strcmp(c->type, "tf32"),
        .ops = strcmp(c->ops, "auto") ? c->ops : NULL,
        .bucket_bytes = (size_t)c->bucket_kib * 1024,
        .smoothing = (float)c->smoothing,
    };
    return ts_model_open(t->device, network, &options, &t->model);
}

static ts_status open_control(ts_trainer *t)
{
    ts_control first = {.seed = (uint64_t)t->config->seed,
                        .learning_rate = ts_schedule_rate(&t->schedule, 0),
                        .averaging_weight = (float)t->shard.batch / (float)t->shard.global};
    ts_control *pinned;
    TS_TRY(ts_device_alloc(t->device, TS_MEMORY_DEVICE, sizeof first, (void **)&t->control));
    TS_TRY(ts_device_alloc(t->device, TS_MEMORY_PINNED, sizeof first, (void **)&pinned));
    *pinned = first;
    ts_status status = ts_stream_copy(t->compute, t->control, pinned, sizeof first);
    if (!status) status = ts_stream_sync(t->compute);
    ts_device_release(t->device, TS_MEMORY_PINNED, pinned);
    return status;
}

ts_augment ts_trainer_augment(const ts_trainer *t)
{
    const ts_config *c = t->config;
    return (ts_augment){
        .flip = c->flip, .crop = (int)c->crop, .shuffle = c->shuffle, .echo = ts_input_echo(t)};
}

static ts_status copy_path(char *to, size_t bytes, const char *path)
{
    TS_NEED(strlen(path) + NAMES_BYTES < bytes, TS_EUSAGE, "--run has %zu characters; at most %zu",
            strlen(path), bytes - NAMES_BYTES - 1);
    snprintf(to, bytes, "%s", path);
    return TS_OK;
}

/* The run's folder, the same on every rank; rank 0 makes it. */
static ts_status open_folder(ts_trainer *t)
{
    ts_status status = TS_OK;
    if (t->world->rank == 0) {
        if (*t->config->run) {
            status = copy_path(t->run, sizeof t->run, t->config->run);
        } else {
            char stamp[32];
            time_t now = (time_t)(ts_clock_wall_ns() / 1000000000);
            struct tm calendar;
            strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", localtime_r(&now, &calendar));
            snprintf(t->run, sizeof t->run, "runs/%s-%s-%s", stamp, t->config->model,
                     t->config->algorithm);
        }
        if (!status) status = ts_file_make_folder(t->run);
    }
    TS_TRY(ts_world_agree(t->world, status));
    return t->world->ops->broadcast(t->world, t->run, sizeof t->run, 0);
}

ts_worker ts_trainer_worker(const ts_trainer *t)
{
    const ts_config *c = t->config;
    ts_compression compression = c->compression;
    compression.seed = (uint64_t)c->seed;
    compression.epoch = t->per_epoch;
    ts_flat *flat = ts_model_flat(t->model);
    return (ts_worker){
        .device = t->device,
        .compute = t->compute,
        .comm = t->comm,
        .communicator = t->communicator,
        .rank = t->world->rank,
        .size = t->world->size,
        .flat = flat,
        .update = {.n = flat->n,
                   .x = flat->parameters,
                   .shadow = flat->shadow,
                   .m = flat->momentum,
                   .g = flat->gradients,
                   .decays = c->decay_all ? NULL : flat->decays,
                   .control = t->control,
                   .momentum = (float)c->momentum,
                   .weight_decay = (float)c->weight_decay,
                   .nesterov = c->nesterov},
        .trace = t->trace,
        .momentum_policy = momentum_policy(c->momentum_policy),
        .average_statistics = !strcmp(c->statistics, "average"),
        .weight = t->shares.weighted ? &t->control->averaging_weight : NULL,
        .compression = compression,
    };
}

static ts_status open_algorithm(ts_trainer *t)
{
    const ts_config *c = t->config;
    ts_worker worker = ts_trainer_worker(t);
    return ts_algorithm_open(c->algorithm, &worker, &c->algorithm_config, t->total, &t->algorithm);
}

/* What a rank can do, and fail at, on its own. */
static ts_status open_alone(ts_trainer *t)
{
    const ts_config *c = t->config;
    TS_TRY(ts_shares_open(t));
    TS_TRY(open_model(t));
    TS_TRY(ts_shard_open(t->dataset, t->world->rank, t->world->size, t->shares.batches, c->skew,
                         (uint64_t)c->seed, &t->shard));
    TS_TRY(ts_input_feed(t));
    t->per_epoch = ts_input_echo(t).factor * (double)(t->shard.n / t->shard.batch);
    t->total = c->steps ? c->steps : llround(ceil(c->epochs * t->per_epoch - 1e-9));
    TS_TRY(make_schedule(t));
    TS_TRY(open_control(t));
    TS_TRY(ts_stream_open(t->device, TS_STREAM_COMM, "comm", &t->comm));
    TS_TRY(ts_trace_open(t->device, STAMPS, &t->trace));
    TS_TRY(ts_event_open(t->device, &t->event));
    TS_TRY(ts_model_init(t->model, (uint64_t)c->seed, t->compute));
    TS_TRY(ts_workspace_open(t->model, t->shard.batch, true, t->control, &t->workspace));
    if (c->pace > 0) TS_TRY(ts_pace_open(t->device, t->model, c->pace, c->batch, &t->pace));
    if (!*c->weights) return TS_OK;
    ts_flat *flat = ts_model_flat(t->model);
    TS_TRY(ts_model_import(t->model, flat->parameters, flat->statistics, c->weights, t->compute));
    return flat->shadow ? ts_vector_to_bf16(t->compute, flat->n, flat->shadow, flat->parameters)
                        : TS_OK;
}

/* What depends on the steps that a resume has left. */
static ts_status open_loop(ts_trainer *t, ts_evaluator **evaluator_p)
{
    TS_NEED(t->step <= t->total, TS_EUSAGE,
            "the checkpoint is of local step %lld, but the run ends at %lld: raise --epochs or "
            "--steps",
            (long long)t->step, (long long)t->total);
    TS_TRY(ts_checkpoint_check_folder(t));
    TS_TRY(ts_step_open(t, &t->local_step));
    TS_TRY(ts_metrics_open(t, &t->metrics));
    TS_TRY(ts_evaluator_open(t->model, t->dataset, t->world, t->compute, t->config, &t->shard,
                             evaluator_p));
    return ts_input_open(t, &t->input);
}

static ts_status open_communicator(ts_trainer *t)
{
    const ts_config *c = t->config;
    ts_communicator_options options = {.timeout_s = (int)c->timeout, .ctas = (int)c->nccl_ctas};
    ts_status status =
        ts_communicator_open(c->communicator, t->world, t->comm, &options, &t->communicator);
    /* what none of the ranks can do, one says */
    return status == TS_EUNSUPPORTED || status == TS_EUSAGE ? ts_world_agree(t->world, status)
                                                            : status;
}

/* The folder to resume from, NULL for a run from its start. */
static ts_status find_resume(const ts_trainer *t, const char **from_p)
{
    const char *resume = t->config->resume;
    *from_p = *resume ? resume : NULL;
    if (strcmp(resume, "auto")) return TS_OK;
    bool found = ts_checkpoint_exists(t->run);
    *from_p = found ? t->run : NULL;
    return ts_world_same(t->world, "whether the run's folder holds a checkpoint", &found,
                         sizeof found);
}

/* From here on the folder is this run's; before, a refused one left all that was there. */
static ts_status begin_record(const ts_trainer *t)
{
    static const char *const old[] = {"run.json", "timeline.json"};
    char path[sizeof t->run];
    if (t->world->rank) return TS_OK;
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        TS_TRY(ts_file_join(path, sizeof path, t->run, old[i]));
        (void)unlink(path);
    }
    TS_TRY(ts_file_join(path, sizeof path, t->run, "config"));
    TS_TRY(ts_option_set_save(t->options, path));
    return ts_metrics_begin(t->metrics);
}

/* Stretches that may fail on one rank alone end in an agreement, so that no rank is left waiting
 * in the collective that follows. */
static ts_status open_trainer(ts_trainer *t, ts_evaluator **evaluator_p)
{
    const char *from;
    TS_TRY(ts_world_agree(t->world, open_alone(t)));
    TS_TRY(ts_ranks_check(t));
    TS_TRY(open_folder(t));
    TS_TRY(open_communicator(t));
    TS_TRY(ts_watchdog_open(t->communicator, &t->watchdog));
    TS_TRY(find_resume(t, &from));
    TS_TRY(ts_shares_settle(t, from));
    TS_TRY(ts_tune(t, from));
    TS_TRY(ts_world_agree(t->world, open_algorithm(t)));
    if (from) TS_TRY(ts_checkpoint_load(t, from));
    TS_TRY(ts_world_agree(t->world, open_loop(t, evaluator_p)));
    return ts_world_agree(t->world, begin_record(t));
}

static void close_trainer(ts_trainer *t, ts_evaluator *evaluator)
{
    /* a failure may leave work queued on what is released below */
    if (t->compute) ts_stream_sync(t->compute);
    if (t->comm) ts_stream_sync(t->comm);
    ts_evaluator_close(evaluator);
    ts_metrics_close(t->metrics);
    ts_step_close(t->local_step);
    ts_input_close(t->input);
    ts_feed_close(t->feed);
    if (t->algorithm) t->algorithm->ops->close(t->algorithm);
    ts_pace_close(t->pace);
    ts_workspace_close(t->workspace);
    ts_event_close(t->event);
    ts_trace_close(t->trace);
    ts_watchdog_close(t->watchdog);
    ts_communicator_close(t->communicator);
    ts_stream_close(t->comm);
    if (t->dataset) ts_shard_close(t->dataset, &t->shard);
    ts_model_close(t->model);
    ts_dataset_close(t->dataset);
    ts_stream_close(t->compute);
    ts_shares_close(t);
    free(t->identities);
    if (t->device) ts_device_release(t->device, TS_MEMORY_DEVICE, t->control);
    ts_device_close(t->device);
}

/* ---- the loop ---- */

static ts_status evaluate(ts_trainer *t, ts_evaluator *evaluator, ts_score *score)
{
    int64_t start = ts_clock_ns();
    ts_log_set_phase("evaluation after local step %lld", (long long)t->step);
    TS_TRY(ts_metrics_flush(t->metrics));
    TS_TRY(ts_trace_begin(t->trace, t->compute, TS_SPAN_EVALUATE, t->step));
    TS_TRY(ts_consensus(&t->algorithm->worker, t->event, ts_evaluator_parameters(evaluator),
                        ts_evaluator_statistics(evaluator)));
    TS_TRY(ts_evaluator_run(evaluator, score));
    TS_TRY(ts_trace_end(t->trace, t->compute, TS_SPAN_EVALUATE));
    return ts_metrics_evaluation(t->metrics, score, (double)(ts_clock_ns() - start) * 1e-9);
}

/* Has any rank been told to stop? Every rank asks at the same step; the device has work queued
 * meanwhile. */
static ts_status told_to_stop(ts_trainer *t, bool *stop_p)
{
    int64_t told;
    TS_TRY(ts_world_sum(t->world, atomic_load(&stop_asked) != 0, &told));
    *stop_p = told > 0;
    return TS_OK;
}

/* Does a period of `every` epochs end between steps before and after? */
static bool due(double every, int64_t step, double per_epoch)
{
    if (every <= 0) return false;
    double unit = every * per_epoch;
    return floor((double)step / unit + 1e-9) > floor((double)(step - 1) / unit + 1e-9);
}

static ts_status loop(ts_trainer *t, ts_evaluator *evaluator, ts_score *score, bool *stopped_p)
{
    const ts_config *c = t->config;
    int64_t asks = c->log_every < ASK_EVERY ? c->log_every : ASK_EVERY;
    while (t->step < t->total && !*stopped_p) {
        ts_log_set_phase("local step %lld", (long long)t->step);
        TS_TRY(ts_step_run(t->local_step));
        TS_TRY(ts_metrics_step(t->metrics));
        if (t->step == t->total) break;
        if (due(c->evaluate_every, t->step, t->per_epoch)) TS_TRY(evaluate(t, evaluator, score));
        if (t->shares.rebalances && due(1, t->step, t->per_epoch))
            TS_TRY(ts_shares_review(t, evaluator));
        if (t->step % asks == 0) TS_TRY(told_to_stop(t, stopped_p));
        if (*stopped_p || due(c->checkpoint_every, t->step, t->per_epoch)) {
            TS_TRY(ts_metrics_flush(t->metrics));
            TS_TRY(ts_checkpoint_save(t));
        }
    }
    if (*stopped_p) return TS_OK;
    if (t->algorithm->ops->drain) TS_TRY(t->algorithm->ops->drain(t->algorithm));
    return evaluate(t, evaluator, score);
}

static ts_status export_model(ts_trainer *t, ts_evaluator *evaluator)
{
    char path[600];
    if (!t->config->export_model || t->world->rank) return TS_OK;
    TS_TRY(ts_file_join(path, sizeof path, t->run, "model.safetensors"));
    return ts_model_export(t->model, ts_evaluator_parameters(evaluator),
                           ts_evaluator_statistics(evaluator), t->step, path, t->compute);
}

/* The model first: what is told about the run can be lost. */
static ts_status finish(ts_trainer *t, ts_evaluator *evaluator, const ts_score *score, bool stopped,
                        ts_result *result)
{
    ts_log_set_phase("end of the run");
    if (!stopped) TS_TRY(ts_world_agree(t->world, export_model(t, evaluator)));
    TS_TRY(ts_metrics_finish(t->metrics, stopped ? "stopped" : "finished", score, result));
    if (!stopped) return TS_OK;
    t->world->agreed = true;
    if (t->world->rank) return TS_ESTOPPED; /* rank 0 says so */
    return TS_ERROR(TS_ESTOPPED, "stopped after local step %lld of %lld; go on with --resume %s",
                    (long long)t->step, (long long)t->total, t->run);
}

static void announce(const ts_trainer *t)
{
    const ts_config *c = t->config;
    char device[256], batch[128];
    ts_device_describe(t->device, device, sizeof device);
    snprintf(batch, sizeof batch, "%lld", (long long)c->batch);
    if (t->shares.weighted) ts_shares_text(t->world->size, t->shares.batches, batch, sizeof batch);
    const ts_algorithm_ops *a = t->algorithm->ops;
    ts_info("%s on %s, %s, %zu parameters, %s", ts_model_name(t->model), t->dataset->name,
            ts_type_name(ts_model_get_options(t->model)->type), ts_model_parameter_count(t->model),
            device);
    ts_info("%s (%s): %s", a->title, a->paper, a->rule);
    ts_info("%d rank%s x batch %s, %lld local steps, %.6g an epoch; communicator %s",
            t->world->size, t->world->size == 1 ? "" : "s", batch, (long long)t->total,
            t->per_epoch, t->communicator->ops->name);
    ts_ranks_announce(t);
    if (c->echo > 1)
        ts_info("each fresh sample is used %g times (%s)", c->echo, c->echo_at);
    else if (ts_input_echo(t).automatic)
        ts_info("a batch is used again while %s%s%s is late, %lld times at most (%s)",
                t->feed ? "the next one" : "", t->feed && a->late ? " or " : "",
                a->late ? "an average" : "", (long long)c->echo_most, c->echo_at);
    ts_option_set_warn_unread(t->options);
    int plain = ts_model_plain_ops(t->model);
    if (plain && !strcmp(c->ops, "auto"))
        ts_warn(
            "%d op%s %s made by the reference's plain loops, which are very slow: nothing faster "
            "serves type %s here%s",
            plain, plain == 1 ? "" : "s", plain == 1 ? "is" : "are", c->type,
            strcmp(c->type, "bf16") ? "" : "; try --type fp32");
    ts_info("run folder: %s", t->run);
    if (!strcmp(t->dataset->name, "synthetic"))
        ts_info("data: synthetic pictures made by the program, NOT CIFAR-10; their accuracy says "
                "nothing about CIFAR-10");
}

ts_status ts_train(ts_world *world, const ts_config *config, ts_option_set *options,
                   ts_result *result)
{
    ts_status status;
    ts_trainer t = {.config = config, .options = options, .world = world};
    ts_evaluator *evaluator = NULL;
    ts_score score = {NAN, NAN, 0};
    bool stopped = false;
    world->agreed = false;
    ts_log_set_phase("start-up");
    TS_TRY_TO(status, out, open_trainer(&t, &evaluator));
    announce(&t);
    TS_TRY_TO(status, out, loop(&t, evaluator, &score, &stopped));
    status = finish(&t, evaluator, &score, stopped, result);
out:
    /* a rank that failed alone cannot wait for its streams, which may wait for other ranks: it says
     * what happened and ends the job */
    if (status && world->size > 1 && !world->agreed) return status;
    close_trainer(&t, evaluator);
    atomic_store(&stop_asked, false); /* it has been done, or came too late */
    return status;
}

ts_status ts_evaluate(ts_world *world, const ts_config *config, ts_result *result)
{
    ts_status status;
    ts_trainer t = {.config = config, .world = world};
    ts_evaluator *evaluator = NULL;
    ts_score score;
    world->agreed = false;
    ts_log_set_phase("evaluation");
    TS_NEED(*config->weights, TS_EUSAGE,
            "eval needs --weights: the folder of a run or of a checkpoint, or a model.safetensors");
    TS_TRY_TO(status, out, open_model(&t));
    ts_shard part = {.batch = (int)config->batch,
                     .first = config->batch * world->rank,
                     .global = config->batch * world->size};
    TS_TRY_TO(status, out,
              ts_evaluator_open(t.model, t.dataset, world, t.compute, config, &part, &evaluator));
    TS_TRY_TO(status, out,
              ts_model_import(t.model, ts_evaluator_parameters(evaluator),
                              ts_evaluator_statistics(evaluator), config->weights, t.compute));
    int64_t start = ts_clock_ns();
    TS_TRY_TO(status, out, ts_evaluator_run(evaluator, &score));
    double seconds = (double)(ts_clock_ns() - start) * 1e-9;
    *result = (ts_result){.seconds = seconds,
                          .images_per_second = (double)score.samples / seconds,
                          .test_accuracy = score.accuracy,
                          .test_loss = score.loss,
                          .train_loss = NAN,
                          .hidden = NAN,
                          .contention = NAN};
out:
    close_trainer(&t, evaluator);
    return status;
}
