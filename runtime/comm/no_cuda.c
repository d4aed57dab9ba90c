/* no_cuda.c - see runtime/device/no_cuda.c. */
#include <stdio.h>

#include "runtime/comm/mpi_common.h"

static bool refuse(const ts_world *world, const ts_device *device, const char **why_p)
{
    (void)world;
    (void)device;
    if (why_p) *why_p = "this build is without CUDA";
    return false;
}

void ts_comm_nccl_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "absent: this build is without CUDA");
}

const ts_communicator_ops ts_communicator_nccl = {.name = "nccl", .serves = refuse};
