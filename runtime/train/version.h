/* version.h - what this build is and which libraries it runs with. */
#ifndef TS_TRAIN_VERSION_H
#define TS_TRAIN_VERSION_H

#include <jansson.h>
#include <stdbool.h>

/* "0.1.0" and the commit it was built from, with "+" when the tree had changes. */
const char *ts_version(void);
const char *ts_version_commit(void);
/* {"twinstream": ..., "oneDNN": ..., "MPI": ...}, and with `cuda` also "CUDA", "cuDNN", "NCCL"; a
 * new reference. */
json_t *ts_version_json(bool cuda);

#endif
