/* Matrix times activations with AVX-512 VNNI: one 32-bit lane a row, activations broadcast.
 *
 * Sources of the idea: interleaved rows of ggml's repacked formats; here the lane is the row, so
 * no horizontal sum is ever needed and the order of additions equals the plain C version.
 */
#ifndef RUSTLLM_LINEAR_AVX512_H
#define RUSTLLM_LINEAR_AVX512_H
#if defined(__x86_64__)

#include "linear_portable.h"

enum { RL_PREFETCH_BYTES = 8192 };

RL_INLINE_AVX512 __m512 rl_halves_512(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

RL_INLINE_AVX512 __m512 rl_bytes_512(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

RL_INLINE_AVX512 __m512 rl_signed_512(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* Columns 4g..4g+3 of a block, unsigned. */
RL_INLINE_AVX512 __m512i rl_quants_512(const int type, const uint8_t *q, const int g) {
    if (type == RL_Q8_0) return _mm512_loadu_si512(q + 64 * g);
    __m512i v = _mm512_loadu_si512(q + 64 * (g % 4));
    if (g >= 4) v = _mm512_srli_epi16(v, 4);
    v = _mm512_and_si512(v, _mm512_set1_epi8(15));
    if (rl_has_fifth(type)) {
        uint64_t mask;
        memcpy(&mask, q + 256 + 8 * g, 8);
        v = _mm512_mask_add_epi8(v, mask, v, _mm512_set1_epi8(16));
    }
    if (type == RL_Q6_K) {
        const int up = 4 - 2 * (g % 4);
        __m512i top = _mm512_loadu_si512(q + 256 + 64 * (g / 4));
        top = up > 0 ? _mm512_slli_epi16(top, up > 0 ? up : 0) : _mm512_srli_epi16(top, up < 0 ? -up : 0);
        v = _mm512_or_si512(v, _mm512_and_si512(top, _mm512_set1_epi8(0x30)));
    }
    return v;
}

RL_INLINE_AVX512 void rl_mm_int8_512(const int type, const int nc, const rl_matrix *m, int32_t g0, int32_t g1,
                                     const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    const int nb = m->n_blocks, shift = rl_bias_shift(type), step = rl_is_k(type) ? 8 : 1;
    const size_t qb = rl_quant_bytes(type), sb = rl_scale_bytes(type), block_bytes = qb + (sb + step - 1) / step;
    for (int32_t g = g0; g < g1; g++) {
        const uint8_t *q = m->data + g * m->group_bytes, *s = q + m->scale_offset, *a = act;
        __m512 acc[8], low[8];
        for (int c = 0; c < nc; c++) acc[c] = low[c] = _mm512_setzero_ps();
        for (int b = 0; b < nb; b += step, s += sb) {
            __m512 d = rl_halves_512(s), m_min = d;
            if (rl_has_min(type)) m_min = rl_halves_512(s + 32);
            for (int j = 0; j < step; j++, q += qb, a += nc * RL_ACT_INT8) {
                const uint8_t *tail = a + 32 * nc;
                __m512i dot[8], dot2[8];
                for (int c = 0; c < nc; c++) {
                    if (shift < 0) {
                        dot[c] = _mm512_setzero_si512();
                    } else if (type == RL_Q6_K) {
                        __m512i first = _mm512_set1_epi32(rl_int_at(tail + 12 * nc, c));
                        __m512i both = _mm512_set1_epi32(rl_int_at(tail + 8 * nc, c));
                        dot[c] = _mm512_slli_epi32(first, 5);
                        dot2[c] = _mm512_slli_epi32(_mm512_sub_epi32(both, first), 5);
                    } else {
                        dot[c] = _mm512_slli_epi32(_mm512_set1_epi32(rl_int_at(tail + 8 * nc, c)), shift > 0 ? shift : 0);
                    }
                }
                if (nc <= 2) {
                    /* One token (or its two parts) reads each weight once, from memory: ask for the bytes as they lie,
                       quants and scales alike, far enough ahead to cover its latency. */
                    const uint8_t *ahead = m->data + g * m->group_bytes + (b + j) * block_bytes + RL_PREFETCH_BYTES;
                    for (size_t line = 0; line < block_bytes; line += 64) _mm_prefetch((const char *)ahead + line, _MM_HINT_T0);
                }
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    __m512i w = rl_quants_512(type, q, k);
#pragma GCC unroll 8
                    for (int c = 0; c < nc; c++) {
                        __m512i x = _mm512_set1_epi32(rl_int_at(a + 32 * c, k));
                        if (type == RL_Q6_K && k >= 4) dot2[c] = _mm512_dpbusd_epi32(dot2[c], w, x);
                        else dot[c] = _mm512_dpbusd_epi32(dot[c], w, x);
                    }
                }
                __m512 dw = d, dw2 = d, mw = m_min;
                if (type == RL_Q6_K) {
                    dw = _mm512_mul_ps(d, rl_signed_512(s + 32 + 32 * j));
                    dw2 = _mm512_mul_ps(d, rl_signed_512(s + 32 + 32 * j + 16));
                } else if (rl_is_k(type)) {
                    dw = _mm512_mul_ps(d, rl_bytes_512(s + 64 + 32 * j));
                    mw = _mm512_sub_ps(_mm512_set1_ps(-0.0f), _mm512_mul_ps(m_min, rl_bytes_512(s + 64 + 32 * j + 16)));
                }
#pragma GCC unroll 8
                for (int c = 0; c < nc; c++) {
                    __m512 dx = _mm512_set1_ps(rl_float_at(tail, c));
                    acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]), _mm512_mul_ps(dw, dx), acc[c]);
                    if (type == RL_Q6_K) acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot2[c]), _mm512_mul_ps(dw2, dx), acc[c]);
                    if (rl_has_min(type)) low[c] = _mm512_fmadd_ps(mw, _mm512_set1_ps(rl_float_at(tail + 4 * nc, c)), low[c]);
                }
            }
        }
        const int rows = m->n_rows - g * RL_GROUP;
        const __mmask16 valid = rows >= 16 ? 0xffff : (__mmask16)((1u << rows) - 1);
        __m512 offset = bias ? _mm512_maskz_loadu_ps(valid, bias + g * RL_GROUP) : _mm512_setzero_ps();
        for (int c = 0; c < nc; c++) {
            __m512 v = rl_has_min(type) ? _mm512_add_ps(acc[c], low[c]) : acc[c];
            if (bias) v = _mm512_add_ps(v, offset);
            _mm512_mask_storeu_ps(y + c * stride + g * RL_GROUP, valid, v);
        }
    }
}

