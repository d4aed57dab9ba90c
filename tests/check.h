/* check.h - what every test includes: cmocka and its headers, and OK() for our statuses. */
#ifndef TS_TESTS_CHECK_H
#define TS_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/status.h"

/* The call succeeds, or the test fails with the trail. */
#define OK(expression)                                                                             \
    do {                                                                                           \
        ts_status ok_status = (expression);                                                        \
        if (ok_status) fail_msg("%s: %s: %s", #expression, ts_status_text(ok_status), ts_trail()); \
    } while (0)

/* The device under test. With TWINSTREAM_TEST_DEVICE=cuda, device memory must be such that the host
 * may look into it when the streams are idle: set TWINSTREAM_HOST_MEMORY=1 beside it. */
static inline const char *test_device(void)
{
    const char *name = getenv("TWINSTREAM_TEST_DEVICE");
    return name ? name : "host";
}

#endif
