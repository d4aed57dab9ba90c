/* metrics.c - what a run reports, from the device's own sums and stamps.
 *
 * At the end of a window the control block is copied out behind an event; the line is written
 * when the event has happened, so nothing waits. Times come from the streams' stamps: a window
 * lasts from the last window's end (after a flush: its first step's begin) to its last step's end
 * on the compute stream. All figures are for a counted step; what an automatic echo does while an
 * average is late is a part of the step that waits for it.
 *   exposed = what compute waited for comm ; hidden = 1 - exposed / comm
 *   input = what compute waited for samples that are read too slowly
 *   sent_bytes: what rank 0 gave to the wire for a local step, evaluations left out
 *   contention: least squares of a step's own time (waits taken out) on the share of it during
 *   which comm was busy; the slope over the intercept is compute's slow-down beside comm. Steps
 *   that waited for samples and the first few are left out.
 * What compute waits for and merges behind the last step of a run (drain) is in no figure. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/train/input.h"
#include "runtime/train/version.h"

/* COLLECTIVES: as many as the trace can hold before they are drained. */
enum {
    PENDING = 4,
    TIMELINE_SPANS = 100000,
    RECENT = 4096,
    COLLECTIVES = 1 << 15,
    INPUT_NONE = 100, /* waits for samples up to 1/100 of a step count as none */
    DRAIN_EVERY = 64
};
#define CONTENTION_ERROR 0.05

/* Times of the steps of one window, ns. */
typedef struct tally {
    int64_t steps, begin, end;
    int64_t sent; /* bytes */
    int64_t part[TS_SPAN_KINDS];
} tally;

/* A window whose numbers are on their way. */
typedef struct window {
    int64_t first, last; /* local steps [first, last) */
    int64_t sent;        /* bytes */
    ts_control *sums;    /* pinned copy */
    ts_event *copied;
    tally times;
} window;

typedef struct interval {
    int64_t begin, end, wait;
} interval;

struct ts_metrics {
    ts_trainer *t;
    FILE *file;
    char path[600];
    window windows[PENDING];
    int64_t opened, written; /* windows closed so far; windows whose lines are written */
    int64_t first;           /* first step of the window that is open */
    ts_control before;       /* sums at the end of the last written window */
    int64_t sent;            /* the communicator's count when the open window began */

    tally open, total; /* of the window that the drain is in; of this process */
    int64_t seen;      /* steps whose end was drained, as a step number */
    int64_t drained;   /* windows whose times are complete */
    /* of the step that the drain is in: ns of waits, ns for its batches, batches */
    int64_t wait, input, batch, batches;
    int64_t end;    /* of the last step; 0: after a flush */
    int64_t echoed; /* steps that were not counted, of all ranks; known at the end */
    ts_span *timeline;
    int64_t n_timeline;

    struct {
        int64_t lazy, steps, step, batch; /* steps to leave out; steps, and ns, since */
    } own;                                /* for ts_metrics_own */

    interval recent[RECENT], comm[COLLECTIVES]; /* the latest steps and collectives */
    int64_t n_recent, n_comm, n_told;           /* told: collectives that a window holds */
    double train_loss;                          /* at the last evaluation */
    int64_t started;                            /* wall clock, ns */
};

/* A line of a step that this run will not do again. */
static bool is_before(const void *context, const json_t *line)
{
    const int64_t *step = context;
    return *step && json_integer_value(json_object_get(line, "step")) <= *step;
}

