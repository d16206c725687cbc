/* Attention of a few queries over one segment of the KV cache, in C; attention_*.h make it fast.
 *
 * The cache of one KV head is cut into segments of 128 positions. A segment is worked on from
 * nothing: scores, their maximum, exp, the sum and the weighted sum of values; segments are then
 * merged in order. One query's arithmetic never depends on which other queries, heads or threads
 * there are, so that a prompt fed whole and fed token by token give the same bits.
 *
 * Keys lie sixteen positions side by side ([position / 16][head_dim][16]), so that a lane is a
 * position and a score needs no horizontal sum; values lie row by row ([position][head_dim]).
 * Online softmax over segments: Milakov and Gimelshein 2018; split over the cache: Flash-Decoding.
 */
#ifndef RUSTLLM_ATTENTION_H
#define RUSTLLM_ATTENTION_H

#include <stddef.h>

#include "cpu.h"
#include "vector_math.h"

enum { RL_SEGMENT = 128, RL_MAX_QUERIES = 8 };

typedef struct {
    const void *keys;   /* of this segment */
    const void *values;
    int is_half;        /* half or float cache */
    int head_dim;       /* multiple of 16 */
    float softcap;      /* 0: none */
    int n_queries;      /* 1..8 */
    const float *query[RL_MAX_QUERIES]; /* [head_dim], already scaled */
    int first[RL_MAX_QUERIES];          /* visible positions in the segment: first..last-1 */
    int last[RL_MAX_QUERIES];
    float max[RL_MAX_QUERIES];          /* out: maximum, -inf where nothing is visible */
    float sum[RL_MAX_QUERIES];          /* out: sum of exp(score - max) */
    float *out[RL_MAX_QUERIES];         /* out: [head_dim] weighted sum of values */
} rl_segment;

typedef void (*rl_segment_fn)(rl_segment *);

/* tanh through the same exp at every level. */
static inline float rl_cap_portable(float x, float cap) {
    float e = rl_exp_portable(-2.0f * (x / cap));
    return cap * ((1.0f - e) / (1.0f + e));
}

