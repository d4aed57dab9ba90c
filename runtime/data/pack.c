/* pack.c - a folder of class folders becomes a records file (records.h). Pictures are read and
 * decoded by all cores, a group at a time, and written in order by one. */
#include <dirent.h>
#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/data/dataset.h"
#include "runtime/data/records.h"

enum { GROUP = 64, PATH_BYTES = 2048 };
#define TELL_NS INT64_C(5000000000)

/* ---- names in folders ---- */

typedef struct names {
    char **all;
    size_t n, room;
} names;

static void names_free(names *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->all[i]);
    free(l->all);
    *l = (names){0};
}

static ts_status names_add(names *l, const char *name)
{
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        char **grown = realloc(l->all, room * sizeof *grown);
        TS_NEED(grown, TS_ENOMEM, "no memory for %zu names", room);
        l->all = grown;
        l->room = room;
    }
    char *copy = strdup(name);
    TS_NEED(copy, TS_ENOMEM, "no memory for a name");
    l->all[l->n++] = copy;
    return TS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_jpeg(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

/* Folders in `path`, or JPEG files (others are counted), sorted; hidden ones are passed over. */
static ts_status list(const char *path, bool folders, names *found, int64_t *others_p)
{
    DIR *entries = opendir(path);
    TS_NEED(entries, TS_EDATA, "cannot read the folder %s: %s", path, strerror(errno));
    ts_status status = TS_OK;
    for (struct dirent *e; !status && (e = readdir(entries));) {
        char inner[PATH_BYTES];
        if (*e->d_name == '.') continue;
        status = ts_file_join(inner, sizeof inner, path, e->d_name);
        if (status) break;
        bool folder = ts_file_is_folder(inner);
        if (folder == folders && (folders || is_jpeg(e->d_name)))
            status = names_add(found, e->d_name);
        else
            ++*others_p;
    }
    closedir(entries);
    if (found->n) qsort(found->all, found->n, sizeof *found->all, by_name);
    return status;
}

/* ---- what is being packed ---- */

typedef struct picture {
    void *bytes;
    size_t n;
    int width, height;
    uint64_t sum[3], squares[3]; /* of its pixels */
    ts_status status;
    char trail[512];
} picture;

typedef struct packer {
    FILE *file;
    char partial[PATH_BYTES];
    bool skip_bad;
    ts_records_header header;
    ts_records_entry *entries;
    size_t n, room;
    uint64_t at;
    double sum[3], squares[3], pixels;
    ts_jpeg **jpegs; /* of each thread */
    int threads;
    picture pictures[GROUP];
    names classes;
    int64_t told_ns; /* how far it is */
    ts_pack_result *result;
} packer;

static void add_up(const ts_pixels *p, picture *to)
{
    memset(to->sum, 0, sizeof to->sum);
    memset(to->squares, 0, sizeof to->squares);
    for (size_t i = 0; i < 3 * (size_t)p->w * (size_t)p->h; i += 3)
        for (int c = 0; c < 3; c++) {
            unsigned v = p->rgb[i + (size_t)c];
            to->sum[c] += v;
            to->squares[c] += (uint64_t)v * v;
        }
}

static ts_status read_picture(ts_jpeg *jpeg, const char *path, picture *p)
{
    ts_pixels pixels;
    TS_TRY(ts_file_read(path, &p->bytes, &p->n));
    TS_NEED(p->n < UINT32_MAX, TS_EDATA, "%s has %zu bytes, which is more than a record may have",
            path, p->n);
    TS_TRY(ts_jpeg_size(jpeg, p->bytes, p->n, path, &p->width, &p->height));
    TS_NEED(p->width <= UINT16_MAX && p->height <= UINT16_MAX, TS_EDATA,
            "%s is %d x %d, at most %d are possible", path, p->width, p->height, UINT16_MAX);
    TS_TRY(ts_jpeg_decode(jpeg, p->bytes, p->n, path, 8, 0, p->height, &pixels));
    add_up(&pixels, p);
    return TS_OK;
}

static ts_status write_bytes(packer *k, const void *bytes, size_t n)
{
    TS_NEED(fwrite(bytes, 1, n, k->file) == n, TS_EIO, "cannot write %s: %s", k->partial,
            strerror(errno));
    k->at += n;
    return TS_OK;
}

static ts_status add_entry(packer *k, const picture *p, size_t label, bool train)
{
    if (k->n == k->room) {
        size_t room = k->room ? 2 * k->room : 1024;
        ts_records_entry *grown = realloc(k->entries, room * sizeof *grown);
        TS_NEED(grown, TS_ENOMEM, "no memory for an index of %zu pictures", room);
        k->entries = grown;
        k->room = room;
    }
    k->entries[k->n++] = (ts_records_entry){.at = k->at,
                                            .bytes = (uint32_t)p->n,
                                            .crc = (uint32_t)crc32_z(0, p->bytes, p->n),
                                            .width = (uint16_t)p->width,
                                            .height = (uint16_t)p->height,
                                            .label = (uint16_t)label};
    TS_TRY(write_bytes(k, p->bytes, p->n));
    for (int c = 0; c < 3 && train; c++) {
        k->sum[c] += (double)p->sum[c];
        k->squares[c] += (double)p->squares[c];
    }
    if (train) k->pixels += (double)p->width * p->height;
    return TS_OK;
}

/* Read and decode a group at once, then write it. */
static ts_status pack_group(packer *k, const char *folder, char **files, size_t n, size_t label,
                            bool train)
{
    char paths[GROUP][PATH_BYTES];
    ts_status status = TS_OK;
    for (size_t i = 0; i < n; i++)
        TS_TRY(ts_file_join(paths[i], sizeof paths[i], folder, files[i]));
#pragma omp parallel for schedule(dynamic, 1) num_threads(k->threads)
    for (size_t i = 0; i < n; i++) {
        picture *p = &k->pictures[i];
        p->bytes = NULL;
        p->status = read_picture(k->jpegs[omp_get_thread_num()], paths[i], p);
        if (p->status) snprintf(p->trail, sizeof p->trail, "%s", ts_trail());
        ts_trail_clear();
    }
    for (size_t i = 0; i < n; i++) {
        picture *p = &k->pictures[i];
        if (!p->status && !status) {
            status = add_entry(k, p, label, train);
        } else if (!status && p->status == TS_EDATA && k->skip_bad) {
            p->trail[strcspn(p->trail, "\n")] = 0;
            ts_warn("left out: %s", p->trail);
            k->result->left_out++;
        } else if (!status) {
            ts_trail_set(p->trail);
            status = p->status;
        }
        free(p->bytes);
    }
    return status;
}

static ts_status pack_class(packer *k, const char *folder, size_t label, bool train)
{
    names files = {0};
    ts_status status = list(folder, false, &files, &k->result->others);
    if (!status && !files.n)
        status = TS_ERROR(TS_EDATA,
                          "%s has no JPEG picture (.jpg, .jpeg): give a folder whose train/ and "
                          "val/ have a folder of pictures for each class",
                          folder);
    for (size_t i = 0; i < files.n && !status; i += GROUP)
        status = pack_group(k, folder, files.all + i, files.n - i < GROUP ? files.n - i : GROUP,
                            label, train);
    names_free(&files);
    return status;
}

/* All of a split; `train` names the classes, the test split must have no other. */
static ts_status pack_split(packer *k, const char *folder, bool train, int64_t *n_p)
{
    names classes = {0};
    size_t before = k->n;
    ts_status status = list(folder, true, &classes, &k->result->others);
    if (!status && !classes.n)
        status = TS_ERROR(TS_EDATA, "%s has no folders, one for each class", folder);
    if (!status && classes.n > UINT16_MAX)
        status = TS_ERROR(TS_EDATA, "%s has %zu classes, at most %d are possible", folder,
                          classes.n, UINT16_MAX);
    for (size_t i = 0; i < classes.n && !status; i++) {
        char path[PATH_BYTES];
        if (train) status = names_add(&k->classes, classes.all[i]);
        if (status) break;
        char **found =
            bsearch(&classes.all[i], k->classes.all, k->classes.n, sizeof *found, by_name);
        if (!found) {
            status = TS_ERROR(TS_EDATA, "%s has the class \"%s\", which train/ has not", folder,
                              classes.all[i]);
            break;
        }
        status = ts_file_join(path, sizeof path, folder, classes.all[i]);
        if (!status) status = pack_class(k, path, (size_t)(found - k->classes.all), train);
        if (!status && ts_clock_ns() > k->told_ns + TELL_NS) {
            ts_log_progress("%s: class %zu of %zu, %zu pictures", folder, i + 1, classes.n, k->n);
            k->told_ns = ts_clock_ns();
        }
    }
    names_free(&classes);
    *n_p = (int64_t)(k->n - before);
    if (!status && !*n_p) status = TS_ERROR(TS_EDATA, "no picture of %s can be read", folder);
    return status;
}

/* ---- the file ---- */

static ts_status write_end(packer *k)
{
    ts_records_header *h = &k->header;
    h->classes = (uint32_t)k->classes.n;
    h->train = (uint64_t)k->result->train;
    h->test = (uint64_t)k->result->test;
    h->index_at = k->at;
    h->crc_index = (uint32_t)crc32_z(0, (const Bytef *)k->entries, k->n * sizeof *k->entries);
    TS_TRY(write_bytes(k, k->entries, k->n * sizeof *k->entries));
    h->names_at = k->at;
    for (size_t i = 0; i < k->classes.n; i++) {
        char line[PATH_BYTES];
        int n = snprintf(line, sizeof line, "%s\n", k->classes.all[i]);
        h->crc_index = (uint32_t)crc32(h->crc_index, (const Bytef *)line, (uInt)n);
        TS_TRY(write_bytes(k, line, (size_t)n));
    }
    h->file_bytes = k->at;
    for (int c = 0; c < 3; c++)
        ts_dataset_moments(k->sum[c], k->squares[c], k->pixels, &h->mean[c], &h->std[c]);
    h->crc_header = (uint32_t)crc32(0, (const Bytef *)h, offsetof(ts_records_header, crc_header));
    bool good =
        !fseek(k->file, 0, SEEK_SET) && fwrite(h, sizeof *h, 1, k->file) == 1 && !fflush(k->file);
    TS_NEED(good, TS_EIO, "cannot write %s: %s", k->partial, strerror(errno));
    return ts_file_sync(k->partial);
}

static ts_status pack_all(packer *k, const char *folder)
{
    char train[PATH_BYTES], test[PATH_BYTES];
    memcpy(k->header.magic, TS_RECORDS_MAGIC, sizeof k->header.magic);
    k->header.version = TS_RECORDS_VERSION;
    TS_TRY(ts_file_join(train, sizeof train, folder, "train"));
    TS_TRY(ts_file_join(test, sizeof test, folder, "val"));
    if (!ts_file_is_folder(test)) TS_TRY(ts_file_join(test, sizeof test, folder, "test"));
    TS_NEED(ts_file_is_folder(train) && ts_file_is_folder(test), TS_EDATA,
            "%s has no folder %s: it needs train/ and val/ (or test/), each with a folder of "
            "pictures for each class",
            folder, ts_file_is_folder(train) ? "val" : "train");
    TS_TRY(write_bytes(k, &k->header, sizeof k->header));
    TS_TRY(pack_split(k, train, true, &k->result->train));
    TS_TRY(pack_split(k, test, false, &k->result->test));
    TS_TRY(write_end(k));
    k->result->classes = (int64_t)k->classes.n;
    k->result->bytes = (double)k->at;
    return TS_OK;
}

static ts_status open_file(packer *k, const char *out)
{
    k->threads = omp_get_max_threads();
    k->jpegs = calloc((size_t)k->threads, sizeof *k->jpegs);
    TS_NEED(k->jpegs, TS_ENOMEM, "no memory for %d decoders", k->threads);
    for (int i = 0; i < k->threads; i++) TS_TRY(ts_jpeg_open(&k->jpegs[i]));
    int n = snprintf(k->partial, sizeof k->partial, "%s.partial", out);
    TS_NEED((size_t)n < sizeof k->partial, TS_EUSAGE, "the path %s is too long", out);
    k->file = fopen(k->partial, "wb");
    TS_NEED(k->file, TS_EIO, "cannot write %s: %s", k->partial, strerror(errno));
    return TS_OK;
}

ts_status ts_records_pack(const char *folder, const char *out, bool skip_bad,
                          ts_pack_result *result)
{
    *result = (ts_pack_result){0};
    packer *k = calloc(1, sizeof *k);
    TS_NEED(k, TS_ENOMEM, "no memory for a packer");
    k->skip_bad = skip_bad;
    k->told_ns = ts_clock_ns();
    k->result = result;
    ts_status status = open_file(k, out);
    if (!status) status = pack_all(k, folder);
    if (k->file && fclose(k->file) && !status)
        status = TS_ERROR(TS_EIO, "cannot write %s: %s", k->partial, strerror(errno));
    if (!status && rename(k->partial, out))
        status = TS_ERROR(TS_EIO, "cannot rename %s to %s: %s", k->partial, out, strerror(errno));
    if (status && k->file) unlink(k->partial);
    for (int i = 0; k->jpegs && i < k->threads; i++) ts_jpeg_close(k->jpegs[i]);
    free(k->jpegs);
    names_free(&k->classes);
    free(k->entries);
    free(k);
    return status;
}