ts_status ts_metrics_open(ts_trainer *t, ts_metrics **metrics_p)
{
    ts_status status;
    ts_metrics *m = calloc(1, sizeof *m);
    TS_NEED(m, TS_ENOMEM, "no memory for metrics");
    m->t = t;
    m->first = m->seen = t->step;
    m->own.lazy = TS_LAZY_STEPS;
    m->train_loss = NAN;
    m->started = ts_clock_wall_ns();
    for (int i = 0; i < PENDING; i++) {
        TS_TRY_TO(status, fail,
                  ts_device_alloc(t->device, TS_MEMORY_PINNED, sizeof(ts_control),
                                  (void **)&m->windows[i].sums));
        TS_TRY_TO(status, fail, ts_event_open(t->device, &m->windows[i].copied));
    }
    if (t->config->timeline) {
        m->timeline = malloc(TIMELINE_SPANS * sizeof *m->timeline);
        if (!m->timeline) {
            status = TS_ERROR(TS_ENOMEM, "no memory for %d spans of the timeline", TIMELINE_SPANS);
            goto fail;
        }
    }
    /* what the device has summed before a resume is not ours */
    TS_TRY_TO(status, fail,
              ts_stream_copy(t->compute, m->windows[0].sums, t->control, sizeof(ts_control)));
    TS_TRY_TO(status, fail, ts_stream_sync(t->compute));
    m->before = *m->windows[0].sums;
    m->sent = t->communicator->sent_bytes;
    *metrics_p = m;
    return TS_OK;
fail:
    ts_metrics_close(m);
    return status;
}

ts_status ts_metrics_begin(ts_metrics *m)
{
    const ts_trainer *t = m->t;
    if (t->world->rank) return TS_OK;
    TS_TRY(ts_file_join(m->path, sizeof m->path, t->run, "metrics.jsonl"));
    TS_TRY(ts_json_cut(m->path, is_before, &t->step));
    m->file = fopen(m->path, "a");
    TS_NEED(m->file, TS_EIO, "cannot open %s: %s", m->path, strerror(errno));
    return t->shares.weighted && !t->step ? ts_metrics_divided(m) : TS_OK;
}

void ts_metrics_close(ts_metrics *m)
{
    if (!m) return;
    if (m->file) fclose(m->file);
    free(m->timeline);
    for (int i = 0; i < PENDING; i++) {
        ts_event_close(m->windows[i].copied);
        ts_device_release(m->t->device, TS_MEMORY_PINNED, m->windows[i].sums);
    }
    free(m);
}

static void add(tally *sum, const tally *part)
{
    sum->steps += part->steps;
    sum->sent += part->sent;
    sum->end += part->end - part->begin; /* a total keeps durations: begin stays 0 */
    for (int i = 0; i < TS_SPAN_KINDS; i++) sum->part[i] += part->part[i];
}

/* Collectives that ended within the open window are its; comm's spans are drained before compute's,
 * so those of later windows may be here already. */
static void take_collectives(ts_metrics *m)
{
    for (; m->n_told < m->n_comm; m->n_told++) {
        const interval *c = &m->comm[m->n_told % COLLECTIVES];
        if (c->end > m->open.end) break;
        m->open.part[TS_SPAN_COMM] += c->end - c->begin;
    }
}

/* The steps of the oldest window whose times are open have all been seen: it takes what they took.
 * A window may be opened after that, when a flush cuts one short. */
static void take_window(ts_metrics *m)
{
    window *w = &m->windows[m->drained % PENDING];
    if (m->drained == m->opened || m->seen != w->last) return;
    take_collectives(m);
    w->times = m->open;
    w->times.sent = w->sent;
    if (w->first >= m->t->config->settle) add(&m->total, &w->times);
    m->open = (tally){0};
    m->drained++;
}

/* What a step of one batch says about this rank's speed. */
static void take_own(ts_metrics *m, const ts_span *step)
{
    int64_t ns = step->end_ns - step->begin_ns;
    if (m->own.lazy) {
        m->own.lazy--;
        return;
    }
    if (m->input <= ns / INPUT_NONE)
        m->recent[m->n_recent++ % RECENT] = (interval){step->begin_ns, step->end_ns, m->wait};
    m->own.steps++;
    m->own.step += ns - m->wait - m->input;
    m->own.batch += m->batch;
}

