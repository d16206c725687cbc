/* Attention over one segment with AVX2: eight positions a vector, query by query. */
#ifndef RUSTLLM_ATTENTION_AVX2_H
#define RUSTLLM_ATTENTION_AVX2_H
#if defined(__x86_64__)

#include "attention_portable.h"

RL_INLINE_AVX2 __m256 rl_cache_256(const void *p, const int is_half, ptrdiff_t i) {
    if (is_half) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)p + i)));
    return _mm256_loadu_ps((const float *)p + i);
}

RL_T_AVX2 static void rl_attend_avx2(rl_segment *s) {
    const int hd = s->head_dim, is_half = s->is_half;
    for (int c = 0; c < s->n_queries; c++) {
        float p[RL_SEGMENT] __attribute__((aligned(32)));
        const int first = s->first[c], last = s->last[c], b0 = first / 8, b1 = (last + 7) / 8;
        float max = -INFINITY;
        for (int b = b0; b < b1; b++) {
            __m256 acc = _mm256_setzero_ps();
            const ptrdiff_t base = (ptrdiff_t)(b / 2) * hd * 16 + 8 * (b % 2);
            for (int d = 0; d < hd; d++)
                acc = _mm256_fmadd_ps(rl_cache_256(s->keys, is_half, base + 16 * d), _mm256_set1_ps(s->query[c][d]), acc);
            _mm256_store_ps(p + 8 * b, acc);
        }
        for (int k = first; k < last; k++) {
            if (s->softcap > 0.0f) p[k] = rl_cap_portable(p[k], s->softcap);
            if (p[k] > max || p[k] != p[k]) max = p[k];
        }
        s->max[c] = max;
        s->sum[c] = 0.0f;
        for (int d = 0; d < hd; d++) s->out[c][d] = 0.0f;
        if (max == -INFINITY) continue;
        for (int k = 8 * b0; k < first; k++) p[k] = -INFINITY;
        for (int k = last; k < 8 * b1; k++) p[k] = -INFINITY;
        __m256 even = _mm256_setzero_ps(), odd = even; /* lanes 0..7 and 8..15 of a 16-wide sum */
        for (int b = b0; b < b1; b++) {
            __m256 e = rl_exp_256(_mm256_sub_ps(_mm256_load_ps(p + 8 * b), _mm256_set1_ps(max)));
            _mm256_store_ps(p + 8 * b, e);
            if (b % 2) odd = _mm256_add_ps(odd, e);
            else even = _mm256_add_ps(even, e);
        }
        __m256 a = _mm256_add_ps(even, odd);
        __m128 h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        h = _mm_add_ps(h, _mm_movehl_ps(h, h));
        s->sum[c] = _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps(h, h, 1)));
        for (int d = 0; d < hd; d += 8) {
            __m256 acc = _mm256_setzero_ps();
            for (int k = first; k < last; k++)
                acc = _mm256_fmadd_ps(_mm256_set1_ps(p[k]), rl_cache_256(s->values, is_half, (ptrdiff_t)k * hd + d), acc);
            _mm256_storeu_ps(s->out[c] + d, acc);
        }
    }
}

RL_T_AVX2 static void rl_merge_avx2(float *running_max, float *running_sum, float *total, float max, float sum,
                                    const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
}

/* The hardware's conversion rounds as rl_float_to_half does. */
RL_T_AVX2 static void rl_store_f16c(const float *key, const float *value, void *keys, void *values, int is_half,
                                    int head_dim, ptrdiff_t slot) {
    if (!is_half) {
        rl_store_body(key, value, keys, values, 0, head_dim, slot);
        return;
    }
    uint16_t *k = (uint16_t *)keys + slot / 16 * head_dim * 16 + slot % 16, *v = (uint16_t *)values + slot * head_dim;
    for (int d = 0; d < head_dim; d += 8) {
        uint16_t halves[8];
        _mm_storeu_si128((__m128i *)halves, _mm256_cvtps_ph(_mm256_loadu_ps(key + d), _MM_FROUND_TO_NEAREST_INT));
        for (int i = 0; i < 8; i++) k[16 * (d + i)] = halves[i];
        _mm_storeu_si128((__m128i *)(v + d), _mm256_cvtps_ph(_mm256_loadu_ps(value + d), _MM_FROUND_TO_NEAREST_INT));
    }
}

#endif
#endif
