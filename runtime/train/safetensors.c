/* safetensors.c - the format: 8 bytes of header length, little-endian; the header, JSON, padded
 * with spaces; the tensors' bytes, one after the other. */
#include "runtime/train/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/base/file.h"

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [TS_FILE_F32] = {"F32", 4},
    [TS_FILE_BF16] = {"BF16", 2},
    [TS_FILE_I64] = {"I64", 8},
    [TS_FILE_U8] = {"U8", 1},
};
enum { N_TYPES = sizeof types / sizeof *types };

/* ---- writing ---- */

static ts_status make_header(const char *path, const ts_file_tensor *tensors, size_t n,
                             const ts_file_pair *metadata, size_t n_metadata, char **text_p)
{
    uLong crc = crc32(0, NULL, 0);
    size_t at = 0;
    json_t *root = json_object(), *words = json_object();
    for (size_t i = 0; i < n; i++) {
        json_t *shape = json_array();
        for (int d = 0; d < tensors[i].rank; d++)
            json_array_append_new(shape, json_integer(tensors[i].shape[d]));
        json_object_set_new(root, tensors[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[tensors[i].type].name,
                                      "shape", shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + tensors[i].bytes)));
        crc = crc32_z(crc, tensors[i].data, tensors[i].bytes);
        at += tensors[i].bytes;
    }
    char number[16];
    snprintf(number, sizeof number, "%08lx", crc);
    json_object_set_new(words, "crc32", json_string(number));
    for (size_t i = 0; i < n_metadata; i++)
        json_object_set_new(words, metadata[i].key, json_string(metadata[i].value));
    json_object_set_new(root, "__metadata__", words);
    *text_p = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    TS_NEED(*text_p, TS_ENOMEM, "no memory for the header of %s", path);
    return TS_OK;
}

static bool write_parts(FILE *file, const char *header, const ts_file_tensor *tensors, size_t n)
{
    size_t length = strlen(header), padding = (8 - length % 8) % 8;
    uint64_t total = length + padding;
    unsigned char little[8];
    for (int i = 0; i < 8; i++) little[i] = (unsigned char)(total >> (8 * i));
    if (fwrite(little, 1, 8, file) != 8 || fwrite(header, 1, length, file) != length ||
        fwrite("       ", 1, padding, file) != padding)
        return false;
    for (size_t i = 0; i < n; i++)
        if (fwrite(tensors[i].data, 1, tensors[i].bytes, file) != tensors[i].bytes) return false;
    return !fflush(file) && !fsync(fileno(file));
}

static ts_status sync_parent(const char *path)
{
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", path);
    return ts_file_sync(dirname(copy));
}

ts_status ts_safetensors_save(const char *path, const ts_file_tensor *tensors, size_t n,
                              const ts_file_pair *metadata, size_t n_metadata)
{
    char temporary[1024], *header;
    int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    TS_NEED((size_t)length < sizeof temporary, TS_EUSAGE, "the path %s is too long", path);
    TS_TRY(make_header(path, tensors, n, metadata, n_metadata, &header));
    FILE *file = fopen(temporary, "wb");
    int reason = errno;
    bool written = file && write_parts(file, header, tensors, n);
    if (file && !written) reason = errno;
    free(header);
    if (file && fclose(file) && written) {
        written = false;
        reason = errno;
    }
    if (written && rename(temporary, path)) {
        written = false;
        reason = errno;
    }
    if (!written) {
        if (file) unlink(temporary);
        return TS_ERROR(TS_EIO, "cannot write %s: %s", path, strerror(reason));
    }
    return sync_parent(path);
}

/* ---- reading ---- */

struct ts_safetensors {
    unsigned char *bytes;
    json_t *root;
    ts_file_tensor *tensors;
    size_t n;
};

static ts_status broken(const char *path, const char *how)
{
    return TS_ERROR(TS_EDATA,
                    "%s %s: it is cut off or corrupted, or no safetensors file; use another copy "
                    "or an earlier checkpoint",
                    path, how);
}

