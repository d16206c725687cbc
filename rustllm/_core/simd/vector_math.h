/* exp and the activations built on it, the same bits at every level.
 *
 * exp: Cody and Waite reduction by ln 2 in two parts, then a degree-6 polynomial (the minimax
 * coefficients of Cephes' expf); relative error under 2e-7. Below -87.3 the result is 0.
 */
#ifndef RUSTLLM_VECTOR_MATH_H
#define RUSTLLM_VECTOR_MATH_H

#include <math.h>

#include "cpu.h"
#include "half.h"
#include "vectors.h"

#define RL_EXP_MIN -87.3f
#define RL_EXP_MAX 88.3f
#define RL_LOG2E 1.44269504088896341f
#define RL_LN2_HI 0.693359375f
#define RL_LN2_LO -2.12194440e-4f
#define RL_EXP_P0 1.9875691500e-4f
#define RL_EXP_P1 1.3981999507e-3f
#define RL_EXP_P2 8.3334519073e-3f
#define RL_EXP_P3 4.1665795894e-2f
#define RL_EXP_P4 1.6666665459e-1f
#define RL_EXP_P5 5.0000001201e-1f
#define RL_GELU_A 0.79788456080286535588f
#define RL_GELU_B 0.044715f

/* erfc(z) = t exp(P(t) - z z) with t = 2 / (2 + z) for z >= 0; P fitted at Chebyshev nodes, relative
 * error of erfc under 4e-7. */
#define RL_ERFC_DEGREE 9
static const float rl_erfc_p[RL_ERFC_DEGREE + 1] = {
    -1.2654266357421875f, 0.9982059001922607f, 0.3902571499347687f, 0.01752616837620735f,
    0.050936561077833176f, -0.17287148535251617f, -0.5852668881416321f, 1.073991298675537f,
    -0.6459113359451294f, 0.13855934143066406f,
};

enum { RL_ACT_SILU = 1, RL_ACT_GELU_TANH = 2, RL_ACT_GELU = 3 };

RL_INLINE float rl_exp_portable(float x) {
    if (x != x) return x;
    if (x < RL_EXP_MIN) return 0.0f;
    if (x > RL_EXP_MAX) x = RL_EXP_MAX;
    float n = rintf(x * RL_LOG2E);
    float r = fmaf(-n, RL_LN2_HI, x);
    r = fmaf(-n, RL_LN2_LO, r);
    float p = fmaf(RL_EXP_P0, r, RL_EXP_P1);
    p = fmaf(p, r, RL_EXP_P2);
    p = fmaf(p, r, RL_EXP_P3);
    p = fmaf(p, r, RL_EXP_P4);
    p = fmaf(p, r, RL_EXP_P5);
    p = fmaf(p, r * r, r) + 1.0f;
    return p * rl_bits_to_float((uint32_t)((int32_t)n + 127) << 23);
}

static inline float rl_silu_portable(float x) { return x / (1.0f + rl_exp_portable(-x)); }

/* 0.5 x (1 + tanh u) is x / (1 + exp(-2u)). */
static inline float rl_gelu_tanh_portable(float x) {
    float u = RL_GELU_A * fmaf(RL_GELU_B * x * x, x, x);
    return x / (1.0f + rl_exp_portable(-2.0f * u));
}

/* x times the normal distribution function, which is erfc(-x / sqrt 2) / 2. */
static inline float rl_gelu_portable(float x) {
    float z = fabsf(x) * 0.70710678118654752440f;
    float t = 2.0f / (2.0f + z);
    float p = rl_erfc_p[RL_ERFC_DEGREE];
    for (int i = RL_ERFC_DEGREE - 1; i >= 0; i--) p = fmaf(p, t, rl_erfc_p[i]);
    float tail = 0.5f * t * rl_exp_portable(fmaf(-z, z, p));
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static inline float rl_activation_portable(int act, float x) {
    if (act == RL_ACT_SILU) return rl_silu_portable(x);
    return act == RL_ACT_GELU ? rl_gelu_portable(x) : rl_gelu_tanh_portable(x);
}

/* gate[i] = act(gate[i]) * up[i]; up NULL: no product. */
static void rl_activate_portable(int act, float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float v = rl_activation_portable(act, gate[i]);
        gate[i] = up ? v * up[i] : v;
    }
}

#define RL_TEMPLATE "vector_math_any.h"
#include "every_width.h"

typedef void (*rl_activate_fn)(int act, float *gate, const float *up, int n);

static inline rl_activate_fn rl_activate_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_activate_512;
    if (level == RL_AVX2) return rl_activate_256;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_activate_neon;
#endif
    (void)level;
    return rl_activate_portable;
}

#endif
