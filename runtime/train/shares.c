/* shares.c - see shares.h.
 *
 * A step's cost is taken apart by its spans: data, forward and backward grow with the batch, the
 * rest does not. That needs no second batch size. What is fixed inside forward and backward is
 * taken for growing; a re-balance measures at the batch that came of it and so corrects it. */
#include "runtime/train/shares.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/train/checkpoint.h"
#include "runtime/train/input.h"
#include "runtime/train/rehearsal.h"

#define DRIFT 0.15 /* of the mean step, by which the slowest may be slower */
/* Steps that say nothing yet; ranks of which a message lists all. */
enum { FEW_STEPS = 4, LISTED = 16, TEXT_BYTES = 128 };

/* ---- the division ---- */

ts_status ts_shares_parse(const char *list, int size, ts_cost *costs)
{
    int n = 0;
    for (const char *at = list; *at; n++) {
        char *end;
        double speed = strtod(at, &end);
        TS_NEED(
            end != at && (!*end || (*end == ',' && end[1])) && speed > 0 && speed < 1e9, TS_EUSAGE,
            "shares = \"%s\": must be equal, measured, or relative speeds above 0, one for each "
            "rank, such as 2,1",
            list);
        if (n < size) costs[n] = (ts_cost){.picture_s = 1 / speed};
        at = *end ? end + 1 : end;
    }
    TS_NEED(n == size, TS_EUSAGE, "shares = \"%s\": %d speed%s for %d rank%s", list, n,
            n == 1 ? "" : "s", size, size == 1 ? "" : "s");
    return TS_OK;
}

/* All steps take as long; a rank whose batch would be below 1 has 1, and the others the rest. */
static void divide_exactly(int size, ts_cost *costs, int64_t pictures)
{
    for (int r = 0; r < size; r++) costs[r].batch = 0;
    for (bool again = true; again;) {
        double speed = 0, sum = (double)pictures; /* sum / speed: seconds of every step */
        again = false;
        for (ts_cost *c = costs; c < costs + size; c++) {
            bool held = c->batch == 1;
            speed += held ? 0 : 1 / c->picture_s;
            sum += held ? -1 : c->fixed_s / c->picture_s;
        }
        for (ts_cost *c = costs; c < costs + size; c++) {
            if (c->batch == 1) continue;
            c->batch = (sum / speed - c->fixed_s) / c->picture_s;
            if (c->batch >= 1) continue;
            c->batch = 1;
            again = true;
        }
    }
}

void ts_shares_divide(int size, ts_cost *costs, int64_t pictures, int *batches)
{
    int64_t left = pictures;
    divide_exactly(size, costs, pictures);
    for (int r = 0; r < size; r++) left -= batches[r] = (int)floor(costs[r].batch + 1e-9);
    for (; left > 0; left--) {
        int most = 0;
        for (int r = 1; r < size; r++)
            if (costs[r].batch - batches[r] > costs[most].batch - batches[most] + 1e-9) most = r;
        batches[most]++;
    }
}

const char *ts_shares_text(int size, const int *batches, char *text, size_t bytes)
{
    int least = batches[0], most = batches[0];
    *text = 0;
    for (int r = 0; r < size; r++) {
        if (batches[r] < least) least = batches[r];
        if (batches[r] > most) most = batches[r];
        if (size <= LISTED)
            snprintf(text + strlen(text), bytes - strlen(text), "%s%d", r ? "," : "", batches[r]);
    }
    if (size > LISTED) snprintf(text, bytes, "from %d to %d", least, most);
    return text;
}

/* ---- a division takes effect ---- */

