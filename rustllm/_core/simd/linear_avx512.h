/* Matrix times activations with AVX-512 VNNI: one 32-bit lane a row, activations broadcast.
 *
 * Sources of the idea: interleaved rows of ggml's repacked formats; here the lane is the row, so
 * no horizontal sum is ever needed and the order of additions equals the plain C version.
 */
#ifndef RUSTLLM_LINEAR_AVX512_H
#define RUSTLLM_LINEAR_AVX512_H
#if defined(__x86_64__)

#include "linear_portable.h"
#include "linear_tiles.h"

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
    __m512i v;
    if (type == RL_Q8_0) return _mm512_loadu_si512(q + 64 * g);
    if (rl_has_pairs(type)) {
        v = _mm512_loadu_si512(q + 64 * (g / 4));
        v = _mm512_and_si512(_mm512_srli_epi16(v, 2 * (g % 4)), _mm512_set1_epi8(3));
    } else {
        v = _mm512_loadu_si512(q + 64 * (g % 4));
        if (g >= 4) v = _mm512_srli_epi16(v, 4);
        v = _mm512_and_si512(v, _mm512_set1_epi8(15));
    }
    if (rl_has_extra(type)) {
        uint64_t mask;
        memcpy(&mask, q + (type == RL_Q3_K ? 128 : 256) + 8 * g, 8);
        v = _mm512_mask_add_epi8(v, mask, v, _mm512_set1_epi8(type == RL_Q3_K ? 4 : 16));
    }
    if (type == RL_Q6_K) {
        const int up = 4 - 2 * (g % 4);
        __m512i top = _mm512_loadu_si512(q + 256 + 64 * (g / 4));
        top = up > 0 ? _mm512_slli_epi16(top, up > 0 ? up : 0) : _mm512_srli_epi16(top, up < 0 ? -up : 0);
        v = _mm512_or_si512(v, _mm512_and_si512(top, _mm512_set1_epi8(0x30)));
    }
    if (type == RL_IQ4_NL) {
        const __m128i table = _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166,
                                            (char)181, (char)197, (char)217, (char)241); /* RL_IQ4_NL_BYTES */
        v = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), v);
    }
    return v;
}

/* Scales and minima of block j of the chunk whose scales are at s, for columns 0..15 and for the rest. */
RL_INLINE_AVX512 void rl_scales_512(const int type, const uint8_t *s, const int j, __m512 d[2], __m512 min[2]) {
    const uint8_t *half = s + (rl_has_min(type) ? 64 : 32) + 32 * j;
    if (!rl_is_k(type)) {
        d[0] = d[1] = rl_halves_512(s + (rl_chunk_blocks(type) == 2 ? 32 * j : 0));
        min[0] = min[1] = rl_has_min(type) ? rl_halves_512(s + 32) : d[0];
        return;
    }
    const __m512 whole = rl_halves_512(s), minus0 = _mm512_set1_ps(-0.0f);
    __m512 whole_min = rl_has_min(type) ? rl_halves_512(s + 32) : whole;
    if (type == RL_Q2_K) {
        for (int h = 0; h < 2; h++) {
            __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(half + 16 * h)));
            d[h] = _mm512_mul_ps(whole, _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15))));
            min[h] = _mm512_mul_ps(whole_min, _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4)));
            min[h] = _mm512_xor_ps(minus0, min[h]);
        }
    } else if (rl_has_halves(type)) {
        d[0] = _mm512_mul_ps(whole, rl_signed_512(half));
        d[1] = _mm512_mul_ps(whole, rl_signed_512(half + 16));
        min[0] = min[1] = whole;
    } else {
        d[0] = d[1] = _mm512_mul_ps(whole, rl_bytes_512(half));
        min[0] = min[1] = _mm512_xor_ps(minus0, _mm512_mul_ps(whole_min, rl_bytes_512(half + 16)));
    }
}

/* One token (or its two parts) reads each weight once, from memory: ask for the bytes as they lie, far enough ahead to
   cover its latency. */
RL_INLINE_AVX512 void rl_prefetch_512(const uint8_t *at, const size_t bytes) {
#pragma GCC unroll 16
    for (size_t line = 0; line < bytes; line += 64) _mm_prefetch((const char *)at + RL_PREFETCH_BYTES + line, _MM_HINT_T0);
}

RL_INLINE_AVX512 void rl_store_rows_512(float *y, __m512 v, const float *bias, int rows) {
    const __mmask16 valid = rows >= 16 ? 0xffff : (__mmask16)((1u << rows) - 1);
    if (bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(valid, bias));
    _mm512_mask_storeu_ps(y, valid, v);
}

/* What the two columns of a token come to. */
RL_INLINE_AVX512 __m512 rl_both_512(__m512i high, __m512i low) {
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 7), low));
}

