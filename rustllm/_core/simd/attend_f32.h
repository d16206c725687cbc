/* Attention over plain float32 arrays: the parts that are not products.
 *
 * Scores of a block lie transposed, [keys][queries], so that a lane is a query and the maximum, the
 * exponentials and their sum over the keys need no sum across lanes. For a single query a lane is a
 * part of the head instead.
 */
#ifndef RUSTLLM_ATTEND_F32_H
#define RUSTLLM_ATTEND_F32_H

#include <float.h>
#include <math.h>
#include <stddef.h>

#include "cpu.h"
#include "softmax.h"

enum { RL_ATTEND_LANES = 32 }; /* most queries of a block; a multiple of every tile's columns */
#define RL_NO_SCORE -1e30f     /* what a maximum starts from: finite, so that differences are */

/* One block: s[keys][width] become exp(s - max), with the running max and sum of every query, and
   `rescale` what the earlier blocks' results are to be multiplied by. */
typedef void (*rl_columns_fn)(float *s, int keys, int width, float *max, float *sum, float *rescale);
/* One query, keys first..last of [n][dim]: adds exp(score - max) v to out[dim_v], updating max and sum. */
typedef void (*rl_single_fn)(const float *q, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv, int dim, int dim_v, int n, float softcap, const float *bias, float *scores, float *max, float *sum, float *out);

RL_INLINE void rl_columns_body(float *s, int keys, int width, float *max, float *sum, float *rescale) {
    float top[RL_ATTEND_LANES], total[RL_ATTEND_LANES];
    for (int j = 0; j < width; j++) {
        top[j] = max[j];
        total[j] = 0.0f;
    }
    for (int i = 0; i < keys; i++)
        for (int j = 0; j < width; j++) top[j] = s[i * width + j] > top[j] ? s[i * width + j] : top[j];
    for (int i = 0; i < keys; i++)
        for (int j = 0; j < width; j++) {
            const float e = rl_exp_portable(s[i * width + j] - top[j]);
            s[i * width + j] = e;
            total[j] += e;
        }
    for (int j = 0; j < width; j++) {
        rescale[j] = rl_exp_portable(max[j] - top[j]);
        sum[j] = fmaf(sum[j], rescale[j], total[j]);
        max[j] = top[j];
    }
}

RL_INLINE void rl_single_body(const float *q, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv, int dim, int dim_v, int n, float softcap, const float *bias, float *scores, float *max, float *sum, float *out) {
    float top = *max, total = 0.0f;
    for (int i = 0; i < n; i++) {
        const float *row = k + i * ldk;
        float lanes[16] = {0}, score = 0.0f;
        int at = 0;
        for (; at + 16 <= dim; at += 16)
            for (int l = 0; l < 16; l++) lanes[l] = fmaf(q[at + l], row[at + l], lanes[l]);
        for (int l = 0; at < dim; at++, l++) lanes[l] = fmaf(q[at], row[at], lanes[l]);
        for (int l = 0; l < 16; l++) score += lanes[l];
        if (softcap > 0.0f) score = softcap * tanhf(score / softcap);
        if (bias) score += bias[i];
        scores[i] = score;
        top = score > top ? score : top;
    }
    const float rescale = rl_exp_portable(*max - top);
    for (int d = 0; d < dim_v; d++) out[d] *= rescale;
    for (int i = 0; i < n; i++) {
        const float e = rl_exp_portable(scores[i] - top);
        const float *row = v + i * ldv;
        total += e;
        if (e != 0.0f)
            for (int d = 0; d < dim_v; d++) out[d] = fmaf(e, row[d], out[d]);
    }
    *sum = fmaf(*sum, rescale, total);
    *max = top;
}

static void rl_columns_portable(float *s, int keys, int width, float *max, float *sum, float *rescale) {
    rl_columns_body(s, keys, width, max, sum, rescale);
}
static void rl_single_portable(const float *q, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv, int dim, int dim_v, int n, float softcap, const float *bias, float *scores, float *max, float *sum, float *out) {
    rl_single_body(q, k, ldk, v, ldv, dim, dim_v, n, softcap, bias, scores, max, sum, out);
}

#if defined(__x86_64__)

RL_T_AVX2 static void rl_single_avx2(const float *q, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv, int dim, int dim_v, int n, float softcap, const float *bias, float *scores, float *max, float *sum, float *out) {
    rl_single_body(q, k, ldk, v, ldv, dim, dim_v, n, softcap, bias, scores, max, sum, out);
}

