/* Attention over one segment with NEON: as the AVX-512 version, sixteen positions in four vectors. */
#ifndef RUSTLLM_ATTENTION_NEON_H
#define RUSTLLM_ATTENTION_NEON_H
#if defined(__aarch64__)

#include "attention_portable.h"

RL_INLINE float32x4_t rl_cache_neon(const void *p, const int is_half, ptrdiff_t i) {
    if (is_half) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p + i)));
    return vld1q_f32((const float *)p + i);
}

/* Scores of queries c0..c0+n-1 for the 16-position blocks b0..b1-1. */
RL_INLINE void rl_scores_neon(const rl_segment *s, const int is_half, const int n, int c0, int b0, int b1,
                              float scores[][RL_SEGMENT]) {
    const int hd = s->head_dim;
    for (int b = b0; b < b1; b++) {
        const ptrdiff_t base = (ptrdiff_t)b * hd * 16;
        float32x4_t acc[4][4], q[4];
        for (int c = 0; c < n; c++)
            for (int p = 0; p < 4; p++) acc[c][p] = vdupq_n_f32(0.0f);
        for (int d = 0; d < hd; d += 4) {
            for (int c = 0; c < n; c++) q[c] = vld1q_f32(s->query[c0 + c] + d);
#define RL_DIMENSION(i)                                                                              \
    _Pragma("GCC unroll 4") for (int p = 0; p < 4; p++) {                                            \
        const float32x4_t k = rl_cache_neon(s->keys, is_half, base + 16 * (d + i) + 4 * p);          \
        _Pragma("GCC unroll 4") for (int c = 0; c < n; c++)                                          \
            acc[c][p] = vfmaq_laneq_f32(acc[c][p], k, q[c], i);                                      \
    }
            RL_DIMENSION(0)
            RL_DIMENSION(1)
            RL_DIMENSION(2)
            RL_DIMENSION(3)
#undef RL_DIMENSION
        }
        for (int c = 0; c < n; c++)
            for (int p = 0; p < 4; p++) vst1q_f32(scores[c0 + c] + 16 * b + 4 * p, acc[c][p]);
    }
}

