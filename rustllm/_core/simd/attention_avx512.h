/* Attention over one segment with AVX-512: sixteen positions a vector, up to eight queries together. */
#ifndef RUSTLLM_ATTENTION_AVX512_H
#define RUSTLLM_ATTENTION_AVX512_H
#if defined(__x86_64__)

#include "attention_portable.h"

RL_INLINE_AVX512 __m512 rl_cache_512(const void *p, const int is_half, ptrdiff_t i) {
    if (is_half) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)p + i)));
    return _mm512_loadu_ps((const float *)p + i);
}

RL_INLINE_AVX512 float rl_tree_sum_512(__m512 v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

/* Scores of queries c0..c0+n-1 for the 16-position blocks b0..b1-1. */
RL_INLINE_AVX512 void rl_scores_512(const rl_segment *s, const int is_half, const int n, int c0, int b0, int b1,
                                    float scores[][RL_SEGMENT]) {
    const int hd = s->head_dim;
    int b = b0;
    for (; b < b1; b++) {
        __m512 acc[8];
        for (int c = 0; c < n; c++) acc[c] = _mm512_setzero_ps();
        const ptrdiff_t base = (ptrdiff_t)b * hd * 16;
#pragma GCC unroll 4
        for (int d = 0; d < hd; d++) {
            __m512 k = rl_cache_512(s->keys, is_half, base + 16 * d);
#pragma GCC unroll 8
            for (int c = 0; c < n; c++) acc[c] = _mm512_fmadd_ps(k, _mm512_set1_ps(s->query[c0 + c][d]), acc[c]);
        }
        for (int c = 0; c < n; c++) _mm512_store_ps(scores[c0 + c] + 16 * b, acc[c]);
    }
}

/* Adds p[k] * V[k] for n queries, 16 * width dimensions and positions k0..k1-1 to what is there. */
RL_INLINE_AVX512 void rl_values_512(const rl_segment *s, const int is_half, const int n, const int width, int c0, int d0,
                                    int k0, int k1, float scores[][RL_SEGMENT]) {
    const int hd = s->head_dim;
    __m512 acc[4][4];
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) acc[c][j] = _mm512_loadu_ps(s->out[c0 + c] + d0 + 16 * j);
    for (int k = k0; k < k1; k++) {
        __m512 v[4];
        for (int j = 0; j < width; j++) v[j] = rl_cache_512(s->values, is_half, (ptrdiff_t)k * hd + d0 + 16 * j);
        for (int c = 0; c < n; c++) {
            __m512 p = _mm512_set1_ps(scores[c0 + c][k]);
            for (int j = 0; j < width; j++) acc[c][j] = _mm512_fmadd_ps(p, v[j], acc[c][j]);
        }
    }
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) _mm512_storeu_ps(s->out[c0 + c] + d0 + 16 * j, acc[c][j]);
}

RL_INLINE_AVX512 void rl_values_of_512(const rl_segment *s, const int is_half, const int n, int c0, int k0, int k1,
                                       float scores[][RL_SEGMENT]) {
    if (k0 >= k1) return;
    int d = 0;
    for (; d + 64 <= s->head_dim; d += 64) rl_values_512(s, is_half, n, 4, c0, d, k0, k1, scores);
    for (; d < s->head_dim; d += 16)
        for (int c = c0; c < c0 + n; c++) rl_values_512(s, is_half, 1, 1, c, d, k0, k1, scores);
}

/* Values of queries c0..c0+n-1. Those that every one sees are read once; one that a query does not see must not reach
   it even as 0 * infinity. */
RL_INLINE_AVX512 void rl_values_seen_512(const rl_segment *s, const int is_half, const int n, int c0, float scores[][RL_SEGMENT]) {
    int from = 0, to = RL_SEGMENT, together = n > 1;
    for (int c = c0; c < c0 + n; c++) {
        for (int d = 0; d < s->head_dim; d += 16) _mm512_storeu_ps(s->out[c] + d, _mm512_setzero_ps());
        from = s->first[c] > from ? s->first[c] : from;
        to = s->last[c] < to ? s->last[c] : to;
        together = together && s->max[c] != -INFINITY;
    }
    together = together && from < to;
    for (int c = c0; c < c0 + n; c++)
        if (s->max[c] != -INFINITY) rl_values_of_512(s, is_half, 1, c, s->first[c], together ? from : s->last[c], scores);
    if (!together) return;
    rl_values_of_512(s, is_half, n, c0, from, to, scores);
    for (int c = c0; c < c0 + n; c++) rl_values_of_512(s, is_half, 1, c, to, s->last[c], scores);
}

