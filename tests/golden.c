/* golden.c - see golden.h. */
#include "tests/golden.h"

#include <math.h>

ts_world *world;
static ts_device *device;
static ts_stream *compute, *comm;
static ts_communicator *communicator;
static const family *tested;

problem random_problem(void)
{
    problem p = {.start = 1};
    for (int r = 0; r < RANKS_MAX; r++)
        for (int i = 0; i < N; i++) {
            ts_random4 u = ts_random(5, (uint64_t)r, (uint64_t)i);
            p.target[r][i] = 4 * ts_random_unit(u.v[0]) - 2;
            p.curve[r][i] = 0.2 + ts_random_unit(u.v[1]);
        }
    return p;
}

problem known_problem(void)
{
    problem p = {.start = 1};
    for (int i = 0; i < N; i++) {
        p.target[0][i] = 3;
        p.curve[0][i] = 1;
        p.target[1][i] = -1;
        p.curve[1][i] = 2;
    }
    return p;
}

/* ---- the simulations' common part, in double ---- */

double weight_of(const setting *s, int rank, int size)
{
    return s->weighted ? (rank + 1) / (size * (size + 1) / 2.) : 1. / size;
}

void mean_of(const setting *s, models x, int size, double *mean)
{
    for (int i = 0; i < N; i++) {
        mean[i] = 0;
        for (int r = 0; r < size; r++) mean[i] += weight_of(s, r, size) * x[r][i];
    }
}

void start_everything(const problem *p, everything *now)
{
    memset(now, 0, sizeof *now);
    for (int r = 0; r < RANKS_MAX; r++)
        for (int i = 0; i < N; i++) now->x[r][i] = p->start;
}

void simulate_gradients(const problem *p, int size, everything *now, models g)
{
    for (int r = 0; r < size; r++)
        for (int i = 0; i < N; i++) {
            g[r][i] = p->curve[r][i] * (now->x[r][i] - p->target[r][i]);
            now->s[r][i] = 0.9 * now->s[r][i] + 0.1 * (now->x[r][i] + r);
        }
}

void simulate_mean_gradients(const setting *s, int size, models g)
{
    double mean[N];
    mean_of(s, g, size, mean);
    for (int r = 0; r < size; r++) memcpy(g[r], mean, sizeof mean);
}

int first_local(const setting *s)
{
    return (int)(s->config.post_local * STEPS + 0.5);
}

void simulate_sgd(const setting *s, int size, everything *now, models g)
{
    for (int r = 0; r < size; r++)
        for (int i = 0; i < N; i++) {
            now->m[r][i] = s->momentum * now->m[r][i] + g[r][i] + s->weight_decay * now->x[r][i];
            now->x[r][i] -= RATE * now->m[r][i];
        }
}

/* ---- our code on the same problem ---- */

typedef struct gradient_job {
    float *g, *statistics;
    const float *x;
    const problem *p;
    int rank;
} gradient_job;

static ts_status gradient_run(const void *args)
{
    const gradient_job *j = args;
    for (int i = 0; i < N; i++)
        j->g[i] = (float)(j->p->curve[j->rank][i] * (j->x[i] - j->p->target[j->rank][i]));
    for (int i = 0; i < N_STATISTICS; i++)
        j->statistics[i] = (float)(0.9 * j->statistics[i] + 0.1 * (j->x[i] + j->rank));
    return TS_OK;
}

static const ts_kernel gradient_kernel = {.name = "test gradient", .run = gradient_run};

typedef struct rig {
    ts_flat flat;
    ts_control *control;
    float *weight;
    ts_worker worker;
    ts_algorithm *algorithm;
    ts_slice buckets[2];
    const setting *s;
    const problem *p;
    int64_t step;
} rig;

static void *alloc(size_t bytes)
{
    void *memory;
    OK(ts_device_alloc(device, TS_MEMORY_DEVICE, bytes, &memory));
    OK(ts_stream_fill(compute, memory, 0, bytes));
    OK(ts_stream_sync(compute));
    return memory;
}

