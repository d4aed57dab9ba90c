/* ranks.c - see ranks.h. */
#include "runtime/train/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/train/input.h"
#include "runtime/train/version.h"

enum { VERSION_BYTES = 96, SETTINGS_BYTES = 1 << 13 };

/* Two builds may differ in what they send. */
static ts_status check_versions(ts_world *world)
{
    char own[VERSION_BYTES] = "", *all = malloc((size_t)world->size * sizeof own);
    TS_NEED(all, TS_ENOMEM, "no memory for %d versions", world->size);
    snprintf(own, sizeof own, "%s (%s)", ts_version(), ts_version_commit());
    ts_status status = world->ops->all_gather(world, own, all, sizeof own);
    for (int r = 1; r < world->size && !status; r++) {
        const char *other = all + (size_t)r * sizeof own;
        if (strcmp(other, all))
            status = TS_ERROR(TS_EUSAGE,
                              "rank %d (host %s) runs twinstream %s, rank 0 (host %s) %s: put one "
                              "build on every host; launch/doctor checks that",
                              r, world->hosts[r], other, world->hosts[0], all);
    }
    free(all);
    return status;
}

/* Options that each rank may have its own of: where things lie, and what changes only how it works.
 */
static bool is_own(const char *key)
{
    static const char *const own[] = {"data",      "device",   "graphs",         "input-rate",
                                      "keep",      "label",    "loader-threads", "ops",
                                      "pace",      "prefetch", "resume",         "run",
                                      "run-ahead", "timeline", "verbose",        "weights"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(key, own[i])) return true;
    return false;
}

/* All other options, "key = value" lines. */
typedef struct settings {
    size_t n;
    char text[SETTINGS_BYTES];
} settings;

static void add_setting(void *context, const char *key, const char *value)
{
    settings *s = context;
    if (is_own(key) || s->n >= sizeof s->text) return;
    s->n += (size_t)snprintf(s->text + s->n, sizeof s->text - s->n, "%s = %s\n", key, value);
}

/* Where the line begins in which `other` first differs from the first rank's settings; -1: nowhere.
 */
static int64_t first_difference(const settings *first, const settings *other)
{
    size_t at = 0;
    for (size_t i = 0; i < sizeof first->text; i++) {
        if (first->text[i] != other->text[i]) return (int64_t)at;
        if (first->text[i] == '\n') at = i + 1;
    }
    return -1;
}

static ts_status check_settings(const ts_trainer *t)
{
    ts_world *world = t->world;
    settings own = {0}, first;
    ts_option_set_each(t->options, add_setting, &own);
    first = own;
    TS_TRY(world->ops->broadcast(world, &first, sizeof first, 0));
    int64_t differs = first_difference(&first, &own);
    int64_t *all = malloc((size_t)world->size * sizeof *all);
    TS_TRY(ts_world_agree(world, all ? TS_OK
                                     : TS_ERROR(TS_ENOMEM, "no memory for %d ranks", world->size)));
    ts_status status = world->ops->all_gather(world, &differs, all, sizeof differs);
    for (int r = 1; r < world->size && !status; r++)
        if (all[r] >= 0)
            status = TS_ERROR(TS_EUSAGE,
                              "rank %d differs from rank 0, whose options have %.*s: give every "
                              "rank the same options",
                              r, (int)strcspn(first.text + all[r], "\n"), first.text + all[r]);
    free(all);
    return status;
}

static ts_status check_fit(ts_trainer *t)
{
    struct {
        uint64_t signature;
        int64_t total, batch, share, seed, period, delay, fragments, measured, rebalances, weighted;
        ts_echo echo;
        char compression[128];
    } shape = {ts_model_signature(t->model),
               t->total,
               t->config->batch,
               t->per_epoch,
               t->config->seed,
               t->config->algorithm_config.period,
               t->config->algorithm_config.delay,
               t->config->algorithm_config.fragments,
               t->shares.measured,
               t->shares.rebalances,
               t->shares.weighted,
               ts_input_echo(t),
               ""};
    const ts_compression *c = &t->config->compression;
    snprintf(shape.compression, sizeof shape.compression, "%s %s %s %lld %lld %g %lld", c->name,
             c->feedback, c->scope, (long long)c->levels, (long long)c->block, c->density,
             (long long)c->density_warmup);
    TS_TRY(ts_world_same(t->world,
                         "the model's layout, the number of steps, batch, share of the data, seed, "
                         "period, delay, fragments, shares, rebalance, echo or compression",
                         &shape, sizeof shape));
    return ts_world_same(t->world, "the division by shares", t->shares.batches,
                         (size_t)t->world->size * sizeof *t->shares.batches);
}

static ts_status gather_identities(ts_trainer *t)
{
    char own[TS_IDENTITY_MAX] = "";
    if (!t->device->ops->identity) return TS_OK;
    t->device->ops->identity(t->device, own, sizeof own);
    t->identities = calloc((size_t)t->world->size, sizeof *t->identities);
    TS_TRY(ts_world_agree(
        t->world,
        t->identities ? TS_OK : TS_ERROR(TS_ENOMEM, "no memory for %d ranks", t->world->size)));
    return t->world->ops->all_gather(t->world, own, t->identities, sizeof own);
}

/* All ranks see the same list, so all come to the same end. */
static ts_status check_devices(const ts_trainer *t)
{
    const ts_world *world = t->world;
    const char *shared = getenv("TWINSTREAM_SHARE_GPU");
    if (shared && *shared == '1') return TS_OK;
    for (int r = 0; r < world->size && t->identities; r++)
        for (int s = 0; s < r; s++)
            TS_NEED(strcmp(t->identities[r], t->identities[s]), TS_EUSAGE,
                    "ranks %d and %d of host %s have the same %s: start no more ranks on a host "
                    "than it has GPUs, or set TWINSTREAM_SHARE_GPU=1 to let them share",
                    s, r, world->hosts[r], t->identities[r]);
    return TS_OK;
}

ts_status ts_ranks_check(ts_trainer *t)
{
    TS_TRY(ts_world_agree(t->world, check_versions(t->world)));
    TS_TRY(gather_identities(t));
    TS_TRY(ts_world_agree(t->world, check_devices(t)));
    TS_TRY(check_settings(t));
    return check_fit(t);
}

void ts_ranks_announce(const ts_trainer *t)
{
    for (int r = 0; r < t->world->size && t->identities; r++)
        ts_info("rank %d, host %s: %s", r, t->world->hosts[r], t->identities[r]);
}
