/* no_cuda.c - see runtime/device/no_cuda.c. */
#include <stdio.h>

#include "ops/op.h"

static bool refuse(const ts_device *device, const ts_op_desc *desc, const char **why_p)
{
    (void)device;
    (void)desc;
    (void)why_p; /* no device of this build asks */
    return false;
}

void ts_op_cudnn_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "absent: this build is without CUDA");
}

void ts_op_cublas_version(char *text, size_t bytes)
{
    ts_op_cudnn_version(text, bytes);
}

const ts_op_ops ts_op_cuda = {.name = "cuda", .serves = refuse};
const ts_op_ops ts_op_cudnn = {.name = "cudnn", .serves = refuse};
