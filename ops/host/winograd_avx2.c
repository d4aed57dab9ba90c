/* winograd_avx2.c - Winograd's method by AVX2: 8 floats in a vector, 16 registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "ops/host/own_conv.h"

enum { B = 8, ROWS_OF_ONE = 8, ROWS_OF_TWO = 4 };

#define FEW ts_own_conv_avx2_few
#define WIDE ts_own_conv_avx2_wide
#define LAYOUT TS_NCHW8C
#define WEIGHT_ORDER dnnl_OIhw8i8o
#define PROCESSOR_SERVES() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define TARGET __attribute__((target("avx2,fma")))
#define TARGET_INLINE TARGET static inline __attribute__((always_inline))

typedef __m256 vector;

#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define ALL _mm256_set1_ps
#define ZERO _mm256_setzero_ps
#define ADD _mm256_add_ps
#define SUB _mm256_sub_ps
#define MUL _mm256_mul_ps
#define FMA _mm256_fmadd_ps
/* Stays in a register: else each product loads it again, and loads are the limit. */
#define KEEP(x) __asm__("" : "+x"(x))

/* Every 8th of 64 elements. */
TARGET_INLINE vector column(const float *x)
{
    return _mm256_i32gather_ps(x, _mm256_set_epi32(56, 48, 40, 32, 24, 16, 8, 0), 4);
}

#include "ops/host/winograd_tiles.h"
#include "ops/host/winograd_few.h"
#include "ops/host/winograd_wide.h"
#endif