/* One block's weights of 16 rows in float32, column by column, each what the format defines. */
RL_INLINE_AVX512 void rl_unpack_512(const int type, const uint8_t *q, const uint8_t *s, int j, float w[512]) {
    if (type == RL_F32) {
        memcpy(w, q, 2048);
    } else if (type == RL_F16) {
        for (int k = 0; k < 32; k++) _mm512_store_ps(w + 16 * k, rl_halves_512(q + 32 * k));
    } else if (type == RL_BF16) {
        for (int k = 0; k < 32; k++) {
            __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(q + 32 * k)));
            _mm512_store_si512(w + 16 * k, _mm512_slli_epi32(v, 16));
        }
    } else {
        const int shift = rl_bias_shift(type), bias = shift < 0 ? 0 : 1 << (shift < 0 ? 0 : shift);
        __m512 d = rl_halves_512(s), d2, mw = d;
        if (type == RL_Q6_K) {
            d2 = _mm512_mul_ps(d, rl_signed_512(s + 32 + 32 * j + 16));
            d = _mm512_mul_ps(d, rl_signed_512(s + 32 + 32 * j));
        } else if (rl_is_k(type)) {
            mw = _mm512_sub_ps(_mm512_set1_ps(-0.0f), _mm512_mul_ps(rl_halves_512(s + 32), rl_bytes_512(s + 64 + 32 * j + 16)));
            d2 = d = _mm512_mul_ps(d, rl_bytes_512(s + 64 + 32 * j));
        } else {
            d2 = d;
            if (rl_has_min(type)) mw = rl_halves_512(s + 32);
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m512i v = rl_quants_512(type, q, g);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512i n = _mm512_and_si512(_mm512_srli_epi32(v, 8 * i), _mm512_set1_epi32(255));
                __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(n, _mm512_set1_epi32(bias)));
                f = _mm512_mul_ps(g < 4 ? d : d2, f);
                if (rl_has_min(type)) f = _mm512_add_ps(f, mw);
                _mm512_store_ps(w + 16 * (4 * g + i), f);
            }
        }
    }
}