/* A span has ended. Steps close windows; what else compute does adds to the window that is open. */
static void on_span(void *context, const ts_span *span)
{
    ts_metrics *m = context;
    int64_t ns = span->end_ns - span->begin_ns;
    if (m->timeline && m->n_timeline < TIMELINE_SPANS) m->timeline[m->n_timeline++] = *span;
    if (span->kind == TS_SPAN_EVALUATE) return;
    if (span->kind == TS_SPAN_COMM) {
        m->comm[m->n_comm++ % COLLECTIVES] = (interval){span->begin_ns, span->end_ns, 0};
        return;
    }
    m->open.part[span->kind] += ns;
    if (span->kind == TS_SPAN_WAIT) m->wait += ns;
    if (span->kind == TS_SPAN_INPUT) m->input += ns;
    if (span->kind == TS_SPAN_DATA || span->kind == TS_SPAN_FORWARD ||
        span->kind == TS_SPAN_BACKWARD)
        m->batch += ns;
    m->batches += span->kind == TS_SPAN_FORWARD;
    if (span->kind != TS_SPAN_STEP) return;

    if (m->batches == 1) take_own(m, span);
    m->wait = m->input = m->batch = m->batches = 0;
    if (!m->open.steps++) m->open.begin = m->end ? m->end : span->begin_ns;
    m->open.end = m->end = span->end_ns;
    m->seen++;
    take_window(m);
}

static double hidden_share(const tally *times)
{
    double comm = (double)times->part[TS_SPAN_COMM];
    if (comm <= 0) return NAN;
    double share = 1 - (double)times->part[TS_SPAN_WAIT] / comm;
    return share < 0 ? 0 : share;
}

/* JSON has no NaN: what is unknown is null. */
static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* Of all ranks, reckoned from this one: an automatic echo may differ among them. */
static json_int_t fresh_samples(const ts_trainer *t, const ts_control *control, int64_t step)
{
    return (json_int_t)(ts_input_fresh(t, control, step) * t->shard.global / t->shard.batch);
}

static void time_left(char *text, size_t bytes, double seconds)
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, bytes, "%lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60),
                 (long long)(s % 60));
    else
        snprintf(text, bytes, "%lld:%02lld", (long long)(s / 60), (long long)(s % 60));
}

static ts_status write_window(ts_metrics *m, const window *w)
{
    const ts_trainer *t = m->t;
    const ts_control *now = w->sums;
    const tally *times = &w->times;
    int64_t samples = now->samples - m->before.samples;
    int64_t lost = now->not_finite - m->before.not_finite;
    TS_NEED(!lost, TS_EDIVERGED,
            "the loss of %lld of %lld pictures was not finite in local steps %lld to %lld: lower "
            "--learning-rate, add --warmup, or resume from an earlier checkpoint",
            (long long)lost, (long long)samples, (long long)w->first, (long long)(w->last - 1));
    double loss = (now->loss_sum - m->before.loss_sum) / (double)samples;
    double accuracy = (double)(now->correct - m->before.correct) / (double)samples;
    double seconds = (double)(times->end - times->begin) * 1e-9;
    double steps = (double)times->steps;
    double rate = steps * (double)t->config->batch * t->world->size / seconds;
    double epoch = (double)w->last / t->per_epoch;
    double learning_rate = ts_schedule_rate(&t->schedule, w->last - 1);
    double exposed = (double)times->part[TS_SPAN_WAIT] * 1e-9 / steps;
    double comm = (double)times->part[TS_SPAN_COMM] * 1e-9 / steps;
    double input = (double)times->part[TS_SPAN_INPUT] * 1e-9 / steps;
    double compute = (double)times->part[TS_SPAN_STEP] * 1e-9 / steps - exposed - input;
    double hidden = hidden_share(times);
    m->before = *now;
    if (t->world->rank) return TS_OK;

    TS_TRY(ts_json_append(m->file, m->path,
                          json_pack("{s:s, s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
                                    "s:f, s:o, s:f}",
                                    "kind", "window", "step", (json_int_t)w->last, "epoch", epoch,
                                    "samples", (json_int_t)(w->last * t->shard.global),
                                    "fresh_samples", fresh_samples(t, now, w->last), "loss", loss,
                                    "accuracy", accuracy, "learning_rate", learning_rate,
                                    "images_per_second", rate, "compute_s", compute, "input_s",
                                    input, "exposed_s", exposed, "comm_s", comm, "hidden",
                                    real(hidden), "sent_bytes", (double)times->sent / steps)));
    char left[32], overlap[48] = "";
    time_left(left, sizeof left, (double)(t->total - w->last) * seconds / steps);
    if (isfinite(hidden)) snprintf(overlap, sizeof overlap, "  hidden %.0f %%", 100 * hidden);
    ts_log_progress(
        "epoch %.2f/%.4g  step %lld/%lld  loss %.4f  accuracy %.1f %%  %.0f images/s%s  "
        "%s left",
        epoch, (double)t->total / t->per_epoch, (long long)w->last, (long long)t->total, loss,
        100 * accuracy, rate, overlap, left);
    return TS_OK;
}

