/* algorithm.h - a distributed-SGD algorithm is a few hooks around a local step.
 *
 * It sees the two streams, the communicator and the flat buffers, nothing else, and says what is
 * copied when, which stream waits for which, and how an average is merged back. Hooks only
 * enqueue; none blocks. `step` counts local steps from 0. */
#ifndef TS_ALGORITHMS_ALGORITHM_H
#define TS_ALGORITHMS_ALGORITHM_H

#include "models/model.h"
#include "runtime/base/option.h"
#include "runtime/comm/comm.h"
#include "runtime/compress/compressor.h"
#include "runtime/device/trace.h"
#include "runtime/device/vector.h"

/* What happens to momentum when an average is merged. */
typedef enum ts_momentum_policy {
    TS_MOMENTUM_KEEP,
    TS_MOMENTUM_AVERAGE,
    TS_MOMENTUM_ZERO
} ts_momentum_policy;

typedef struct ts_worker {
    ts_device *device;
    ts_stream *compute, *comm;
    ts_communicator *communicator; /* on comm */
    int rank, size;
    ts_flat *flat;
    /* The update of a local step: SGD on the flat buffers. In its own copy an algorithm may let it
     * read other gradients or work on other parameters, from open on and for good. */
    ts_sgd update;
    ts_trace *trace; /* or NULL */
    ts_momentum_policy momentum_policy;
    bool
        average_statistics; /* merge averaged statistics too; else only the consensus model's are */
    const float *weight;    /* this rank's weight in device memory; NULL: equal weights */
    ts_compression compression; /* what travels through a ts_exchange */
} ts_worker;

/* Enqueue on comm: to <- the mean over ranks of `from`, weighted where the worker has a weight;
 * to == from is allowed. Every average of every algorithm goes through here or, where it may be
 * compressed, through a ts_exchange. */
ts_status ts_worker_mean(const ts_worker *worker, float *to, const float *from, size_t n);

/* A device vector of n zeros, for every stream: padding must be 0 also where a checkpoint fills the
 * tensors. Blocks. The caller releases it. */
ts_status ts_worker_zeros(const ts_worker *worker, size_t n, float **vector_p);

/* Something a checkpoint must hold. */
typedef enum ts_part_kind {
    TS_PART_PARAMETERS, /* a device vector of flat->n floats: parameters, momentum or alike */
    TS_PART_STATISTICS, /* a device vector of flat->n_statistics floats */
    TS_PART_HOST        /* `bytes` of host memory */
} ts_part_kind;
typedef struct ts_part {
    char name[32];
    ts_part_kind kind;
    void *at;
    size_t bytes;
} ts_part;
enum { TS_PARTS_MAX = 256 };
/* Appends to n of at most `max` parts and returns how many there are then; where they are full,
 * none is lost unseen: checkpoint.c refuses to save as many. */
int ts_part_add(ts_part *parts, int n, int max, ts_part part);

typedef struct ts_algorithm_ops ts_algorithm_ops;
typedef struct ts_algorithm_config ts_algorithm_config;
typedef struct ts_algorithm {
    const ts_algorithm_ops *ops;
    ts_worker worker;
    float learning_rate; /* of the local step whose hooks are called; their caller sets it */
} ts_algorithm;

struct ts_algorithm_ops {
    const char *name;  /* "cocod" */
    const char *title; /* "CoCoD-SGD" */
    const char *paper; /* "arXiv:1906.12043" */
    const char *rule;  /* one line, for --help and the README */
    bool periodic;     /* averages models every --period steps, else gradients at every step */
    /* Required. */
    /* TS_EUSAGE when the configuration makes no sense for it. */
    ts_status (*open)(const ts_worker *worker, const ts_algorithm_config *config,
                      ts_algorithm **algorithm_p);
    void (*close)(ts_algorithm *algorithm);
    /* Optional. */
    /* Backward has enqueued the last kernel of this bucket's gradients. */
    ts_status (*bucket_ready)(ts_algorithm *algorithm, int bucket);
    ts_status (*before_update)(ts_algorithm *algorithm, int64_t step);
    ts_status (*after_update)(ts_algorithm *algorithm, int64_t step);
    /* Would the hooks of this step make compute wait for an average that is not there yet? Never
     * blocks. A caller that has something else to do may put the step off. */
    bool (*late)(ts_algorithm *algorithm, int64_t step);
    /* The parameters have become others than at open, and are equal on all ranks: what was taken
     * from them is to be taken again. Before the first step (post_local.c). */
    ts_status (*begin)(ts_algorithm *algorithm);
    /* Nothing is in flight after it: called once, at the end of training. */
    ts_status (*drain)(ts_algorithm *algorithm);
    /* What a checkpoint must hold beyond the flat buffers; comm is idle when it is saved. After
     * a resume the same parts are filled before the first step. Returns how many. */
    int (*state)(ts_algorithm *algorithm, ts_part *parts, int max);
};

/* The options of all algorithms; each reads its own. */
struct ts_algorithm_config {
    int64_t period;       /* k; 0, as --period auto is kept, is settled before an algorithm opens */
    int64_t delay;        /* d; the same */
    double mix;           /* xi: the share of the local model that a merge keeps */
    const char *merge;    /* dasgd: "blend" (or NULL), "corrected" */
    int64_t fragments;    /* cocod, dasgd: P; 0 is 1 */
    double slow_momentum; /* local, cocod, dasgd: beta of the outer model */
    double slow_rate;     /* alpha; 0 and 0, or 0 and 1: models are merged with the average */
    bool overlap;         /* ssgd: all-reduce buckets during backward */
    int64_t synchronous_steps; /* pipe, od: at the start */
    double local_rate;         /* od: of a rank's own step, as a factor of the learning rate */
    double pull;               /* overlap-local: alpha */
    double anchor_momentum;    /* overlap-local: beta */
    double post_local;         /* share of the run that is S-SGD before models are averaged */
};
extern const ts_option ts_algorithm_options[];

extern const ts_algorithm_ops ts_algorithm_ssgd, ts_algorithm_pipe, ts_algorithm_od,
    ts_algorithm_local, ts_algorithm_cocod, ts_algorithm_dasgd, ts_algorithm_overlap_local;
extern const ts_algorithm_ops *const ts_algorithms[]; /* NULL-terminated: add a line to add one */
const ts_algorithm_ops *ts_algorithm_find(const char *name);
/* Open what `name` and config->post_local ask for, in a run of `steps` local steps. TS_EUSAGE when
 * they make no sense. */
ts_status ts_algorithm_open(const char *name, const ts_worker *worker,
                            const ts_algorithm_config *config, int64_t steps,
                            ts_algorithm **algorithm_p);
/* The smallest period that goes with the configuration's delay, where it has one. */
int64_t ts_algorithm_least_period(const char *name, const ts_algorithm_config *config);
/* `method` behind `first` local steps of S-SGD, as one algorithm (post_local.c). */
ts_status ts_post_local_open(const ts_worker *worker, const ts_algorithm_config *config,
                             const ts_algorithm_ops *method, int64_t first,
                             ts_algorithm **algorithm_p);

/* The consensus model: the (weighted) mean over ranks of parameters and statistics, into scratch
 * vectors; training is left bit for bit as it was. Collective; only enqueues: what is queued on
 * compute afterwards sees the result. `event` is free to be used. */
ts_status ts_consensus(const ts_worker *worker, ts_event *event, float *parameters,
                       float *statistics);

#endif