static void open_rig(rig *r, const problem *p, const setting *s)
{
    memset(r, 0, sizeof *r);
    r->p = p;
    r->s = s;
    r->buckets[0] = (ts_slice){N / 2, N / 2};
    r->buckets[1] = (ts_slice){0, N / 2};
    r->flat = (ts_flat){.n = N,
                        .parameters = alloc(N * 4),
                        .gradients = alloc(N * 4),
                        .momentum = alloc(N * 4),
                        .shadow = alloc(N * 2),
                        .statistics = alloc(N_STATISTICS * 4),
                        .n_statistics = N_STATISTICS,
                        .buckets = r->buckets,
                        .n_buckets = 2};
    for (int i = 0; i < N; i++) r->flat.parameters[i] = (float)p->start;
    r->control = alloc(sizeof *r->control);
    r->control->learning_rate = (float)RATE;
    r->weight = alloc(sizeof *r->weight);
    *r->weight = (float)weight_of(s, world->rank, world->size);
    r->worker = (ts_worker){.device = device,
                            .compute = compute,
                            .comm = comm,
                            .communicator = communicator,
                            .rank = world->rank,
                            .size = world->size,
                            .flat = &r->flat,
                            .update = {.n = N,
                                       .x = r->flat.parameters,
                                       .shadow = r->flat.shadow,
                                       .m = r->flat.momentum,
                                       .g = r->flat.gradients,
                                       .control = r->control,
                                       .momentum = (float)s->momentum,
                                       .weight_decay = (float)s->weight_decay},
                            .momentum_policy = s->policy,
                            .average_statistics = s->average_statistics,
                            .weight = s->weighted ? r->weight : NULL};
    if (tested->prepare) tested->prepare(s, &r->flat, &r->worker);
    OK(ts_algorithm_open(s->algorithm, &r->worker, &s->config, STEPS, &r->algorithm));
}