static ts_status write_finished(ts_metrics *m)
{
    while (m->written < m->opened) {
        window *w = &m->windows[m->written % PENDING];
        if (!ts_event_done(w->copied)) return TS_OK;
        TS_TRY(ts_event_sync(w->copied)); /* done, or the device has failed: says so */
        ts_trace_drain(m->t->trace, on_span, m);
        TS_NEED(m->written < m->drained, TS_EDEVICE,
                "the stamps of local steps %lld to %lld were lost", (long long)w->first,
                (long long)w->last);
        TS_TRY(write_window(m, w));
        m->written++;
    }
    return TS_OK;
}

static ts_status close_window(ts_metrics *m)
{
    window *w = &m->windows[m->opened % PENDING];
    if (m->opened - m->written == PENDING) {
        TS_TRY(ts_event_sync(m->windows[m->written % PENDING].copied));
        TS_TRY(write_finished(m));
    }
    w->first = m->first;
    w->last = m->first = m->t->step;
    w->sent = m->t->communicator->sent_bytes - m->sent;
    m->sent += w->sent;
    TS_TRY(ts_stream_copy(m->t->compute, w->sums, m->t->control, sizeof *w->sums));
    TS_TRY(ts_event_record(w->copied, m->t->compute));
    m->opened++;
    take_window(m);
    return TS_OK;
}

ts_status ts_metrics_step(ts_metrics *m)
{
    const ts_config *c = m->t->config;
    if (m->t->step % c->log_every == 0 || m->t->step == c->settle) TS_TRY(close_window(m));
    if (m->t->step % DRAIN_EVERY == 0) ts_metrics_drain(m); /* of a long window */
    return write_finished(m);
}

ts_status ts_metrics_flush(ts_metrics *m)
{
    if (m->t->step > m->first) TS_TRY(close_window(m));
    TS_TRY(ts_stream_sync(m->t->compute));
    TS_TRY(ts_stream_sync(m->t->comm));
    TS_TRY(write_finished(m));
    m->end = 0; /* what comes now is no step's time */
    return TS_OK;
}

void ts_metrics_drain(ts_metrics *m)
{
    ts_trace_drain(m->t->trace, on_span, m);
}

/* The mean training loss since the last evaluation, which a checkpoint remembers. */
static double train_loss(const ts_metrics *m)
{
    int64_t samples = m->before.samples - m->before.evaluated.samples;
    double sum = m->before.loss_sum - m->before.evaluated.loss_sum;
    return samples ? sum / (double)samples : NAN;
}

static ts_status remember_evaluation(ts_metrics *m)
{
    const ts_trainer *t = m->t;
    ts_control *pinned = m->windows[0].sums; /* all windows are written */
    m->before.evaluated.loss_sum = m->before.loss_sum;
    m->before.evaluated.samples = m->before.samples;
    pinned->evaluated = m->before.evaluated;
    TS_TRY(ts_stream_copy(t->compute, &t->control->evaluated, &pinned->evaluated,
                          sizeof pinned->evaluated));
    return ts_stream_sync(t->compute);
}

