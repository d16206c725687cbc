/* Matrix times activations with AVX2: as the AVX-512 version, eight rows at a time.
 *
 * VPMADDUBSW adds two products in saturating 16 bits. Quants up to 63 cannot overflow it
 * (2 * 63 * 127 < 32768). Q8_0 and IQ4_NL are stored + 128, so they go through |w| * (x with w's sign) instead,
 * where 2 * 128 * 127 still fits, and need no correction for the 128.
 */
#ifndef RUSTLLM_LINEAR_AVX2_H
#define RUSTLLM_LINEAR_AVX2_H
#if defined(__x86_64__)

#include "linear_portable.h"
#include "linear_tiles.h"

RL_INLINE_AVX2 __m256 rl_halves_256(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

RL_INLINE_AVX2 __m256 rl_bytes_256(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

RL_INLINE_AVX2 __m256 rl_signed_256(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* Columns 4g..4g+3 of rows 8*half..8*half+7, unsigned. */
RL_INLINE_AVX2 __m256i rl_quants_256(const int type, const uint8_t *q, const int g, const int half) {
    __m256i v;
    if (type == RL_Q8_0) return _mm256_loadu_si256((const __m256i *)(q + 64 * g + 32 * half));
    if (rl_has_pairs(type)) {
        v = _mm256_loadu_si256((const __m256i *)(q + 64 * (g / 4) + 32 * half));
        v = _mm256_and_si256(_mm256_srli_epi16(v, 2 * (g % 4)), _mm256_set1_epi8(3));
    } else {
        v = _mm256_loadu_si256((const __m256i *)(q + 64 * (g % 4) + 32 * half));
        if (g >= 4) v = _mm256_srli_epi16(v, 4);
        v = _mm256_and_si256(v, _mm256_set1_epi8(15));
    }
    if (rl_has_extra(type)) {
        /* Spread 32 bits over 32 bytes: copy byte i/8 to byte i, then test bit i%8. */
        const __m256i pick = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                              2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
        const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ULL);
        const uint8_t *masks = q + (type == RL_Q3_K ? 128 : 256);
        __m256i bits = _mm256_shuffle_epi8(_mm256_set1_epi32(rl_int_at(masks + 8 * g + 4 * half, 0)), pick);
        __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
        v = _mm256_or_si256(v, _mm256_and_si256(set, _mm256_set1_epi8(type == RL_Q3_K ? 4 : 16)));
    }
    if (type == RL_Q6_K) {
        const int up = 4 - 2 * (g % 4);
        __m256i top = _mm256_loadu_si256((const __m256i *)(q + 256 + 64 * (g / 4) + 32 * half));
        top = up > 0 ? _mm256_slli_epi16(top, up > 0 ? up : 0) : _mm256_srli_epi16(top, up < 0 ? -up : 0);
        v = _mm256_or_si256(v, _mm256_and_si256(top, _mm256_set1_epi8(0x30)));
    }
    if (type == RL_IQ4_NL) {
        const __m128i table = _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166,
                                            (char)181, (char)197, (char)217, (char)241); /* RL_IQ4_NL_BYTES */
        v = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), v);
    }
    return v;
}

RL_INLINE_AVX2 __m256i rl_dot_256(const int type, __m256i sum, __m256i w, __m256i x) {
    __m256i pairs;
    if (rl_bias_shift(type) == 7) {
        __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
        pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(x, s));
    } else {
        pairs = _mm256_maddubs_epi16(w, x);
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Scales and minima of block j of the chunk whose scales are at s, of eight rows from `lane`, for columns 0..15 and for
   the rest. */
RL_INLINE_AVX2 void rl_scales_256(const int type, const uint8_t *s, const int j, const int lane, __m256 d[2], __m256 min[2]) {
    const uint8_t *half = s + (rl_has_min(type) ? 64 : 32) + 32 * j + lane;
    if (!rl_is_k(type)) {
        d[0] = d[1] = rl_halves_256(s + (rl_chunk_blocks(type) == 2 ? 32 * j : 0) + 2 * lane);
        min[0] = min[1] = rl_has_min(type) ? rl_halves_256(s + 32 + 2 * lane) : d[0];
        return;
    }
    const __m256 whole = rl_halves_256(s + 2 * lane), minus0 = _mm256_set1_ps(-0.0f);
    const __m256 whole_min = rl_has_min(type) ? rl_halves_256(s + 32 + 2 * lane) : whole;
    if (type == RL_Q2_K) {
        for (int h = 0; h < 2; h++) {
            __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(half + 16 * h)));
            d[h] = _mm256_mul_ps(whole, _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15))));
            min[h] = _mm256_mul_ps(whole_min, _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4)));
            min[h] = _mm256_xor_ps(minus0, min[h]);
        }
    } else if (rl_has_halves(type)) {
        d[0] = _mm256_mul_ps(whole, rl_signed_256(half));
        d[1] = _mm256_mul_ps(whole, rl_signed_256(half + 16));
        min[0] = min[1] = whole;
    } else {
        d[0] = d[1] = _mm256_mul_ps(whole, rl_bytes_256(half));
        min[0] = min[1] = _mm256_xor_ps(minus0, _mm256_mul_ps(whole_min, rl_bytes_256(half + 16)));
    }
}

