/* checkpoint.c - see checkpoint.h. Vectors of parameters are saved tensor by tensor in PyTorch's
 * order, so a checkpoint does not depend on the layouts that a machine's op backends like. */
#include "runtime/train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/device/vector.h"
#include "runtime/train/safetensors.h"

#define FORMAT_VERSION "5"
enum { PATH_BYTES = 1024 };

/* ---- a growing list of tensors with memory of their own ---- */

typedef struct bag {
    ts_file_tensor *tensors;
    size_t n, capacity;
} bag;

static void bag_close(bag *b)
{
    for (size_t i = 0; i < b->n; i++) free((void *)(uintptr_t)b->tensors[i].data);
    free(b->tensors);
}

/* A tensor named prefix + name with `bytes` of fresh memory. */
static ts_status bag_add(bag *b, const char *prefix, const char *name, ts_file_type type,
                         size_t bytes, ts_file_tensor **tensor_p)
{
    if (b->n == b->capacity) {
        size_t capacity = b->capacity ? 2 * b->capacity : 128;
        ts_file_tensor *grown = realloc(b->tensors, capacity * sizeof *grown);
        TS_NEED(grown, TS_ENOMEM, "no memory for %zu tensors of a file", capacity);
        b->tensors = grown;
        b->capacity = capacity;
    }
    void *data = malloc(bytes ? bytes : 1);
    TS_NEED(data, TS_ENOMEM, "no memory for %zu bytes of %s%s", bytes, prefix, name);
    ts_file_tensor *t = &b->tensors[b->n++];
    *t = (ts_file_tensor){
        .type = type, .rank = 1, .shape = {(int64_t)bytes}, .bytes = bytes, .data = data};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    *tensor_p = t;
    return TS_OK;
}

static bool is_statistic(const ts_tensor *tensor)
{
    return tensor->role == TS_TENSOR_RUNNING_MEAN || tensor->role == TS_TENSOR_RUNNING_VARIANCE;
}

/* Every tensor of a vector of parameters, or of statistics. */
static ts_status bag_vector(bag *b, const char *prefix, ts_model *model, const float *vector,
                            bool statistics, ts_stream *stream)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(model, &n);
    for (int i = 0; i < n; i++) {
        ts_file_tensor *t = NULL;
        if (is_statistic(&tensors[i]) != statistics) continue;
        TS_TRY(
            bag_add(b, prefix, tensors[i].name, TS_FILE_F32, tensors[i].count * sizeof(float), &t));
        t->rank = tensors[i].rank;
        for (int d = 0; d < t->rank; d++) t->shape[d] = tensors[i].shape[d];
        TS_TRY(ts_model_read(model, &tensors[i], vector, (float *)(uintptr_t)t->data, stream));
    }
    return TS_OK;
}

static ts_status bag_bytes(bag *b, const char *name, const void *from, size_t bytes)
{
    ts_file_tensor *t = NULL;
    TS_TRY(bag_add(b, "", name, TS_FILE_U8, bytes, &t));
    memcpy((void *)(uintptr_t)t->data, from, bytes);
    return TS_OK;
}

/* ---- tensors of a file into device vectors ---- */

/* What a file's convolution adds as a bias comes off the running mean of the batch norm behind. */
static void fold_void_bias(const ts_safetensors *file, ts_model *model, const ts_tensor *mean,
                           float *plain)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(model, &n);
    for (int i = 0; i < n; i++) {
        if (tensors[i].role != TS_TENSOR_VOID_BIAS || tensors[i].node != mean->node) continue;
        const ts_file_tensor *bias = ts_safetensors_find(file, tensors[i].name);
        if (!bias || bias->type != TS_FILE_F32 || bias->bytes != mean->count * sizeof(float))
            continue;
        for (size_t c = 0; c < mean->count; c++) {
            float b;
            memcpy(&b, (const char *)bias->data + c * sizeof b, sizeof b);
            plain[c] -= b;
        }
    }
}