ts_status ts_metrics_evaluation(ts_metrics *m, const ts_score *score, double seconds)
{
    const ts_trainer *t = m->t;
    double epoch = (double)t->step / t->per_epoch;
    double train = train_loss(m);
    TS_TRY(remember_evaluation(m));
    m->train_loss = train;
    m->sent = t->communicator->sent_bytes; /* no step's */
    if (t->world->rank) return TS_OK;
    ts_info("epoch %.2f  step %lld: test accuracy %.2f %%, test loss %.4f, train loss %.4f", epoch,
            (long long)t->step, 100 * score->accuracy, score->loss, train);
    return ts_json_append(m->file, m->path,
                          json_pack("{s:s, s:I, s:f, s:I, s:I, s:o, s:f, s:I, s:o, s:f}", "kind",
                                    "evaluation", "step", (json_int_t)t->step, "epoch", epoch,
                                    "samples", (json_int_t)(t->step * t->shard.global),
                                    "fresh_samples", fresh_samples(t, &m->before, t->step),
                                    "test_loss", real(score->loss), "test_accuracy",
                                    score->accuracy, "test_samples", (json_int_t)score->samples,
                                    "train_loss", real(train), "seconds", seconds));
}

int64_t ts_metrics_own_steps(const ts_metrics *m)
{
    return m->own.steps;
}

ts_step_times ts_metrics_own(ts_metrics *m)
{
    double ns = 1e-9 / (double)m->own.steps;
    ts_step_times times = {.step_s = (double)m->own.step * ns,
                           .batch_s = (double)m->own.batch * ns};
    m->own.steps = m->own.step = m->own.batch = 0;
    return times;
}

static json_t *batches_of(const ts_trainer *t)
{
    json_t *list = json_array();
    for (int r = 0; r < t->world->size; r++)
        json_array_append_new(list, json_integer(t->shares.batches[r]));
    return list;
}

ts_status ts_metrics_divided(ts_metrics *m)
{
    const ts_trainer *t = m->t;
    m->own.lazy = TS_LAZY_STEPS;
    m->n_recent = 0; /* those steps had another length */
    if (t->world->rank) return TS_OK;
    return ts_json_append(m->file, m->path,
                          json_pack("{s:s, s:I, s:o}", "kind", "shares", "step",
                                    (json_int_t)t->step, "batches", batches_of(t)));
}

/* Slope over intercept of step time on the share of the step beside a busy comm stream. */
static double contention(const ts_metrics *m)
{
    int64_t oldest = m->n_comm > COLLECTIVES ? m->n_comm - COLLECTIVES : 0;
    int64_t known = oldest ? m->comm[oldest % COLLECTIVES].begin : INT64_MIN, next = oldest;
    double s = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, syy = 0;
    for (int64_t i = m->n_recent > RECENT ? m->n_recent - RECENT : 0; i < m->n_recent; i++) {
        const interval *step = &m->recent[i % RECENT];
        double busy = 0, own = (double)(step->end - step->begin - step->wait);
        if (step->begin < known) continue; /* what was beside it is forgotten */
        while (next < m->n_comm && m->comm[next % COLLECTIVES].end <= step->begin) next++;
        for (int64_t j = next; j < m->n_comm && m->comm[j % COLLECTIVES].begin < step->end; j++) {
            const interval *c = &m->comm[j % COLLECTIVES];
            int64_t from = c->begin > step->begin ? c->begin : step->begin;
            int64_t to = c->end < step->end ? c->end : step->end;
            if (to > from) busy += (double)(to - from);
        }
        busy -= (double)step->wait; /* while it waited, compute was not beside comm */
        double x = busy > 0 ? busy / own : 0;
        s++, sx += x, sy += own, sxx += x * x, sxy += x * own, syy += own * own;
    }
    double spread = s * sxx - sx * sx;
    /* steps that are all beside comm, or none of them, say nothing */
    if (s < 8 || spread < 0.01 * s * s) return NAN;
    double slope = (s * sxy - sx * sy) / spread, alone = (sy - slope * sx) / s;
    double rest = fmax(0, syy - alone * sy - slope * sxy); /* squares that the line leaves */
    double error = sqrt(rest / (s - 2) * s / spread);
    /* a fit by which compute is faster beside comm has caught something else */
    bool sound = error <= CONTENTION_ERROR * alone && slope >= -CONTENTION_ERROR * alone;
    return sound ? slope / alone : NAN;
}

static void add_setting(void *context, const char *key, const char *value)
{
    json_t *text = json_string(value);
    json_object_set_new(context, key, text ? text : json_string("(not UTF-8)"));
}

