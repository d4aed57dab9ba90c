/* random.h - random numbers as functions of a key and a counter, the same bits on every device.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011) gives the numbers; a Feistel network with cycle walking gives a permutation of
 * 0..n-1 that needs no memory. Nothing here has state, so any element can be computed anywhere,
 * in any order. TS_HD marks what a CUDA source compiles for host and device. */
#ifndef TS_BASE_RANDOM_H
#define TS_BASE_RANDOM_H

#include <stdint.h>

#ifdef __CUDACC__
#define TS_HD static __host__ __device__ inline
#else
#define TS_HD static inline
#endif

typedef struct ts_random4 {
    uint32_t v[4];
} ts_random4;

/* Four random words for (seed; a, b): one counter block, 10 rounds. */
TS_HD ts_random4 ts_random(uint64_t seed, uint64_t a, uint64_t b)
{
    uint32_t c0 = (uint32_t)a, c1 = (uint32_t)(a >> 32), c2 = (uint32_t)b, c3 = (uint32_t)(b >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    ts_random4 r = {{c0, c1, c2, c3}};
    return r;
}

/* Uniform in [0, 1): the upper 24 bits, exact in fp32. */
TS_HD float ts_random_unit(uint32_t word)
{
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}

/* Element `i` of a permutation of 0..n-1 chosen by (seed, stream); 1 <= n <= 2^62, 0 <= i < n.
 * A balanced Feistel network over the smallest even number of bits that holds n, walked until
 * the image is inside: under 4 steps on average. */
TS_HD uint64_t ts_random_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i)
{
    int half = 1;
    while (half < 31 && ((uint64_t)1 << (2 * half)) < n) half++;
    uint32_t mask = (uint32_t)(((uint64_t)1 << half) - 1);
    do {
        uint32_t left = (uint32_t)(i >> half) & mask, right = (uint32_t)i & mask;
        for (int round = 0; round < 6; round++) {
            uint32_t f = ts_random(seed, stream, (uint64_t)round << 32 | right).v[0] & mask;
            uint32_t next = left ^ f;
            left = right;
            right = next;
        }
        i = (uint64_t)left << half | right;
    } while (i >= n);
    return i;
}

#endif