RL_INLINE_AVX512 void rl_mm_int8_512(const int type, const int nc, const rl_matrix *m, int32_t g0, int32_t g1,
                                     const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    const int nb = m->n_blocks, shift = rl_bias_shift(type), step = rl_chunk_blocks(type);
    const size_t qb = rl_quant_bytes(type), sb = rl_scale_bytes(type);
    const int ahead = nc <= 2 || m->ahead, fine = m->fine;
    for (int32_t g = g0; g < g1; g++) {
        const uint8_t *s = m->data + g * m->group_bytes, *a = act;
        __m512 acc[8], low[8];
        for (int c = 0; c < nc; c++) acc[c] = low[c] = _mm512_setzero_ps();
        for (int b = 0; b < nb; b += step, s += sb + step * qb) {
            const int blocks = nb - b < step ? nb - b : step;
            const uint8_t *q = s + sb;
            if (ahead) rl_prefetch_512(s, sb);
            for (int j = 0; j < blocks; j++, q += qb, a += nc * RL_ACT_INT8) {
                const uint8_t *tail = a + 32 * nc;
                __m512i dot[8], dot2[8], first[8], second[8];
                for (int c = 0; c < nc; c++) {
                    dot[c] = dot2[c] = _mm512_setzero_si512();
                    if (rl_has_halves(type)) {
                        first[c] = _mm512_set1_epi32(rl_int_at(tail + 12 * nc, c));
                        second[c] = _mm512_sub_epi32(_mm512_set1_epi32(rl_int_at(tail + 8 * nc, c)), first[c]);
                        if (shift >= 0) dot[c] = _mm512_slli_epi32(first[c], shift > 0 ? shift : 0);
                        if (shift >= 0) dot2[c] = _mm512_slli_epi32(second[c], shift > 0 ? shift : 0);
                    } else if (shift >= 0) {
                        dot[c] = _mm512_slli_epi32(_mm512_set1_epi32(rl_int_at(tail + 8 * nc, c)), shift > 0 ? shift : 0);
                    }
                }
                if (ahead) rl_prefetch_512(q, qb);
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    __m512i w = rl_quants_512(type, q, k);
#pragma GCC unroll 8
                    for (int c = 0; c < nc; c++) {
                        __m512i x = _mm512_set1_epi32(rl_int_at(a + 32 * c, k));
                        if (rl_has_halves(type) && k >= 4) dot2[c] = _mm512_dpbusd_epi32(dot2[c], w, x);
                        else dot[c] = _mm512_dpbusd_epi32(dot[c], w, x);
                    }
                }
                __m512 d[2], min[2];
                rl_scales_512(type, s, j, d, min);
                if (nc > 1 && fine) { /* two columns are one integer, and the token's scale comes last */
#pragma GCC unroll 4
                    for (int c = 0; c < nc; c += 2) {
                        acc[c] = _mm512_fmadd_ps(rl_both_512(dot[c], dot[c + 1]), d[0], acc[c]);
                        if (rl_has_halves(type)) acc[c] = _mm512_fmadd_ps(rl_both_512(dot2[c], dot2[c + 1]), d[1], acc[c]);
                        if (type == RL_Q2_K) {
                            const __m512 minus0 = _mm512_set1_ps(-0.0f);
                            __m512 x0 = _mm512_xor_ps(minus0, rl_both_512(first[c], first[c + 1]));
                            __m512 x1 = _mm512_xor_ps(minus0, rl_both_512(second[c], second[c + 1]));
                            low[c] = _mm512_fmadd_ps(min[1], x1, _mm512_fmadd_ps(min[0], x0, low[c]));
                        } else if (rl_has_min(type)) {
                            low[c] = _mm512_fmadd_ps(min[0], _mm512_set1_ps(rl_float_at(tail + 4 * nc, c)), low[c]);
                        }
                    }
                    continue;
                }
#pragma GCC unroll 8
                for (int c = 0; c < nc; c++) {
                    __m512 dx = _mm512_set1_ps(rl_float_at(tail, c));
                    acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]), _mm512_mul_ps(d[0], dx), acc[c]);
                    if (rl_has_halves(type)) acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot2[c]), _mm512_mul_ps(d[1], dx), acc[c]);
                    if (type == RL_Q2_K) {
                        const __m512i zero = _mm512_setzero_si512();
                        __m512 x0 = _mm512_mul_ps(dx, _mm512_cvtepi32_ps(_mm512_sub_epi32(zero, first[c])));
                        __m512 x1 = _mm512_mul_ps(dx, _mm512_cvtepi32_ps(_mm512_sub_epi32(zero, second[c])));
                        low[c] = _mm512_fmadd_ps(min[1], x1, _mm512_fmadd_ps(min[0], x0, low[c]));
                    } else if (rl_has_min(type)) {
                        low[c] = _mm512_fmadd_ps(min[0], _mm512_set1_ps(rl_float_at(tail + 4 * nc, c)), low[c]);
                    }
                }
            }
        }
        if (nc > 1 && fine) {
            for (int c = 0; c < nc; c += 2) {
                __m512 v = rl_has_min(type) ? _mm512_add_ps(acc[c], low[c]) : acc[c];
                v = _mm512_mul_ps(v, _mm512_set1_ps(rl_float_at(act + 32 * nc, c)));
                rl_store_rows_512(y + c / 2 * stride + g * RL_GROUP, v, bias ? bias + g * RL_GROUP : NULL, m->n_rows - g * RL_GROUP);
            }
            continue;
        }
        for (int c = 0; c < nc; c++) {
            __m512 v = rl_has_min(type) ? _mm512_add_ps(acc[c], low[c]) : acc[c];
            rl_store_rows_512(y + c * stride + g * RL_GROUP, v, bias ? bias + g * RL_GROUP : NULL, m->n_rows - g * RL_GROUP);
        }
    }
}