static ts_status save_record(ts_metrics *m, const char *state, const ts_score *score,
                             const ts_result *r)
{
    const ts_trainer *t = m->t;
    char path[600], device[256];
    struct utsname system;
    struct rusage usage;
    json_t *config = json_object(), *spans = json_object();
    uname(&system);
    getrusage(RUSAGE_SELF, &usage);
    ts_device_describe(t->device, device, sizeof device);
    ts_option_set_each(t->options, add_setting, config);
    double steps = m->total.steps ? (double)m->total.steps : 1;
    for (int i = 0; i < TS_SPAN_KINDS; i++)
        if (i != TS_SPAN_EVALUATE) /* no step's */
            json_object_set_new(spans, ts_span_names[i],
                                json_real((double)m->total.part[i] * 1e-9 / steps));
    TS_TRY(ts_file_join(path, sizeof path, t->run, "run.json"));
    return ts_json_save(
        path,
        json_pack(
            "{s:s, s:s, s:I, s:I, s:s, s:i, s:{s:s, s:s, s:s}, s:o, s:{s:s, s:s, s:I, s:f, "
            "s:I}, s:o,"
            " s:{s:I, s:I, s:I, s:f, s:f, s:o, s:o, s:o, s:o, s:f, s:I}, s:o, s:o}",
            "program", "twinstream", "state", state, "started",
            (json_int_t)(m->started / 1000000000), "ended",
            (json_int_t)(ts_clock_wall_ns() / 1000000000), "commit", ts_version_commit(), "ranks",
            t->world->size, "machine", "host", t->world->host, "system", system.release, "device",
            device, "versions", ts_version_json(!strcmp(t->device->ops->name, "cuda")), "model",
            "name", ts_model_name(t->model), "type",
            ts_type_name(ts_model_get_options(t->model)->type), "parameters",
            (json_int_t)ts_model_parameter_count(t->model), "forward_macs",
            ts_model_forward_macs(t->model, 0, ts_model_nodes(t->model)), "workspace_bytes",
            (json_int_t)ts_workspace_bytes(t->workspace), "seconds_per_step", spans, "totals",
            "steps", (json_int_t)r->steps, "echo_steps", (json_int_t)m->echoed, "fresh_samples",
            fresh_samples(t, &m->before, r->steps), "seconds", r->seconds, "images_per_second",
            r->images_per_second, "test_accuracy", real(score->accuracy), "test_loss",
            real(score->loss), "hidden", real(r->hidden), "contention", real(r->contention),
            "sent_bytes", (double)m->total.sent / steps, "peak_memory_kib",
            (json_int_t)usage.ru_maxrss, "config", config, "batches", batches_of(t)));
}

ts_status ts_metrics_finish(ts_metrics *m, const char *state, const ts_score *score,
                            ts_result *result)
{
    ts_trainer *t = m->t;
    TS_TRY(ts_metrics_flush(m));
    ts_metrics_drain(m);
    double seconds = (double)m->total.end * 1e-9;
    *result = (ts_result){.steps = t->step,
                          .seconds = seconds,
                          .images_per_second = seconds > 0 ? (double)m->total.steps *
                                                                 (double)t->config->batch *
                                                                 t->world->size / seconds
                                                           : 0,
                          .test_accuracy = score->accuracy,
                          .test_loss = score->loss,
                          .train_loss = m->train_loss,
                          .hidden = hidden_share(&m->total),
                          .contention = contention(m)};
    snprintf(result->run, sizeof result->run, "%s", t->run);
    if (ts_trace_lost(t->trace))
        ts_warn("%lld stamps were lost: times are too short by their spans",
                (long long)ts_trace_lost(t->trace));
    if (m->timeline) {
        char path[600];
        TS_TRY(ts_file_join(path, sizeof path, t->run, "timeline.json"));
        TS_TRY(ts_timeline_save(t->world, t->trace, m->timeline, m->n_timeline, path));
    }
    TS_TRY(ts_world_sum(t->world, m->before.echoed, &m->echoed));
    return t->world->rank ? TS_OK : save_record(m, state, score, result);
}
