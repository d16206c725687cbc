/* The few operations on vectors of floats that code written once for every width is made of.
 *
 * Each stands for one instruction, under one name with the width at its end: 256 (AVX2), 512
 * (AVX-512), neon; RL_V(name) is the one of the width that a template is compiled for (every_width.h).
 */
#ifndef RUSTLLM_VECTORS_H
#define RUSTLLM_VECTORS_H

#include <stdint.h>
#include <string.h>

#include "target.h"

/* RL_V(rl_add) is rl_add_256 while RL_WIDTH is 256. */
#define RL_PASTE2(a, b) a##_##b
#define RL_PASTE(a, b) RL_PASTE2(a, b)
#define RL_V(name) RL_PASTE(name, RL_WIDTH)

#if defined(__x86_64__)

typedef __m256 rl_vec_256;
typedef __m256 rl_mask_256;
enum { rl_lanes_256 = 8, rl_lanes_512 = 16 };
RL_INLINE_AVX2 __m256 rl_all_256(float x) { return _mm256_set1_ps(x); }
RL_INLINE_AVX2 __m256 rl_load_256(const float *p) { return _mm256_loadu_ps(p); }
RL_INLINE_AVX2 void rl_put_256(float *p, __m256 v) { _mm256_storeu_ps(p, v); }
RL_INLINE_AVX2 __m256 rl_add_256(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
RL_INLINE_AVX2 __m256 rl_sub_256(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
RL_INLINE_AVX2 __m256 rl_mul_256(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
RL_INLINE_AVX2 __m256 rl_div_256(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }
RL_INLINE_AVX2 __m256 rl_min_256(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
RL_INLINE_AVX2 __m256 rl_max_256(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
RL_INLINE_AVX2 __m256 rl_neg_256(__m256 a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
RL_INLINE_AVX2 __m256 rl_abs_256(__m256 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/* a * b + c and c - a * b, rounded once */
RL_INLINE_AVX2 __m256 rl_fma_256(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
RL_INLINE_AVX2 __m256 rl_fnma_256(__m256 a, __m256 b, __m256 c) { return _mm256_fnmadd_ps(a, b, c); }
RL_INLINE_AVX2 __m256 rl_round_256(__m256 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* 2 to the power of a whole number */
RL_INLINE_AVX2 __m256 rl_pow2_256(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
RL_INLINE_AVX2 __m256 rl_less_256(__m256 a, __m256 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
RL_INLINE_AVX2 __m256 rl_nan_256(__m256 a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
RL_INLINE_AVX2 __m256 rl_pick_256(__m256 where, __m256 yes, __m256 no) { return _mm256_blendv_ps(no, yes, where); }
RL_INLINE_AVX2 __m256 rl_zero_where_256(__m256 where, __m256 v) { return _mm256_andnot_ps(where, v); }
RL_INLINE_AVX2 __m256 rl_from_half_256(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
/* Sixteen numbers. */
RL_INLINE_AVX2 void rl_halves16_256(const uint16_t *p, __m256 v[2]) {
    v[0] = rl_from_half_256(p);
    v[1] = rl_from_half_256(p + 8);
}
RL_INLINE_AVX2 void rl_bf16s16_256(const uint16_t *p, __m256 v[2]) {
    for (int i = 0; i < 2; i++) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8 * i)));
        v[i] = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
}
RL_INLINE_AVX2 void rl_int8s16_256(const int8_t *p, __m256 v[2]) {
    for (int i = 0; i < 2; i++)
        v[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8 * i))));
}
RL_INLINE_AVX2 void rl_to_half_256(uint16_t *p, __m256 v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
RL_INLINE_AVX2 int rl_any_nan_256(__m256 v) { return _mm256_movemask_ps(rl_nan_256(v)) != 0; }
/* Of all lanes: the sum and the maximum, halves folded onto each other. */
RL_INLINE_AVX2 float rl_tree_256(__m256 v) {
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps(h, h, 1)));
}
RL_INLINE_AVX2 float rl_top_256(__m256 v) {
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_shuffle_ps(h, h, 1)));
}

typedef __m512 rl_vec_512;
typedef __mmask16 rl_mask_512;
RL_INLINE_AVX512 __m512 rl_all_512(float x) { return _mm512_set1_ps(x); }
RL_INLINE_AVX512 __m512 rl_load_512(const float *p) { return _mm512_loadu_ps(p); }
RL_INLINE_AVX512 void rl_put_512(float *p, __m512 v) { _mm512_storeu_ps(p, v); }
RL_INLINE_AVX512 __m512 rl_add_512(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
RL_INLINE_AVX512 __m512 rl_sub_512(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
RL_INLINE_AVX512 __m512 rl_mul_512(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
RL_INLINE_AVX512 __m512 rl_div_512(__m512 a, __m512 b) { return _mm512_div_ps(a, b); }
RL_INLINE_AVX512 __m512 rl_min_512(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
RL_INLINE_AVX512 __m512 rl_max_512(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
RL_INLINE_AVX512 __m512 rl_neg_512(__m512 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
RL_INLINE_AVX512 __m512 rl_abs_512(__m512 a) { return _mm512_abs_ps(a); }
RL_INLINE_AVX512 __m512 rl_fma_512(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
RL_INLINE_AVX512 __m512 rl_fnma_512(__m512 a, __m512 b, __m512 c) { return _mm512_fnmadd_ps(a, b, c); }
RL_INLINE_AVX512 __m512 rl_round_512(__m512 a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
RL_INLINE_AVX512 __m512 rl_pow2_512(__m512 n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
RL_INLINE_AVX512 __mmask16 rl_less_512(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
RL_INLINE_AVX512 __mmask16 rl_nan_512(__m512 a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
RL_INLINE_AVX512 __m512 rl_pick_512(__mmask16 where, __m512 yes, __m512 no) { return _mm512_mask_mov_ps(no, where, yes); }
RL_INLINE_AVX512 __m512 rl_zero_where_512(__mmask16 where, __m512 v) {
    return _mm512_maskz_mov_ps((__mmask16)~where, v);
}
RL_INLINE_AVX512 __m512 rl_from_half_512(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
RL_INLINE_AVX512 void rl_halves16_512(const uint16_t *p, __m512 v[1]) { v[0] = rl_from_half_512(p); }
RL_INLINE_AVX512 void rl_bf16s16_512(const uint16_t *p, __m512 v[1]) {
    v[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
RL_INLINE_AVX512 void rl_int8s16_512(const int8_t *p, __m512 v[1]) {
    v[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
RL_INLINE_AVX512 void rl_to_half_512(uint16_t *p, __m512 v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
RL_INLINE_AVX512 int rl_any_nan_512(__m512 v) { return rl_nan_512(v) != 0; }
RL_INLINE_AVX512 float rl_tree_512(__m512 v) {
    return rl_tree_256(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}
RL_INLINE_AVX512 float rl_top_512(__m512 v) { return _mm512_reduce_max_ps(v); }

#elif defined(__aarch64__)

typedef float32x4_t rl_vec_neon;
typedef uint32x4_t rl_mask_neon;
enum { rl_lanes_neon = 4 };
RL_INLINE float32x4_t rl_all_neon(float x) { return vdupq_n_f32(x); }
RL_INLINE float32x4_t rl_load_neon(const float *p) { return vld1q_f32(p); }
RL_INLINE void rl_put_neon(float *p, float32x4_t v) { vst1q_f32(p, v); }
RL_INLINE float32x4_t rl_add_neon(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
RL_INLINE float32x4_t rl_sub_neon(float32x4_t a, float32x4_t b) { return vsubq_f32(a, b); }
RL_INLINE float32x4_t rl_mul_neon(float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }
RL_INLINE float32x4_t rl_div_neon(float32x4_t a, float32x4_t b) { return vdivq_f32(a, b); }
RL_INLINE float32x4_t rl_min_neon(float32x4_t a, float32x4_t b) { return vminnmq_f32(a, b); }
RL_INLINE float32x4_t rl_max_neon(float32x4_t a, float32x4_t b) { return vmaxnmq_f32(a, b); }
RL_INLINE float32x4_t rl_neg_neon(float32x4_t a) { return vnegq_f32(a); }
RL_INLINE float32x4_t rl_abs_neon(float32x4_t a) { return vabsq_f32(a); }
RL_INLINE float32x4_t rl_fma_neon(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
RL_INLINE float32x4_t rl_fnma_neon(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmsq_f32(c, a, b); }
RL_INLINE float32x4_t rl_round_neon(float32x4_t a) { return vrndnq_f32(a); }
RL_INLINE float32x4_t rl_pow2_neon(float32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
RL_INLINE uint32x4_t rl_less_neon(float32x4_t a, float32x4_t b) { return vcltq_f32(a, b); }
RL_INLINE uint32x4_t rl_nan_neon(float32x4_t a) { return vmvnq_u32(vceqq_f32(a, a)); }
RL_INLINE float32x4_t rl_pick_neon(uint32x4_t where, float32x4_t yes, float32x4_t no) { return vbslq_f32(where, yes, no); }
RL_INLINE float32x4_t rl_zero_where_neon(uint32x4_t where, float32x4_t v) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), where));
}

RL_INLINE float32x4_t rl_from_half_neon(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
RL_INLINE void rl_halves16_neon(const uint16_t *p, float32x4_t v[4]) {
    for (int i = 0; i < 2; i++) {
        const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(p + 8 * i));
        v[2 * i] = vcvt_f32_f16(vget_low_f16(halves));
        v[2 * i + 1] = vcvt_high_f32_f16(halves);
    }
}
RL_INLINE void rl_bf16s16_neon(const uint16_t *p, float32x4_t v[4]) {
    for (int i = 0; i < 2; i++) {
        const uint16x8_t both = vld1q_u16(p + 8 * i);
        v[2 * i] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(both), 16));
        v[2 * i + 1] = vreinterpretq_f32_u32(vshll_high_n_u16(both, 16));
    }
}
RL_INLINE void rl_int8s16_neon(const int8_t *p, float32x4_t v[4]) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    v[1] = vcvtq_f32_s32(vmovl_high_s16(low));
    v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    v[3] = vcvtq_f32_s32(vmovl_high_s16(high));
}
RL_INLINE void rl_to_half_neon(uint16_t *p, float32x4_t v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
RL_INLINE int rl_any_nan_neon(float32x4_t v) { return vmaxvq_u32(rl_nan_neon(v)) != 0; }
RL_INLINE float rl_tree_neon(float32x4_t v) {
    const float32x2_t two = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
RL_INLINE float rl_top_neon(float32x4_t v) { return vmaxvq_f32(v); }

#endif
#endif
