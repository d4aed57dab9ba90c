/* nccl_standin.h - a library that answers like NCCL and does what a test tells it to. */
#ifndef TS_TESTS_NCCL_STANDIN_H
#define TS_TESTS_NCCL_STANDIN_H

#include <nccl.h>

typedef struct standin {
    int version;
    /* what calls return, in order; then ncclSuccess */
    ncclResult_t init, collective;
    int in_progress;    /* how often GetAsyncError still says "in progress" after such an answer */
    ncclResult_t async; /* what it says then */
    const char *last_error;

    /* what was asked */
    ncclConfig_t config;
    int inits, aborts, destroys, finalizes, collectives, weighted_ops, groups, group_ends;
    const void *from, *weight;
    void *to;
    size_t n;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
} standin;

extern standin the_standin;

#endif
