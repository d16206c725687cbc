/* Matrix times activations with NEON, four rows a vector: the lane is the row, as in the other levels.
 *
 * A token's sixteen columns are one register, and an instruction takes four of them by number, so
 * that nothing is broadcast. Few tokens: all sixteen rows of a group together, for memory is what
 * limits them; many: as many tokens as the registers hold, so that unpacking is shared.
 *
 * The quants stored + 128 are made signed again, so both operands of a product are signed bytes.
 */
#ifndef RUSTLLM_LINEAR_NEON_H
#define RUSTLLM_LINEAR_NEON_H
#if defined(__aarch64__)

#include "linear_portable.h"
#include "linear_tiles.h"
#include "vectors.h"

/* What a quant is larger than what it stands for. */
RL_INLINE int rl_bias_neon(int type) { return rl_bias_shift(type) < 0 || rl_bias_shift(type) == 7 ? 0 : 1 << rl_bias_shift(type); }

RL_INLINE float32x4_t rl_halves_neon(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }

RL_INLINE float32x4_t rl_bytes_neon(const uint8_t *p) {
    uint8x8_t four = vreinterpret_u8_u32(vdup_n_u32(rl_load32(p)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four))));
}

RL_INLINE float32x4_t rl_signed_neon(const uint8_t *p) {
    int8x8_t four = vreinterpret_s8_u32(vdup_n_u32(rl_load32(p)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))));
}

/* Bit i of 16 becomes byte i, all ones or zero. */
RL_INLINE uint8x16_t rl_spread_neon(const uint8_t *bits) {
    static const uint8_t pick[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    static const uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t both = vreinterpretq_u8_u16(vdupq_n_u16(rl_half_at(bits, 0)));
    return vtstq_u8(vqtbl1q_u8(both, vld1q_u8(pick)), vld1q_u8(bit));
}

/* Columns 4g..4g+3 of the four rows from 4 * quarter. */
RL_INLINE int8x16_t rl_quants_neon(const int type, const uint8_t *q, const int g, const int quarter) {
    const int row = 16 * quarter;
    uint8x16_t v;
    if (type == RL_Q8_0) return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(q + 64 * g + row), vdupq_n_u8(0x80)));
    if (rl_has_pairs(type)) {
        v = vld1q_u8(q + 64 * (g / 4) + row);
        v = vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t)(-2 * (g % 4)))), vdupq_n_u8(3));
    } else {
        v = vld1q_u8(q + 64 * (g % 4) + row);
        v = g >= 4 ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
    }
    if (rl_has_extra(type)) {
        const uint8_t *masks = q + (type == RL_Q3_K ? 128 : 256);
        v = vorrq_u8(v, vandq_u8(rl_spread_neon(masks + 8 * g + 2 * quarter), vdupq_n_u8(type == RL_Q3_K ? 4 : 16)));
    }
    if (type == RL_Q6_K) {
        uint8x16_t top = vld1q_u8(q + 256 + 64 * (g / 4) + row);
        top = vshlq_u8(top, vdupq_n_s8((int8_t)(4 - 2 * (g % 4))));
        v = vorrq_u8(v, vandq_u8(top, vdupq_n_u8(0x30)));
    }
    if (type == RL_IQ4_NL) {
        v = vqtbl1q_u8(vld1q_u8(rl_iq4_nl_bytes), v);
        v = veorq_u8(v, vdupq_n_u8(0x80));
    }
    return vreinterpretq_s8_u8(v);
}

/* Scale and minimum of half h of block j of the chunk whose scales are at s, of four rows. */
RL_INLINE void rl_scales_neon(const int type, const uint8_t *s, const int j, const int h, const int quarter, float32x4_t *d,
                              float32x4_t *min) {
    const int row = 4 * quarter;
    *d = rl_halves_neon(s + (rl_chunk_blocks(type) == 2 ? 32 * j : 0) + 2 * row);
    *min = rl_has_min(type) ? rl_halves_neon(s + 32 + 2 * row) : *d;
    if (!rl_is_k(type)) return;
    const uint8_t *sub = s + (rl_has_min(type) ? 64 : 32) + 32 * j + row;
    if (type == RL_Q2_K) {
        uint32x4_t both = vcvtq_u32_f32(rl_bytes_neon(sub + 16 * h));
        *d = vmulq_f32(*d, vcvtq_f32_u32(vandq_u32(both, vdupq_n_u32(15))));
        *min = vnegq_f32(vmulq_f32(*min, vcvtq_f32_u32(vshrq_n_u32(both, 4))));
    } else if (rl_has_halves(type)) {
        *d = vmulq_f32(*d, rl_signed_neon(sub + 16 * h));
    } else {
        *d = vmulq_f32(*d, rl_bytes_neon(sub));
        *min = vnegq_f32(vmulq_f32(*min, rl_bytes_neon(sub + 16)));
    }
}