static ts_status take_vector(const ts_safetensors *file, const char *path, const char *prefix,
                             ts_model *model, float *vector, bool statistics, ts_stream *stream)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(model, &n);
    for (int i = 0; i < n; i++) {
        char name[TS_FILE_NAME_MAX];
        const ts_tensor *t = &tensors[i];
        if (is_statistic(t) != statistics || t->role == TS_TENSOR_VOID_BIAS) continue;
        snprintf(name, sizeof name, "%s%s", prefix, t->name);
        const ts_file_tensor *found = ts_safetensors_find(file, name);
        TS_NEED(found || strncmp(prefix, "algorithm.", 10), TS_EDATA,
                "%s has no %s: give the options that its run was given", path, name);
        TS_NEED(found, TS_EDATA, "%s has no tensor %s, which model %s needs", path, name,
                ts_model_name(model));
        bool same = found->type == TS_FILE_F32 && found->rank == t->rank;
        for (int d = 0; same && d < t->rank; d++) same = found->shape[d] == t->shape[d];
        TS_NEED(same, TS_EDATA,
                "%s: tensor %s has another shape or type than in model %s: is it of other data or "
                "another form of the model?",
                path, name, ts_model_name(model));
        float *plain = malloc(found->bytes ? found->bytes : 1);
        TS_NEED(plain, TS_ENOMEM, "no memory for tensor %s", name);
        memcpy(plain, found->data, found->bytes);
        if (t->role == TS_TENSOR_RUNNING_MEAN) fold_void_bias(file, model, t, plain);
        ts_status status = ts_model_write(model, t, vector, plain, stream);
        free(plain);
        TS_TRY(status);
    }
    return TS_OK;
}

static ts_status take_bytes(const ts_safetensors *file, const char *path, const char *name,
                            void *to, size_t bytes)
{
    const ts_file_tensor *found = ts_safetensors_find(file, name);
    TS_NEED(found, TS_EDATA, "%s has no %s: give the options that its run was given", path, name);
    TS_NEED(found->bytes == bytes, TS_EDATA, "%s: %s has %zu bytes, this version expects %zu", path,
            name, found->bytes, bytes);
    memcpy(to, found->data, bytes);
    return TS_OK;
}

/* ---- checkpoints in a folder ---- */

/* Step of a complete checkpoint's folder name, or -1. */
static int64_t name_step(const char *name)
{
    long long step;
    char rest;
    return sscanf(name, "step-%lld%c", &step, &rest) == 1 ? step : -1;
}

/* The n-th newest complete checkpoint in `folder` (0: the newest); false when there is none. */
static bool nth_newest(const char *folder, int n, char *path)
{
    int64_t below = INT64_MAX;
    char newest[256];
    for (; n >= 0; n--) {
        int64_t best = -1;
        DIR *entries = opendir(folder);
        if (!entries) return false;
        for (struct dirent *e = readdir(entries); e; e = readdir(entries)) {
            int64_t step = name_step(e->d_name);
            if (step <= best || step >= below) continue;
            best = step;
            snprintf(newest, sizeof newest, "%s", e->d_name);
        }
        closedir(entries);
        if (best < 0) return false;
        below = best;
    }
    return !ts_file_join(path, PATH_BYTES, folder, newest);
}

/* ---- the model alone ---- */

static ts_status add_batches(bag *b, ts_model *model, int64_t batches)
{
    int n;
    const ts_tensor *tensors = ts_model_tensors(model, &n);
    for (int i = 0; i < n; i++) {
        char name[TS_FILE_NAME_MAX];
        ts_file_tensor *t = NULL;
        if (tensors[i].role != TS_TENSOR_RUNNING_MEAN) continue;
        snprintf(name, sizeof name, "%.*s", (int)(strrchr(tensors[i].name, '.') - tensors[i].name),
                 tensors[i].name);
        TS_TRY(bag_add(b, name, ".num_batches_tracked", TS_FILE_I64, sizeof batches, &t));
        t->rank = 0;
        memcpy((void *)(uintptr_t)t->data, &batches, sizeof batches);
    }
    return TS_OK;
}

