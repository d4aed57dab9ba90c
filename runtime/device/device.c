/* device.c - which devices exist, and opening one by name.
 *
 * Adding a device is one file and one line in ts_devices. */
#include "runtime/device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/option.h"

const ts_device_ops *const ts_devices[] = {&ts_device_cuda, &ts_device_host, NULL};

/* "auto|cuda|host": what --device takes. */
static void device_words(char *words, size_t bytes)
{
    size_t used = (size_t)snprintf(words, bytes, "auto");
    for (int i = 0; ts_devices[i] && used < bytes; i++)
        used += (size_t)snprintf(words + used, bytes - used, "|%s", ts_devices[i]->name);
}

ts_status ts_device_open(const char *name, int ordinal, ts_device **device_p)
{
    *device_p = NULL;
    if (strcmp(name, "auto") == 0) {
        ts_status status = TS_EUNSUPPORTED;
        for (int i = 0; ts_devices[i]; i++) {
            if ((status = ts_devices[i]->open(ordinal, device_p)) == TS_OK) return TS_OK;
            bool built =
                ts_devices[i]->stream_open != NULL; /* else it stands for one that is not */
            ts_log(built ? TS_LOG_INFO : TS_LOG_DEBUG, "device %s is not used: %.*s",
                   ts_devices[i]->name, (int)strcspn(ts_trail(), "\n"), ts_trail());
            if (ts_devices[i + 1]) ts_trail_clear();
        }
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    for (int i = 0; ts_devices[i]; i++)
        if (strcmp(name, ts_devices[i]->name) == 0) {
            TS_TRY(ts_devices[i]->open(ordinal, device_p));
            return TS_OK;
        }
    char words[256];
    device_words(words, sizeof words);
    const char *near = ts_option_nearest(name, words);
    if (near)
        return TS_ERROR(TS_EUSAGE, "no device is called '%s'; did you mean '%s'? (known: %s)", name,
                        near, words);
    return TS_ERROR(TS_EUSAGE, "no device is called '%s' (known: %s)", name, words);
}

bool ts_device_may_be_shared(void)
{
    const char *shared = getenv("TWINSTREAM_SHARE_GPU");
    return shared && *shared == '1';
}

void ts_device_close(ts_device *device)
{
    if (device) device->ops->close(device);
}
