/* status.h - how a failure is told.
 *
 * Everything that can fail returns ts_status. The function that first understands a failure
 * describes it once, with TS_FAIL and the values that matter; every caller passes it up with
 * TS_TRY, which only adds a file:line to the trail. Nothing below main() exits or prints.
 * Each status carries the exit code that main() ends with. */
#ifndef TS_BASE_STATUS_H
#define TS_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*    status          exit  text */
#define TS_STATUS_MAP(X)                                                                           \
    X(TS_OK, 0, "ok")                                                                              \
    X(TS_EUSAGE, 64, "invalid option or argument")                                                 \
    X(TS_EDATA, 65, "bad input data")                                                              \
    X(TS_ENOMEM, 70, "out of memory")                                                              \
    X(TS_EIO, 70, "file or socket error")                                                          \
    X(TS_EUNSUPPORTED, 70, "not supported by this device or build")                                \
    X(TS_EDEVICE, 70, "device or device library call failed")                                      \
    X(TS_ECOMM, 70, "communication failed")                                                        \
    X(TS_EPEER, 70, "another rank failed")                                                         \
    X(TS_ETIMEOUT, 70, "a rank did not answer in time")                                            \
    X(TS_EDIVERGED, 70, "the loss is not finite")                                                  \
    X(TS_ESTOPPED, 75, "asked to stop; state was saved")

typedef enum ts_status {
#define X(code, exit_code, text) code,
    TS_STATUS_MAP(X)
#undef X
    TS_STATUS_COUNT
} ts_status;

const char *ts_status_text(ts_status status);
int ts_status_exit_code(ts_status status);

/* This thread's last failure: "message\n  at file:line\n  at file:line ...". "" when none. */
const char *ts_trail(void);
/* The first line of ts_trail(): the description without the places. */
const char *ts_trail_message(void);
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
        if (ts_try_status != TS_OK)                                                                \
            return ts_status_pass(__FILE__, __LINE__, ts_try_status);                              \
    } while (0)
/* The same where something must be released first: sets `status` and jumps to `label`. */
#define TS_TRY_TO(status, label, expression)                                                       \
    do {                                                                                           \
        if (((status) = (expression)) != TS_OK) {                                                  \
            ts_status_pass(__FILE__, __LINE__, (status));                                          \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

#endif