static ts_status export_bag(bag *b, ts_model *model, const float *parameters,
                            const float *statistics, int64_t batches, const char *path,
                            ts_stream *stream)
{
    const ts_file_pair words[] = {{"format", "pt"}, {"twinstream.model", ts_model_name(model)}};
    TS_TRY(bag_vector(b, "", model, parameters, false, stream));
    TS_TRY(bag_vector(b, "", model, statistics, true, stream));
    TS_TRY(add_batches(b, model, batches));
    return ts_safetensors_save(path, b->tensors, b->n, words, 2);
}

ts_status ts_model_export(ts_model *model, const float *parameters, const float *statistics,
                          int64_t batches, const char *path, ts_stream *stream)
{
    bag b = {0};
    ts_status status = export_bag(&b, model, parameters, statistics, batches, path, stream);
    bag_close(&b);
    return status;
}

static ts_status add_vector(ts_stream *stream, float *x, const float *y, float weight, size_t n)
{
    const ts_merge sum = {.n = n, .x = x, .average = y, .a = 1, .b = weight};
    TS_TRY(ts_vector_merge(stream, &sum));
    return ts_stream_sync(stream);
}

/* A number among a checkpoint's words, 0 when it is not there. */
static int64_t word_of(const ts_safetensors *file, const char *key)
{
    const char *found = ts_safetensors_metadata(file, key);
    return found ? atoll(found) : 0;
}

/* What a rank's file says of its run; 0 where it does not. */
typedef struct words {
    int64_t batch, size;
} words;

static ts_status import_file(ts_model *model, float *parameters, float *statistics,
                             const char *prefix, const char *path, ts_stream *stream, words *words)
{
    ts_safetensors *file;
    TS_TRY(ts_safetensors_open(path, &file));
    words->batch = word_of(file, "batch");
    words->size = word_of(file, "size");
    ts_status status = take_vector(file, path, prefix, model, parameters, false, stream);
    if (!status) status = take_vector(file, path, prefix, model, statistics, true, stream);
    ts_safetensors_close(file);
    return status;
}

static ts_status rank_file(char *path, const char *folder, int rank)
{
    char name[32];
    snprintf(name, sizeof name, "rank-%05d.safetensors", rank);
    return ts_file_join(path, PATH_BYTES, folder, name);
}

/* The consensus model of a checkpoint: the mean over its ranks, weighted by their batches. */
static ts_status import_ranks(ts_model *model, float *parameters, float *statistics,
                              const char *folder, float *more, float *more_statistics,
                              ts_stream *stream)
{
    const ts_flat *flat = ts_model_flat(model);
    char path[PATH_BYTES];
    TS_TRY(rank_file(path, folder, 0));
    TS_NEED(ts_file_exists(path), TS_EDATA,
            "%s holds no model.safetensors, no checkpoints and no rank-00000.safetensors: give the "
            "folder of a run or of a checkpoint, or a model's file",
            folder);
    words first, other;
    float sum = 1; /* of weights; rank 0's is 1 */
    TS_TRY(import_file(model, parameters, statistics, "model.", path, stream, &first));
    for (int rank = 1; rank < first.size; rank++) {
        TS_TRY(rank_file(path, folder, rank));
        TS_NEED(ts_file_exists(path), TS_EDATA,
                "%s is missing: the checkpoint is of %lld ranks, and its model is the mean of "
                "theirs; put all their files into one folder",
                path, (long long)first.size);
        TS_TRY(import_file(model, more, more_statistics, "model.", path, stream, &other));
        float weight =
            first.batch > 0 && other.batch > 0 ? (float)other.batch / (float)first.batch : 1;
        TS_TRY(add_vector(stream, parameters, more, weight, flat->n));
        TS_TRY(add_vector(stream, statistics, more_statistics, weight, flat->n_statistics));
        sum += weight;
    }
    TS_TRY(ts_vector_scale(stream, flat->n, parameters, 1 / sum));
    TS_TRY(ts_vector_scale(stream, flat->n_statistics, statistics, 1 / sum));
    return ts_stream_sync(stream);
}

