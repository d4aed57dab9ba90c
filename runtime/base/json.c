/* json.c - records to files; jansson does the writing of values. */
#include "runtime/base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/file.h"

static ts_status write_text(FILE *file, const char *path, const char *text)
{
    if (fputs(text, file) == EOF || fputc('\n', file) == EOF || fflush(file))
        return TS_ERROR(TS_EIO, "cannot write %s: %s: is the disk full?", path, strerror(errno));
    return TS_OK;
}

static ts_status encode(json_t *value, size_t flags, char **text_p)
{
    *text_p = value ? json_dumps(value, flags | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(value);
    TS_NEED(*text_p, TS_ENOMEM, "cannot make a JSON record: out of memory, or text not in UTF-8");
    return TS_OK;
}

ts_status ts_json_append(FILE *file, const char *path, json_t *record)
{
    char *text;
    TS_TRY(encode(record, JSON_COMPACT, &text));
    ts_status status = write_text(file, path, text);
    free(text);
    return status;
}

ts_status ts_json_save(const char *path, json_t *value)
{
    char *text, temporary[1024];
    TS_TRY(encode(value, JSON_INDENT(1), &text));
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *file = fopen(temporary, "w");
    if (!file) {
        free(text);
        return TS_ERROR(TS_EIO, "cannot write %s: %s", temporary, strerror(errno));
    }
    ts_status status = write_text(file, temporary, text);
    free(text);
    if (!status && fsync(fileno(file)))
        status = TS_ERROR(TS_EIO, "cannot sync %s: %s", temporary, strerror(errno));
    if (fclose(file) && !status)
        status = TS_ERROR(TS_EIO, "cannot close %s: %s", temporary, strerror(errno));
    if (!status && rename(temporary, path))
        status = TS_ERROR(TS_EIO, "cannot rename %s to %s: %s", temporary, path, strerror(errno));
    if (status) unlink(temporary);
    return status;
}

ts_status ts_json_cut(const char *path, bool (*keeps)(const void *context, const json_t *record),
                      const void *context)
{
    void *bytes;
    size_t n, at = 0;
    if (!ts_file_exists(path)) return TS_OK;
    TS_TRY(ts_file_read(path, &bytes, &n));
    for (const char *text = bytes; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        json_t *record = end ? json_loadb(text + at, (size_t)(end - text) - at, 0, NULL) : NULL;
        bool stays = record && keeps(context, record);
        json_decref(record);
        if (!stays) break;
        at = (size_t)(end - text) + 1;
    }
    free(bytes);
    TS_NEED(at == n || !truncate(path, (off_t)at), TS_EIO, "cannot shorten %s: %s", path,
            strerror(errno));
    return TS_OK;
}
