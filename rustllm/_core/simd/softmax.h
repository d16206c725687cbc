/* exp((x - max) * scale) of a row, and its sum: what sampling needs of a row of scores.
 *
 * Sums run in sixteen lanes added by a fixed tree at the end, so every level gives the same bits. */
#ifndef RUSTLLM_SOFTMAX_H
#define RUSTLLM_SOFTMAX_H

#include <stddef.h>

#include "cpu.h"
#include "vector_math.h"

RL_INLINE float rl_softmax_body(const float *x, float max, float scale, ptrdiff_t n, float *y) {
    float lanes[16] = {0};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) {
            float e = rl_exp_portable((x[i + j] - max) * scale);
            y[i + j] = e;
            lanes[j] += e;
        }
    for (int j = 0; i < n; i++, j++) lanes[j] += y[i] = rl_exp_portable((x[i] - max) * scale);
    for (int width = 8; width; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

/* The largest of a row; NaN is skipped, and shows in the sum. */
RL_INLINE float rl_max_body(const float *x, ptrdiff_t n) {
    float lanes[64];
    for (int j = 0; j < 64; j++) lanes[j] = -INFINITY;
    ptrdiff_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (int j = 0; j < 64; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    for (int j = 0; i < n; i++, j++) lanes[j] = x[i] > lanes[j] ? x[i] : lanes[j];
    for (int width = 32; width; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] = lanes[j + width] > lanes[j] ? lanes[j + width] : lanes[j];
    return lanes[0];
}

typedef float (*rl_max_fn)(const float *x, ptrdiff_t n);

static float rl_max_portable(const float *x, ptrdiff_t n) { return rl_max_body(x, n); }

#if defined(__x86_64__)
RL_T_AVX2 static float rl_max_avx2(const float *x, ptrdiff_t n) { return rl_max_body(x, n); }
RL_T_AVX512 static float rl_max_avx512(const float *x, ptrdiff_t n) { return rl_max_body(x, n); }
#endif

static inline rl_max_fn rl_max_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_max_avx512;
    if (level == RL_AVX2) return rl_max_avx2;
#endif
    (void)level;
    return rl_max_portable;
}

typedef float (*rl_softmax_fn)(const float *x, float max, float scale, ptrdiff_t n, float *y);

static float rl_softmax_portable(const float *x, float max, float scale, ptrdiff_t n, float *y) {
    return rl_softmax_body(x, max, scale, n, y);
}

#define RL_TEMPLATE "softmax_any.h"
#include "every_width.h"

static inline rl_softmax_fn rl_softmax_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_softmax_512;
    if (level == RL_AVX2) return rl_softmax_256;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_softmax_neon;
#endif
    (void)level;
    return rl_softmax_portable;
}

#endif