RL_INLINE_AVX512 void rl_attend_512(rl_segment *s, const int is_half) {
    float scores[RL_MAX_QUERIES][RL_SEGMENT] __attribute__((aligned(64)));
    const int n = s->n_queries;
    int low = RL_SEGMENT, high = 0;
    for (int c = 0; c < n; c++) {
        low = s->first[c] < low ? s->first[c] : low;
        high = s->last[c] > high ? s->last[c] : high;
    }
    const int b0 = low / 16, b1 = (high + 15) / 16;
    for (int c = 0; c < n;) {
        switch (n - c >= 8 ? 8 : n - c >= 4 ? 4 : n - c) {
        case 8: rl_scores_512(s, is_half, 8, c, b0, b1, scores); c += 8; break;
        case 4: rl_scores_512(s, is_half, 4, c, b0, b1, scores); c += 4; break;
        case 3: rl_scores_512(s, is_half, 3, c, b0, b1, scores); c += 3; break;
        case 2: rl_scores_512(s, is_half, 2, c, b0, b1, scores); c += 2; break;
        default: rl_scores_512(s, is_half, 1, c, b0, b1, scores); c += 1; break;
        }
    }
    for (int c = 0; c < n; c++) {
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512 nothing = _mm512_set1_ps(-INFINITY);
        const int first = s->first[c], last = s->last[c];
        __m512 max = nothing;
        __mmask16 bad = 0;
        for (int b = b0; b < b1; b++) {
            __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32(16 * b));
            __mmask16 seen = _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(first)) & _mm512_cmplt_epi32_mask(at, _mm512_set1_epi32(last));
            __m512 v = _mm512_load_ps(scores[c] + 16 * b);
            if (s->softcap > 0.0f) {
                __m512 cap = _mm512_set1_ps(s->softcap), one = _mm512_set1_ps(1.0f);
                __m512 e = rl_exp_512(_mm512_mul_ps(_mm512_set1_ps(-2.0f), _mm512_div_ps(v, cap)));
                v = _mm512_mul_ps(cap, _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e)));
            }
            v = _mm512_mask_mov_ps(nothing, seen, v);
            bad |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
            _mm512_store_ps(scores[c] + 16 * b, v);
            max = _mm512_max_ps(max, v);
        }
        float top = bad ? rl_bits_to_float(0x7fc00000u) : _mm512_reduce_max_ps(max);
        s->max[c] = top;
        __m512 sum = _mm512_setzero_ps();
        for (int b = b0; b < b1; b++) {
            __m512 p = _mm512_setzero_ps();
            if (top != -INFINITY) p = rl_exp_512(_mm512_sub_ps(_mm512_load_ps(scores[c] + 16 * b), _mm512_set1_ps(top)));
            _mm512_store_ps(scores[c] + 16 * b, p);
            sum = _mm512_add_ps(sum, p);
        }
        s->sum[c] = rl_tree_sum_512(sum);
    }
    for (int c = 0; c < n; c += 4) {
        switch (n - c >= 4 ? 4 : n - c) {
        case 4: rl_values_seen_512(s, is_half, 4, c, scores); break;
        case 3: rl_values_seen_512(s, is_half, 3, c, scores); break;
        case 2: rl_values_seen_512(s, is_half, 2, c, scores); break;
        default: rl_values_seen_512(s, is_half, 1, c, scores); break;
        }
    }
}

RL_T_AVX512 static void rl_attend_avx512(rl_segment *s) {
    if (s->is_half) rl_attend_512(s, 1);
    else rl_attend_512(s, 0);
}

RL_T_AVX512 static void rl_merge_avx512(float *running_max, float *running_sum, float *total, float max, float sum,
                                        const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
}

#endif
#endif
