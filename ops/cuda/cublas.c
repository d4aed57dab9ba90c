/* cublas.c - see cublas.h. cuBLAS counts in columns: the transposed product is what it computes. */
#include "ops/cuda/cublas.h"

#include <cublas_v2.h>

#include "runtime/device/cuda/library.h"

#define FUNCTIONS(F)                                                                               \
    F(cublasCreate)                                                                                \
    F(cublasSetStream)                                                                             \
    F(cublasSetWorkspace)                                                                          \
    F(cublasGemmEx)                                                                                \
    F(cublasGetStatusString)
static union {
    struct {
        FUNCTIONS(TS_LIBRARY_POINTER)
    };
    void *all[5];
} cublas;
static const char *const names[] = {FUNCTIONS(TS_LIBRARY_NAME) NULL};
_Static_assert(sizeof names / sizeof *names == sizeof cublas / sizeof(void *) + 1, "one each");

static ts_status check(cublasStatus_t status, const char *what)
{
    TS_NEED(status == CUBLAS_STATUS_SUCCESS, TS_EDEVICE, "cuBLAS: %s: %s", what,
            cublas.cublasGetStatusString(status));
    return TS_OK;
}

/* One handle for the process. */
static ts_status handle_for(const ts_product *p, void *cuda_stream, cublasHandle_t *handle_p)
{
    static const ts_library library = {"cuBLAS", "TWINSTREAM_CUBLAS_LIBRARY", TS_CUBLAS_LIBRARY,
                                       TS_CUBLAS_SO};
    static cublasHandle_t handle;
    if (!handle) {
        TS_TRY(ts_library_open(&library, names, cublas.all));
        TS_TRY(check(cublas.cublasCreate(&handle), "create"));
    }
    TS_TRY(check(cublas.cublasSetStream(handle, (cudaStream_t)cuda_stream), "set stream"));
    *handle_p = handle;
    return check(cublas.cublasSetWorkspace(handle, p->workspace, TS_CUBLAS_WORKSPACE),
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
