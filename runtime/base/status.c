/* status.c - the failure trail of a thread: one description, then the places it passed. */
#include "runtime/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *text;
    int exit_code;
} table[] = {
#define X(code, exit_code, text) [code] = {text, exit_code},
    TS_STATUS_MAP(X)
#undef X
};

enum { TRAIL_BYTES = 4096 };
static _Thread_local char trail[TRAIL_BYTES], message[TRAIL_BYTES];

const char *ts_status_text(ts_status status)
{
    return (unsigned)status < TS_STATUS_COUNT ? table[status].text : "unknown status";
}

int ts_status_exit_code(ts_status status)
{
    return (unsigned)status < TS_STATUS_COUNT ? table[status].exit_code : 70;
}

const char *ts_trail(void)
{
    return trail;
}

const char *ts_trail_message(void)
{
    size_t length = strcspn(trail, "\n");
    memcpy(message, trail, length);
    message[length] = 0;
    return message;
}

void ts_trail_clear(void)
{
    *trail = 0;
}

void ts_trail_set(const char *text)
{
    snprintf(trail, sizeof trail, "%s", text);
}

static void add_place(const char *file, int line)
{
    size_t length = strlen(trail);
    snprintf(trail + length, sizeof trail - length, "\n  at %s:%d", file, line);
}

ts_status ts_status_fail(const char *file, int line, ts_status status, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(trail, sizeof trail / 2, format, values);
    va_end(values);
    /* one line: what comes from elsewhere (MPI's text) may hold more */
    for (char *c = trail; *c; c++)
        if (*c == '\n') *c = ' ';
    add_place(file, line);
    return status;
}

ts_status ts_status_pass(const char *file, int line, ts_status status)
{
    if (*trail) add_place(file, line); /* else another rank tells the story */
    return status;
}
