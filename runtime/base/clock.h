/* clock.h - one monotonic clock for every measurement on the host. */
#ifndef TS_BASE_CLOCK_H
#define TS_BASE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t ts_clock_ns(void);
/* Nanoseconds since 1970 of CLOCK_REALTIME, for names and records, never for intervals. */
int64_t ts_clock_wall_ns(void);
void ts_clock_sleep_ns(int64_t ns);

#ifdef __cplusplus
}
#endif

#endif
