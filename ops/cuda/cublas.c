/* cublas.c - see cublas.h. cuBLAS counts in columns: the transposed product is what it computes. */
#include "ops/cuda/cublas.h"

#include <cublas_v2.h>
#include <stdio.h>

#include "runtime/device/cuda/library.h"

#define FUNCTIONS(F)                                                                               \
    F(cublasCreate_v2)                                                                             \
    F(cublasSetStream_v2)                                                                          \
    F(cublasSetWorkspace_v2)                                                                       \
    F(cublasGemmEx)                                                                                \
    F(cublasGetProperty)                                                                           \
    F(cublasGetStatusString)
TS_LIBRARY_TABLE(cublas, FUNCTIONS);

static ts_status check(cublasStatus_t status, const char *what)
{
    TS_NEED(status == CUBLAS_STATUS_SUCCESS, TS_EDEVICE, "cuBLAS: %s: %s", what,
            cublas.cublasGetStatusString(status));
    return TS_OK;
}

static ts_status open_library(void)
{
    static const ts_library library = {"cuBLAS", "TWINSTREAM_CUBLAS_LIBRARY", TS_CUBLAS_LIBRARY,
                                       "cublas", TS_CUBLAS_SO};
    return cublas.cublasGemmEx ? TS_OK : ts_library_open(&library, cublas_names, cublas.all);
}

void ts_op_cublas_version(char *text, size_t bytes)
{
    int v[3] = {0};
    if (open_library()) {
        snprintf(text, bytes, "absent: %s", ts_trail_message());
        ts_trail_clear();
        return;
    }
    for (int i = 0; i < 3; i++) cublas.cublasGetProperty((libraryPropertyType)i, &v[i]);
    snprintf(text, bytes, "%d.%d.%d", v[0], v[1], v[2]);
}

/* One handle for the process. */
static ts_status handle_for(const ts_product *p, void *cuda_stream, cublasHandle_t *handle_p)
{
    static cublasHandle_t handle;
    TS_TRY(open_library());
    if (!handle) TS_TRY(check(cublas.cublasCreate_v2(&handle), "create"));
    TS_TRY(check(cublas.cublasSetStream_v2(handle, (cudaStream_t)cuda_stream), "set stream"));
    *handle_p = handle;
    return check(cublas.cublasSetWorkspace_v2(handle, p->workspace, TS_CUBLAS_WORKSPACE),
                 "set workspace");
}

static cudaDataType_t data_type(ts_type type)
{
    return type == TS_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

ts_status ts_cublas_product(const ts_product *p, void *cuda_stream)
{
    const float one = 1, zero = 0;
    cublasHandle_t handle = NULL;
    TS_TRY(handle_for(p, cuda_stream, &handle));
    return check(
        cublas.cublasGemmEx(
            handle, p->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
            p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, p->columns, p->rows, p->inner, &one, p->b,
            data_type(p->type), p->b_transposed ? p->inner : p->columns, p->a, data_type(p->type),
            p->a_transposed ? p->rows : p->inner, &zero, p->to, data_type(p->to_type), p->columns,
            p->tf32 && p->type == TS_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
            CUBLAS_GEMM_DEFAULT),
        "product");
}
