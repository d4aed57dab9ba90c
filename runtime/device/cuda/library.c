/* library.c - see library.h. */
#include "runtime/device/cuda/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *open_below(const char *root, const char *folder, const char *so)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/lib/%s", root, folder, so);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *find(const ts_library *library)
{
    const char *asked = getenv(library->variable), *root = getenv("TWINSTREAM_NVIDIA_ROOT");
    if (asked) return dlopen(asked, RTLD_NOW | RTLD_LOCAL);
    void *handle = dlopen(library->built, RTLD_NOW | RTLD_LOCAL);
    const char *const folders[] = {".", library->folder, TS_CUDA_WHEEL};
    for (size_t i = 0; root && !handle && i < sizeof folders / sizeof *folders; i++)
        handle = open_below(root, folders[i], library->so);
    return handle ? handle : dlopen(library->so, RTLD_NOW | RTLD_LOCAL);
}

ts_status ts_library_open(const ts_library *library, const char *const *names, void **functions)
{
    void *handle = find(library);
    TS_NEED(
        handle, TS_EUNSUPPORTED,
        "%s cannot be opened: %s; name the folder it is below in TWINSTREAM_NVIDIA_ROOT, or the "
        "file in %s",
        library->name, dlerror(), library->variable);
    for (int i = 0; names[i]; i++) {
        functions[i] = dlsym(handle, names[i]);
        if (functions[i]) continue;
        ts_status status =
            TS_ERROR(TS_EUNSUPPORTED, "%s has no function %s: it is older than this build's header",
                     library->name, names[i]);
        while (i >= 0) functions[i--] = NULL; /* of a library that is closed */
        dlclose(handle);
        return status;
    }
    return TS_OK;
}
