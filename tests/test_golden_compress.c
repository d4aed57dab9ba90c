/* test_golden_compress.c - the trajectories of algorithms whose exchanges are compressed, against
 * the rule simulated serially in double precision, with encoders of its own.
 *
 * The simulation draws the same random words (they are a rule too: key, call, rank, element) and
 * decides in double; where fp32 falls on the other side of a decision an element strays, which few
 * may. Half of the vector is a layer's weights, half is biases. */
#include <math.h>

#include "tests/golden.h"

enum { HALF = N / 2, SETTINGS_MAX = 64 };

typedef struct compressed {
    setting s;
    ts_compression c;
    bool nesterov;
} compressed;

#define SSGD                                                                                       \
    "ssgd",                                                                                        \
    {                                                                                              \
        .overlap = true                                                                            \
    }
#define BLOCKING                                                                                   \
    "ssgd",                                                                                        \
    {                                                                                              \
        .overlap = false                                                                           \
    }
#define LOCAL(k)                                                                                   \
    "local",                                                                                       \
    {                                                                                              \
        .period = k                                                                                \
    }
#define COCOD(k)                                                                                   \
    "cocod",                                                                                       \
    {                                                                                              \
        .period = k                                                                                \
    }
#define DASGD(k, d)                                                                                \
    "dasgd",                                                                                       \
    {                                                                                              \
        .period = k, .delay = d, .mix = 0.25                                                       \
    }
#define SLOW .slow_momentum = 0.6, .slow_rate = 0.9
#define QSGD(s) .name = "qsgd", .levels = s, .block = 64
#define GLOBAL .scope = "global"
#define FED .feedback = "yes"
#define UNFED .feedback = "no"
#define SCATTER .exchange = "scatter"

