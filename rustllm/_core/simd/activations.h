/* Inputs of a linear layer as the kernels read them: tiles of 1, 2, 4 or 8 tokens.
 *
 * int8, one record a tile and block of 32 columns, for n tokens:
 *     n x 32 int8 quants | n float d | n float d*sum | n int32 -sum | n int32 -(sum of the first 16)
 * float, one record a tile and block:
 *     n x 32 float
 *
 * Where int8 is too coarse a token takes two columns of a tile, its quants are 128 times the first
 * column's plus the second's, and d is the same in all of its blocks: about fifteen bits of the
 * largest. Then a block takes no scale of its own, d multiplies what a row comes to, and both columns
 * are one integer before they are converted, so that two cost less than twice as much as one. The
 * first column's d and sum are those of the token.
 *
 * A quant is x / d rounded to nearest even with d = max|x| / 127, as the field does, but d and the
 * sum stay float32, so that no large activation overflows a half. A NaN or infinity makes d NaN,
 * so that it reaches the result instead of vanishing in the rounding.
 */
#ifndef RUSTLLM_ACTIVATIONS_H
#define RUSTLLM_ACTIVATIONS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "half.h"
#include "target.h"

enum { RL_ACT_INT8 = 48, RL_ACT_FLOAT = 128 }; /* bytes a token and block */

RL_INLINE float rl_quant_scale(uint32_t max_bits, float steps, float *inverse) {
    float max = rl_bits_to_float(max_bits);
    if (max_bits >= 0x7f800000u) {
        *inverse = 0.0f;
        return rl_bits_to_float(0x7fc00000u);
    }
    *inverse = max > 1e-30f ? steps / max : 0.0f;
    return max > 1e-30f ? max / steps : 0.0f;
}

/* Writes token `c` of the `n` of a tile; x has n_blocks * 32 values, zero beyond the last column. */
static void rl_quantize_portable(const float *x, int n_blocks, uint8_t *tile, int n, int c) {
    for (int b = 0; b < n_blocks; b++, x += 32, tile += (size_t)n * RL_ACT_INT8) {
        int8_t *q = (int8_t *)tile + 32 * c;
        uint8_t *tail = tile + 32 * n;
        uint32_t max_bits = 0;
        for (int i = 0; i < 32; i++) {
            uint32_t bits = rl_float_to_bits(x[i]) & 0x7fffffffu;
            max_bits = bits > max_bits ? bits : max_bits;
        }
        float inverse, d = rl_quant_scale(max_bits, 127.0f, &inverse);
        int32_t sum = 0, half = 0;
        for (int i = 0; i < 32; i++) {
            int32_t v = d == d ? (int32_t)rintf(x[i] * inverse) : 0;
            q[i] = (int8_t)v;
            sum += v;
            if (i == 15) half = sum;
        }
        float ds = d * (float)sum;
        int32_t n0 = -sum, n1 = -half;
        memcpy(tail + 4 * c, &d, 4);
        memcpy(tail + 4 * n + 4 * c, &ds, 4);
        memcpy(tail + 8 * n + 4 * c, &n0, 4);
        memcpy(tail + 12 * n + 4 * c, &n1, 4);
    }
}

/* 127 * 128 + 63 steps, so that the first column's quants end at 127 and the second's are -64..63. */
#define RL_FINE_STEPS 16319.0f

/* Writes columns c and c + 1. Few rows are laid out like this, and only the last of a prompt. */
static void rl_quantize_fine(const float *x, int n_blocks, uint8_t *tile, int n, int c) {
    uint32_t max_bits = 0;
    for (int i = 0; i < 32 * n_blocks; i++) {
        uint32_t bits = rl_float_to_bits(x[i]) & 0x7fffffffu;
        max_bits = bits > max_bits ? bits : max_bits;
    }
    float inverse;
    const float d = rl_quant_scale(max_bits, RL_FINE_STEPS, &inverse);
    for (int b = 0; b < n_blocks; b++, x += 32, tile += (size_t)n * RL_ACT_INT8) {
        int8_t *q = (int8_t *)tile + 32 * c;
        uint8_t *tail = tile + 32 * n;
        int32_t high_sum = 0, low_sum = 0, halves[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            int32_t v = d == d ? (int32_t)rintf(x[i] * inverse) : 0;
            int32_t high = (v + 64) >> 7, low = v - 128 * high;
            q[i] = (int8_t)high;
            q[32 + i] = (int8_t)low;
            high_sum += high;
            low_sum += low;
            if (i == 15) halves[0] = high_sum, halves[1] = low_sum;
        }
        const float sum = (float)(128 * high_sum + low_sum);
        const int32_t less[4] = {-high_sum, -low_sum, -halves[0], -halves[1]};
        const float numbers[4] = {d, d, sum, sum};
        memcpy(tail + 4 * c, numbers, 8);
        memcpy(tail + 4 * n + 4 * c, numbers + 2, 8);
        memcpy(tail + 8 * n + 4 * c, less, 8);
        memcpy(tail + 12 * n + 4 * c, less + 2, 8);
    }
}

