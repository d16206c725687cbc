/* Products of float32 matrices, a tile of the result in registers at a time.
 *
 * A tile is `rows` by `cols` (at most RL_TILE_ROWS by RL_TILE_COLS of the level). Its operands are
 * panels: `a` holds one value of each row after the other, [k][rows], `b` the same of the columns,
 * [k][cols]. Panels are padded with zeros, so that every tile is computed whole.
 *
 * For a few rows packing does not pay; then dot products of rows as they lie are taken.
 */
#ifndef RUSTLLM_GEMM_F32_H
#define RUSTLLM_GEMM_F32_H

#include <stddef.h>
#include <string.h>

#include "cpu.h"
#include "target.h"

enum { RL_MAX_TILE_ROWS = 8, RL_MAX_TILE_COLS = 32, RL_DOT_ROWS = 4 };

/* c[i][j] (+)= sum over k of a[k][i] * b[k][j]; c is [rows][cols] with `ldc` floats a row. */
typedef void (*rl_tile_fn)(ptrdiff_t k, const float *a, const float *b, float *c, ptrdiff_t ldc, int add);
/* y[i][j] = dot(x row i, w row j) for n_x <= 4 rows of x and n_w rows of w. */
typedef void (*rl_dots_fn)(ptrdiff_t k, const float *x, ptrdiff_t ldx, int n_x, const float *w, ptrdiff_t ldw, ptrdiff_t n_w, float *y, ptrdiff_t ldy);

typedef struct {
    int rows, cols;
    rl_tile_fn tile;
    rl_dots_fn dots;
} rl_gemm;

/* panel[k][width] from `n` rows of `source`, which are `ld` floats apart; zeros beyond n. */
static inline void rl_panel(const float *source, ptrdiff_t ld, int n, int width, ptrdiff_t k, float *panel) {
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const float *s = source + i * ld;
        float *p = panel + i;
        ptrdiff_t at = 0;
        for (; at + 4 <= k; at += 4) {
#if defined(__x86_64__)
            __m128 r0 = _mm_loadu_ps(s + at), r1 = _mm_loadu_ps(s + ld + at);
            __m128 r2 = _mm_loadu_ps(s + 2 * ld + at), r3 = _mm_loadu_ps(s + 3 * ld + at);
            _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
            _mm_storeu_ps(p + at * width, r0);
            _mm_storeu_ps(p + (at + 1) * width, r1);
            _mm_storeu_ps(p + (at + 2) * width, r2);
            _mm_storeu_ps(p + (at + 3) * width, r3);
#else
            for (int x = 0; x < 4; x++)
                for (int y = 0; y < 4; y++) p[(at + x) * width + y] = s[y * ld + at + x];
#endif
        }
        for (; at < k; at++)
            for (int y = 0; y < 4; y++) p[at * width + y] = s[y * ld + at];
    }
    for (; i < width; i++)
        for (ptrdiff_t at = 0; at < k; at++) panel[at * width + i] = i < n ? source[i * ld + at] : 0.0f;
}

/* panel[k][width] from k rows of `n` neighbours each, `ld` floats apart; zeros beyond n. */
static inline void rl_panel_of_rows(const float *source, ptrdiff_t ld, int n, int width, ptrdiff_t k, float *panel) {
    for (ptrdiff_t at = 0; at < k; at++) {
        memcpy(panel + at * width, source + at * ld, (size_t)n * sizeof(float));
        for (int i = n; i < width; i++) panel[at * width + i] = 0.0f;
    }
}

static void rl_tile_portable(ptrdiff_t k, const float *a, const float *b, float *c, ptrdiff_t ldc, int add) {
    float acc[4][8] = {{0}};
    for (ptrdiff_t at = 0; at < k; at++, a += 4, b += 8)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 8; j++) acc[i][j] += a[i] * b[j];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 8; j++) c[i * ldc + j] = add ? c[i * ldc + j] + acc[i][j] : acc[i][j];
}

static void rl_dots_portable(ptrdiff_t k, const float *x, ptrdiff_t ldx, int n_x, const float *w, ptrdiff_t ldw, ptrdiff_t n_w, float *y, ptrdiff_t ldy) {
    for (ptrdiff_t j = 0; j < n_w; j++, w += ldw)
        for (int i = 0; i < n_x; i++) {
            const float *r = x + i * ldx;
            float lanes[16] = {0}, sum = 0.0f;
            ptrdiff_t at = 0;
            for (; at + 16 <= k; at += 16)
                for (int l = 0; l < 16; l++) lanes[l] += r[at + l] * w[at + l];
            for (int l = 0; at < k; at++, l++) lanes[l] += r[at] * w[at];
            for (int l = 0; l < 16; l++) sum += lanes[l];
            y[i * ldy + j] = sum;
        }
}

#if defined(__x86_64__)