ts_status ts_shares_open(ts_trainer *t)
{
    ts_shares *s = &t->shares;
    int size = t->world->size;
    const char *again = t->config->rebalance;
    bool equal = !strcmp(t->config->shares, "equal");
    s->batches = malloc((size_t)size * sizeof *s->batches);
    s->next = malloc((size_t)size * sizeof *s->next);
    s->costs = malloc((size_t)size * sizeof *s->costs);
    TS_NEED(s->batches && s->next && s->costs, TS_ENOMEM, "no memory for %d ranks", size);
    s->measured = size > 1 && !strcmp(t->config->shares, "measured");
    s->rebalances = size > 1 && (!strcmp(again, "yes") || (s->measured && strcmp(again, "no")));
    s->weighted = size > 1 && (!equal || s->rebalances);
    for (int r = 0; r < size; r++) s->batches[r] = (int)t->config->batch;
    if (equal || !strcmp(t->config->shares, "measured")) return TS_OK;
    TS_TRY(ts_shares_parse(t->config->shares, size, s->costs));
    ts_shares_divide(size, s->costs, t->config->batch * size, s->batches);
    return TS_OK;
}

void ts_shares_close(ts_trainer *t)
{
    free(t->shares.costs);
    free(t->shares.next);
    free(t->shares.batches);
}

/* The share of an epoch that is done stays done. */
static ts_status set_control(ts_trainer *t, int batch_before)
{
    ts_control c;
    TS_TRY(ts_stream_copy(t->compute, &c, t->control, sizeof c));
    TS_TRY(ts_stream_sync(t->compute));
    c.position = c.position * t->shard.batch / batch_before;
    c.averaging_weight = (float)t->shard.batch / (float)t->shard.global;
    TS_TRY(ts_stream_copy(t->compute, t->control, &c, sizeof c));
    return ts_stream_sync(t->compute);
}

/* The next batches become the batches; nothing is queued. */
static ts_status take_next(ts_trainer *t)
{
    int before = t->shard.batch;
    memcpy(t->shares.batches, t->shares.next, (size_t)t->world->size * sizeof(int));
    ts_workspace_close(t->workspace);
    t->workspace = NULL;
    ts_shard_close(t->dataset, &t->shard);
    TS_TRY(ts_shard_open(t->dataset, t->world->rank, t->world->size, t->shares.batches,
                         t->config->skew, (uint64_t)t->config->seed, &t->shard));
    TS_TRY(ts_input_feed(t));
    TS_TRY(ts_workspace_open(t->model, t->shard.batch, true, t->control, &t->workspace));
    return set_control(t, before);
}

static bool is_new(const ts_trainer *t)
{
    return memcmp(t->shares.next, t->shares.batches, (size_t)t->world->size * sizeof(int)) != 0;
}

/* ---- measured at the start ---- */

static ts_status time_steps(ts_trainer *t, ts_step_times *times)
{
    ts_rehearsal *r;
    TS_TRY(ts_rehearsal_open(t, &r));
    ts_status status = ts_rehearsal_time(r, times);
    if (!status) status = ts_rehearsal_undo(r);
    ts_rehearsal_close(r);
    return status;
}

/* The costs of all ranks from this one's times. */
static ts_status gather(ts_trainer *t, const ts_step_times *times)
{
    ts_cost own = {.fixed_s = fmax(0, times->step_s - times->batch_s),
                   .picture_s = fmax(1e-12, times->batch_s / t->shard.batch)};
    return t->world->ops->all_gather(t->world, &own, t->shares.costs, sizeof own);
}

/* Rank 0 has filled in the next batches, for all. */
static ts_status share_next(ts_trainer *t)
{
    return t->world->ops->broadcast(t->world, t->shares.next,
                                    (size_t)t->world->size * sizeof *t->shares.next, 0);
}

static double step_s(const ts_trainer *t, int rank, const int *batches)
{
    return t->shares.costs[rank].fixed_s + t->shares.costs[rank].picture_s * batches[rank];
}

static int slowest(const ts_trainer *t, const int *batches)
{
    int found = 0;
    for (int r = 1; r < t->world->size; r++)
        if (step_s(t, r, batches) > step_s(t, found, batches)) found = r;
    return found;
}

