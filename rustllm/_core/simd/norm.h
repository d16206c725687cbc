/* RMS and layer normalisation of one row, the same bits at every level.
 *
 * Sums run in sixteen lanes (element i in lane i % 16) that a fixed tree adds at the end, which is
 * what a 512-bit register does; plain loops over 16-element arrays vectorise to it. */
#ifndef RUSTLLM_NORM_H
#define RUSTLLM_NORM_H

#include <math.h>

#include "cpu.h"
#include "target.h"

RL_INLINE float rl_tree16(float lanes[16]) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

RL_INLINE void rl_norm_body(const float *x, const float *weight, const float *bias, float eps, int centre, int n, float *y) {
    float lanes[16] = {0}, mean = 0.0f;
    if (centre) {
        for (int i = 0; i + 16 <= n; i += 16)
            for (int j = 0; j < 16; j++) lanes[j] += x[i + j];
        for (int i = n / 16 * 16, j = 0; i < n; i++, j++) lanes[j] += x[i];
        mean = rl_tree16(lanes) / (float)n;
        for (int j = 0; j < 16; j++) lanes[j] = 0.0f;
    }
    for (int i = 0; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) {
            float v = x[i + j] - mean;
            lanes[j] = fmaf(v, v, lanes[j]);
        }
    for (int i = n / 16 * 16, j = 0; i < n; i++, j++) {
        float v = x[i] - mean;
        lanes[j] = fmaf(v, v, lanes[j]);
    }
    const float scale = 1.0f / sqrtf(rl_tree16(lanes) / (float)n + eps);
    if (bias) {
        for (int i = 0; i < n; i++) y[i] = fmaf((x[i] - mean) * scale, weight[i], bias[i]);
    } else {
        for (int i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * weight[i];
    }
}

typedef void (*rl_norm_fn)(const float *x, const float *weight, const float *bias, float eps, int centre, int n, float *y);

static void rl_norm_portable(const float *x, const float *weight, const float *bias, float eps, int centre, int n, float *y) {
    rl_norm_body(x, weight, bias, eps, centre, n, y);
}

#if defined(__x86_64__)
RL_T_AVX2 static void rl_norm_avx2(const float *x, const float *weight, const float *bias, float eps, int centre, int n, float *y) {
    rl_norm_body(x, weight, bias, eps, centre, n, y);
}
RL_T_AVX512 static void rl_norm_avx512(const float *x, const float *weight, const float *bias, float eps, int centre, int n, float *y) {
    rl_norm_body(x, weight, bias, eps, centre, n, y);
}
#endif

static inline rl_norm_fn rl_norm_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_norm_avx512;
    if (level == RL_AVX2) return rl_norm_avx2;
#endif
    (void)level;
    return rl_norm_portable;
}

#endif
