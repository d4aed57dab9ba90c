/* libraries.c - cuBLAS's product as plain loops, found where the real library would be opened. */
#include <cublas_v2.h>
#include <dlfcn.h>
#include <stdlib.h>

#include "runtime/base/type.h"
#include "runtime/device/cuda/library.h"

ts_status ts_library_open(const ts_library *library, const char *const *names, void **functions)
{
    for (int i = 0; names[i]; i++) {
        functions[i] = dlsym(RTLD_DEFAULT, names[i]);
        TS_NEED(functions[i], TS_EUNSUPPORTED, "%s is not emulated: %s", library->name, names[i]);
    }
    return TS_OK;
}

typedef struct product {
    bool ta, tb;
    int m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
    bool narrow, narrow_c;
} product;

static float load(const void *from, size_t i, bool narrow)
{
    return narrow ? ts_bf16_to_float(((const uint16_t *)from)[i]) : ((const float *)from)[i];
}

/* Columns first, as cuBLAS counts. */
static void CUDART_CB run_product(void *context)
{
    const product *p = context;
    for (int j = 0; j < p->n; j++)
        for (int i = 0; i < p->m; i++) {
            float sum = 0;
            for (int l = 0; l < p->k; l++)
                sum += load(p->a, (size_t)(p->ta ? l + i * p->lda : i + l * p->lda), p->narrow) *
                       load(p->b, (size_t)(p->tb ? j + l * p->ldb : l + j * p->ldb), p->narrow);
            size_t at = (size_t)i + (size_t)j * (size_t)p->ldc;
            if (p->narrow_c)
                ((uint16_t *)p->c)[at] = ts_bf16_from_float(sum);
            else
                ((float *)p->c)[at] = sum;
        }
}

static cudaStream_t current;

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = (cublasHandle_t)(void *)&current;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    (void)handle;
    current = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    (void)handle;
    bool aligned = (uintptr_t)workspace % 256 == 0; /* the library refuses others */
    return workspace && bytes && aligned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int *value)
{
    (void)type;
    *value = 0;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return status ? "emulated failure" : "success";
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                            int m, int n, int k, const void *alpha, const void *a,
                            cudaDataType a_type, int lda, const void *b, cudaDataType b_type,
                            int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm)
{
    (void)handle, (void)compute, (void)algorithm;
    if (a_type != b_type || *(const float *)alpha != 1 || *(const float *)beta != 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    /* as cuBLAS checks them */
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m) return CUBLAS_STATUS_INVALID_VALUE;
    product *p = malloc(sizeof *p); /* kept: a graph may run it again */
    *p = (product){ta == CUBLAS_OP_T,     tb == CUBLAS_OP_T,    m, n, k, lda, ldb, ldc, a, b, c,
                   a_type == CUDA_R_16BF, c_type == CUDA_R_16BF};
    return cudaLaunchHostFunc(current, run_product, p) ? CUBLAS_STATUS_EXECUTION_FAILED
                                                       : CUBLAS_STATUS_SUCCESS;
}
