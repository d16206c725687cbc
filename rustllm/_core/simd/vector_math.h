/* exp and the activations built on it, the same bits at every level.
 *
 * exp: Cody and Waite reduction by ln 2 in two parts, then a degree-6 polynomial (the minimax
 * coefficients of Cephes' expf); relative error under 2e-7. Below -87.3 the result is 0.
 */
#ifndef RUSTLLM_VECTOR_MATH_H
#define RUSTLLM_VECTOR_MATH_H

#include <math.h>

#include "half.h"
#include "target.h"

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

#if defined(__x86_64__)

RL_INLINE_AVX512 __m512 rl_exp_512(__m512 x) {
    const __mmask16 tiny = _mm512_cmp_ps_mask(x, _mm512_set1_ps(RL_EXP_MIN), _CMP_LT_OQ);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __m512 v = _mm512_min_ps(x, _mm512_set1_ps(RL_EXP_MAX));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(RL_LOG2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(RL_LN2_HI), v);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(RL_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(RL_EXP_P0), r, _mm512_set1_ps(RL_EXP_P1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(RL_EXP_P2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(RL_EXP_P3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(RL_EXP_P4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(RL_EXP_P5));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    __m512i e = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    p = _mm512_mul_ps(p, _mm512_castsi512_ps(e));
    p = _mm512_maskz_mov_ps((__mmask16)~tiny, p);
    return _mm512_mask_mov_ps(p, nan, x);
}

RL_INLINE_AVX512 __m512 rl_gelu_512(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678118654752440f));
    __m512 t = _mm512_div_ps(two, _mm512_add_ps(two, z));
    __m512 p = _mm512_set1_ps(rl_erfc_p[RL_ERFC_DEGREE]);
    for (int i = RL_ERFC_DEGREE - 1; i >= 0; i--) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(rl_erfc_p[i]));
    __m512 e = rl_exp_512(_mm512_fnmadd_ps(z, z, p));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), t), e);
    const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(one, tail), negative, tail));
}

RL_INLINE_AVX512 __m512 rl_act_512(int act, __m512 x) {
    if (act == RL_ACT_GELU) return rl_gelu_512(x);
    const __m512 one = _mm512_set1_ps(1.0f), minus0 = _mm512_set1_ps(-0.0f);
    __m512 e;
    if (act == RL_ACT_SILU) {
        e = rl_exp_512(_mm512_xor_ps(x, minus0));
    } else {
        __m512 cube = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(RL_GELU_B), x), x);
        __m512 u = _mm512_mul_ps(_mm512_set1_ps(RL_GELU_A), _mm512_fmadd_ps(cube, x, x));
        e = rl_exp_512(_mm512_mul_ps(_mm512_set1_ps(-2.0f), u));
    }
    return _mm512_div_ps(x, _mm512_add_ps(one, e));
}

RL_T_AVX512 static void rl_activate_avx512(int act, float *gate, const float *up, int n) {
    for (int i = 0; i < n; i += 16) {
        const __mmask16 valid = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m512 v = rl_act_512(act, _mm512_maskz_loadu_ps(valid, gate + i));
        if (up) v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(valid, up + i));
        _mm512_mask_storeu_ps(gate + i, valid, v);
    }
}

RL_INLINE_AVX2 __m256 rl_exp_256(__m256 x) {
    const __m256 keep = _mm256_cmp_ps(x, _mm256_set1_ps(RL_EXP_MIN), _CMP_NLT_UQ);
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    __m256 v = _mm256_min_ps(x, _mm256_set1_ps(RL_EXP_MAX));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(v, _mm256_set1_ps(RL_LOG2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(RL_LN2_HI), v);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(RL_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(RL_EXP_P0), r, _mm256_set1_ps(RL_EXP_P1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(RL_EXP_P2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(RL_EXP_P3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(RL_EXP_P4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(RL_EXP_P5));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    p = _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(e)), keep);
    return _mm256_blendv_ps(p, x, nan);
}

RL_INLINE_AVX2 __m256 rl_gelu_256(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    __m256 z = _mm256_mul_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x), _mm256_set1_ps(0.70710678118654752440f));
    __m256 t = _mm256_div_ps(two, _mm256_add_ps(two, z));
    __m256 p = _mm256_set1_ps(rl_erfc_p[RL_ERFC_DEGREE]);
    for (int i = RL_ERFC_DEGREE - 1; i >= 0; i--) p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(rl_erfc_p[i]));
    __m256 e = rl_exp_256(_mm256_fnmadd_ps(z, z, p));
    __m256 tail = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.5f), t), e);
    const __m256 negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_mul_ps(x, _mm256_blendv_ps(_mm256_sub_ps(one, tail), tail, negative));
}

RL_T_AVX2 static void rl_activate_avx2(int act, float *gate, const float *up, int n) {
    const __m256 one = _mm256_set1_ps(1.0f), minus0 = _mm256_set1_ps(-0.0f);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 x = _mm256_loadu_ps(gate + i), e, v;
        if (act == RL_ACT_SILU) {
            e = rl_exp_256(_mm256_xor_ps(x, minus0));
        } else if (act == RL_ACT_GELU) {
            e = one;
        } else {
            __m256 cube = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(RL_GELU_B), x), x);
            __m256 u = _mm256_mul_ps(_mm256_set1_ps(RL_GELU_A), _mm256_fmadd_ps(cube, x, x));
            e = rl_exp_256(_mm256_mul_ps(_mm256_set1_ps(-2.0f), u));
        }
        v = act == RL_ACT_GELU ? rl_gelu_256(x) : _mm256_div_ps(x, _mm256_add_ps(one, e));
        if (up) v = _mm256_mul_ps(v, _mm256_loadu_ps(up + i));
        _mm256_storeu_ps(gate + i, v);
    }
    if (i < n) rl_activate_portable(act, gate + i, up ? up + i : NULL, n - i);
}

#endif
#endif