RL_INLINE_AVX2 void rl_store_rows_256(float *y, __m256 v, const float *bias, int rows) {
    if (bias) {
        float b[8] = {0};
        for (int i = 0; i < 8 && i < rows; i++) b[i] = bias[i];
        v = _mm256_add_ps(v, _mm256_loadu_ps(b));
    }
    if (rows >= 8) {
        _mm256_storeu_ps(y, v);
    } else {
        float out[8];
        _mm256_storeu_ps(out, v);
        for (int i = 0; i < rows; i++) y[i] = out[i];
    }
}

/* What the two columns of a token come to. */
RL_INLINE_AVX2 __m256 rl_both_256(__m256i high, __m256i low) {
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(high, 7), low));
}

/* Columns c0..c0+n-1 of a tile of nc, for eight rows. */
RL_INLINE_AVX2 void rl_part_int8_256(const int type, const int n, const int nc, const int c0, const int half,
                                     const rl_matrix *m, int32_t g, const uint8_t *act, float *y, ptrdiff_t stride,
                                     const float *bias) {
    const int nb = m->n_blocks, step = rl_chunk_blocks(type), fine = m->fine;
    /* The quants stored + 128 are made signed again before they are multiplied. */
    const int shift = rl_bias_shift(type) == 7 ? -1 : rl_bias_shift(type);
    const size_t qb = rl_quant_bytes(type), sb = rl_scale_bytes(type);
    const uint8_t *s = m->data + g * m->group_bytes, *a = act;
    const int row = g * RL_GROUP + 8 * half, rows = m->n_rows - row, lane = 8 * half;
    if (rows <= 0) return;
    __m256 acc[4], low[4];
    for (int c = 0; c < n; c++) acc[c] = low[c] = _mm256_setzero_ps();
    for (int b = 0; b < nb; b += step, s += sb + step * qb) {
        const int blocks = nb - b < step ? nb - b : step;
        const uint8_t *q = s + sb;
        for (int j = 0; j < blocks; j++, q += qb, a += nc * RL_ACT_INT8) {
            const uint8_t *tail = a + 32 * nc;
            __m256i dot[4], dot2[4];
            int32_t less[4][2]; /* minus the sums of x */
            for (int c = 0; c < n; c++) {
                dot[c] = dot2[c] = _mm256_setzero_si256();
                if (rl_has_halves(type)) {
                    less[c][0] = rl_int_at(tail + 12 * nc, c0 + c);
                    less[c][1] = rl_int_at(tail + 8 * nc, c0 + c) - less[c][0];
                    if (shift >= 0) dot[c] = _mm256_set1_epi32(less[c][0] * (1 << (shift > 0 ? shift : 0)));
                    if (shift >= 0) dot2[c] = _mm256_set1_epi32(less[c][1] * (1 << (shift > 0 ? shift : 0)));
                } else if (shift >= 0) {
                    dot[c] = _mm256_set1_epi32(rl_int_at(tail + 8 * nc, c0 + c) * (1 << (shift > 0 ? shift : 0)));
                }
            }
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                __m256i w = rl_quants_256(type, q, k, half);
                for (int c = 0; c < n; c++) {
                    __m256i x = _mm256_set1_epi32(rl_int_at(a + 32 * (c0 + c), k));
                    if (rl_has_halves(type) && k >= 4) dot2[c] = rl_dot_256(type, dot2[c], w, x);
                    else dot[c] = rl_dot_256(type, dot[c], w, x);
                }
            }
            __m256 d[2], min[2];
            rl_scales_256(type, s, j, lane, d, min);
            if (nc > 1 && fine) { /* two columns are one integer, and the token's scale comes last */
                for (int c = 0; c < n; c += 2) {
                    acc[c] = _mm256_fmadd_ps(rl_both_256(dot[c], dot[c + 1]), d[0], acc[c]);
                    if (rl_has_halves(type)) acc[c] = _mm256_fmadd_ps(rl_both_256(dot2[c], dot2[c + 1]), d[1], acc[c]);
                    if (type == RL_Q2_K) {
                        for (int h = 0; h < 2; h++) {
                            const float sum = (float)-(128 * less[c][h] + less[c + 1][h]);
                            low[c] = _mm256_fmadd_ps(min[h], _mm256_set1_ps(sum), low[c]);
                        }
                    } else if (rl_has_min(type)) {
                        low[c] = _mm256_fmadd_ps(min[0], _mm256_set1_ps(rl_float_at(tail + 4 * nc, c0 + c)), low[c]);
                    }
                }
                continue;
            }
            for (int c = 0; c < n; c++) {
                float scale = rl_float_at(tail, c0 + c);
                __m256 dx = _mm256_set1_ps(scale);
                acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c]), _mm256_mul_ps(d[0], dx), acc[c]);
                if (rl_has_halves(type)) acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot2[c]), _mm256_mul_ps(d[1], dx), acc[c]);
                if (type == RL_Q2_K) {
                    low[c] = _mm256_fmadd_ps(min[0], _mm256_set1_ps(scale * (float)-less[c][0]), low[c]);
                    low[c] = _mm256_fmadd_ps(min[1], _mm256_set1_ps(scale * (float)-less[c][1]), low[c]);
                } else if (rl_has_min(type)) {
                    low[c] = _mm256_fmadd_ps(min[0], _mm256_set1_ps(rl_float_at(tail + 4 * nc, c0 + c)), low[c]);
                }
            }
        }
    }
    for (int c = 0; c < n; c += fine ? 2 : 1) {
        __m256 v = rl_has_min(type) ? _mm256_add_ps(acc[c], low[c]) : acc[c];
        if (fine) v = _mm256_mul_ps(v, _mm256_set1_ps(rl_float_at(act + 32 * nc, c0 + c)));
        rl_store_rows_256(y + (fine ? (c0 + c) / 2 : c0 + c) * stride + row, v, bias ? bias + row : NULL, rows);
    }
}

