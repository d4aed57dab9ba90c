/* status.h - how a failure is told.
 *
 * Everything that can fail returns ts_status. The function that first understands a failure
 * describes it once, with TS_FAIL and the values that matter; every caller passes it up with
 * TS_TRY, which only adds a file:line to the trail. Nothing below main() exits or prints.
 * Each status carries the exit code that main() ends with. */
#ifndef TS_BASE_STATUS_H
#define TS_BASE_STATUS_H

#include "runtime/twinstream.h"

#ifdef __cplusplus
extern "C" {
#endif

int ts_status_exit_code(ts_status status);

/* This thread's last failure: "message\n  at file:line\n  at file:line ...". "" when none. */
const char *ts_trail(void);
void ts_trail_clear(void);
/* Replace this thread's trail: how a stream thread's failure reaches the thread that waits. */
void ts_trail_set(const char *trail);

#if defined(__GNUC__)
#define TS_PRINTF(text, values) __attribute__((format(printf, text, values)))
#else
#define TS_PRINTF(text, values)
#endif

ts_status ts_status_fail(const char *file, int line, ts_status status, const char *format, ...)
    TS_PRINTF(4, 5);
ts_status ts_status_pass(const char *file, int line, ts_status status);

/* Describe a failure and hand it up: return TS_ERROR(TS_EUSAGE, "period %d is below 1", k); */
#define TS_ERROR(status, ...) ts_status_fail(__FILE__, __LINE__, (status), __VA_ARGS__)
#define TS_NEED(condition, status, ...)                                                            \
    do {                                                                                           \
        if (!(condition)) return TS_ERROR((status), __VA_ARGS__);                                  \
    } while (0)
#define TS_TRY(expression)                                                                         \
    do {                                                                                           \
        ts_status ts_try_status = (expression);                                                    \
        if (ts_try_status != TS_OK) return ts_status_pass(__FILE__, __LINE__, ts_try_status);      \
    } while (0)
/* The same where something must be released first: sets `status` and jumps to `label`. */
#define TS_TRY_TO(status, label, expression)                                                       \
    do {                                                                                           \
        if (((status) = (expression)) != TS_OK) {                                                  \
            ts_status_pass(__FILE__, __LINE__, (status));                                          \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif

#endif
