/* log.h - the only thing that prints.
 *
 * Rank 0 speaks; a warning or an error comes from any rank and names it. Lines go to stderr, so
 * that stdout stays free for what a command was asked to print. On a terminal, ts_log_progress
 * rewrites one line; in a pipe each call is a plain line. */
#ifndef TS_BASE_LOG_H
#define TS_BASE_LOG_H

#include "runtime/base/status.h"

typedef enum ts_log_level { TS_LOG_DEBUG, TS_LOG_INFO, TS_LOG_WARN, TS_LOG_ERROR } ts_log_level;

/* Who is speaking; before the first call the process speaks as rank 0 of 1. */
void ts_log_set_rank(int rank, int size, const char *host);
/* Lines below `level` are dropped; TS_LOG_INFO at start. */
void ts_log_set_level(ts_log_level level);
/* What the run is doing, for error messages: "start-up", "training step 120", "checkpoint". The
 * text is copied. Safe from any thread. */
void ts_log_set_phase(const char *format, ...) TS_PRINTF(1, 2);
const char *ts_log_host(void);
int ts_log_rank(void);

void ts_log(ts_log_level level, const char *format, ...) TS_PRINTF(2, 3);
#define ts_info(...) ts_log(TS_LOG_INFO, __VA_ARGS__)
#define ts_warn(...) ts_log(TS_LOG_WARN, __VA_ARGS__)

/* One line of progress, rank 0 only; on a terminal it replaces the previous one and the next
 * ordinary line moves below it. */
void ts_log_progress(const char *format, ...) TS_PRINTF(1, 2);
bool ts_log_is_terminal(void);

/* The failure of this thread, once: rank, host, phase, status text, message; with the trail of
 * places at TS_LOG_DEBUG. */
void ts_log_failure(ts_status status);

#endif