RL_T_AVX512 static void rl_tile_avx512(ptrdiff_t k, const float *a, const float *b, float *c, ptrdiff_t ldc, int add) {
    __m512 acc[8][2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        _mm_prefetch((const char *)(c + i * ldc), _MM_HINT_T0);
        _mm_prefetch((const char *)(c + i * ldc + 16), _MM_HINT_T0);
        acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    }
    for (ptrdiff_t at = 0; at < k; at++, a += 8, b += 32) {
        const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
        _mm_prefetch((const char *)(b + 512), _MM_HINT_T0);
        _mm_prefetch((const char *)(b + 528), _MM_HINT_T0);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            const __m512 v = _mm512_set1_ps(a[i]);
            acc[i][0] = _mm512_fmadd_ps(v, b0, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(v, b1, acc[i][1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        float *r = c + i * ldc;
        if (add) {
            acc[i][0] = _mm512_add_ps(acc[i][0], _mm512_loadu_ps(r));
            acc[i][1] = _mm512_add_ps(acc[i][1], _mm512_loadu_ps(r + 16));
        }
        _mm512_storeu_ps(r, acc[i][0]);
        _mm512_storeu_ps(r + 16, acc[i][1]);
    }
}

/* One or more rows of x against four rows of w, which are read ahead. Two sums for every pair, so
   that additions do not wait for each other. */
#define RL_DOTS_AVX512(NX)                                                                        \
    RL_INLINE_AVX512 void rl_dots4_##NX##_avx512(                                                 \
        ptrdiff_t k, const float *x, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, int n_w,       \
        float *y, ptrdiff_t ldy) {                                                                \
        __m512 acc[NX][4], odd[NX][4];                                                            \
        const float *r[4];                                                                        \
        ptrdiff_t at = 0;                                                                         \
        for (int j = 0; j < 4; j++) {                                                             \
            r[j] = w + (j < n_w ? j : 0) * ldw;                                                   \
            for (int i = 0; i < NX; i++) acc[i][j] = odd[i][j] = _mm512_setzero_ps();             \
        }                                                                                         \
        for (; at + 32 <= k; at += 32) {                                                          \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) {                                 \
                const float *p = r[j] + at;                                                       \
                _mm_prefetch((const char *)p + 512, _MM_HINT_T0);                                 \
                _mm_prefetch((const char *)p + 576, _MM_HINT_T0);                                 \
                const __m512 u = _mm512_loadu_ps(p), v = _mm512_loadu_ps(p + 16);                 \
                _Pragma("GCC unroll 4") for (int i = 0; i < NX; i++) {                            \
                    acc[i][j] = _mm512_fmadd_ps(_mm512_loadu_ps(x + i * ldx + at), u, acc[i][j]); \
                    odd[i][j] =                                                                   \
                        _mm512_fmadd_ps(_mm512_loadu_ps(x + i * ldx + at + 16), v, odd[i][j]);    \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
        for (; at < k; at += 16) {                                                                \
            const __mmask16 valid = k - at >= 16 ? 0xffff : (__mmask16)((1u << (k - at)) - 1);    \
            for (int j = 0; j < 4; j++) {                                                         \
                const __m512 u = _mm512_maskz_loadu_ps(valid, r[j] + at);                         \
                for (int i = 0; i < NX; i++)                                                      \
                    acc[i][j] = _mm512_fmadd_ps(                                                  \
                        _mm512_maskz_loadu_ps(valid, x + i * ldx + at), u, acc[i][j]);            \
            }                                                                                     \
        }                                                                                         \
        for (int i = 0; i < NX; i++)                                                              \
            for (int j = 0; j < n_w; j++)                                                         \
                y[i * ldy + j] = _mm512_reduce_add_ps(_mm512_add_ps(acc[i][j], odd[i][j]));       \
    }
RL_DOTS_AVX512(1)
RL_DOTS_AVX512(2)
RL_DOTS_AVX512(3)
RL_DOTS_AVX512(4)

RL_T_AVX512 static void rl_dots_avx512(ptrdiff_t k, const float *x, ptrdiff_t ldx, int n_x, const float *w, ptrdiff_t ldw, ptrdiff_t n_w, float *y, ptrdiff_t ldy) {
    for (ptrdiff_t j = 0; j < n_w; j += 4) {
        const int n = n_w - j < 4 ? (int)(n_w - j) : 4;
        if (n_x == 1) rl_dots4_1_avx512(k, x, ldx, w + j * ldw, ldw, n, y + j, ldy);
        else if (n_x == 2) rl_dots4_2_avx512(k, x, ldx, w + j * ldw, ldw, n, y + j, ldy);
        else if (n_x == 3) rl_dots4_3_avx512(k, x, ldx, w + j * ldw, ldw, n, y + j, ldy);
        else rl_dots4_4_avx512(k, x, ldx, w + j * ldw, ldw, n, y + j, ldy);
    }
}

RL_T_AVX2 static void rl_tile_avx2(ptrdiff_t k, const float *a, const float *b, float *c, ptrdiff_t ldc, int add) {
    __m256 acc[4][3];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) acc[i][0] = acc[i][1] = acc[i][2] = _mm256_setzero_ps();
    for (ptrdiff_t at = 0; at < k; at++, a += 4, b += 24) {
        const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8), b2 = _mm256_loadu_ps(b + 16);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m256 v = _mm256_broadcast_ss(a + i);
            acc[i][0] = _mm256_fmadd_ps(v, b0, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(v, b1, acc[i][1]);
            acc[i][2] = _mm256_fmadd_ps(v, b2, acc[i][2]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++) {
            float *r = c + i * ldc + 8 * j;
            _mm256_storeu_ps(r, add ? _mm256_add_ps(acc[i][j], _mm256_loadu_ps(r)) : acc[i][j]);
        }
}

RL_INLINE_AVX2 float rl_sum_256(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

RL_T_AVX2 static void rl_dots_avx2(ptrdiff_t k, const float *x, ptrdiff_t ldx, int n_x, const float *w, ptrdiff_t ldw, ptrdiff_t n_w, float *y, ptrdiff_t ldy) {
    for (ptrdiff_t j = 0; j < n_w; j++, w += ldw)
        for (int i = 0; i < n_x; i++) {
            const float *r = x + i * ldx;
            __m256 s[4];
            for (int l = 0; l < 4; l++) s[l] = _mm256_setzero_ps();
            ptrdiff_t at = 0;
            for (; at + 32 <= k; at += 32) {
                _mm_prefetch((const char *)(w + at) + 2048, _MM_HINT_T0);
                _mm_prefetch((const char *)(w + at) + 2112, _MM_HINT_T0);
                for (int l = 0; l < 4; l++)
                    s[l] = _mm256_fmadd_ps(_mm256_loadu_ps(r + at + 8 * l), _mm256_loadu_ps(w + at + 8 * l), s[l]);
            }
            float sum = rl_sum_256(_mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
            for (; at < k; at++) sum += r[at] * w[at];
            y[i * ldy + j] = sum;
        }
}

#elif defined(__aarch64__)

static void rl_tile_neon(ptrdiff_t k, const float *a, const float *b, float *c, ptrdiff_t ldc, int add) {
    float32x4_t acc[8][2];
    for (int i = 0; i < 8; i++) acc[i][0] = acc[i][1] = vdupq_n_f32(0.0f);
    for (ptrdiff_t at = 0; at < k; at++, a += 8, b += 8) {
        const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            acc[i][0] = vfmaq_n_f32(acc[i][0], b0, a[i]);
            acc[i][1] = vfmaq_n_f32(acc[i][1], b1, a[i]);
        }
    }
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 2; j++) {
            float *r = c + i * ldc + 4 * j;
            vst1q_f32(r, add ? vaddq_f32(acc[i][j], vld1q_f32(r)) : acc[i][j]);
        }
}

static void rl_dots_neon(ptrdiff_t k, const float *x, ptrdiff_t ldx, int n_x, const float *w, ptrdiff_t ldw, ptrdiff_t n_w, float *y, ptrdiff_t ldy) {
    for (ptrdiff_t j = 0; j < n_w; j++, w += ldw)
        for (int i = 0; i < n_x; i++) {
            const float *r = x + i * ldx;
            float32x4_t s[4];
            for (int l = 0; l < 4; l++) s[l] = vdupq_n_f32(0.0f);
            ptrdiff_t at = 0;
            for (; at + 16 <= k; at += 16)
                for (int l = 0; l < 4; l++) s[l] = vfmaq_f32(s[l], vld1q_f32(r + at + 4 * l), vld1q_f32(w + at + 4 * l));
            float sum = vaddvq_f32(vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3])));
            for (; at < k; at++) sum += r[at] * w[at];
            y[i * ldy + j] = sum;
        }
}

#endif

static inline void rl_gemm_kernels(int level, rl_gemm *out) {
    const rl_gemm portable = {4, 8, rl_tile_portable, rl_dots_portable};
    *out = portable;
#if defined(__x86_64__)
    if (level == RL_AVX512) {
        const rl_gemm g = {8, 32, rl_tile_avx512, rl_dots_avx512};
        *out = g;
    } else if (level == RL_AVX2) {
        const rl_gemm g = {4, 24, rl_tile_avx2, rl_dots_avx2};
        *out = g;
    }
#elif defined(__aarch64__)
    if (level >= RL_NEON) {
        const rl_gemm g = {8, 8, rl_tile_neon, rl_dots_neon};
        *out = g;
    }
#endif
    (void)level;
}

#endif
