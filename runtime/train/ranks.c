/* ranks.c - see ranks.h. */
#include "runtime/train/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

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
    static const char *const own[] = {"data",           "device",    "graphs", "input-rate", "keep",
                                      "label",          "ops",       "pace",   "prefetch",   "run",
                                      "loader-threads", "run-ahead", "verbose"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(key, own[i])) return true;
    return false;
}

/* Options that name a place, which may be each rank's own, but that all ranks have or none. */
static bool is_given(const char *key)
{
    return !strcmp(key, "resume") || !strcmp(key, "weights");
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
    if (is_given(key) && *value && strcmp(value, "auto")) value = "(given)";
    s->n += (size_t)snprintf(s->text + s->n, sizeof s->text - s->n, "%s = %s\n", key, value);
}

static ts_status check_settings(const ts_trainer *t)
{
    settings own = {0};
    int rank;
    int64_t at;
    ts_option_set_each(t->options, add_setting, &own);
    TS_TRY(ts_world_difference(t->world, "options", own.text, strlen(own.text) + 1, &rank, &at));
    if (rank < 0) return TS_OK;
    while (at > 0 && own.text[at - 1] != '\n') at--;
    return ts_world_agree(t->world,
                          TS_ERROR(TS_EUSAGE,
                                   "rank %d differs from rank 0, whose options have %.*s: give "
                                   "every rank the same options",
                                   rank, (int)strcspn(own.text + at, "\n"), own.text + at));
}

static uint64_t checksum(uint64_t crc, const ts_split *s)
{
    const Bytef *labels = (const Bytef *)(const void *)s->host_labels;
    return crc32_z((uLong)crc, labels, (size_t)s->n * sizeof *s->host_labels);
}

/* What follows from files, and from options that each rank may have its own of. */
static ts_status check_fit(ts_trainer *t)
{
    const ts_dataset *d = t->dataset;
    struct {
        uint64_t signature, labels;
        int64_t total, train, test;
        ts_echo echo;
    } shape = {ts_model_signature(t->model),
               checksum(checksum(0, &d->train), &d->test),
               t->total,
               d->train.n,
               d->test.n,
               ts_input_echo(t)};
    TS_TRY(ts_world_same(t->world,
                         "the model's layout, the number of steps, the samples and their labels, "
                         "or echo",
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
    if (ts_device_may_be_shared()) return TS_OK;
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
