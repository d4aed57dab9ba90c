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

#endif
