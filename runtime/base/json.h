/* json.h - what the runtime writes as JSON, over jansson.
 *
 * A file that is replaced whole (run.json) is written to a temporary name, synced and renamed;
 * a file that grows (metrics.jsonl) gets one line a record, flushed. */
#ifndef TS_BASE_JSON_H
#define TS_BASE_JSON_H

#include <jansson.h>
#include <stdio.h>

#include "runtime/base/status.h"

/* Append `record` as one line; takes the reference. */
ts_status ts_json_append(FILE *file, const char *path, json_t *record);
/* Write `value` to `path`, atomically; takes the reference. */
ts_status ts_json_save(const char *path, json_t *value);
/* Cut a file of lines off before the first record that `keeps` refuses, or that is no JSON (a line
 * that a crash left half written). A file that does not exist is fine. */
ts_status ts_json_cut(const char *path, bool (*keeps)(const void *context, const json_t *record),
                      const void *context);

#endif
