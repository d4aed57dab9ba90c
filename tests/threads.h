/* threads.h - a kernel that sets how many OpenMP threads its stream's next kernels have: the number
 * belongs to the thread that asks, and on the host device that is the stream's own. */
#ifndef TS_TESTS_THREADS_H
#define TS_TESTS_THREADS_H

#ifdef _OPENMP
#include <omp.h>
#endif

#include "runtime/device/device.h"

typedef struct threads_args {
    int asked;
    int *got_p; /* 1 without OpenMP */
} threads_args;

static ts_status threads_run(const void *args)
{
    const threads_args *a = args;
    *a->got_p = 1;
#ifdef _OPENMP
    omp_set_num_threads(a->asked);
#pragma omp parallel
#pragma omp single
    *a->got_p = omp_get_num_threads();
#endif
    return TS_OK;
}

static const ts_kernel threads_kernel = {.name = "threads", .run = threads_run};

#endif