static ts_status measure(ts_trainer *t)
{
    ts_shares *s = &t->shares;
    int size = t->world->size;
    int64_t begin = ts_clock_ns();
    ts_step_times times = {0};
    /* beside each other, as they will run; the slowest is alone at its end */
    TS_TRY(t->world->ops->barrier(t->world));
    TS_TRY(ts_world_agree(t->world, time_steps(t, &times)));
    TS_TRY(gather(t, &times));
    ts_shares_divide(size, s->costs, t->shard.global, s->next);
    TS_TRY(share_next(t));
    char text[TEXT_BYTES];
    int before = slowest(t, s->batches), now = slowest(t, s->next);
    ts_info("shares: with equal batches rank %d's local step, the slowest, takes %.3g s; with "
            "batches %s rank %d's, %.3g s (measured in %.1f s)",
            before, step_s(t, before, s->batches), ts_shares_text(size, s->next, text, sizeof text),
            now, step_s(t, now, s->next), (double)(ts_clock_ns() - begin) * 1e-9);
    return TS_OK;
}

ts_status ts_shares_settle(ts_trainer *t, const char *from)
{
    ts_shares *s = &t->shares;
    bool found = false;
    if (!s->measured && !s->rebalances) return TS_OK;
    if (from) TS_TRY(ts_checkpoint_batches(t, from, s->next, &found));
    if (found) {
        char text[TEXT_BYTES];
        ts_info("shares: batches %s, as the checkpoint's run",
                ts_shares_text(t->world->size, s->next, text, sizeof text));
    } else if (s->measured) {
        ts_log_set_phase("measuring for --shares measured");
        TS_TRY(measure(t));
        ts_log_set_phase("start-up");
    } else {
        return TS_OK;
    }
    return is_new(t) ? ts_world_agree(t->world, take_next(t)) : TS_OK;
}

/* ---- divided anew ---- */

/* The next batches: other ones where the slowest rank has fallen behind and they speed it up. */
static void decide(ts_trainer *t)
{
    ts_shares *s = &t->shares;
    int size = t->world->size, last = slowest(t, s->batches);
    double longest = step_s(t, last, s->batches), mean = 0;
    char before[TEXT_BYTES], now[TEXT_BYTES];
    for (int r = 0; r < size; r++) mean += step_s(t, r, s->batches) / size;
    memcpy(s->next, s->batches, (size_t)size * sizeof *s->next);
    if (longest <= (1 + DRIFT) * mean) return;
    ts_shares_divide(size, s->costs, t->shard.global, s->next);
    double expected = step_s(t, slowest(t, s->next), s->next);
    if (expected < longest)
        ts_info("shares: after local step %lld: rank %d's steps took %.3g s, %.0f %% longer than "
                "the mean, and all waited for it: batches %s are now %s, for %.3g s",
                (long long)t->step, last, longest, 100 * (longest / mean - 1),
                ts_shares_text(size, s->batches, before, sizeof before),
                ts_shares_text(size, s->next, now, sizeof now), expected);
    else
        memcpy(s->next, s->batches, (size_t)size * sizeof *s->next);
}

static ts_status redo(ts_trainer *t, ts_evaluator *evaluator)
{
    ts_step_close(t->local_step); /* its graphs know the old batch */
    t->local_step = NULL;
    ts_input_close(t->input);
    t->input = NULL;
    TS_TRY(take_next(t));
    TS_TRY(ts_evaluator_divide(evaluator, &t->shard));
    TS_TRY(ts_input_open(t, &t->input));
    return ts_step_open(t, &t->local_step);
}

ts_status ts_shares_review(ts_trainer *t, ts_evaluator *evaluator)
{
    ts_log_set_phase("comparing the ranks' speeds after local step %lld", (long long)t->step);
    TS_TRY(ts_metrics_flush(t->metrics));
    /* ranks may have different numbers of steps to judge by: all or none of them divide */
    int64_t ready;
    TS_TRY(ts_world_sum(t->world, ts_metrics_own_steps(t->metrics) >= FEW_STEPS, &ready));
    if (ready < t->world->size) return TS_OK;
    ts_step_times times = ts_metrics_own(t->metrics);
    TS_TRY(gather(t, &times));
    if (!t->world->rank) decide(t);
    TS_TRY(share_next(t));
    if (!is_new(t)) return TS_OK;
    TS_TRY(ts_world_agree(t->world, redo(t, evaluator)));
    return ts_metrics_divided(t->metrics);
}
