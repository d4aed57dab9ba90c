/* library.h - NVIDIA's libraries, opened when the first thing that needs them is: the same program
 * then starts on machines without them, and a run on the host does not carry them. */
#ifndef TS_DEVICE_CUDA_LIBRARY_H
#define TS_DEVICE_CUDA_LIBRARY_H

#include "runtime/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ts_library {
    const char *name;     /* "NCCL" */
    const char *variable; /* environment: the file to open instead */
    const char *built;    /* where the build found it */
    const char *folder;   /* of its pip wheel, "nccl" */
    const char *so;       /* its file's name, with the version of its interface */
} ts_library;

/* Looked for in this order: the variable's file alone, when it is set; where the build found it;
 * below TWINSTREAM_NVIDIA_ROOT, a toolkit or the nvidia folder that pip wheels make; where the
 * system looks. Fill `functions` with the addresses of `names` (NULL-terminated), in this order.
 * TS_EUNSUPPORTED when the library or one of them is missing. */
ts_status ts_library_open(const ts_library *library, const char *const *names, void **functions);

/* Defines `table`, whose members are pointers to the functions of LIST, and table_names: LIST(F) is
 * F(function) for each. ts_library_open(&library, table_names, table.all) fills it. */
#define TS_LIBRARY_TABLE(table, LIST)                                                              \
    static const char *const table##_names[] = {LIST(TS_LIBRARY_NAME) NULL};                       \
    static union {                                                                                 \
        struct {                                                                                   \
            LIST(TS_LIBRARY_POINTER)                                                               \
        };                                                                                         \
        void *all[sizeof table##_names / sizeof *table##_names];                                   \
    } table
#define TS_LIBRARY_POINTER(name) __typeof__(&name) name;
#define TS_LIBRARY_NAME(name) #name,

#ifdef __cplusplus
}
#endif

#endif