static bool is_older(const struct stat *a, const struct stat *b)
{
    const struct timespec *s = &a->st_mtim, *t = &b->st_mtim;
    return s->tv_sec < t->tv_sec || (s->tv_sec == t->tv_sec && s->tv_nsec < t->tv_nsec);
}

/* A run's folder stands for its model or its newest checkpoint, the later one: a run that goes on
 * leaves its model where it is until it ends. */
static ts_status find_model(const char *from, char *path)
{
    char all[PATH_BYTES], model[PATH_BYTES];
    struct stat ours, newest;
    snprintf(path, PATH_BYTES, "%s", from);
    TS_TRY(ts_file_join(all, sizeof all, from, "checkpoints"));
    TS_TRY(ts_file_join(model, sizeof model, from, "model.safetensors"));
    bool saved = nth_newest(all, 0, path) && !stat(path, &newest);
    if (!stat(model, &ours) && (!saved || is_older(&newest, &ours)))
        snprintf(path, PATH_BYTES, "%s", model);
    if (strcmp(path, from)) ts_info("weights of %s", path);
    return TS_OK;
}

ts_status ts_model_import(ts_model *model, float *parameters, float *statistics, const char *from,
                          ts_stream *stream)
{
    const ts_flat *flat = ts_model_flat(model);
    char path[PATH_BYTES];
    float *more = NULL, *more_statistics = NULL;
    ts_status status;
    TS_TRY(find_model(from, path));
    /* padding of the vectors stays zero */
    TS_TRY(ts_stream_fill(stream, parameters, 0, flat->n * sizeof(float)));
    TS_TRY(ts_stream_fill(stream, statistics, 0, flat->n_statistics * sizeof(float)));
    if (!ts_file_is_folder(path)) {
        words none;
        return import_file(model, parameters, statistics, "", path, stream, &none);
    }
    TS_TRY_TO(
        status, out,
        ts_device_alloc(stream->device, TS_MEMORY_DEVICE, flat->n * sizeof(float), (void **)&more));
    TS_TRY_TO(status, out,
              ts_device_alloc(stream->device, TS_MEMORY_DEVICE,
                              (flat->n_statistics + 1) * sizeof(float), (void **)&more_statistics));
    TS_TRY_TO(status, out, ts_stream_fill(stream, more, 0, flat->n * sizeof(float)));
    TS_TRY_TO(status, out,
              ts_stream_fill(stream, more_statistics, 0, flat->n_statistics * sizeof(float)));
    status = import_ranks(model, parameters, statistics, path, more, more_statistics, stream);
out:
    ts_device_release(stream->device, TS_MEMORY_DEVICE, more_statistics);
    ts_device_release(stream->device, TS_MEMORY_DEVICE, more);
    return status;
}

/* ---- checkpoints: saving ---- */

/* A host part is one tensor of this name; a vector's tensors have it as prefix. */
static void part_name(char *name, const ts_part *part)
{
    snprintf(name, TS_FILE_NAME_MAX, "algorithm.%.31s%s", part->name,
             part->kind == TS_PART_HOST ? "" : ".");
}

static ts_status parts_of(ts_trainer *t, ts_part *parts, int *n_p)
{
    const ts_algorithm_ops *ops = t->algorithm->ops;
    *n_p = ops->state ? ops->state(t->algorithm, parts, TS_PARTS_MAX) : 0;
    TS_NEED(*n_p < TS_PARTS_MAX, TS_EUSAGE,
            "%s has more than %d vectors to save: lower --delay or raise --period", ops->name,
            TS_PARTS_MAX - 1);
    return TS_OK;
}