/* The exponentials of one query's scores, their sum and their maximum. */
RL_INLINE void rl_weights_neon(rl_segment *s, int c, float *scores) {
    static const int32_t places[4] = {0, 1, 2, 3};
    const float32x4_t nothing = vdupq_n_f32(-INFINITY), one = vdupq_n_f32(1.0f), cap = vdupq_n_f32(s->softcap);
    const int first = s->first[c], last = s->last[c], from = first / 16 * 16, to = (last + 15) / 16 * 16;
    const int32x4_t lane = vld1q_s32(places), low = vdupq_n_s32(first), high = vdupq_n_s32(last);
    float32x4_t max = nothing;
    uint32x4_t bad = vdupq_n_u32(0);
    for (int i = from; i < to; i += 4) {
        const int32x4_t at = vaddq_s32(lane, vdupq_n_s32(i));
        float32x4_t v = vld1q_f32(scores + i);
        if (s->softcap > 0.0f) {
            float32x4_t e = rl_exp_neon(vmulq_n_f32(vdivq_f32(v, cap), -2.0f));
            v = vmulq_f32(cap, vdivq_f32(vsubq_f32(one, e), vaddq_f32(one, e)));
        }
        v = vbslq_f32(vandq_u32(vcgeq_s32(at, low), vcltq_s32(at, high)), v, nothing);
        bad = vorrq_u32(bad, rl_nan_neon(v));
        vst1q_f32(scores + i, v);
        max = vmaxq_f32(max, v);
    }
    const float top = vmaxvq_u32(bad) ? rl_bits_to_float(0x7fc00000u) : vmaxvq_f32(max);
    s->max[c] = top;
    s->sum[c] = 0.0f;
    if (top == -INFINITY) return;
    float32x4_t sum[4];
    for (int p = 0; p < 4; p++) sum[p] = vdupq_n_f32(0.0f);
    for (int i = from; i < to; i += 16)
        for (int p = 0; p < 4; p++) {
            float32x4_t e = rl_exp_neon(vsubq_f32(vld1q_f32(scores + i + 4 * p), vdupq_n_f32(top)));
            vst1q_f32(scores + i + 4 * p, e);
            sum[p] = vaddq_f32(sum[p], e);
        }
    const float32x4_t four = vaddq_f32(vaddq_f32(sum[0], sum[2]), vaddq_f32(sum[1], sum[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    s->sum[c] = vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* Adds p[k] * V[k] for n queries, 4 * width dimensions and positions k0..k1-1 to what is there. */
RL_INLINE void rl_values_neon(const rl_segment *s, const int is_half, const int n, const int width, int c0, int d0, int k0,
                              int k1, float scores[][RL_SEGMENT]) {
    float32x4_t acc[4][8];
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) acc[c][j] = vld1q_f32(s->out[c0 + c] + d0 + 4 * j);
    for (int k = k0; k < k1; k++) {
        float32x4_t v[8];
        for (int j = 0; j < width; j++) v[j] = rl_cache_neon(s->values, is_half, (ptrdiff_t)k * s->head_dim + d0 + 4 * j);
#pragma GCC unroll 4
        for (int c = 0; c < n; c++)
            for (int j = 0; j < width; j++) acc[c][j] = vfmaq_n_f32(acc[c][j], v[j], scores[c0 + c][k]);
    }
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) vst1q_f32(s->out[c0 + c] + d0 + 4 * j, acc[c][j]);
}

RL_INLINE void rl_values_of_neon(const rl_segment *s, const int is_half, const int n, int c0, int k0, int k1,
                                 float scores[][RL_SEGMENT]) {
    if (k0 >= k1) return;
    int d = 0;
    if (n <= 2)
        for (; d + 32 <= s->head_dim; d += 32) rl_values_neon(s, is_half, n, 8, c0, d, k0, k1, scores);
    for (; d < s->head_dim; d += 16) rl_values_neon(s, is_half, n, 4, c0, d, k0, k1, scores);
}

RL_INLINE void rl_attend_some_neon(rl_segment *s, const int is_half, const int n, int c0, float scores[][RL_SEGMENT]) {
    int low = RL_SEGMENT, high = 0, from = 0, to = RL_SEGMENT; /* positions of any query, and of every one */
    for (int c = c0; c < c0 + n; c++) {
        low = s->first[c] < low ? s->first[c] : low;
        high = s->last[c] > high ? s->last[c] : high;
        from = s->first[c] > from ? s->first[c] : from;
        to = s->last[c] < to ? s->last[c] : to;
    }
    rl_scores_neon(s, is_half, n, c0, low / 16, (high + 15) / 16, scores);
    int together = n > 1 && from < to;
    for (int c = c0; c < c0 + n; c++) {
        for (int d = 0; d < s->head_dim; d++) s->out[c][d] = 0.0f;
        rl_weights_neon(s, c, scores[c]);
        together = together && s->max[c] != -INFINITY;
    }
    /* A value that a query does not see must not reach it even as 0 * infinity. */
    for (int c = c0; c < c0 + n; c++)
        if (s->max[c] != -INFINITY) rl_values_of_neon(s, is_half, 1, c, s->first[c], together ? from : s->last[c], scores);
    if (!together) return;
    rl_values_of_neon(s, is_half, n, c0, from, to, scores);
    for (int c = c0; c < c0 + n; c++) rl_values_of_neon(s, is_half, 1, c, to, s->last[c], scores);
}

RL_INLINE void rl_attend_as_neon(rl_segment *s, const int is_half) {
    float scores[RL_MAX_QUERIES][RL_SEGMENT];
    const int n = s->n_queries;
    int c = 0;
    for (; c + 4 <= n; c += 4) rl_attend_some_neon(s, is_half, 4, c, scores);
    if (n - c == 3) rl_attend_some_neon(s, is_half, 3, c, scores);
    else if (n - c == 2) rl_attend_some_neon(s, is_half, 2, c, scores);
    else if (n - c == 1) rl_attend_some_neon(s, is_half, 1, c, scores);
}

static void rl_attend_neon(rl_segment *s) {
    if (s->is_half) rl_attend_as_neon(s, 1);
    else rl_attend_as_neon(s, 0);
}

/* The hardware's conversion rounds as rl_float_to_half does. */
static void rl_store_neon(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                          ptrdiff_t slot) {
    if (!is_half) {
        rl_store_body(key, value, keys, values, 0, head_dim, slot);
        return;
    }
    uint16_t *k = (uint16_t *)keys + slot / 16 * head_dim * 16 + slot % 16, *v = (uint16_t *)values + slot * head_dim;
    for (int d = 0; d < head_dim; d += 4) {
        uint16_t halves[4];
        vst1_u16(halves, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(key + d))));
        for (int i = 0; i < 4; i++) k[16 * (d + i)] = halves[i];
        vst1_u16(v + d, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(value + d))));
    }
}

#endif
#endif