RL_INLINE_AVX512 void rl_mm_float_512(const int type, const int nc, const rl_matrix *m, int32_t g0, int32_t g1,
                                      const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    const int nb = m->n_blocks;
    const size_t qb = rl_quant_bytes(type), sb = rl_scale_bytes(type);
    for (int32_t g = g0; g < g1; g++) {
        const uint8_t *q = m->data + g * m->group_bytes, *s = q + m->scale_offset, *a = act;
        float w[512] __attribute__((aligned(64)));
        __m512 acc[8];
        for (int c = 0; c < nc; c++) acc[c] = _mm512_setzero_ps();
        for (int b = 0; b < nb; b++, q += qb, a += nc * RL_ACT_FLOAT) {
            const float *panel = w;
            if (type == RL_F32) panel = (const float *)q;
            else rl_unpack_512(type, q, s + sb * (rl_is_k(type) ? b / 8 : b), b % 8, w);
#pragma GCC unroll 4
            for (int k = 0; k < 32; k++) {
                __m512 wk = _mm512_load_ps(panel + 16 * k);
#pragma GCC unroll 8
                for (int c = 0; c < nc; c++) acc[c] = _mm512_fmadd_ps(wk, _mm512_set1_ps(rl_float_at(a, 32 * c + k)), acc[c]);
            }
        }
        const int rows = m->n_rows - g * RL_GROUP;
        const __mmask16 valid = rows >= 16 ? 0xffff : (__mmask16)((1u << rows) - 1);
        for (int c = 0; c < nc; c++) {
            __m512 v = acc[c];
            if (bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(valid, bias + g * RL_GROUP));
            _mm512_mask_storeu_ps(y + c * stride + g * RL_GROUP, valid, v);
        }
    }
}

#define RL_FOR_TYPES_512(nc)                                                                                     \
    RL_T_AVX512 static void rl_mm_int8_512_##nc(const rl_matrix *m, int32_t g0, int32_t g1, const uint8_t *act,   \
                                                float *y, ptrdiff_t stride, const float *bias) {                \
        switch (m->type) {                                                                                      \
        case RL_Q4_0: rl_mm_int8_512(RL_Q4_0, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q4_1: rl_mm_int8_512(RL_Q4_1, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q5_0: rl_mm_int8_512(RL_Q5_0, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q5_1: rl_mm_int8_512(RL_Q5_1, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q8_0: rl_mm_int8_512(RL_Q8_0, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q4_K: rl_mm_int8_512(RL_Q4_K, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q5_K: rl_mm_int8_512(RL_Q5_K, nc, m, g0, g1, act, y, stride, bias); break;                      \
        case RL_Q6_K: rl_mm_int8_512(RL_Q6_K, nc, m, g0, g1, act, y, stride, bias); break;                      \
        default: break;                                                                                         \
        }                                                                                                       \
    }                                                                                                           \
    RL_T_AVX512 static void rl_mm_float_512_##nc(const rl_matrix *m, int32_t g0, int32_t g1, const uint8_t *act,  \
                                                 float *y, ptrdiff_t stride, const float *bias) {               \
        switch (m->type) {                                                                                      \
        case RL_F32: rl_mm_float_512(RL_F32, nc, m, g0, g1, act, y, stride, bias); break;                       \
        case RL_F16: rl_mm_float_512(RL_F16, nc, m, g0, g1, act, y, stride, bias); break;                       \
        case RL_BF16: rl_mm_float_512(RL_BF16, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q4_0: rl_mm_float_512(RL_Q4_0, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q4_1: rl_mm_float_512(RL_Q4_1, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q5_0: rl_mm_float_512(RL_Q5_0, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q5_1: rl_mm_float_512(RL_Q5_1, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q8_0: rl_mm_float_512(RL_Q8_0, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q4_K: rl_mm_float_512(RL_Q4_K, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q5_K: rl_mm_float_512(RL_Q5_K, nc, m, g0, g1, act, y, stride, bias); break;                     \
        case RL_Q6_K: rl_mm_float_512(RL_Q6_K, nc, m, g0, g1, act, y, stride, bias); break;                     \
        default: break;                                                                                         \
        }                                                                                                       \
    }

RL_FOR_TYPES_512(1)
RL_FOR_TYPES_512(2)
RL_FOR_TYPES_512(4)
RL_FOR_TYPES_512(8)

#endif
#endif