static ts_status read_entry(const char *path, const char *name, json_t *entry, unsigned char *data,
                            uint64_t data_bytes, ts_file_tensor *tensor)
{
    const char *type;
    json_t *shape;
    json_int_t from, to;
    char how[256];
    snprintf(how, sizeof how, "has a bad header entry for \"%.64s\"", name);
    if (strlen(name) >= sizeof tensor->name ||
        json_unpack(entry, "{s:s, s:o, s:[I, I]}", "dtype", &type, "shape", &shape, "data_offsets",
                    &from, &to) ||
        !json_is_array(shape) || json_array_size(shape) > 4)
        return broken(path, how);
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    int kind = 0;
    while (kind < N_TYPES && strcmp(type, types[kind].name)) kind++;
    TS_NEED(kind < N_TYPES, TS_EDATA,
            "%s: tensor %s has the type %.16s; F32, BF16, I64 and U8 are read", path, name, type);
    tensor->type = (ts_file_type)kind;
    tensor->rank = (int)json_array_size(shape);
    double count = 1;
    for (int d = 0; d < tensor->rank; d++) {
        tensor->shape[d] = json_integer_value(json_array_get(shape, (size_t)d));
        if (tensor->shape[d] < 0) return broken(path, how);
        count *= (double)tensor->shape[d];
    }
    if (from < 0 || to < from || (uint64_t)to > data_bytes ||
        count * (double)types[kind].bytes != (double)(to - from))
        return broken(path, how);
    tensor->data = data + from;
    tensor->bytes = (size_t)(to - from);
    return TS_OK;
}

static int by_place(const void *a, const void *b)
{
    const ts_file_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static ts_status check_crc(const char *path, const ts_safetensors *f, const unsigned char *data,
                           uint64_t bytes)
{
    char number[16];
    const char *expected = ts_safetensors_metadata(f, "crc32");
    if (!expected) return TS_OK; /* another program's file */
    snprintf(number, sizeof number, "%08lx", crc32_z(crc32(0, NULL, 0), data, bytes));
    return strcmp(expected, number) ? broken(path, "does not match its own checksum") : TS_OK;
}

static ts_status parse(const char *path, ts_safetensors *f, size_t bytes)
{
    uint64_t length = 0;
    if (bytes < 10) return broken(path, "is too short");
    for (int i = 0; i < 8; i++) length |= (uint64_t)f->bytes[i] << (8 * i);
    if (length > bytes - 8) return broken(path, "ends inside its header");
    f->root = json_loadb((const char *)f->bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(f->root)) return broken(path, "has no valid header");
    unsigned char *data = f->bytes + 8 + length;
    uint64_t data_bytes = bytes - 8 - length, at = 0;
    f->tensors = calloc(json_object_size(f->root) + 1, sizeof *f->tensors);
    TS_NEED(f->tensors, TS_ENOMEM, "no memory for the header of %s", path);
    const char *name;
    json_t *entry;
    json_object_foreach(f->root, name, entry)
    {
        if (!strcmp(name, "__metadata__")) continue;
        TS_TRY(read_entry(path, name, entry, data, data_bytes, &f->tensors[f->n]));
        f->n++;
    }
    /* tensors fill the data without gap or overlap */
    qsort(f->tensors, f->n, sizeof *f->tensors, by_place);
    for (size_t i = 0; i < f->n; i++) {
        if (f->tensors[i].bytes && f->tensors[i].data != data + at)
            return broken(path, "has tensors that overlap or leave gaps");
        at += f->tensors[i].bytes;
    }
    if (at != data_bytes) return broken(path, "has bytes that belong to no tensor");
    return check_crc(path, f, data, data_bytes);
}

ts_status ts_safetensors_open(const char *path, ts_safetensors **file_p)
{
    size_t bytes;
    void *read;
    TS_TRY(ts_file_read(path, &read, &bytes));
    ts_safetensors *f = calloc(1, sizeof *f);
    if (!f) {
        free(read);
        return TS_ERROR(TS_ENOMEM, "no memory to read %s", path);
    }
    f->bytes = read;
    ts_status status = parse(path, f, bytes);
    if (status) {
        ts_safetensors_close(f);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *file_p = f;
    return TS_OK;
}

void ts_safetensors_close(ts_safetensors *f)
{
    if (!f) return;
    json_decref(f->root);
    free(f->tensors);
    free(f->bytes);
    free(f);
}

const ts_file_tensor *ts_safetensors_find(const ts_safetensors *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->tensors[i].name, name)) return &f->tensors[i];
    return NULL;
}

const ts_file_tensor *ts_safetensors_at(const ts_safetensors *f, size_t i)
{
    return i < f->n ? &f->tensors[i] : NULL;
}

const char *ts_safetensors_metadata(const ts_safetensors *f, const char *key)
{
    return json_string_value(json_object_get(json_object_get(f->root, "__metadata__"), key));
}
