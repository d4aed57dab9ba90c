/* pipe.c - Pipe-SGD of width 2 (Li, Yu, Li, Avestimehr, Kim, Schwing: "Pipe-SGD: a decentralized
 * pipelined SGD framework for distributed deep net training", NeurIPS 2018): the mean gradient of a
 * step is made during the next step's forward and backward and used at its end,
 *     x <- x - lr opt(mean over ranks of g(t-1))
 * All ranks have the same model always. */
#include <stdlib.h>

#include "runtime/algorithms/pipeline.h"

static void pipe_close(ts_algorithm *algorithm)
{
    ts_pipeline_close((ts_pipeline *)algorithm);
    free(algorithm);
}

static ts_status pipe_open(const ts_worker *worker, const ts_algorithm_config *config,
                           ts_algorithm **algorithm_p)
{
    ts_pipeline *a = calloc(1, sizeof *a);
    TS_NEED(a, TS_ENOMEM, "no memory for pipe");
    ts_status status = ts_pipeline_open(a, &ts_algorithm_pipe, worker, config);
    if (status) {
        pipe_close(&a->base);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *algorithm_p = &a->base;
    return TS_OK;
}

const ts_algorithm_ops ts_algorithm_pipe = {
    .name = "pipe",
    .title = "Pipe-SGD",
    .paper = "arXiv:1811.03619",
    .rule = "every step: x <- x - lr opt(mean over ranks of the last step's g), made during this "
            "step",
    .open = pipe_open,
    .close = pipe_close,
    .before_update = ts_pipeline_before_update,
    .after_update = ts_pipeline_after_update,
    .drain = ts_pipeline_drain,
    .state = ts_pipeline_state,
};
