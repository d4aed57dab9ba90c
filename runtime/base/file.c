/* file.c - POSIX files and folders. */
#include "runtime/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ts_status ts_file_make_folder(const char *path)
{
    char part[1024];
    size_t length = strlen(path);
    TS_NEED(length && length < sizeof part, TS_EUSAGE, "the path \"%s\" is empty or too long",
            path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i]) continue;
        char end = part[i];
        part[i] = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return TS_ERROR(TS_EIO, "cannot make the folder %s: %s", part, strerror(errno));
        part[i] = end;
    }
    TS_NEED(ts_file_is_folder(path), TS_EIO, "%s is not a folder", path);
    return TS_OK;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

ts_status ts_file_remove_folder(const char *path)
{
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        return TS_ERROR(TS_EIO, "cannot remove the folder %s: %s", path, strerror(errno));
    return TS_OK;
}

ts_status ts_file_sync(const char *path)
{
    int file = open(path, O_RDONLY);
    TS_NEED(file >= 0, TS_EIO, "cannot open %s to sync it: %s", path, strerror(errno));
    int failed = fsync(file);
    int reason = errno;
    close(file);
    /* some file systems cannot sync a folder and say so */
    TS_NEED(!failed || reason == EINVAL, TS_EIO, "cannot sync %s: %s", path, strerror(reason));
    return TS_OK;
}

bool ts_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool ts_file_is_folder(const char *path)
{
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

ts_status ts_file_read(const char *path, void **bytes_p, size_t *n_p)
{
    FILE *file = fopen(path, "rb");
    TS_NEED(file, TS_EDATA, "cannot open %s: %s", path, strerror(errno));
    struct stat info;
    unsigned char *bytes = NULL;
    size_t n = 0;
    if (!fstat(fileno(file), &info) && S_ISREG(info.st_mode)) {
        bytes = malloc((size_t)info.st_size + 1);
        if (bytes) n = fread(bytes, 1, (size_t)info.st_size, file);
    }
    bool whole = bytes && !ferror(file) && n == (size_t)info.st_size;
    fclose(file);
    if (!whole) {
        free(bytes);
        return TS_ERROR(TS_EDATA, "cannot read %s as a whole: is it a file, and readable?", path);
    }
    bytes[n] = 0;
    *bytes_p = bytes;
    *n_p = n;
    return TS_OK;
}

ts_status ts_file_join(char *buffer, size_t bytes, const char *a, const char *b)
{
    int length = snprintf(buffer, bytes, "%s/%s", a, b);
    TS_NEED(length >= 0 && (size_t)length < bytes, TS_EUSAGE, "the path %s/%s is too long", a, b);
    return TS_OK;
}
