/* log.c - lines to stderr, whole ones, whatever thread speaks.
 *
 * On a terminal the progress line stays last: an ordinary line first wipes it and then writes. */
#include "runtime/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    int rank, size;
    char host[64], phase[128];
    ts_log_level level;
    bool progress; /* a progress line stands on the terminal */
} logger = {.lock = PTHREAD_MUTEX_INITIALIZER, .size = 1, .level = TS_LOG_INFO};

void ts_log_set_rank(int rank, int size, const char *host)
{
    pthread_mutex_lock(&logger.lock);
    logger.rank = rank;
    logger.size = size;
    snprintf(logger.host, sizeof logger.host, "%s", host);
    pthread_mutex_unlock(&logger.lock);
}

void ts_log_set_level(ts_log_level level)
{
    logger.level = level;
}

void ts_log_set_phase(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    pthread_mutex_lock(&logger.lock);
    vsnprintf(logger.phase, sizeof logger.phase, format, values);
    pthread_mutex_unlock(&logger.lock);
    va_end(values);
}

const char *ts_log_host(void)
{
    return logger.host;
}

int ts_log_rank(void)
{
    return logger.rank;
}

bool ts_log_is_terminal(void)
{
    return isatty(STDERR_FILENO);
}

/* Call with the lock held. */
static void write_line(const char *line)
{
    if (logger.progress) fputs("\r\033[K", stderr);
    logger.progress = false;
    fputs(line, stderr);
    fputc('\n', stderr);
    fflush(stderr);
}

void ts_log(ts_log_level level, const char *format, ...)
{
    char line[2048];
    int at = 0;
    if (level < logger.level || (level < TS_LOG_WARN && logger.rank != 0)) return;
    if (level >= TS_LOG_WARN) {
        const char *what = level == TS_LOG_WARN ? "warning" : "error";
        at = logger.size > 1
                 ? snprintf(line, sizeof line, "[rank %d %s] %s: ", logger.rank, logger.host, what)
                 : snprintf(line, sizeof line, "%s: ", what);
    }
    va_list values;
    va_start(values, format);
    vsnprintf(line + at, sizeof line - (size_t)at, format, values);
    va_end(values);
    pthread_mutex_lock(&logger.lock);
    write_line(line);
    pthread_mutex_unlock(&logger.lock);
}

void ts_log_progress(const char *format, ...)
{
    char line[512];
    struct winsize window;
    if (logger.rank != 0 || logger.level > TS_LOG_INFO) return;
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    pthread_mutex_lock(&logger.lock);
    if (ts_log_is_terminal()) {
        size_t width = !ioctl(STDERR_FILENO, TIOCGWINSZ, &window) && window.ws_col > 1
                           ? window.ws_col - 1u
                           : 79;
        if (width < sizeof line) line[width] = 0;
        fprintf(stderr, "\r\033[K%s", line);
        fflush(stderr);
        logger.progress = true;
    } else {
        write_line(line);
    }
    pthread_mutex_unlock(&logger.lock);
}

void ts_log_failure(ts_status status)
{
    char line[6000], where[160] = "", phase[160] = "";
    if (status == TS_OK || !*ts_trail_message()) return; /* another rank tells it */
    pthread_mutex_lock(&logger.lock);
    if (logger.size > 1) snprintf(where, sizeof where, " on rank %d %s", logger.rank, logger.host);
    if (*logger.phase) snprintf(phase, sizeof phase, " during %s", logger.phase);
    snprintf(line, sizeof line, "twinstream: %s%s%s: %s: %s",
             status == TS_ESTOPPED ? "stopped" : "error", where, phase, ts_status_text(status),
             logger.level == TS_LOG_DEBUG ? ts_trail() : ts_trail_message());
    write_line(line);
    pthread_mutex_unlock(&logger.lock);
}