RL_INLINE void rl_store_rows_neon(float *y, float32x4_t v, const float *bias, int rows) {
    if (rows >= 4) {
        vst1q_f32(y, bias ? vaddq_f32(v, vld1q_f32(bias)) : v);
        return;
    }
    float out[4];
    vst1q_f32(out, v);
    for (int i = 0; i < rows; i++) y[i] = bias ? out[i] + bias[i] : out[i];
}

/* Quarters of a group that a body works on together: with the tokens, eight sums. */
RL_INLINE int rl_quarters_neon(int nc) { return nc <= 2 ? 4 : nc == 4 ? 2 : 1; }

/* ---- int8: sixteen columns of four rows with a token, by either instruction ------------------------- */

RL_INLINE_DOTPROD int32x4_t rl_dot16_dotprod(const int type, int32x4_t sum, const int8x16_t w[4], int8x16_t x) {
    (void)type;
    sum = vdotq_laneq_s32(sum, w[0], x, 0);
    sum = vdotq_laneq_s32(sum, w[1], x, 1);
    sum = vdotq_laneq_s32(sum, w[2], x, 2);
    return vdotq_laneq_s32(sum, w[3], x, 3);
}

/* Products add up in 16 bits for as long as they fit: a quant of 5 bits 2 x 4 times (8 * 31 * 127 < 32768), of 6 bits 4
   times, a signed byte twice (2 * 128 * 127). */
RL_INLINE int32x4_t rl_dot16_neon(const int type, int32x4_t sum, const int8x16_t w[4], int8x16_t x) {
    const int32x4_t quads = vreinterpretq_s32_s8(x);
    const int8x16_t x0 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 0)), x1 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 1));
    const int8x16_t x2 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 2)), x3 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 3));
    int16x8_t lo = vmlal_s8(vmull_s8(vget_low_s8(w[0]), vget_low_s8(x0)), vget_low_s8(w[1]), vget_low_s8(x1));
    int16x8_t hi = vmlal_high_s8(vmull_high_s8(w[0], x0), w[1], x1);
    if (rl_bias_shift(type) == 7) {
        sum = vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
        lo = vmull_s8(vget_low_s8(w[2]), vget_low_s8(x2));
        hi = vmull_high_s8(w[2], x2);
    } else {
        lo = vmlal_s8(lo, vget_low_s8(w[2]), vget_low_s8(x2));
        hi = vmlal_high_s8(hi, w[2], x2);
    }
    lo = vmlal_s8(lo, vget_low_s8(w[3]), vget_low_s8(x3));
    hi = vmlal_high_s8(hi, w[3], x3);
    if (rl_bias_shift(type) == 7 || type == RL_Q6_K) return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
    return vpadalq_s16(sum, vpaddq_s16(lo, hi));
}

/* What the two columns of a token come to. */
RL_INLINE float32x4_t rl_both_neon(int32x4_t high, int32x4_t low) { return vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(high, 7), low)); }

#define RL_WIDTH dotprod
#define RL_INLINE_FN RL_INLINE_DOTPROD
#include "linear_neon_int8.h"
#undef RL_WIDTH
#undef RL_INLINE_FN
#define RL_WIDTH neon
#define RL_INLINE_FN RL_INLINE
#include "linear_neon_int8.h"
#undef RL_WIDTH
#undef RL_INLINE_FN

RL_FOR_EVERY_TILE(RL_INT8_TILE, dotprod, RL_T_DOTPROD)
RL_FOR_EVERY_TILE(RL_INT8_TILE, neon, )