static void rl_float_tile(const float *x, int n_blocks, uint8_t *tile, int n, int c) {
    for (int b = 0; b < n_blocks; b++, x += 32, tile += (size_t)n * RL_ACT_FLOAT) memcpy(tile + 128 * c, x, 128);
}

#if defined(__x86_64__)

RL_T_AVX512 static void rl_quantize_avx512(const float *x, int n_blocks, uint8_t *tile, int n, int c) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int b = 0; b < n_blocks; b++, x += 32, tile += (size_t)n * RL_ACT_INT8) {
        uint8_t *tail = tile + 32 * n;
        __m512 lo = _mm512_loadu_ps(x), hi = _mm512_loadu_ps(x + 16);
        __m512i bits = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(lo), magnitude),
                                        _mm512_and_si512(_mm512_castps_si512(hi), magnitude));
        float inverse, d = rl_quant_scale(_mm512_reduce_max_epu32(bits), 127.0f, &inverse);
        __m512 scale = _mm512_set1_ps(inverse);
        __m512i ql = _mm512_cvtps_epi32(_mm512_mul_ps(lo, scale)), qh = _mm512_cvtps_epi32(_mm512_mul_ps(hi, scale));
        if (d != d) ql = qh = _mm512_setzero_si512();
        _mm_storeu_si128((__m128i *)(tile + 32 * c), _mm512_cvtepi32_epi8(ql));
        _mm_storeu_si128((__m128i *)(tile + 32 * c + 16), _mm512_cvtepi32_epi8(qh));
        int32_t half = _mm512_reduce_add_epi32(ql), sum = half + _mm512_reduce_add_epi32(qh);
        float ds = d * (float)sum;
        int32_t n0 = -sum, n1 = -half;
        memcpy(tail + 4 * c, &d, 4);
        memcpy(tail + 4 * n + 4 * c, &ds, 4);
        memcpy(tail + 8 * n + 4 * c, &n0, 4);
        memcpy(tail + 12 * n + 4 * c, &n1, 4);
    }
}

RL_T_AVX2 static void rl_quantize_avx2(const float *x, int n_blocks, uint8_t *tile, int n, int c) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int b = 0; b < n_blocks; b++, x += 32, tile += (size_t)n * RL_ACT_INT8) {
        uint8_t *tail = tile + 32 * n;
        __m256i max = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++)
            max = _mm256_max_epu32(max, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8 * i)), magnitude));
        uint32_t lanes[8], max_bits = 0;
        _mm256_storeu_si256((__m256i *)lanes, max);
        for (int i = 0; i < 8; i++) max_bits = lanes[i] > max_bits ? lanes[i] : max_bits;
        float inverse, d = rl_quant_scale(max_bits, 127.0f, &inverse);
        int32_t q[32], sum = 0, half = 0;
        for (int i = 0; i < 4; i++) {
            __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse)));
            _mm256_storeu_si256((__m256i *)(q + 8 * i), d == d ? v : _mm256_setzero_si256());
        }
        for (int i = 0; i < 32; i++) {
            ((int8_t *)tile)[32 * c + i] = (int8_t)q[i];
            sum += q[i];
            if (i == 15) half = sum;
        }
        float ds = d * (float)sum;
        int32_t n0 = -sum, n1 = -half;
        memcpy(tail + 4 * c, &d, 4);
        memcpy(tail + 4 * n + 4 * c, &ds, 4);
        memcpy(tail + 8 * n + 4 * c, &n0, 4);
        memcpy(tail + 12 * n + 4 * c, &n1, 4);
    }
}

#elif defined(__aarch64__)

static void rl_quantize_neon(const float *x, int n_blocks, uint8_t *tile, int n, int c) {
    for (int b = 0; b < n_blocks; b++, x += 32, tile += (size_t)n * RL_ACT_INT8) {
        uint8_t *tail = tile + 32 * n;
        uint32x4_t max = vdupq_n_u32(0);
        for (int i = 0; i < 8; i++)
            max = vmaxq_u32(max, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + 4 * i))));
        float inverse, d = rl_quant_scale(vmaxvq_u32(max), 127.0f, &inverse);
        int32x4_t sums[2];
        for (int h = 0; h < 2; h++) {
            int32x4_t q[4];
            for (int i = 0; i < 4; i++) {
                q[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 16 * h + 4 * i), inverse));
                if (d != d) q[i] = vdupq_n_s32(0);
            }
            int16x8_t lo = vcombine_s16(vmovn_s32(q[0]), vmovn_s32(q[1])), hi = vcombine_s16(vmovn_s32(q[2]), vmovn_s32(q[3]));
            vst1q_s8((int8_t *)tile + 32 * c + 16 * h, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
            sums[h] = vaddq_s32(vaddq_s32(q[0], q[1]), vaddq_s32(q[2], q[3]));
        }
        int32_t half = vaddvq_s32(sums[0]), sum = half + vaddvq_s32(sums[1]);
        float ds = d * (float)sum;
        int32_t n0 = -sum, n1 = -half;
        memcpy(tail + 4 * c, &d, 4);
        memcpy(tail + 4 * n + 4 * c, &ds, 4);
        memcpy(tail + 8 * n + 4 * c, &n0, 4);
        memcpy(tail + 12 * n + 4 * c, &n1, 4);
    }
}

#endif
#endif
