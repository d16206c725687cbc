/* The linear kernels of every level behind one signature. */
#ifndef RUSTLLM_LINEAR_H
#define RUSTLLM_LINEAR_H

#include "cpu.h"
#include "linear_avx2.h"
#include "linear_avx512.h"
#include "linear_neon.h"
#include "linear_portable.h"

typedef void (*rl_quantize_fn)(const float *x, int n_blocks, uint8_t *tile, int n, int c);

#define RL_PORTABLE_TILE(kind, attributes, nc)                                   \
    attributes static void rl_mm_##kind##_portable_##nc(RL_MM_ARGUMENTS) {       \
        rl_mm_##kind##_portable(m, g0, g1, nc, act, y, stride, bias);            \
    }
RL_FOR_EVERY_TILE(RL_PORTABLE_TILE, int8, )
RL_FOR_EVERY_TILE(RL_PORTABLE_TILE, float, )

/* Kernel for tiles of 1 << log2_width tokens. */
static inline rl_mm_fn rl_mm_kernel(int level, int is_float, int log2_width) {
    static const rl_mm_fn portable[2][4] = {RL_TILES_OF(int8, portable), RL_TILES_OF(float, portable)};
#if defined(__x86_64__)
    static const rl_mm_fn avx2[2][4] = {RL_TILES_OF(int8, 256), RL_TILES_OF(float, 256)};
    static const rl_mm_fn avx512[2][4] = {RL_TILES_OF(int8, 512), RL_TILES_OF(float, 512)};
    if (level == RL_AVX512) return avx512[is_float != 0][log2_width];
    if (level == RL_AVX2) return avx2[is_float != 0][log2_width];
#elif defined(__aarch64__)
    static const rl_mm_fn dotprod[2][4] = {RL_TILES_OF(int8, dotprod), RL_TILES_OF(float, neon)};
    static const rl_mm_fn neon[2][4] = {RL_TILES_OF(int8, neon), RL_TILES_OF(float, neon)};
    if (level == RL_DOTPROD) return dotprod[is_float != 0][log2_width];
    if (level == RL_NEON) return neon[is_float != 0][log2_width];
#endif
    (void)level;
    return portable[is_float != 0][log2_width];
}

static inline rl_quantize_fn rl_quantize_kernel(int level, int is_float) {
    if (is_float) return rl_float_tile;
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_quantize_avx512;
    if (level == RL_AVX2) return rl_quantize_avx2;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_quantize_neon;
#endif
    (void)level;
    return rl_quantize_portable;
}

#endif
