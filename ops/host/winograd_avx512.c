/* winograd_avx512.c - Winograd's method by AVX-512: 16 floats in a vector, 32 registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "ops/host/own_conv.h"

enum { B = 16, ROWS_OF_ONE = 16, ROWS_OF_TWO = 8 };

#define FEW ts_own_conv_avx512_few
#define LAYOUT TS_NCHW16C
#define WEIGHT_ORDER dnnl_OIhw16i16o
#define PROCESSOR_SERVES() __builtin_cpu_supports("avx512f")
#define TARGET __attribute__((target("avx512f")))
#define TARGET_INLINE TARGET static inline __attribute__((always_inline))

typedef __m512 vector;

#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define ALL _mm512_set1_ps
#define ZERO _mm512_setzero_ps
#define ADD _mm512_add_ps
#define SUB _mm512_sub_ps
#define MUL _mm512_mul_ps
#define FMA _mm512_fmadd_ps
/* Stays in a register: else each product loads it again, and loads are the limit. */
#define KEEP(x) __asm__("" : "+v"(x))

/* Every 16th of 256 elements. */
TARGET_INLINE vector column(const float *x)
{
    const __m512i at = _mm512_slli_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 4);
    return _mm512_i32gather_ps(at, x, 4);
}

#include "ops/host/winograd_tiles.h"
#include "ops/host/winograd_few.h"
#endif