static const compressed list[] = {
    {{SSGD, 0.9, 1e-2, 0, false, false}, {.name = "none"}, false},
    {{SSGD, 0.9, 1e-2, 0, false, false}, {.name = "bf16"}, false},
    {{BLOCKING, 0.9, 0, 0, true, false}, {.name = "bf16", UNFED}, true},
    {{COCOD(3), 0.9, 0, TS_MOMENTUM_AVERAGE, false, true}, {.name = "bf16"}, false},
    {{SSGD, 0.9, 1e-2, 0, false, false}, {QSGD(7)}, false},
    {{BLOCKING, 0, 0, 0, true, false}, {QSGD(4), GLOBAL, FED}, false},
    {{LOCAL(2), 0.9, 0, TS_MOMENTUM_ZERO, false, true}, {QSGD(127), GLOBAL}, false},
    {{COCOD(2), 0, 1e-2, 0, false, false}, {QSGD(7), FED}, false},
    {{DASGD(2, 5), 0.9, 0, 0, true, false}, {QSGD(7)}, false},
    {{SSGD, 0.9, 1e-2, 0, false, false}, {QSGD(7), SCATTER}, true},
    {{BLOCKING, 0.9, 0, 0, false, false}, {QSGD(127), SCATTER, FED}, false},
    {{COCOD(2), 0.9, 0, 0, false, false}, {QSGD(7), SCATTER, GLOBAL}, false},
    {{DASGD(3, 2), 0, 0, 0, false, false}, {QSGD(127), SCATTER}, false},
    {{"local", {.period = 2, SLOW}, 0, 0, 0, false, false}, {QSGD(127), SCATTER}, false},
    {{SSGD, 0, 0, 0, false, false}, {.name = "terngrad", SCATTER}, false},
    {{SSGD, 0, 0, 0, false, false}, {.name = "terngrad"}, false},
    {{BLOCKING, 0, 0, 0, true, false}, {.name = "terngrad", GLOBAL, FED}, false},
    {{COCOD(4), 0, 0, 0, false, false}, {.name = "terngrad"}, false},
    {{SSGD, 0.9, 1e-2, 0, false, false}, {.name = "topk", .density = 0.1}, true},
    {{BLOCKING, 0, 0, 0, true, false}, {.name = "topk", .density = 0.3, GLOBAL, UNFED}, false},
    {{LOCAL(2), 0.9, 0, 0, false, false}, {.name = "topk", .density = 0.25}, false},
    {{COCOD(3), 0.9, 0, 0, true, true}, {.name = "topk", .density = 0.2, GLOBAL}, false},
    {{DASGD(4, 1), 0, 0, 0, false, false}, {.name = "topk", .density = 0.5}, false},
    {{SSGD, 0.9, 0, 0, false, false}, {.name = "randomk", .density = 0.2}, false},
    {{BLOCKING, 0, 1e-2, 0, true, false}, {.name = "randomk", .density = 0.11, UNFED}, false},
    {{COCOD(2), 0, 0, 0, true, false}, {.name = "randomk", .density = 0.3, GLOBAL}, false},
    {{LOCAL(3), 0, 0, 0, false, false}, {.name = "randomk", .density = 0.3, GLOBAL}, false},
    {{SSGD, 0.9, 1e-2, 0, false, false}, {.name = "dgc", .density = 0.1}, false},
    {{BLOCKING, 0.9, 1e-2, 0, true, false}, {.name = "dgc", .density = 0.05, GLOBAL}, true},
    {{SSGD, 0.9, 0, 0, false, false},
     {.name = "dgc", .density = 0.05, .density_warmup = 0.75, .epoch = 10},
     true},
    {{"pipe", {.synchronous_steps = 2}, 0.9, 0, 0, false, false}, {QSGD(7)}, false},
    {{"pipe", {.synchronous_steps = 2}, 0.9, 0, 0, false, false}, {QSGD(127), SCATTER}, false},
    {{"pipe", {.synchronous_steps = 3}, 0.9, 1e-2, 0, false, false},
     {.name = "dgc", .density = 0.1},
     true},
    {{"pipe", {0}, 0, 0, 0, true, false}, {.name = "terngrad"}, false},
    {{"od", {.local_rate = 1}, 0.9, 1e-2, 0, true, false}, {.name = "topk", .density = 0.2}, false},
    {{"od", {.synchronous_steps = 2, .local_rate = 0.5}, 0.9, 0, 0, false, false},
     {.name = "randomk", .density = 0.2},
     false},
    {{"od", {.synchronous_steps = 1, .local_rate = 1}, 0.9, 1e-2, 0, false, false},
     {.name = "dgc", .density = 0.05, .density_warmup = 0.75, .epoch = 10},
     false},
    {{"od", {.local_rate = 1}, 0.9, 0, 0, false, false}, {.name = "bf16"}, false},
    {{LOCAL(3), 0.9, 0, 0, false, false}, {.name = "terngrad"}, false},
    {{DASGD(4, 1), 0.9, 0, 0, false, false}, {.name = "bf16"}, false},
    {{DASGD(3, 2), 0.9, 1e-2, 0, false, false}, {QSGD(7), FED}, false},
    {{"cocod", {.period = 3, .fragments = 2}, 0.9, 0, 0, false, false},
     {QSGD(127), SCATTER},
     false},
    {{"cocod", {.period = 2, .post_local = 0.3, .overlap = true}, 0.9, 0, 0, false, false},
     {QSGD(127), SCATTER},
     false},
    /* no error feedback beside momentum of the anchor; with it, without that momentum */
    {{"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false},
     {.name = "topk", .density = 0.3, UNFED},
     false},
    {{"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0.9, 0, 0, false, false},
     {QSGD(127)},
     false},
    {{"overlap-local", {.period = 3, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false},
     {QSGD(127), SCATTER},
     false},
    {{"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false},
     {.name = "bf16"},
     false},
    {{"overlap-local", {.period = 2, .pull = 0.6}, 0.9, 0, 0, true, false},
     {.name = "topk", .density = 0.3},
     false},
    {{"cocod", {.period = 2, .post_local = 0.3, .overlap = true}, 0.9, 0, 0, false, false},
     {.name = "topk", .density = 0.2},
     false},
    /* the outer model of slow momentum is what changes are told from; fragments travel apart */
    {{"local", {.period = 2, SLOW}, 0.9, 0, 0, true, true},
     {.name = "topk", .density = 0.3},
     false},
    {{"cocod", {.period = 3, SLOW, .post_local = 0.3}, 0, 0, 0, false, false}, {QSGD(7)}, false},
    {{"cocod", {.period = 4, .fragments = 3}, 0.9, 0, TS_MOMENTUM_AVERAGE, true, false},
     {.name = "topk", .density = 0.2},
     false},
    {{"cocod", {.period = 3, .fragments = 2, SLOW}, 0, 1e-2, 0, false, false},
     {.name = "bf16"},
     false},
    {{"dasgd", {.period = 3, .delay = 5, .mix = 0.25, .fragments = 2}, 0, 0, 0, false, false},
     {.name = "randomk", .density = 0.3},
     false},
    {{"dasgd", {.period = 2, .delay = 5, .mix = 0.6, .merge = "corrected"}, 0, 0, 0, true, false},
     {.name = "topk", .density = 0.2},
     false},
};
enum { LISTED = sizeof list / sizeof *list };
static setting settings[LISTED];

static const compressed bad_list[] = {
    {{"cocod", {.period = 4, .fragments = 2}, 0, 0, 0, false, false},
     {.name = "topk", .density = 0.1, GLOBAL},
     false},
    {{LOCAL(2), 0, 0, 0, false, false}, {.name = "dgc", .density = 0.1}, false},
    {{COCOD(2), 0, 0, 0, false, false}, {.name = "dgc", .density = 0.1}, false},
    {{"cocod", {.period = 2, .post_local = 0.5, .overlap = true}, 0, 0, 0, false, false},
     {.name = "dgc", .density = 0.1},
     false},
    {{SSGD, 0, 0, 0, false, false}, {.name = "topk", .density = 0.1, GLOBAL}, false},
    {{SSGD, 0, 0, 0, false, false}, {.name = "topk", .density = 0.1, SCATTER}, false},
    {{SSGD, 0, 0, 0, true, false}, {QSGD(7), SCATTER}, false},
    {{SSGD, 0, 0, 0, false, false}, {.name = "dgc", .density = 0.1, UNFED}, false},
    {{SSGD, 0, 0, 0, false, false}, {.name = "qsgd", .levels = 7, .block = 100}, false},
    {{COCOD(2), 0, 0, 0, false, false}, {.name = "topk", .density = 1.1}, false},
    {{"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false},
     {.name = "topk", .density = 0.3, FED},
     false},
    {{"overlap-local", {.period = 2, .pull = 0.6, .anchor_momentum = 0.7}, 0, 0, 0, false, false},
     {.name = "randomk", .density = 0.3},
     false},
    {{"dasgd", {.period = 2, .delay = 1, .mix = 0.25, SLOW}, 0, 0, 0, false, false},
     {.name = "topk", .density = 0.3},
     false},
    {{"dasgd", {.period = 2, .delay = 1, .mix = 0.25, SLOW}, 0, 0, 0, false, false},
     {QSGD(7), FED},
     false},
};
enum { BAD = sizeof bad_list / sizeof *bad_list };
static setting bad[BAD];

static const compressed *compared_with; /* in place of a setting's own compression */

static const compressed *find(const setting *s)
{
    if (compared_with) return compared_with;
    return s >= bad && s < bad + BAD ? &bad_list[s - bad] : &list[s - settings];
}

static void prepare(const setting *s, ts_flat *flat, ts_worker *worker)
{
    static const ts_slice weights[] = {{0, HALF}}, buckets[] = {{HALF, HALF}, {0, HALF}};
    static const float half = 0.5f;
    const compressed *c = find(s);
    flat->weights = weights;
    flat->n_weights = 1;
    flat->buckets = buckets;
    flat->n_buckets = 2;
    worker->compression = c->c;
    worker->compression.seed = 42;
    worker->update.nesterov = c->nesterov;
    if (s >= bad && s < bad + BAD && s->weighted) worker->weight = &half;
}

/* ---- encoders, in double ---- */

static double rounded_to_bf16(double x)
{
    int exponent;
    if (x == 0) return 0;
    frexp(x, &exponent);
    return ldexp(nearbyint(ldexp(x, 8 - exponent)), exponent - 8);
}

static double unit_word(uint64_t seed, uint64_t call, int rank, int element)
{
    ts_random4 r = ts_random(seed ^ UINT64_C(0x636f6d7072657373), (uint64_t)element / 4,
                             call << 16 | (uint64_t)rank);
    return (double)(r.v[element % 4] >> 8) / 16777216.0;
}

/* d <- steps of the norm, up or down at random. */
static void to_levels(const double *p, double *d, int n, double norm, int levels, uint64_t seed,
                      uint64_t call, int rank, int first)
{
    for (int i = 0; i < n; i++) {
        double x = norm > 0 ? fmin(fabs(p[i]) / norm * levels, levels) : 0, low = floor(x);
        low += unit_word(seed, call, rank, first + i) < x - low;
        d[i] = copysign(low * norm / levels, p[i]);
    }
}

static double largest_of(const double *p, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++) most = fmax(most, fabs(p[i]));
    return most;
}

static void to_largest(const double *p, double *d, int n, int k)
{
    bool taken[N] = {false};
    memset(d, 0, (size_t)n * sizeof *d);
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!taken[i] && (best < 0 || fabs(p[i]) > fabs(p[best]))) best = i;
        taken[best] = true;
        d[best] = p[best];
    }
}

/* Of each of k parts one; `place` is the piece's in the message. */
static void to_random(const double *p, double *d, int n, int k, bool whole_part, uint64_t call,
                      int place)
{
    memset(d, 0, (size_t)n * sizeof *d);
    for (int j = 0; j < k; j++) {
        int begin = j * n / k, size = (j + 1) * n / k - begin;
        ts_random4 r = ts_random(42 ^ UINT64_C(0x636f6d7072657373), (uint64_t)(place + j / 4),
                                 call << 16 | 0xffff);
        int i = begin + (int)((double)r.v[j % 4] / 4294967296.0 * size);
        d[i] = p[i] * (whole_part ? size : 1);
    }
}

/* ---- the exchange, in double: all ranks' ---- */

typedef struct channel {
    models residual, velocity;
    double anchor[N], v[N]; /* v: the anchor's momentum */
    double outer_momentum, outer_rate;
    uint64_t seed, calls;
    int messages; /* of a step */
    bool changes; /* of models; else gradients */
    const compressed *c;
    const setting *s;
    int size;
} channel;

static bool is(const channel *l, const char *name)
{
    return !strcmp(l->c->c.name, name);
}

static bool feeds(const channel *l)
{
    const char *feedback = l->c->c.feedback;
    if (l->s->config.anchor_momentum > 0) return false;
    if (feedback) return !strcmp(feedback, "yes");
    return !is(l, "none") && !is(l, "qsgd") && !is(l, "terngrad");
}

/* One piece of rank r: what arrives of p. */
static void encode_piece(const channel *l, int r, const double *p, double *d, int at, int place,
                         int n, double density)
{
    const ts_compression *c = &l->c->c;
    int k = density * n < 1 ? 1 : (int)(density * n);
    if (is(l, "qsgd")) {
        for (int b = 0; b < n; b += 64)
            to_levels(p + b, d + b, 64, largest_of(p + b, 64), (int)c->levels, l->seed, l->calls, r,
                      at + b);
    } else if (is(l, "terngrad")) {
        double squares = 0;
        for (int i = 0; i < n; i++) squares += p[i] * p[i];
        to_levels(p, d, n, fmin(largest_of(p, n), 2.5 * sqrt(squares / n)), 1, l->seed, l->calls, r,
                  at);
    } else if (is(l, "topk") || is(l, "dgc")) {
        to_largest(p, d, n, k);
    } else if (is(l, "randomk")) {
        to_random(p, d, n, k, !feeds(l), l->calls, place);
    } else {
        for (int i = 0; i < n; i++) d[i] = is(l, "bf16") ? rounded_to_bf16(p[i]) : p[i];
    }
}

static double density_now(const channel *l)
{
    const ts_compression *c = &l->c->c;
    if (!is(l, "dgc") || !c->epoch) return c->density;
    double step = (double)(l->calls / (uint64_t)l->messages), fifths;
    modf(5 * step / round(c->density_warmup * (double)c->epoch), &fifths);
    return pow(c->density, fmin(1, (fifths + 1) / 6));
}

/* bf16 sums go around the ring, each sum rounded: segments of 16, 32, ... elements begin with the
 * rank of their number. */
static double ring_sum(const channel *l, models d, int at, int n, int i)
{
    int segment = ((n + l->size - 1) / l->size + 15) / 16 * 16, first = (i - at) / segment;
    double sum = d[first][i];
    for (int j = 1; j < l->size; j++) sum = rounded_to_bf16(d[(first + j) % l->size][i] + sum);
    return sum;
}

static bool scattered(const channel *l)
{
    return l->c->c.exchange != NULL;
}

/* What lies in the part of a message that a rank adds up: 64s of elements, as many each. */
static void part_of(const channel *l, int r, int at, int n, int *begin, int *end)
{
    int most = (n / 64 + l->size - 1) / l->size * 64;
    *begin = at + (most * r < n ? most * r : n);
    *end = at + (most * (r + 1) < n ? most * (r + 1) : n);
}

/* Elements [at, end) of rank r, which may go to several. */
static void encode(const channel *l, int r, const double *p, double *d, int at, int end, int all,
                   double density)
{
    for (int q = 0; q < l->size && scattered(l); q++) {
        int begin, last;
        part_of(l, q, at, all, &begin, &last);
        if (last > end) last = end;
        if (begin < last) encode_piece(l, r, p + begin, d + begin, begin, 0, last - begin, density);
    }
    if (!scattered(l) && at < end) encode_piece(l, r, p + at, d + at, at, 0, end - at, density);
}

/* sum <- the mean over ranks, of which each encodes a part. */
static void mean_in_parts(channel *l, models d, int at, int end, int all, double *sum)
{
    double mean[N];
    for (int i = at; i < at + all; i++) {
        mean[i] = 0;
        for (int r = 0; r < l->size; r++) mean[i] += d[r][i] / l->size;
        sum[i] = mean[i];
    }
    l->seed = ~l->seed;
    for (int r = 0; r < l->size; r++) {
        int begin, last;
        part_of(l, r, at, all, &begin, &last);
        if (last > end) last = end;
        if (begin < last) encode_piece(l, r, mean + begin, sum + begin, begin, 0, last - begin, 0);
    }
    l->seed = ~l->seed;
}

/* v <- the mean over ranks of elements [at, at + n), on every rank alike. */
static void exchange(channel *l, models v, int at, int n)
{
    static models d;
    double density = density_now(l), momentum = l->s->momentum, p[N];
    bool global = l->c->c.scope != NULL, apart = !global && !is(l, "bf16") && !is(l, "none");
    int end = apart && at + n > HALF ? HALF : at + n;
    for (int r = 0; r < l->size; r++) {
        for (int i = at; i < at + n; i++) {
            p[i] = v[r][i] - (l->changes ? l->anchor[i] : 0);
            if (is(l, "dgc")) {
                double u = l->velocity[r][i];
                l->velocity[r][i] = l->c->nesterov ? momentum * (u + p[i]) : momentum * u + p[i];
                p[i] = l->velocity[r][i] + (l->c->nesterov ? p[i] : 0);
            }
            if (feeds(l)) p[i] += l->residual[r][i];
            d[r][i] = p[i]; /* raw, unless encoded below */
        }
        encode(l, r, p, d[r], at, end, n, density);
        for (int i = at; i < at + n; i++) {
            l->residual[r][i] = p[i] - d[r][i];
            if (is(l, "dgc") && i < end && d[r][i] != 0) l->velocity[r][i] = 0;
        }
    }
    if (scattered(l)) mean_in_parts(l, d, at, end, n, p);
    for (int i = at; i < at + n; i++) {
        double sum = l->changes ? l->anchor[i] : 0;
        if (scattered(l))
            sum += p[i];
        else if (is(l, "bf16") && !l->s->weighted)
            sum += ring_sum(l, d, at, n, i) / l->size;
        else
            for (int r = 0; r < l->size; r++) sum += weight_of(l->s, r, l->size) * d[r][i];
        l->anchor[i] = sum;
        for (int r = 0; r < l->size; r++) v[r][i] = sum;
    }
    l->calls++;
}

/* ---- the algorithms, in double ---- */

static void begin_link(channel *l, const setting *s, int size, int messages, bool changes,
                       const double *x)
{
    memset(l, 0, sizeof *l);
    l->seed = 42;
    l->c = find(s);
    l->s = s;
    l->size = size;
    l->messages = messages;
    l->changes = changes;
    memcpy(l->anchor, x, sizeof l->anchor);
}

static void exchange_gradients(channel *l, const setting *s, models g)
{
    if (s->config.overlap) {
        exchange(l, g, HALF, HALF);
        exchange(l, g, 0, HALF);
    } else {
        exchange(l, g, 0, N);
    }
}

/* SGD of all ranks; DGC's gradients have their momentum, and m is that of the weight decay. */
static void update(const channel *l, everything *now, models g)
{
    const setting *s = l->s;
    double mu = s->momentum;
    for (int r = 0; r < l->size; r++)
        for (int i = 0; i < N; i++) {
            double carried = is(l, "dgc") ? g[r][i] : 0;
            double own = g[r][i] - carried + s->weight_decay * now->x[r][i];
            now->m[r][i] = mu * now->m[r][i] + own;
            now->x[r][i] -=
                RATE * (carried + (l->c->nesterov ? own + mu * now->m[r][i] : now->m[r][i]));
        }
}

/* What an averaging started after a step has snapped and, on comm, made of it, of elements [at,
 * end). */
typedef struct flight {
    everything then, average;
    models left_out, owed; /* by its encoding; what was owed when it was made */
    bool started;
    int at, end;
} flight;

/* The fragment whose averages start t steps after the method's first; -1 for none. */
static int fragment_at(const setting *s, int t)
{
    int all = s->config.fragments ? (int)s->config.fragments : 1, k = (int)s->config.period;
    for (int p = 0; p < all; p++)
        if (t % k == p * k / all) return p;
    return -1;
}

static void start(channel *l, const everything *now, int p, flight *f)
{
    double m[N], s[N], z[N];
    int all = l->s->config.fragments ? (int)l->s->config.fragments : 1;
    f->then = f->average = *now;
    f->started = true;
    f->at = N / 64 * p / all * 64;
    f->end = N / 64 * (p + 1) / all * 64;
    memcpy(z, l->anchor, sizeof z);
    memcpy(f->owed, l->residual, sizeof f->owed);
    exchange(l, f->average.x, f->at, f->end - f->at);
    memcpy(f->left_out, l->residual, sizeof f->left_out);
    memcpy(l->residual, f->owed, sizeof f->owed); /* until the merge takes it out of the model */
    for (int i = f->at; l->outer_rate != 0 && i < f->end; i++) { /* it moves by momentum */
        l->v[i] = l->outer_momentum * l->v[i] + (l->anchor[i] - z[i]);
        l->anchor[i] = z[i] + l->outer_rate * l->v[i];
        for (int r = 0; r < l->size; r++) f->average.x[r][i] = l->anchor[i];
    }
    mean_of(l->s, f->then.m, l->size, m);
    mean_of(l->s, f->then.s, l->size, s);
    for (int r = 0; r < l->size; r++) {
        memcpy(f->average.m[r], m, sizeof m);
        memcpy(f->average.s[r], s, sizeof s);
    }
}

static void merge_one(const setting *s, double *x, const double *y, const double *a, int at,
                      int end)
{
    double xi = !strcmp(s->algorithm, "dasgd") ? s->config.mix : 0;
    if (!strcmp(s->algorithm, "overlap-local")) xi = 1 - s->config.pull;
    bool corrected = !strcmp(s->algorithm, "cocod") || s->config.merge;
    for (int i = at; i < end; i++)
        x[i] = corrected ? x[i] + (1 - xi) * (a[i] - y[i]) : xi * x[i] + (1 - xi) * a[i];
}

/* What is owed goes the way of the model: a merge turns what was in the snapshot, its r, into what
 * the model lacks. */
static void merge(channel *l, everything *now, flight *f)
{
    const setting *s = l->s;
    f->started = false;
    for (int r = 0; r < l->size; r++) {
        merge_one(s, now->x[r], f->then.x[r], f->average.x[r], f->at, f->end);
        merge_one(s, l->residual[r], f->owed[r], f->left_out[r], f->at, f->end);
        if (s->policy == TS_MOMENTUM_ZERO) memset(now->m[r], 0, sizeof now->m[r]);
        if (s->policy == TS_MOMENTUM_AVERAGE)
            merge_one(s, now->m[r], f->then.m[r], f->average.m[r], f->at, f->end);
        if (s->average_statistics) memcpy(now->s[r], f->average.s[r], sizeof now->s[r]);
    }
}

static void simulate_gradient_method(const problem *p, const setting *s, int size,
                                     everything *trajectory)
{
    static everything now;
    static channel l;
    static models own, g, late;
    bool od = !strcmp(s->algorithm, "od"), pipe = od || !strcmp(s->algorithm, "pipe"),
         late_p = false;
    static everything global; /* what the update works on: od's W */
    start_everything(p, &now);
    begin_link(&l, s, size, s->config.overlap ? 2 : 1, false, now.x[0]);
    global = now;
    for (int t = 1; t <= STEPS; t++) {
        bool synchronous = !pipe || t <= s->config.synchronous_steps;
        simulate_gradients(p, size, &now, own);
        memcpy(g, own, sizeof g);
        if (synchronous) {
            exchange_gradients(&l, s, g);
        } else {
            if (late_p)
                memcpy(g, late, sizeof g);
            else
                memset(g, 0, sizeof g);
        }
        memcpy(global.s, now.s, sizeof now.s);
        update(&l, &global, g);
        now = global;
        late_p = !synchronous;
        if (late_p) {
            memcpy(late, own, sizeof late);
            exchange_gradients(&l, s, late);
            for (int r = 0; od && r < size; r++)
                for (int i = 0; i < N; i++) now.x[r][i] -= s->config.local_rate * RATE * own[r][i];
        }
        trajectory[t] = now;
    }
    if (late_p) update(&l, &global, late);
    if (pipe) memcpy(now.x, global.x, sizeof now.x), memcpy(now.m, global.m, sizeof now.m);
    trajectory[STEPS + 1] = now;
}

static void simulate_model_method(const problem *p, const setting *s, int size,
                                  everything *trajectory)
{
    static everything now;
    static flight flights[STEPS + 1];
    static channel l, first_part;
    static models g;
    const char *name = s->algorithm;
    int k = (int)s->config.period, d = (int)s->config.delay;
    int first = (int)lround(s->config.post_local * STEPS);
    bool anchored = !strcmp(name, "overlap-local");
    for (int t = 0; t <= STEPS; t++) flights[t].started = false;
    start_everything(p, &now);
    begin_link(&l, s, size, 1, true, now.x[0]);
    l.outer_momentum = anchored ? s->config.anchor_momentum : s->config.slow_momentum;
    l.outer_rate = anchored ? 1 : s->config.slow_rate;
    begin_link(&first_part, s, size, s->config.overlap ? 2 : 1, false, now.x[0]);
    if (anchored) start(&l, &now, 0, &flights[0]);
    for (int t = 1; t <= STEPS; t++) {
        simulate_gradients(p, size, &now, g);
        if (t <= first) exchange_gradients(&first_part, s, g);
        update(&l, &now, g);
        if (t == first) memcpy(l.anchor, now.x[0], sizeof l.anchor);
        int u = t - first; /* the method's own steps */
        int due = u > 0 ? fragment_at(s, u) : -1;
        int from = !strcmp(name, "local") ? t : !strcmp(name, "dasgd") ? t - d : t - k;
        if (from == t && due >= 0) start(&l, &now, due, &flights[t]);
        if (from >= 0 && flights[from].started) merge(&l, &now, &flights[from]);
        if (due >= 0 && strcmp(name, "local") != 0) start(&l, &now, due, &flights[t]);
        trajectory[t] = now;
    }
    for (int t = 0; t <= STEPS; t++)
        if (flights[t].started) merge(&l, &now, &flights[t]);
    trajectory[STEPS + 1] = now;
}

static void simulate(const problem *p, const setting *s, int size, everything *trajectory)
{
    const char *name = s->algorithm;
    if (!strcmp(name, "ssgd") || !strcmp(name, "pipe") || !strcmp(name, "od"))
        simulate_gradient_method(p, s, size, trajectory);
    else
        simulate_model_method(p, s, size, trajectory);
}

/* ---- tests of compression's own ---- */

/* The average that a compressed exchange leaves is the same on all ranks, bit for bit: S-SGD's
 * models stay equal, and so do Local-SGD's after a merge. */
static void all_ranks_get_the_same_bits(void **state)
{
    (void)state;
    problem p = random_problem();
    for (int i = 0; i < LISTED; i++) {
        const setting *s = &settings[i];
        float x[N];
        bool local = !strcmp(s->algorithm, "local");
        if (!local && strcmp(s->algorithm, "ssgd") != 0) continue;
        int steps = local ? 4 * (int)s->config.period : STEPS;
        run_to(&p, s, steps, true, x);
        OK(ts_world_same(world, "the model", x, sizeof x));
    }
}

/* Under a constant gradient, the same on all ranks, a model is off the uncompressed one by what
 * waits to be sent: as far after many rounds as after some, however an average is merged. */
static void what_was_left_out_is_sent_once(void **state)
{
    (void)state;
    enum { SOME = 30, MANY = 120 };
    static const compressed none = {.c = {.name = "none"}};
    problem p = {.start = 1};
    if (world->size == 1) skip();
    for (int r = 0; r < RANKS_MAX; r++)
        for (int i = 0; i < N; i++) p.curve[r][i] = 1e-9, p.target[r][i] = 1e7 * (1 + i % 5);
    for (int i = 0; i < LISTED; i++) {
        const setting *s = &settings[i];
        if (!s->config.period || list[i].c.feedback || s->config.post_local > 0) continue;
        if (strcmp(list[i].c.name, "topk") != 0 && strcmp(list[i].c.name, "randomk") != 0) continue;
        if (s->config.anchor_momentum > 0) continue;
        float x[2][N], with[2][N];
        double off[2] = {0, 0};
        for (int late = 0; late < 2; late++) {
            int steps = late ? MANY : SOME;
            run_and_drain(&p, s, steps, with[late]);
            compared_with = &none;
            run_and_drain(&p, s, steps, x[late]);
            compared_with = NULL;
            for (int j = 0; j < N; j++)
                off[late] = fmax(off[late], fabs((double)with[late][j] - (double)x[late][j]));
        }
        if (!(off[1] < 2 * off[0]))
            fail_msg("setting %d, %s: off by %g after %d steps, by %g after %d", i, s->algorithm,
                     off[0], SOME, off[1], MANY);
    }
}

int main(void)
{
    const family f = {.settings = settings,
                      .n_settings = LISTED,
                      .simulate = simulate,
                      .bad = bad,
                      .n_bad = BAD,
                      .prepare = prepare,
                      .strays = N / 32};
    const struct CMUnitTest tests[] = {
        GOLDEN_TESTS,
        cmocka_unit_test(all_ranks_get_the_same_bits),
        cmocka_unit_test(what_was_left_out_is_sent_once),
    };
    for (int i = 0; i < LISTED; i++) settings[i] = list[i].s;
    for (int i = 0; i < BAD; i++) bad[i] = bad_list[i].s;
    if (!golden_open(&f)) return 1;
    return golden_close(cmocka_run_group_tests(tests, NULL, NULL));
}
