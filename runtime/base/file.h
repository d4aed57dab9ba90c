/* file.h - files and folders, with errors that name the path and say what to do. */
#ifndef TS_BASE_FILE_H
#define TS_BASE_FILE_H

#include "runtime/base/status.h"

/* Like mkdir -p. */
ts_status ts_file_make_folder(const char *path);
/* Remove a folder and everything in it; a missing one is fine. */
ts_status ts_file_remove_folder(const char *path);
/* Sync a file or folder to disk. */
ts_status ts_file_sync(const char *path);
bool ts_file_exists(const char *path);
bool ts_file_is_folder(const char *path);
/* The whole file; release with free(). A missing or unreadable one is TS_EDATA. */
ts_status ts_file_read(const char *path, void **bytes_p, size_t *n_p);
/* "a/b" into buffer; TS_EUSAGE when it does not fit. */
ts_status ts_file_join(char *buffer, size_t bytes, const char *a, const char *b);

#endif
