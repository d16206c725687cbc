/* Rows to and from blocks, compiled for each instruction set.

   One source, so that the results are the same bits: there is no contraction, and every sum has a
   fixed order of eight partial sums that any vector width can follow. */
#ifndef RUSTLLM_BLOCK_ROWS_H
#define RUSTLLM_BLOCK_ROWS_H

#include "cpu.h"
#include "quantize.h"

static int rl_dequantize_portable(int type, const uint8_t *src, float *dst, ptrdiff_t n) {
    return rl_dequantize_row(type, src, dst, n);
}

static int rl_quantize_portable(int type, const float *x, const float *weights, uint8_t *dst,
                                ptrdiff_t n) {
    return rl_quantize_row(type, x, weights, dst, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int rl_dequantize_avx2(int type, const uint8_t *src,
                                                              float *dst, ptrdiff_t n) {
    return rl_dequantize_row(type, src, dst, n);
}

__attribute__((target("avx2"))) static int rl_quantize_avx2(int type, const float *x,
                                                            const float *weights, uint8_t *dst,
                                                            ptrdiff_t n) {
    return rl_quantize_row(type, x, weights, dst, n);
}
#endif

static inline int rl_dequantize_at(int level, int type, const uint8_t *src, float *dst,
                                   ptrdiff_t n) {
#if defined(__x86_64__)
    if (level == RL_AVX2 || level == RL_AVX512) return rl_dequantize_avx2(type, src, dst, n);
#endif
    (void)level;
    return rl_dequantize_portable(type, src, dst, n);
}

static inline int rl_quantize_at(int level, int type, const float *x, const float *weights,
                                 uint8_t *dst, ptrdiff_t n) {
#if defined(__x86_64__)
    if (level == RL_AVX2 || level == RL_AVX512) return rl_quantize_avx2(type, x, weights, dst, n);
#endif
    (void)level;
    return rl_quantize_portable(type, x, weights, dst, n);
}

#endif