RL_T_AVX512 static void rl_single_avx512(const float *q, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv, int dim, int dim_v, int n, float softcap, const float *bias, float *scores, float *max, float *sum, float *out) {
    /* Asked for 8 KiB before they are used, as far as the memory behind takes to answer. */
    const ptrdiff_t key_ahead = (dim < 512 ? 2048 / dim : 4) * ldk;
    const ptrdiff_t value_ahead = (dim_v < 512 ? 2048 / dim_v : 4) * ldv;
    float top = *max;
    for (int i = 0; i < n; i += 4) {
        /* Four keys together, whose sums across lanes are taken in one tree. */
        const float *row[4];
        __m512 acc[4];
        for (int l = 0; l < 4; l++) {
            row[l] = k + (i + l < n ? i + l : i) * ldk;
            acc[l] = _mm512_setzero_ps();
        }
        for (int at = 0; at < dim; at += 16) {
            const __mmask16 valid = dim - at >= 16 ? 0xffff : (__mmask16)((1u << (dim - at)) - 1);
            const __m512 part = _mm512_maskz_loadu_ps(valid, q + at);
            for (int l = 0; l < 4; l++) {
                _mm_prefetch((const char *)(row[l] + at + key_ahead), _MM_HINT_T0);
                acc[l] = _mm512_fmadd_ps(part, _mm512_maskz_loadu_ps(valid, row[l] + at), acc[l]);
            }
        }
        const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(acc[0], acc[1]), _mm512_unpackhi_ps(acc[0], acc[1]));
        const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(acc[2], acc[3]), _mm512_unpackhi_ps(acc[2], acc[3]));
        const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
        const __m512 e = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
        const __m256 f = _mm256_add_ps(_mm512_castps512_ps256(e), _mm512_extractf32x8_ps(e, 1));
        float four[4];
        _mm_storeu_ps(four, _mm_add_ps(_mm256_castps256_ps128(f), _mm256_extractf128_ps(f, 1)));
        for (int l = 0; l < 4 && i + l < n; l++) {
            float score = four[l];
            if (softcap > 0.0f) score = softcap * tanhf(score / softcap);
            if (bias) score += bias[i + l];
            scores[i + l] = score;
            top = score > top ? score : top;
        }
    }
    const float rescale = rl_exp_portable(*max - top);
    __m512 total = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        const __mmask16 valid = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        const __m512 e = _mm512_maskz_mov_ps(valid, rl_exp_512(_mm512_sub_ps(_mm512_maskz_loadu_ps(valid, scores + i), _mm512_set1_ps(top))));
        _mm512_mask_storeu_ps(scores + i, valid, e);
        total = _mm512_add_ps(total, e);
    }
    for (int d = 0; d < dim_v; d += 64) {
        __m512 o[4];
        __mmask16 valid[4];
        for (int l = 0; l < 4; l++) {
            const int left = dim_v - d - 16 * l;
            valid[l] = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
            o[l] = _mm512_mul_ps(_mm512_maskz_loadu_ps(valid[l], out + d + 16 * l), _mm512_set1_ps(rescale));
        }
        for (int i = 0; i < n; i++) {
            const float *row = v + i * ldv + d;
            const __m512 e = _mm512_set1_ps(scores[i]);
            for (int l = 0; l < 4; l++) {
                _mm_prefetch((const char *)(row + 16 * l + value_ahead), _MM_HINT_T0);
                o[l] = _mm512_fmadd_ps(e, _mm512_maskz_loadu_ps(valid[l], row + 16 * l), o[l]);
            }
        }
        for (int l = 0; l < 4; l++) _mm512_mask_storeu_ps(out + d + 16 * l, valid[l], o[l]);
    }
    *sum = fmaf(*sum, rescale, _mm512_reduce_add_ps(total));
    *max = top;
}

#endif

static inline rl_columns_fn rl_columns_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_columns_512;
    if (level == RL_AVX2) return rl_columns_256;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_columns_neon;
#endif
    (void)level;
    return rl_columns_portable;
}

static inline rl_single_fn rl_single_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_single_avx512;
    if (level == RL_AVX2) return rl_single_avx2;
#endif
    (void)level;
    return rl_single_portable;
}

#endif