static ts_status fill_bag(bag *b, ts_trainer *t)
{
    const ts_flat *flat = ts_model_flat(t->model);
    ts_control control;
    ts_part parts[TS_PARTS_MAX];
    TS_TRY(bag_vector(b, "model.", t->model, flat->parameters, false, t->compute));
    TS_TRY(bag_vector(b, "model.", t->model, flat->statistics, true, t->compute));
    TS_TRY(bag_vector(b, "momentum.", t->model, flat->momentum, false, t->compute));
    TS_TRY(ts_stream_copy(t->compute, &control, t->control, sizeof control));
    TS_TRY(ts_stream_sync(t->compute));
    TS_TRY(bag_bytes(b, "control", &control, sizeof control));
    int n;
    TS_TRY(parts_of(t, parts, &n));
    for (int i = 0; i < n; i++) {
        char name[TS_FILE_NAME_MAX];
        part_name(name, &parts[i]);
        if (parts[i].kind == TS_PART_HOST) {
            TS_TRY(bag_bytes(b, name, parts[i].at, parts[i].bytes));
            continue;
        }
        TS_TRY(bag_vector(b, name, t->model, parts[i].at, parts[i].kind == TS_PART_STATISTICS,
                          t->compute));
    }
    return TS_OK;
}

static ts_status save_rank(ts_trainer *t, const char *folder)
{
    char path[PATH_BYTES], rank[16], size[16], step[32], period[32], delay[32];
    char batch[16], global[32];
    snprintf(rank, sizeof rank, "%d", t->world->rank);
    snprintf(size, sizeof size, "%d", t->world->size);
    snprintf(step, sizeof step, "%lld", (long long)t->step);
    snprintf(period, sizeof period, "%lld", (long long)t->config->algorithm_config.period);
    snprintf(delay, sizeof delay, "%lld", (long long)t->config->algorithm_config.delay);
    snprintf(batch, sizeof batch, "%d", t->shard.batch);
    snprintf(global, sizeof global, "%lld", (long long)t->shard.global);
    const ts_file_pair words[] = {{"format", "twinstream-checkpoint"},
                                  {"version", FORMAT_VERSION},
                                  {"model", ts_model_name(t->model)},
                                  {"algorithm", t->config->algorithm},
                                  {"rank", rank},
                                  {"size", size},
                                  {"step", step},
                                  {"period", period},
                                  {"delay", delay},
                                  {"compress", t->config->compression.name},
                                  {"batch", batch},
                                  {"global-batch", global}};
    bag b = {0};
    ts_status status = ts_file_make_folder(folder);
    if (!status) status = rank_file(path, folder, t->world->rank);
    if (!status) status = fill_bag(&b, t);
    if (!status)
        status = ts_safetensors_save(path, b.tensors, b.n, words, sizeof words / sizeof *words);
    bag_close(&b);
    return status;
}

ts_status ts_checkpoint_check_folder(const ts_trainer *t)
{
    char all[PATH_BYTES], newest[PATH_BYTES];
    TS_TRY(ts_file_join(all, sizeof all, t->run, "checkpoints"));
    if (!nth_newest(all, 0, newest)) return TS_OK;
    int64_t step = name_step(strrchr(newest, '/') + 1);
    TS_NEED(
        step <= t->step, TS_EUSAGE,
        "%s is there already, of a later step than local step %lld, where this run begins, so "
        "it would be taken for this run's newest: name another folder with --run, remove it, or "
        "go on from it with --resume",
        newest, (long long)t->step);
    return TS_OK;
}

typedef struct places {
    char all[PATH_BYTES], folder[PATH_BYTES], partial[PATH_BYTES + 16];
} places;

/* Rename; where the name is gone, a host that shares the folder has renamed it. Only the rename
 * itself tells: a network's file system may answer other questions from memory. */
