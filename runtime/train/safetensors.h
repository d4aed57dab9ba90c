/* safetensors.h - named tensors in one file, in the safetensors format: a JSON header, then data.
 *
 * Writing is atomic: PATH.tmp, sync, rename; a failure removes the temporary file and leaves an
 * existing PATH as it was. The CRC-32 of the data goes into the metadata ("crc32"). Reading
 * checks everything that the header claims against the file before any tensor is handed out. */
#ifndef TS_TRAIN_SAFETENSORS_H
#define TS_TRAIN_SAFETENSORS_H

#include "runtime/base/status.h"

typedef enum ts_file_type { TS_FILE_F32, TS_FILE_BF16, TS_FILE_I64, TS_FILE_U8 } ts_file_type;

enum { TS_FILE_NAME_MAX = 128 };
typedef struct ts_file_tensor {
    char name[TS_FILE_NAME_MAX];
    ts_file_type type;
    int rank; /* dimensions */
    int64_t shape[4];
    size_t bytes;
    const void *data; /* in a file that was read: not always aligned, so copy it out */
} ts_file_tensor;

typedef struct ts_file_pair {
    const char *key, *value;
} ts_file_pair;

ts_status ts_safetensors_save(const char *path, const ts_file_tensor *tensors, size_t n,
                              const ts_file_pair *metadata, size_t n_metadata);

typedef struct ts_safetensors ts_safetensors;
/* TS_EDATA, naming the file, when it is missing, cut off, corrupted or not of this format. */
ts_status ts_safetensors_open(const char *path, ts_safetensors **file_p);
void ts_safetensors_close(ts_safetensors *file);
/* NULL when there is none of that name. */
const ts_file_tensor *ts_safetensors_find(const ts_safetensors *file, const char *name);
/* Number i in the order of the file, from 0; NULL past the last. */
const ts_file_tensor *ts_safetensors_at(const ts_safetensors *file, size_t i);
/* NULL when there is none of that key. */
const char *ts_safetensors_metadata(const ts_safetensors *file, const char *key);

#endif