/* ---- float activations ------------------------------------------------------------------------------ */

/* Column k of four rows of plain values. */
RL_INLINE float32x4_t rl_column_neon(const int type, const uint8_t *q, int k, int quarter) {
    if (type == RL_F16) return rl_halves_neon(q + 32 * k + 8 * quarter);
    if (type == RL_BF16)
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(q + 32 * k + 8 * quarter)), 16));
    return vreinterpretq_f32_u8(vld1q_u8(q + 64 * k + 16 * quarter));
}

/* One block's weights of four rows in float32, column by column, each what the format defines. */
RL_INLINE void rl_unpack_neon(const int type, const uint8_t *group, int b, int quarter, float w[128]) {
    const uint8_t *q = rl_quants_of(type, group, b), *s = rl_scales_of(type, group, b);
    const int32x4_t bias = vdupq_n_s32(rl_bias_neon(type));
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        float32x4_t d, min;
        /* rl_scales_of has taken the place in a chunk of two blocks into account. */
        rl_scales_neon(type, s, rl_is_k(type) ? b % 8 : 0, h, quarter, &d, &min);
#pragma GCC unroll 4
        for (int g = 4 * h; g < 4 * h + 4; g++) {
            const int32x4_t v = vreinterpretq_s32_s8(rl_quants_neon(type, q, g, quarter));
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                int32x4_t n = vshrq_n_s32(vshlq_s32(v, vdupq_n_s32(24 - 8 * i)), 24);
                float32x4_t f = vmulq_f32(d, vcvtq_f32_s32(vsubq_s32(n, bias)));
                vst1q_f32(w + 4 * (4 * g + i), rl_has_min(type) ? vaddq_f32(f, min) : f);
            }
        }
    }
}

RL_INLINE void rl_part_float_neon(const int type, const int nc, const int nq, const rl_matrix *m, int32_t g, int q0,
                                  const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    const uint8_t *group = m->data + g * m->group_bytes, *a = act;
    float unpacked[4][128];
    float32x4_t acc[8]; /* [token][quarter] */
    for (int i = 0; i < nc * nq; i++) acc[i] = vdupq_n_f32(0.0f);
    for (int b = 0; b < m->n_blocks; b++, a += nc * RL_ACT_FLOAT) {
        const uint8_t *q = rl_quants_of(type, group, b);
        if (!rl_is_float(type))
            for (int r = 0; r < nq; r++) rl_unpack_neon(type, group, b, q0 + r, unpacked[r]);
        for (int k = 0; k < 32; k += 4)
#pragma GCC unroll 4
            for (int r = 0; r < nq; r++) {
                float32x4_t w[4];
                for (int i = 0; i < 4; i++)
                    w[i] = rl_is_float(type) ? rl_column_neon(type, q, k + i, q0 + r) : vld1q_f32(unpacked[r] + 4 * (k + i));
#pragma GCC unroll 8
                for (int c = 0; c < nc; c++) {
                    const float32x4_t x = vreinterpretq_f32_u8(vld1q_u8(a + 128 * c + 4 * k));
                    float32x4_t sum = vfmaq_laneq_f32(acc[c * nq + r], w[0], x, 0);
                    sum = vfmaq_laneq_f32(sum, w[1], x, 1);
                    sum = vfmaq_laneq_f32(sum, w[2], x, 2);
                    acc[c * nq + r] = vfmaq_laneq_f32(sum, w[3], x, 3);
                }
            }
    }
    for (int r = 0; r < nq; r++)
        for (int c = 0; c < nc; c++) {
            const int row = g * RL_GROUP + 4 * (q0 + r);
            rl_store_rows_neon(y + c * stride + row, acc[c * nq + r], bias ? bias + row : NULL, m->n_rows - row);
        }
}

RL_INLINE void rl_mm_float_neon(const int type, const int nc, RL_MM_ARGUMENTS) {
    const int nq = rl_quarters_neon(nc);
    for (int32_t g = g0; g < g1; g++)
        for (int q0 = 0; q0 < 4; q0 += nq) rl_part_float_neon(type, nc, nq, m, g, q0, act, y, stride, bias);
}

RL_FOR_EVERY_TILE(RL_FLOAT_TILE, neon, )

#endif
#endif