RL_INLINE_AVX2 void rl_mm_int8_256(const int type, const int nc, const rl_matrix *m, int32_t g0, int32_t g1,
                                   const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    for (int32_t g = g0; g < g1; g++)
        for (int half = 0; half < 2; half++) {
            if (nc <= 4) {
                rl_part_int8_256(type, nc, nc, 0, half, m, g, act, y, stride, bias);
            } else {
                rl_part_int8_256(type, 4, nc, 0, half, m, g, act, y, stride, bias);
                rl_part_int8_256(type, 4, nc, 4, half, m, g, act, y, stride, bias);
            }
        }
}

RL_INLINE_AVX2 void rl_unpack_256(const int type, const uint8_t *group, int b, int half, float w[256]) {
    const int lane = 8 * half, shift = rl_bias_shift(type), bias = shift < 0 ? 0 : 1 << (shift < 0 ? 0 : shift);
    const uint8_t *q = rl_quants_of(type, group, b);
    if (type == RL_F32) {
        for (int k = 0; k < 32; k++) memcpy(w + 8 * k, q + 64 * k + 4 * lane, 32);
    } else if (type == RL_F16) {
        for (int k = 0; k < 32; k++) _mm256_store_ps(w + 8 * k, rl_halves_256(q + 32 * k + 2 * lane));
    } else if (type == RL_BF16) {
        for (int k = 0; k < 32; k++) {
            __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(q + 32 * k + 2 * lane)));
            _mm256_store_si256((__m256i *)(w + 8 * k), _mm256_slli_epi32(v, 16));
        }
    } else {
        __m256 d[2], min[2];
        /* rl_scales_of has taken the place in a chunk of two blocks into account. */
        rl_scales_256(type, rl_scales_of(type, group, b), rl_is_k(type) ? b % 8 : 0, lane, d, min);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m256i v = rl_quants_256(type, q, g, half);
            for (int i = 0; i < 4; i++) {
                __m256i n = _mm256_and_si256(_mm256_srli_epi32(v, 8 * i), _mm256_set1_epi32(255));
                __m256 f = _mm256_cvtepi32_ps(_mm256_sub_epi32(n, _mm256_set1_epi32(bias)));
                f = _mm256_mul_ps(d[g / 4], f);
                if (rl_has_min(type)) f = _mm256_add_ps(f, min[g / 4]);
                _mm256_store_ps(w + 8 * (4 * g + i), f);
            }
        }
    }
}

RL_INLINE_AVX2 void rl_mm_float_256(const int type, const int nc, const rl_matrix *m, int32_t g0, int32_t g1,
                                    const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    for (int32_t g = g0; g < g1; g++)
        for (int half = 0; half < 2; half++) {
            const uint8_t *group = m->data + g * m->group_bytes, *a = act;
            const int row = g * RL_GROUP + 8 * half, rows = m->n_rows - row;
            if (rows <= 0) continue;
            float w[256] __attribute__((aligned(32)));
            __m256 acc[8];
            for (int c = 0; c < nc; c++) acc[c] = _mm256_setzero_ps();
            for (int b = 0; b < m->n_blocks; b++, a += nc * RL_ACT_FLOAT) {
                rl_unpack_256(type, group, b, half, w);
                for (int k = 0; k < 32; k++) {
                    __m256 wk = _mm256_load_ps(w + 8 * k);
                    for (int c = 0; c < nc; c++) acc[c] = _mm256_fmadd_ps(wk, _mm256_set1_ps(rl_float_at(a, 32 * c + k)), acc[c]);
                }
            }
            for (int c = 0; c < nc; c++) rl_store_rows_256(y + c * stride + row, acc[c], bias ? bias + row : NULL, rows);
        }
}

RL_FOR_EVERY_TILE(RL_INT8_TILE, 256, RL_T_AVX2)
RL_FOR_EVERY_TILE(RL_FLOAT_TILE, 256, RL_T_AVX2)

#endif
#endif
