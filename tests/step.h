/* step.h - the kernel of contract_device on CUDA, so that streams run beside each other there as
 * those of training do: that host functions of two streams do, CUDA does not promise. */
#ifndef TS_TESTS_STEP_H
#define TS_TESTS_STEP_H

#include "runtime/base/status.h"

typedef struct step_args {
    int64_t sleep_ns;
    int32_t *at;         /* may be NULL */
    int32_t factor, add; /* *at <- *at * factor + add, after the sleep */
} step_args;

#ifdef __cplusplus
extern "C" {
#endif
/* NULL in a build without CUDA. */
ts_status step_enqueue(const void *args, void *cuda_stream) __attribute__((weak));
#ifdef __cplusplus
}
#endif

#endif
