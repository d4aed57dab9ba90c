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

#endif