/* One block's weights of 16 rows in float32, column by column, each what the format defines. */
RL_INLINE_AVX512 void rl_unpack_512(const int type, const uint8_t *group, int b, float w[512]) {
    const int shift = rl_bias_shift(type), bias = shift < 0 ? 0 : 1 << (shift < 0 ? 0 : shift);
    const uint8_t *q = rl_quants_of(type, group, b);
    __m512 d[2], min[2];
    /* rl_scales_of has taken the place in a chunk of two blocks into account. */
    rl_scales_512(type, rl_scales_of(type, group, b), rl_is_k(type) ? b % 8 : 0, d, min);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m512i v = rl_quants_512(type, q, g);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m512i n = _mm512_and_si512(_mm512_srli_epi32(v, 8 * i), _mm512_set1_epi32(255));
            __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(n, _mm512_set1_epi32(bias)));
            f = _mm512_mul_ps(d[g / 4], f);
            if (rl_has_min(type)) f = _mm512_add_ps(f, min[g / 4]);
            _mm512_store_ps(w + 16 * (4 * g + i), f);
        }
    }
}

/* Column k of 16 rows of plain values. */
RL_INLINE_AVX512 __m512 rl_column_512(const int type, const uint8_t *q, int k) {
    if (type == RL_F16) return rl_halves_512(q + 32 * k);
    if (type == RL_BF16) {
        __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(q + 32 * k)));
        return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
    }
    return _mm512_loadu_ps((const float *)q + 16 * k);
}

/* Groups g and, with ng = 2, g + apart: with one token a group is one chain of additions, whose latency would show. */
RL_INLINE_AVX512 void rl_groups_float_512(const int type, const int nc, const int ng, const rl_matrix *m, int32_t g, int32_t apart,
                                          const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    const int nb = m->n_blocks;
    const size_t qb = rl_quant_bytes(type);
    const uint8_t *group = m->data + g * m->group_bytes, *a = act;
    float w[2][512] __attribute__((aligned(64)));
    __m512 acc[2][8];
    for (int i = 0; i < ng; i++)
        for (int c = 0; c < nc; c++) acc[i][c] = _mm512_setzero_ps();
    for (int b = 0; b < nb; b++, a += nc * RL_ACT_FLOAT) {
        for (int i = 0; i < ng; i++) {
            if (!rl_is_float(type)) rl_unpack_512(type, group + i * apart * m->group_bytes, b, w[i]);
            else if (nc <= 2 || m->ahead) rl_prefetch_512(group + i * apart * m->group_bytes + b * qb, qb);
        }
#pragma GCC unroll 4
        for (int k = 0; k < 32; k++) {
#pragma GCC unroll 2
            for (int i = 0; i < ng; i++) {
                __m512 wk = rl_is_float(type) ? rl_column_512(type, group + i * apart * m->group_bytes + b * qb, k) : _mm512_load_ps(w[i] + 16 * k);
#pragma GCC unroll 8
                for (int c = 0; c < nc; c++)
                    acc[i][c] = _mm512_fmadd_ps(wk, _mm512_set1_ps(rl_float_at(a, 32 * c + k)), acc[i][c]);
            }
        }
    }
    for (int i = 0; i < ng; i++)
        for (int c = 0; c < nc; c++) {
            const int row = (g + i * apart) * RL_GROUP;
            rl_store_rows_512(y + c * stride + row, acc[i][c], bias ? bias + row : NULL, m->n_rows - row);
        }
}

RL_INLINE_AVX512 void rl_mm_float_512(const int type, const int nc, const rl_matrix *m, int32_t g0, int32_t g1,
                                      const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    int32_t g = g0, half = (g1 - g0) / 2;
    if (nc <= 2) { /* two streams, each without a gap, so that what is asked for ahead is used */
        for (; g < g0 + half; g++) rl_groups_float_512(type, nc, 2, m, g, half, act, y, stride, bias);
        g += half;
    }
    for (; g < g1; g++) rl_groups_float_512(type, nc, 1, m, g, 0, act, y, stride, bias);
}

RL_FOR_EVERY_TILE(RL_INT8_TILE, 512, RL_T_AVX512)
RL_FOR_EVERY_TILE(RL_FLOAT_TILE, 512, RL_T_AVX512)

#endif
#endif
