/* The linear kernels of every level behind one signature. */
#ifndef RUSTLLM_LINEAR_H
#define RUSTLLM_LINEAR_H

#include "cpu.h"
#include "linear_avx2.h"
#include "linear_avx512.h"
#include "linear_portable.h"

/* Rows of groups g0..g1-1 for one tile of activations: y[token * stride + row]. */
typedef void (*rl_mm_fn)(const rl_matrix *m, int32_t g0, int32_t g1, const uint8_t *act, float *y, ptrdiff_t stride,
                         const float *bias);
typedef void (*rl_quantize_fn)(const float *x, int n_blocks, uint8_t *tile, int n, int c);

typedef void (*rl_residual_fn)(const float *x, int n_blocks, const uint8_t *tile, int n, int c, float *rest);

#define RL_PORTABLE_TILE(nc)                                                                                      \
    static void rl_mm_int8_portable_##nc(const rl_matrix *m, int32_t g0, int32_t g1, const uint8_t *act, float *y,  \
                                         ptrdiff_t stride, const float *bias) {                                   \
        rl_mm_int8_portable(m, g0, g1, nc, act, y, stride, bias);                                                 \
    }                                                                                                             \
    static void rl_mm_float_portable_##nc(const rl_matrix *m, int32_t g0, int32_t g1, const uint8_t *act, float *y, \
                                          ptrdiff_t stride, const float *bias) {                                  \
        rl_mm_float_portable(m, g0, g1, nc, act, y, stride, bias);                                                \
    }
RL_PORTABLE_TILE(1)
RL_PORTABLE_TILE(2)
RL_PORTABLE_TILE(4)
RL_PORTABLE_TILE(8)

/* Kernel for tiles of 1 << log2_width tokens. */
static inline rl_mm_fn rl_mm_kernel(int level, int is_float, int log2_width) {
    static const rl_mm_fn portable[2][4] = {
        {rl_mm_int8_portable_1, rl_mm_int8_portable_2, rl_mm_int8_portable_4, rl_mm_int8_portable_8},
        {rl_mm_float_portable_1, rl_mm_float_portable_2, rl_mm_float_portable_4, rl_mm_float_portable_8}};
#if defined(__x86_64__)
    static const rl_mm_fn avx2[2][4] = {
        {rl_mm_int8_256_1, rl_mm_int8_256_2, rl_mm_int8_256_4, rl_mm_int8_256_8},
        {rl_mm_float_256_1, rl_mm_float_256_2, rl_mm_float_256_4, rl_mm_float_256_8}};
    static const rl_mm_fn avx512[2][4] = {
        {rl_mm_int8_512_1, rl_mm_int8_512_2, rl_mm_int8_512_4, rl_mm_int8_512_8},
        {rl_mm_float_512_1, rl_mm_float_512_2, rl_mm_float_512_4, rl_mm_float_512_8}};
    if (level == RL_AVX512) return avx512[is_float != 0][log2_width];
    if (level == RL_AVX2) return avx2[is_float != 0][log2_width];
#endif
    (void)level;
    return portable[is_float != 0][log2_width];
}

static inline rl_quantize_fn rl_quantize_kernel(int level, int is_float) {
    if (is_float) return rl_float_tile;
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_quantize_avx512;
    if (level == RL_AVX2) return rl_quantize_avx2;
#endif
    (void)level;
    return rl_quantize_portable;
}

static inline rl_residual_fn rl_residual_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_residual_avx512;
    if (level == RL_AVX2) return rl_residual_avx2;
#endif
    (void)level;
    return rl_residual_portable;
}

#endif