static ts_status publish(const ts_trainer *t, const places *p)
{
    int failed = rename(p->partial, p->folder) ? errno : 0;
    if (failed == ENOENT && t->world->rank) return TS_OK;
    if (failed == ENOTEMPTY || failed == EEXIST) { /* an earlier try of the same step */
        TS_TRY(ts_file_remove_folder(p->folder));
        failed = rename(p->partial, p->folder) ? errno : 0;
    }
    TS_NEED(!failed, TS_EIO, "cannot rename %s to %s: %s", p->partial, p->folder, strerror(failed));
    TS_TRY(ts_file_sync(p->all));
    return ts_file_sync(t->run);
}

static ts_status prune(const ts_trainer *t, const places *p)
{
    char old[PATH_BYTES];
    while (nth_newest(p->all, (int)t->config->keep, old)) TS_TRY(ts_file_remove_folder(old));
    return TS_OK;
}

/* Hosts may share the folder or not: rank 0 acts on what its host sees, then one rank of each other
 * host on what is still there. All at once, one could remove what another has published. */
static ts_status on_each_host(ts_trainer *t, const places *p,
                              ts_status (*act)(const ts_trainer *t, const places *p))
{
    bool first = t->world->rank == 0, leads = t->world->local_rank == 0;
    TS_TRY(ts_world_agree(t->world, first ? act(t, p) : TS_OK));
    return ts_world_agree(t->world, leads && !first ? act(t, p) : TS_OK);
}

