/* evaluate.c - score a set of weights on the test split.
 *
 * Everything lies in buffers of its own: scratch weights, an inference workspace, a control
 * block for the sums. Training is left bit for bit as it was. */
#include <stdlib.h>

#include "runtime/train/input.h"
#include "runtime/device/vector.h"

struct ts_evaluator {
    ts_model *model;
    ts_dataset *dataset;
    ts_world *world;
    ts_stream *compute;
    ts_workspace *workspace;
    ts_control *control, *sums; /* device; pinned */
    float *parameters, *statistics;
    uint16_t *shadow;
    ts_shard part; /* of the test split, as of a step's pictures: batch, first and global */
    ts_feed_options reading;
    ts_feed *feed; /* NULL: the test split lives on the device */
    int64_t item;  /* of the feed: the next one */
};

ts_status ts_evaluator_open(ts_model *model, ts_dataset *dataset, ts_world *world,
                            ts_stream *compute, const ts_config *config, const ts_shard *part,
                            ts_evaluator **evaluator_p)
{
    ts_status status;
    ts_device *device = compute->device;
    const ts_flat *flat = ts_model_flat(model);
    ts_evaluator *e = calloc(1, sizeof *e);
    TS_NEED(e, TS_ENOMEM, "no memory for the evaluation");
    e->model = model;
    e->dataset = dataset;
    e->world = world;
    e->compute = compute;
    e->reading = ts_input_reading(config, world);
    TS_TRY_TO(status, fail,
              ts_device_alloc(device, TS_MEMORY_DEVICE, sizeof *e->control, (void **)&e->control));
    TS_TRY_TO(status, fail,
              ts_device_alloc(device, TS_MEMORY_PINNED, sizeof *e->sums, (void **)&e->sums));
    TS_TRY_TO(status, fail,
              ts_device_alloc(device, TS_MEMORY_DEVICE, flat->n * sizeof(float),
                              (void **)&e->parameters));
    TS_TRY_TO(status, fail,
              ts_device_alloc(device, TS_MEMORY_DEVICE, (flat->n_statistics + 1) * sizeof(float),
                              (void **)&e->statistics));
    if (flat->shadow)
        TS_TRY_TO(status, fail,
                  ts_device_alloc(device, TS_MEMORY_DEVICE, flat->n * sizeof(uint16_t),
                                  (void **)&e->shadow));
    TS_TRY_TO(status, fail, ts_evaluator_divide(e, part));
    *evaluator_p = e;
    return TS_OK;
fail:
    ts_evaluator_close(e);
    return status;
}

ts_status ts_evaluator_divide(ts_evaluator *e, const ts_shard *part)
{
    e->part = *part;
    e->item = 0;
    ts_workspace_close(e->workspace);
    e->workspace = NULL;
    ts_feed_close(e->feed);
    e->feed = NULL;
    TS_TRY(ts_workspace_open(e->model, part->batch, false, e->control, &e->workspace));
    return ts_feed_test(e->dataset, part, &e->reading, &e->feed);
}

void ts_evaluator_close(ts_evaluator *e)
{
    if (!e) return;
    ts_device *device = e->compute->device;
    ts_feed_close(e->feed);
    ts_workspace_close(e->workspace);
    ts_device_release(device, TS_MEMORY_DEVICE, e->shadow);
    ts_device_release(device, TS_MEMORY_DEVICE, e->statistics);
    ts_device_release(device, TS_MEMORY_DEVICE, e->parameters);
    ts_device_release(device, TS_MEMORY_PINNED, e->sums);
    ts_device_release(device, TS_MEMORY_DEVICE, e->control);
    free(e);
}

float *ts_evaluator_parameters(ts_evaluator *evaluator)
{
    return evaluator->parameters;
}

float *ts_evaluator_statistics(ts_evaluator *evaluator)
{
    return evaluator->statistics;
}

ts_status ts_evaluator_run(ts_evaluator *e, ts_score *score)
{
    ts_batch batch = ts_workspace_batch(e->workspace);
    int nodes = ts_model_nodes(e->model);
    TS_TRY(ts_stream_fill(e->compute, e->control, 0, sizeof *e->control));
    if (e->shadow)
        TS_TRY(ts_vector_to_bf16(e->compute, ts_model_flat(e->model)->n, e->shadow, e->parameters));
    TS_TRY(ts_workspace_refresh(e->workspace, e->parameters, e->shadow, e->statistics, e->compute));
    /* batches are dealt out to the ranks in turn */
    for (int64_t at = e->part.first; at < e->dataset->test.n; at += e->part.global) {
        if (e->feed)
            TS_TRY(ts_loader_take(ts_feed_loader(e->feed), e->item, e->item + e->part.batch,
                                  e->compute));
        TS_TRY(ts_data_test_batch(e->dataset, at, e->item, &batch, e->compute));
        e->item += e->part.batch;
        TS_TRY(ts_workspace_forward(e->workspace, 0, nodes, e->compute));
    }
    TS_TRY(ts_stream_copy(e->compute, e->sums, e->control, sizeof *e->sums));
    TS_TRY(ts_stream_sync(e->compute));

    ts_control *all = calloc((size_t)e->world->size, sizeof *all);
    TS_NEED(all, TS_ENOMEM, "no memory for the scores of %d ranks", e->world->size);
    ts_status status = e->world->ops->all_gather(e->world, e->sums, all, sizeof *all);
    ts_control total = {0};
    for (int r = 0; r < e->world->size; r++) {
        total.loss_sum += all[r].loss_sum;
        total.correct += all[r].correct;
        total.samples += all[r].samples;
        total.not_finite += all[r].not_finite;
    }
    free(all);
    TS_TRY(status);
    TS_NEED(total.samples == e->dataset->test.n, TS_EDEVICE,
            "evaluation saw %lld pictures, the test split has %lld", (long long)total.samples,
            (long long)e->dataset->test.n);
    score->samples = total.samples;
    score->accuracy = (double)total.correct / (double)total.samples;
    score->loss = total.not_finite ? NAN : total.loss_sum / (double)total.samples;
    return TS_OK;
}