RL_INLINE float rl_cache_at(const void *p, int is_half, ptrdiff_t i) {
    return is_half ? rl_half_to_float(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static void rl_attend_portable(rl_segment *s) {
    const int hd = s->head_dim;
    for (int c = 0; c < s->n_queries; c++) {
        float p[RL_SEGMENT], lanes[16], max = -INFINITY;
        for (int k = s->first[c]; k < s->last[c]; k++) {
            float score = 0.0f;
            for (int d = 0; d < hd; d++)
                score = fmaf(rl_cache_at(s->keys, s->is_half, ((ptrdiff_t)(k / 16) * hd + d) * 16 + k % 16), s->query[c][d], score);
            if (s->softcap > 0.0f) score = rl_cap_portable(score, s->softcap);
            p[k] = score;
            if (score > max || score != score) max = score;
        }
        s->max[c] = max;
        for (int i = 0; i < 16; i++) lanes[i] = 0.0f;
        for (int d = 0; d < hd; d++) s->out[c][d] = 0.0f;
        s->sum[c] = 0.0f;
        if (max == -INFINITY) continue;
        for (int k = s->first[c]; k < s->last[c]; k++) {
            p[k] = rl_exp_portable(p[k] - max);
            lanes[k % 16] += p[k];
        }
        for (int width = 8; width; width /= 2)
            for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
        s->sum[c] = lanes[0];
        for (int k = s->first[c]; k < s->last[c]; k++)
            for (int d = 0; d < hd; d++)
                s->out[c][d] = fmaf(p[k], rl_cache_at(s->values, s->is_half, (ptrdiff_t)k * hd + d), s->out[c][d]);
    }
}

/* Adds a segment's result to the running one: total = total * exp(M - M') + part * exp(m - M'). */
RL_INLINE void rl_merge_body(float *running_max, float *running_sum, float *total, float max, float sum,
                             const float *part, int head_dim) {
    if (max == -INFINITY) return;
    float m = *running_max;
    float top = max > m || max != max ? max : m;
    float keep = m == -INFINITY ? 0.0f : rl_exp_portable(m - top), add = rl_exp_portable(max - top);
    *running_max = top;
    *running_sum = fmaf(sum, add, *running_sum * keep);
    for (int d = 0; d < head_dim; d++) total[d] = fmaf(part[d], add, total[d] * keep);
}

/* Writes one position's key and value of one head; `slot` is the position. */
RL_INLINE void rl_store_body(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                             ptrdiff_t slot) {
    const ptrdiff_t base = slot / 16 * head_dim * 16 + slot % 16;
    if (is_half) {
        uint16_t *k = (uint16_t *)keys + base, *v = (uint16_t *)values + slot * head_dim;
        for (int d = 0; d < head_dim; d++) {
            k[16 * d] = rl_float_to_half(key[d]);
            v[d] = rl_float_to_half(value[d]);
        }
    } else {
        float *k = (float *)keys + base, *v = (float *)values + slot * head_dim;
        for (int d = 0; d < head_dim; d++) {
            k[16 * d] = key[d];
            v[d] = value[d];
        }
    }
}

static void rl_merge_portable(float *running_max, float *running_sum, float *total, float max, float sum,
                              const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
}

static void rl_store_portable(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                              ptrdiff_t slot) {
    rl_store_body(key, value, keys, values, is_half, head_dim, slot);
}

#if defined(__x86_64__)

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

/* Adds p[k] * V[k] for n queries and 64 dimensions. */
RL_INLINE_AVX512 void rl_values_512(const rl_segment *s, const int is_half, const int n, const int width, int c0, int d0,
                                    int k0, int k1, float scores[][RL_SEGMENT]) {
    const int hd = s->head_dim;
    __m512 acc[4][4];
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) acc[c][j] = _mm512_setzero_ps();
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
    for (int d = 0; d < s->head_dim;) {
        const int width = s->head_dim - d >= 64 ? 4 : 1;
        for (int c = 0; c < n;) {
            const int part = n - c >= 4 ? 4 : n - c;
            if (width == 4) {
                switch (part) {
                case 4: rl_values_512(s, is_half, 4, 4, c, d, low, high, scores); break;
                case 3: rl_values_512(s, is_half, 3, 4, c, d, low, high, scores); break;
                case 2: rl_values_512(s, is_half, 2, 4, c, d, low, high, scores); break;
                default: rl_values_512(s, is_half, 1, 4, c, d, low, high, scores); break;
                }
                c += part;
            } else {
                rl_values_512(s, is_half, 1, 1, c, d, low, high, scores);
                c += 1;
            }
        }
        d += 16 * width;
    }
}

RL_T_AVX512 static void rl_attend_avx512(rl_segment *s) {
    if (s->is_half) rl_attend_512(s, 1);
    else rl_attend_512(s, 0);
}

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

RL_T_AVX512 static void rl_merge_avx512(float *running_max, float *running_sum, float *total, float max, float sum,
                                        const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
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

typedef void (*rl_merge_fn)(float *running_max, float *running_sum, float *total, float max, float sum,
                            const float *part, int head_dim);
typedef void (*rl_store_fn)(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                            ptrdiff_t slot);

static inline rl_merge_fn rl_merge_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_merge_avx512;
    if (level == RL_AVX2) return rl_merge_avx2;
#endif
    (void)level;
    return rl_merge_portable;
}

static inline rl_store_fn rl_store_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512 || level == RL_AVX2) return rl_store_f16c;
#endif
    (void)level;
    return rl_store_portable;
}

static inline rl_segment_fn rl_attend_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_attend_avx512;
    if (level == RL_AVX2) return rl_attend_avx2;
#endif
    (void)level;
    return rl_attend_portable;
}

typedef void (*rl_activate_fn)(int act, float *gate, const float *up, int n);

static inline rl_activate_fn rl_activate_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_activate_avx512;
    if (level == RL_AVX2) return rl_activate_avx2;
#endif
    (void)level;
    return rl_activate_portable;
}

#endif