ts_status ts_checkpoint_save(ts_trainer *t)
{
    places p;
    char name[64];
    ts_log_set_phase("checkpoint of local step %lld", (long long)t->step);
    TS_TRY(ts_stream_sync(t->compute));
    TS_TRY(ts_stream_sync(t->comm));
    snprintf(name, sizeof name, "step-%08lld", (long long)t->step);
    TS_TRY(ts_file_join(p.all, sizeof p.all, t->run, "checkpoints"));
    TS_TRY(ts_file_join(p.folder, sizeof p.folder, p.all, name));
    snprintf(p.partial, sizeof p.partial, "%s.partial", p.folder);
    ts_status status = ts_world_agree(t->world, save_rank(t, p.partial));
    if (status) {
        char previous[PATH_BYTES] = "none";
        nth_newest(p.all, 0, previous);
        if (*ts_trail_message())
            ts_warn("the checkpoint of local step %lld was not saved; the previous checkpoint is "
                    "intact: %s",
                    (long long)t->step, previous);
        char trail[4096];
        snprintf(trail, sizeof trail, "%s", ts_trail());
        if (!t->world->local_rank) (void)ts_file_remove_folder(p.partial);
        ts_trail_set(trail);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    TS_TRY(on_each_host(t, &p, publish));
    TS_TRY(on_each_host(t, &p, prune)); /* when all hosts have the new one */
    ts_info("saved %s", p.folder);
    return TS_OK;
}

/* ---- checkpoints: loading ---- */

bool ts_checkpoint_exists(const char *run)
{
    char all[PATH_BYTES], path[PATH_BYTES];
    return !ts_file_join(all, sizeof all, run, "checkpoints") && nth_newest(all, 0, path);
}

static ts_status check_words(const ts_trainer *t, const ts_safetensors *file, const char *path)
{
    const char *format = ts_safetensors_metadata(file, "format");
    TS_NEED(format && !strcmp(format, "twinstream-checkpoint"), TS_EDATA,
            "%s is no checkpoint; a model file is read with --weights", path);
    const char *version = ts_safetensors_metadata(file, "version");
    TS_NEED(version && !strcmp(version, FORMAT_VERSION), TS_EDATA,
            "%s has checkpoint version %s, this program reads version %s: use the program that "
            "wrote it",
            path, version ? version : "(none)", FORMAT_VERSION);
    const char *size = ts_safetensors_metadata(file, "size");
    TS_NEED(size && atoi(size) == t->world->size, TS_EDATA,
            "%s is of %s ranks, this run has %d: resume with %s ranks, or start from its model "
            "with --weights",
            path, size ? size : "?", t->world->size, size ? size : "?");
    const struct {
        const char *key, *mine, *absent;
    } names[] = {{"model", ts_model_name(t->model), NULL},
                 {"algorithm", t->config->algorithm, NULL},
                 {"compress", t->config->compression.name, "none"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *found = ts_safetensors_metadata(file, names[i].key);
        if (!found) found = names[i].absent;
        TS_NEED(found && !strcmp(found, names[i].mine), TS_EDATA,
                "%s is of %s %s, this run's is %s: give --%s %s", path, names[i].key,
                found ? found : "?", names[i].mine, names[i].key, found ? found : "?");
    }
    return TS_OK;
}

/* Without what a method had in flight, or left out, it would go on as another one. */
static ts_status check_all_taken(const ts_safetensors *file, const char *path, const ts_part *parts,
                                 int n)
{
    const ts_file_tensor *tensor;
    for (size_t i = 0; (tensor = ts_safetensors_at(file, i)); i++) {
        bool taken = strncmp(tensor->name, "algorithm.", strlen("algorithm.")) != 0;
        for (int j = 0; j < n && !taken; j++) {
            char name[TS_FILE_NAME_MAX];
            part_name(name, &parts[j]);
            taken = parts[j].kind == TS_PART_HOST ? !strcmp(tensor->name, name)
                                                  : !strncmp(tensor->name, name, strlen(name));
        }
        TS_NEED(taken, TS_EDATA,
                "%s holds %s, which this run would not take up: give the options of the run that "
                "wrote it (its config)",
                path, tensor->name);
    }
    return TS_OK;
}

static ts_status take_rank(ts_trainer *t, const ts_safetensors *file, const char *path)
{
    const ts_flat *flat = ts_model_flat(t->model);
    ts_control control;
    ts_part parts[TS_PARTS_MAX];
    TS_TRY(check_words(t, file, path));
    TS_TRY(take_vector(file, path, "model.", t->model, flat->parameters, false, t->compute));
    TS_TRY(take_vector(file, path, "model.", t->model, flat->statistics, true, t->compute));
    TS_TRY(take_vector(file, path, "momentum.", t->model, flat->momentum, false, t->compute));
    TS_TRY(take_bytes(file, path, "control", &control, sizeof control));
    control.learning_rate = ts_schedule_rate(&t->schedule, control.step);
    control.seed = (uint64_t)t->config->seed;
    control.averaging_weight = (float)t->shard.batch / (float)t->shard.global;
    int64_t batch = word_of(file, "batch");
    if (batch > 0 && batch != t->shard.batch && word_of(file, "global-batch") == t->shard.global) {
        ts_info("rank 0's batch was %lld in the checkpoint's run and is %d now, by --shares",
                (long long)batch, t->shard.batch);
        control.position = control.position * t->shard.batch / batch;
    }
    TS_TRY(ts_stream_copy(t->compute, t->control, &control, sizeof control));
    TS_TRY(ts_stream_sync(t->compute));
    int n;
    TS_TRY(parts_of(t, parts, &n));
    for (int i = 0; i < n; i++) {
        char name[TS_FILE_NAME_MAX];
        part_name(name, &parts[i]);
        if (parts[i].kind == TS_PART_HOST) {
            TS_TRY(take_bytes(file, path, name, parts[i].at, parts[i].bytes));
            continue;
        }
        TS_TRY(take_vector(file, path, name, t->model, parts[i].at,
                           parts[i].kind == TS_PART_STATISTICS, t->compute));
    }
    TS_TRY(check_all_taken(file, path, parts, n));
    if (flat->shadow)
        TS_TRY(ts_vector_to_bf16(t->compute, flat->n, flat->shadow, flat->parameters));
    TS_TRY(ts_stream_sync(t->compute));
    t->step = control.step;
    return TS_OK;
}

/* This rank's file in a checkpoint's folder, or in the newest of a run's. */
static ts_status open_rank(const ts_trainer *t, const char *from, char *folder, char *path,
                           ts_safetensors **file_p)
{
    char all[PATH_BYTES];
    snprintf(folder, PATH_BYTES, "%s", from);
    TS_TRY(ts_file_join(all, sizeof all, from, "checkpoints"));
    nth_newest(all, 0, folder);
    TS_TRY(rank_file(path, folder, t->world->rank));
    TS_NEED(ts_file_exists(path), TS_EDATA,
            "no checkpoint in %s: %s is missing; give a folder checkpoints/step-N, or the run's",
            from, path);
    return ts_safetensors_open(path, file_p);
}

static ts_status load_rank(ts_trainer *t, const char *from)
{
    char path[PATH_BYTES], folder[PATH_BYTES];
    ts_safetensors *file;
    TS_TRY(open_rank(t, from, folder, path, &file));
    ts_status status = take_rank(t, file, path);
    ts_safetensors_close(file);
    TS_TRY(status);
    ts_info("resuming %s after local step %lld", folder, (long long)t->step);
    return TS_OK;
}

static ts_status read_schedule(const ts_trainer *t, const char *from, int64_t schedule[2])
{
    static const char *const keys[] = {"period", "delay"};
    char path[PATH_BYTES], folder[PATH_BYTES];
    ts_safetensors *file;
    ts_status status = TS_OK;
    TS_TRY(open_rank(t, from, folder, path, &file));
    for (int i = 0; i < 2 && !status; i++) {
        const char *found = ts_safetensors_metadata(file, keys[i]);
        schedule[i] = found ? atoll(found) : 0;
        if (schedule[i] < 1)
            status =
                TS_ERROR(TS_EDATA, "%s does not say its %s: give --%s", path, keys[i], keys[i]);
    }
    ts_safetensors_close(file);
    return status;
}

ts_status ts_checkpoint_schedule(ts_trainer *t, const char *from, int64_t *period_p,
                                 int64_t *delay_p)
{
    int64_t schedule[2] = {0, 0};
    TS_TRY(ts_world_agree(t->world, read_schedule(t, from, schedule)));
    TS_TRY(ts_world_same(t->world, "the period of the checkpoint", schedule, sizeof schedule));
    *period_p = schedule[0];
    *delay_p = schedule[1];
    return TS_OK;
}

static ts_status read_batch(const ts_trainer *t, const char *from, int *batch_p)
{
    char path[PATH_BYTES], folder[PATH_BYTES];
    ts_safetensors *file;
    TS_TRY(open_rank(t, from, folder, path, &file));
    ts_status status = check_words(t, file, path);
    *batch_p = word_of(file, "global-batch") == t->shard.global ? (int)word_of(file, "batch") : 0;
    ts_safetensors_close(file);
    return status;
}

ts_status ts_checkpoint_batches(ts_trainer *t, const char *from, int *batches, bool *found_p)
{
    int64_t sum = 0;
    int batch = 0;
    TS_TRY(ts_world_agree(t->world, read_batch(t, from, &batch)));
    TS_TRY(t->world->ops->all_gather(t->world, &batch, batches, sizeof batch));
    *found_p = true;
    for (int r = 0; r < t->world->size; r++) {
        *found_p &= batches[r] > 0;
        sum += batches[r];
    }
    *found_p &= sum == t->shard.global;
    return TS_OK;
}

ts_status ts_checkpoint_load(ts_trainer *t, const char *from)
{
    ts_log_set_phase("resume from %s", from);
    TS_TRY(ts_world_agree(t->world, load_rank(t, from)));
    TS_TRY(ts_world_same(t->world, "the local step of the checkpoint", &t->step, sizeof t->step));
    ts_log_set_phase("start-up");
    return TS_OK;
}