static void close_rig(rig *r)
{
    OK(ts_stream_sync(compute));
    OK(ts_stream_sync(comm)); /* an average may still be under way */
    r->algorithm->ops->close(r->algorithm);
    void *all[] = {r->flat.parameters, r->flat.gradients, r->flat.momentum, r->flat.statistics,
                   r->flat.shadow,     r->control,        r->weight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ts_device_release(device, TS_MEMORY_DEVICE, all[i]);
}

/* One local step with the hooks in their places. */
static void run_step(rig *r, bool hooks)
{
    ts_algorithm *a = r->algorithm;
    gradient_job job = {r->flat.gradients, r->flat.statistics, r->flat.parameters, r->p,
                        world->rank};
    a->learning_rate = (float)RATE;
    if (tested->rate) {
        OK(ts_stream_sync(compute)); /* it is read when a step runs */
        r->control->learning_rate = a->learning_rate = (float)tested->rate((int)r->step + 1);
    }
    OK(ts_stream_launch(compute, &gradient_kernel, &job, sizeof job));
    for (int b = 0; hooks && a->ops->bucket_ready && b < 2; b++) OK(a->ops->bucket_ready(a, b));
    if (hooks && a->ops->before_update) OK(a->ops->before_update(a, r->step));
    OK(ts_vector_sgd(compute, hooks ? &a->worker.update : &r->worker.update));
    if (hooks && a->ops->after_update) OK(a->ops->after_update(a, r->step));
    r->step++;
}

static void run(const problem *p, const setting *s, int steps, bool hooks, bool drain, float *out)
{
    rig r;
    open_rig(&r, p, s);
    for (int t = 0; t < steps; t++) run_step(&r, hooks);
    if (drain && r.algorithm->ops->drain) OK(r.algorithm->ops->drain(r.algorithm));
    OK(ts_stream_sync(compute));
    memcpy(out, r.flat.parameters, N * 4);
    close_rig(&r);
}

void run_to(const problem *p, const setting *s, int steps, bool hooks, float *out)
{
    run(p, s, steps, hooks, false, out);
}

void run_and_drain(const problem *p, const setting *s, int steps, float *out)
{
    run(p, s, steps, true, true, out);
}

void run_resumed(const problem *p, const setting *s, const setting *then, int at, float *out)
{
    rig first, second;
    ts_part from[TS_PARTS_MAX], to[TS_PARTS_MAX];
    open_rig(&first, p, s);
    open_rig(&second, p, then);
    for (int t = 0; t < at; t++) run_step(&first, true);
    OK(ts_stream_sync(compute));
    OK(ts_stream_sync(comm));
    memcpy(second.flat.parameters, first.flat.parameters, N * 4);
    memcpy(second.flat.momentum, first.flat.momentum, N * 4);
    memcpy(second.flat.statistics, first.flat.statistics, N_STATISTICS * 4);
    const ts_algorithm_ops *ops = first.algorithm->ops;
    int n = ops->state ? ops->state(first.algorithm, from, TS_PARTS_MAX) : 0;
    if (n) assert_int_equal(ops->state(second.algorithm, to, TS_PARTS_MAX), n);
    for (int j = 0; j < n; j++) {
        assert_string_equal(from[j].name, to[j].name);
        memcpy(to[j].at, from[j].at, from[j].bytes);
    }
    second.step = first.step;
    for (int t = at; t < STEPS; t++) run_step(&second, true);
    OK(ts_stream_sync(compute));
    memcpy(out, second.flat.parameters, N * 4);
    close_rig(&first);
    close_rig(&second);
}

/* ---- the tests ---- */

static bool near(double mine, double theirs)
{
    return fabs(mine - theirs) <= 1e-5 * (1 + fabs(theirs));
}

/* Which of the element's numbers is not what the equations say; NULL: none. */
static const char *stray(const ts_flat *f, const everything *e, int i)
{
    int r = world->rank;
    return !near(f->parameters[i], e->x[r][i])                       ? "parameter"
           : !near(f->momentum[i], e->m[r][i])                       ? "momentum"
           : i < N_STATISTICS && !near(f->statistics[i], e->s[r][i]) ? "statistic"
                                                                     : NULL;
}

static void compare(const rig *r, const everything *e)
{
    const ts_flat *f = &r->flat;
    int strays = 0, rank = world->rank;
    for (int i = 0; i < N; i++) {
        const char *what = stray(f, e, i);
        if (what && ++strays > tested->strays)
            fail_msg(
                "%s (setting %d) k %d d %d, step %d, rank %d, %s %d: x %.9g m %.9g, the equations "
                "say x %.9g m %.9g",
                r->s->algorithm, (int)(r->s - tested->settings), (int)r->s->config.period,
                (int)r->s->config.delay, (int)r->step, rank, what, i, (double)f->parameters[i],
                (double)f->momentum[i], e->x[rank][i], e->m[rank][i]);
        assert_int_equal(f->shadow[i], ts_bf16_from_float(f->parameters[i]));
    }
}

static everything trajectory[STEPS + 2];

void golden_equations(void **state)
{
    (void)state;
    if (world->size == 1) skip(); /* plain SGD: golden_one_rank */
    problem p = random_problem();
    for (int i = 0; i < tested->n_settings; i++) {
        const setting *s = &tested->settings[i];
        rig r;
        tested->simulate(&p, s, world->size, trajectory);
        open_rig(&r, &p, s);
        for (int t = 1; t <= STEPS; t++) {
            run_step(&r, true);
            OK(ts_stream_sync(compute));
            compare(&r, &trajectory[t]);
        }
        if (r.algorithm->ops->drain) OK(r.algorithm->ops->drain(r.algorithm));
        OK(ts_stream_sync(compute));
        compare(&r, &trajectory[STEPS + 1]);
        close_rig(&r);
    }
}

void golden_values(void **state)
{
    (void)state;
    if (world->size != 2) skip();
    problem p = known_problem();
    for (int i = 0; i < tested->n_values; i++) {
        const value *v = &tested->values[i];
        float out[N];
        run_to(&p, &v->s, v->step, true, out);
        double x = v->x[world->rank];
        if (fabs(out[7] - x) > 1e-5)
            fail_msg("%s, step %d: %g, by hand %g", v->s.algorithm, v->step, (double)out[7], x);
    }
}

void golden_one_rank(void **state)
{
    (void)state;
    if (world->size > 1) skip();
    float a[N], b[N];
    problem p = random_problem();
    for (int i = 0; i < tested->n_settings; i++) {
        run_to(&p, &tested->settings[i], STEPS, true, a);
        run_to(&p, &tested->settings[i], STEPS, false, b); /* plain SGD: no hook is called */
        assert_memory_equal(a, b, sizeof a);
    }
}

/* The consensus is the mean of the models and changes nothing; drained, nothing is left to merge.
 */
void golden_consensus(void **state)
{
    (void)state;
    problem p = random_problem();
    ts_event *event;
    float *mean[2] = {alloc(N * 4), alloc(N * 4)}, *statistics = alloc(N_STATISTICS * 4), before[N];
    OK(ts_event_open(device, &event));
    for (int i = 0; i < tested->n_settings; i++) {
        const setting *s = &tested->settings[i];
        rig r;
        tested->simulate(&p, s, world->size, trajectory);
        open_rig(&r, &p, s);
        ts_status (*drain)(ts_algorithm *) = r.algorithm->ops->drain;
        for (int t = 0; t < STEPS; t++) run_step(&r, true);
        OK(ts_consensus(&r.worker, event, mean[0], statistics));
        if (drain) OK(drain(r.algorithm));
        OK(ts_stream_sync(compute));
        memcpy(before, r.flat.parameters, sizeof before);
        OK(ts_consensus(&r.worker, event, mean[1], statistics));
        if (drain) OK(drain(r.algorithm));
        OK(ts_stream_sync(compute));
        assert_memory_equal(before, r.flat.parameters, sizeof before);
        if (world->size == 1) { /* plain SGD, which the simulation does not know */
            assert_memory_equal(before, mean[1], sizeof before);
            close_rig(&r);
            continue;
        }
        double truth[2][N], truth_s[N];
        mean_of(s, trajectory[STEPS].x, world->size, truth[0]);
        mean_of(s, trajectory[STEPS + 1].x, world->size, truth[1]);
        mean_of(s, trajectory[STEPS + 1].s, world->size, truth_s);
        int strays = 0;
        for (int e = 0; e < N; e++) {
            strays += fabs(mean[0][e] - truth[0][e]) >= 1e-5 ||
                      fabs(mean[1][e] - truth[1][e]) >= 1e-5 ||
                      (e < N_STATISTICS && fabs(statistics[e] - truth_s[e]) >= 1e-5);
            assert_true(strays <= tested->strays);
            if (tested->keeps_mean && tested->keeps_mean(s))
                assert_true(fabsf(mean[0][e] - mean[1][e]) < 1e-6f);
        }
        close_rig(&r);
    }
    ts_event_close(event);
    for (int i = 0; i < 2; i++) ts_device_release(device, TS_MEMORY_DEVICE, mean[i]);
    ts_device_release(device, TS_MEMORY_DEVICE, statistics);
}

/* n steps, state saved, restored into a fresh algorithm, n more: the same bits as 2n steps. */
void golden_resume(void **state)
{
    (void)state;
    float whole[N], parts[N];
    problem p = random_problem();
    for (int i = 0; i < tested->n_settings; i++) {
        const setting *s = &tested->settings[i];
        run_to(&p, s, STEPS, true, whole);
        for (int at = 2; at < STEPS; at += 5) {
            run_resumed(&p, s, s, at, parts);
            assert_memory_equal(parts, whole, sizeof whole);
        }
    }
}

void golden_bad_settings(void **state)
{
    (void)state;
    for (int i = 0; i < tested->n_bad; i++) {
        ts_flat flat = {.n = N};
        ts_worker worker = {
            .device = device, .compute = compute, .comm = comm, .size = 2, .flat = &flat};
        ts_algorithm *a = NULL;
        const setting *s = &tested->bad[i];
        if (tested->prepare) tested->prepare(s, &flat, &worker);
        assert_int_equal(ts_algorithm_open(s->algorithm, &worker, &s->config, STEPS, &a),
                         TS_EUSAGE);
        assert_null(a);
    }
}

bool golden_open(const family *f)
{
    tested = f;
    return !ts_world_open("auto", &world) &&
           !ts_device_open(test_device(), world->local_rank, &device) &&
           !ts_stream_open(device, TS_STREAM_COMPUTE, "compute", &compute) &&
           !ts_stream_open(device, TS_STREAM_COMM, "comm", &comm) &&
           !ts_communicator_open("auto", world, comm, &(ts_communicator_options){.timeout_s = 30},
                                 &communicator);
}

int golden_close(int failed)
{
    if (failed && world->size > 1) world->ops->abort(world, 1);
    ts_communicator_close(communicator);
    ts_stream_close(comm);
    ts_stream_close(compute);
    ts_device_close(device);
    ts_world_close(world);
    return failed;
}
