/* library.c - see library.h. */
#include "runtime/device/cuda/library.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

ts_status ts_library_open(const ts_library *library, const char *const *names, void **functions)
{
    const char *asked = getenv(library->variable);
    const char *const files[] = {library->built, library->so};
    void *handle = asked ? dlopen(asked, RTLD_NOW | RTLD_LOCAL) : NULL;
    for (size_t i = 0; !asked && !handle && i < sizeof files / sizeof *files; i++)
        handle = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
    TS_NEED(handle, TS_EUNSUPPORTED,
            "%s cannot be opened: %s; add its folder to LD_LIBRARY_PATH or name the file in %s",
            library->name, dlerror(), library->variable);
    for (int i = 0; names[i]; i++) {
        functions[i] = dlsym(handle, names[i]);
        if (functions[i]) continue;
        ts_status status =
            TS_ERROR(TS_EUNSUPPORTED, "%s has no function %s: it is older than this build's header",
                     library->name, names[i]);
        dlclose(handle);
        return status;
    }
    return TS_OK;
}
