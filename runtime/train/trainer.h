/* trainer.h - what the files of the training loop share: everything one run has open. */
#ifndef TS_TRAIN_TRAINER_H
#define TS_TRAIN_TRAINER_H

#include "runtime/data/feed.h"
#include "runtime/train/pace.h"
#include "runtime/train/schedule.h"
#include "runtime/train/train.h"
#include "runtime/train/watchdog.h"

typedef struct ts_metrics ts_metrics;
typedef struct ts_step ts_step;
typedef struct ts_input ts_input;

/* What each rank's local step is made of (shares.h). */
typedef struct ts_shares {
    int *batches;          /* [size] pictures */
    int *next;             /* [size] a division that is not in force yet */
    struct ts_cost *costs; /* [size] what was measured last */
    bool measured, rebalances;
    bool weighted; /* averages are, by the batches */
} ts_shares;

typedef struct ts_trainer {
    const ts_config *config;
    ts_option_set *options;
    ts_world *world;
    ts_device *device;
    char (*identities)[TS_IDENTITY_MAX]; /* [size] ranks' GPUs; NULL on the host device */
    ts_stream *compute, *comm;
    ts_communicator *communicator;
    ts_watchdog *watchdog;
    ts_dataset *dataset;
    ts_model *model;
    ts_workspace *workspace;
    ts_pace *pace; /* NULL: the device's own speed */
    ts_shares shares;
    ts_feed *feed; /* NULL: the training set lives on the device */
    ts_input *input;
    ts_shard shard; /* with this rank's batch, and the sum of all */
    ts_schedule schedule;
    ts_control *control; /* device memory */
    ts_trace *trace;
    ts_event *event; /* for joins that nothing else waits for */
    ts_algorithm *algorithm;
    ts_step *local_step;
    ts_metrics *metrics;
    int64_t step, total; /* local steps: finished (enqueued), of the run */
    double per_epoch;    /* local steps in which a rank takes its share of fresh samples */
    char run[512];
} ts_trainer;

/* What happens to samples on their way into a batch. */
ts_augment ts_trainer_augment(const ts_trainer *trainer);
/* What an algorithm of this run sees; the model and the control block are open. */
ts_worker ts_trainer_worker(const ts_trainer *trainer);

/* Of a local step, seconds. */
typedef struct ts_step_times {
    double step_s, batch_s; /* all of it; what grows with the batch: data, forward, backward */
    double spread;          /* standard deviation of the steps, share of their mean */
} ts_step_times;
enum { TS_LAZY_STEPS = 3 }; /* the first ones make libraries' handles and are captured */

/* ---- step.c: the local step, captured once and replayed ---- */
ts_status ts_step_open(ts_trainer *trainer, ts_step **step_p);
/* Enqueue local step trainer->step with the algorithm's hooks; waits only to stay within
 * run-ahead steps of the device, and with --echo auto for an average that is late. */
ts_status ts_step_run(ts_step *step);
void ts_step_close(ts_step *step);

/* ---- evaluate.c ---- */
typedef struct ts_score {
    double loss, accuracy;
    int64_t samples;
} ts_score;
typedef struct ts_evaluator ts_evaluator;
/* This rank scores the part of the test split that `part` takes of each step's pictures: its
 * `batch` of each `global` from `first` on. */
ts_status ts_evaluator_open(ts_model *model, ts_dataset *dataset, ts_world *world,
                            ts_stream *compute, const ts_config *config, const ts_shard *part,
                            ts_evaluator **evaluator_p);
void ts_evaluator_close(ts_evaluator *evaluator);
/* Another division of the test split; nothing is queued. */
ts_status ts_evaluator_divide(ts_evaluator *evaluator, const ts_shard *part);
/* Scratch vectors for the weights to evaluate: [n], [n_statistics]. */
float *ts_evaluator_parameters(ts_evaluator *evaluator);
float *ts_evaluator_statistics(ts_evaluator *evaluator);
/* Score what the scratch vectors hold on the test split, shared out over the ranks; blocks. */
ts_status ts_evaluator_run(ts_evaluator *evaluator, ts_score *score);

/* ---- metrics.c: windows, lines, totals ---- */
ts_status ts_metrics_open(ts_trainer *trainer, ts_metrics **metrics_p);
/* Rank 0: lines of metrics.jsonl that this run makes anew are dropped. */
ts_status ts_metrics_begin(ts_metrics *metrics);
void ts_metrics_close(ts_metrics *metrics);
/* After each enqueued step: closes a window when it is full, writes those that finished. */
ts_status ts_metrics_step(ts_metrics *metrics);
/* Close the open window, wait until all are written; the streams are idle afterwards. */
ts_status ts_metrics_flush(ts_metrics *metrics);
/* Take the stamps so far: once in a while where a step enqueues many. */
void ts_metrics_drain(ts_metrics *metrics);
ts_status ts_metrics_evaluation(ts_metrics *metrics, const ts_score *score, double seconds);
/* How many steps the next has; after a flush. */
int64_t ts_metrics_own_steps(const ts_metrics *metrics);
/* Mean times of this rank's steps, waits taken out, since the last call. */
ts_step_times ts_metrics_own(ts_metrics *metrics);
/* The batches are others from here on; after a flush. */
ts_status ts_metrics_divided(ts_metrics *metrics);
/* run.json, timeline.json; fills the result. `state`: "finished", "stopped". Collective. */
ts_status ts_metrics_finish(ts_metrics *metrics, const char *state, const ts_score *score,
                            ts_result *result);

/* ---- timeline.c ---- */
/* Gather every rank's spans and write them on rank 0 as a Chrome trace. Collective. */
ts_status ts_timeline_save(ts_world *world, const ts_trace *trace, const ts_span *spans, int64_t n,
                           const char *path);

#endif
