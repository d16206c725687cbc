/* The few operations on vectors of floats that code written once for every width is made of.
 *
 * Each stands for one instruction, under one name with the width at its end: 256 (AVX2), 512
 * (AVX-512), neon; RL_V(name) is the one of the width that a template is compiled for (every_width.h).
 */
#ifndef RUSTLLM_VECTORS_H
#define RUSTLLM_VECTORS_H

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

#endif
#endif
