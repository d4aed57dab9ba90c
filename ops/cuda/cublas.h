/* cublas.h - a matrix product by cuBLAS, rows first. */
#ifndef TS_OPS_CUDA_CUBLAS_H
#define TS_OPS_CUDA_CUBLAS_H

#include "ops/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What cuBLAS asks for on Hopper; the caller's, so that nothing is allocated in a captured step. */
enum { TS_CUBLAS_WORKSPACE = 32 << 20 };

/* to [rows][columns] <- a [rows][inner] b [inner][columns], sums in fp32 (but what cuBLAS splits
 * may be added up in the product's type); a transposed factor lies as
 * [inner][rows] or [columns][inner]. */
typedef struct ts_product {
    int rows, columns, inner;
    const void *a, *b;
    bool a_transposed, b_transposed;
    ts_type type, to_type; /* of both factors; of the product */
    bool tf32;             /* fp32 factors may be rounded to tf32 */
    void *to, *workspace;
} ts_product;

ts_status ts_cublas_product(const ts_product *product, void *cuda_stream);

#ifdef __cplusplus
}
#endif

#endif
