/* float32 to blocks.

   The 32-element types with one search-free scale (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0) are equal bit for
   bit to the published reference. The others minimise the weighted squared error: a search over
   scales with a least-squares refit for each group, then alternating choices of the groups' integer
   scales and of the block's scales until nothing improves (coordinate descent, as in Lloyd's
   quantizer). The order of every sum is fixed, so results are the same on every machine. */
#ifndef RUSTLLM_QUANTIZE_H
#define RUSTLLM_QUANTIZE_H

#include <math.h>

#include "blocks.h"

enum { RL_QUANT_OK = 0, RL_QUANT_BAD_TYPE = -2, RL_QUANT_TOO_LARGE = -3, RL_QUANT_NOT_FINITE = -7 };

RL_INLINE void rl_store_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
RL_INLINE void rl_store_f16(uint8_t *p, float v) { rl_store_u16(p, rl_f32_to_f16(v)); }
RL_INLINE float rl_round_to_f16(float v) { return rl_f16_to_f32(rl_f32_to_f16(v)); }

/* Nearest integer as a float, ties to even, clamped; vectorizes everywhere. A value that is not a
   number becomes `low`. */
RL_INLINE float rl_level(float v, float low, float high) {
    v = v > low ? v : low;
    v = v < high ? v : high;
    return (v + 12582912.0f) - 12582912.0f;
}

/* Sum of 8 partial sums, always in this order. */
RL_INLINE float rl_sum8(const float *s) {
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

RL_INLINE int rl_to_level(float v, int high) {
    return v > 0.0f ? (v < (float)high ? (int)v : high) : 0;
}

/* The value of the largest magnitude, the first of equals. */
RL_INLINE float rl_signed_max(const float *x, int n) {
    float max = x[0], amax = fabsf(x[0]);
    for (int j = 1; j < n; j++)
        if (fabsf(x[j]) > amax) {
            amax = fabsf(x[j]);
            max = x[j];
        }
    return max;
}

RL_INLINE void rl_min_max(const float *x, int n, float *min, float *max) {
    *min = *max = x[0];
    for (int j = 1; j < n; j++) {
        if (x[j] < *min) *min = x[j];
        if (x[j] > *max) *max = x[j];
    }
}

RL_INLINE void rl_pack_nibbles(const uint8_t *q, uint8_t *out) {
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)((q[j] & 15) | q[j + 16] << 4);
}

RL_INLINE void rl_pack_fifth_bits(const uint8_t *q, uint8_t *out) {
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++) bits |= (uint32_t)(q[j] >> 4) << j;
    memcpy(out, &bits, 4);
}

/* Q4_0 and Q5_0: levels -half .. half - 1 of the signed maximum. */
RL_INLINE void rl_quantize_symmetric(const float *x, uint8_t *b, int half) {
    float d = rl_signed_max(x, 32) / (float)-half, id = d != 0.0f ? 1.0f / d : 0.0f;
    uint8_t q[32];
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)rl_to_level(x[j] * id + ((float)half + 0.5f), 2 * half - 1);
    rl_store_f16(b, d);
    if (half == 16) rl_pack_fifth_bits(q, b + 2);
    rl_pack_nibbles(q, b + (half == 16 ? 6 : 2));
}

/* Q4_1 and Q5_1: levels 0 .. top between minimum and maximum. */
RL_INLINE void rl_quantize_affine(const float *x, uint8_t *b, int top) {
    float min, max;
    rl_min_max(x, 32, &min, &max);
    float d = (max - min) / (float)top, id = d != 0.0f ? 1.0f / d : 0.0f;
    uint8_t q[32];
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)rl_to_level((x[j] - min) * id + 0.5f, top);
    rl_store_f16(b, d);
    rl_store_f16(b + 2, min);
    if (top == 31) rl_pack_fifth_bits(q, b + 4);
    rl_pack_nibbles(q, b + (top == 31 ? 8 : 4));
}

RL_INLINE void rl_quantize_q8_0(const float *x, uint8_t *b) {
    float d = fabsf(rl_signed_max(x, 32)) / 127.0f, id = d != 0.0f ? 1.0f / d : 0.0f;
    rl_store_f16(b, d);
    for (int j = 0; j < 32; j++) {
        float v = x[j] * id, a = fabsf(v);
        int level = rl_to_level(a + 0.5f, 127);
        /* a + 0.5 rounds up to the next integer just below a half: compare, do not trust it. */
        if ((float)level - a > 0.5f) level--;
        b[2 + j] = (uint8_t)(int8_t)(v < 0.0f ? -level : level);
    }
}

/* ---- groups with a searched scale ---------------------------------------------------------- */

typedef struct { float scale, min; } rl_affine; /* x ~ scale * q - min, min >= 0 */

/* Weighted squared error of levels 0..top under (scale, min); the levels go to q. */
RL_INLINE float rl_affine_error(int n, float top, const float *x, const float *w, float scale,
                                float min, float *q) {
    float part[8] = {0}, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k++) {
            float level = rl_level((x[i + k] + min) * inverse, 0.0f, top);
            float miss = scale * level - min - x[i + k];
            q[i + k] = level;
            part[k] += w[i + k] * miss * miss;
        }
    return rl_sum8(part);
}

/* The best (scale, min) for levels q by weighted least squares, with min >= 0 and scale >= 0. */
RL_INLINE rl_affine rl_affine_refit(int n, const float *x, const float *w, const float *q) {
    float sw[8] = {0}, sx[8] = {0}, sq[8] = {0}, sqq[8] = {0}, sqx[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k++) {
            float a = w[i + k], b = a * q[i + k];
            sw[k] += a;
            sx[k] += a * x[i + k];
            sq[k] += b;
            sqq[k] += b * q[i + k];
            sqx[k] += b * x[i + k];
        }
    float w1 = rl_sum8(sw), x1 = rl_sum8(sx), q1 = rl_sum8(sq), qq = rl_sum8(sqq);
    float qx = rl_sum8(sqx), det = w1 * qq - q1 * q1;
    rl_affine fit = {0.0f, 0.0f};
    if (det > 0.0f) {
        fit.scale = (w1 * qx - q1 * x1) / det;
        fit.min = (q1 * qx - qq * x1) / det;
    }
    if (!(fit.min > 0.0f)) {
        fit.min = 0.0f;
        fit.scale = qq > 0.0f ? qx / qq : 0.0f;
    }
    if (!(fit.scale > 0.0f)) fit.scale = 0.0f;
    return fit;
}

/* Real-valued scale and min of one group. */
RL_INLINE rl_affine rl_affine_search(int n, float top, const float *x, const float *w) {
    float low, high, q[32];
    rl_min_max(x, n, &low, &high);
    if (low > 0.0f) low = 0.0f;
    rl_affine best = {0.0f, -low};
    if (!(high > low)) return best;
    float best_error = INFINITY;
    for (int step = -10; step <= 12; step++) {
        float range = top + 0.1f * (float)step * (top > 4.0f ? 1.0f : 0.5f);
        rl_affine fit = {(high - low) / range, -low};
        rl_affine_error(n, top, x, w, fit.scale, fit.min, q);
        fit = rl_affine_refit(n, x, w, q);
        float error = rl_affine_error(n, top, x, w, fit.scale, fit.min, q);
        if (error < best_error) {
            best_error = error;
            best = fit;
        }
    }
    for (int round = 0; round < 4; round++) {
        rl_affine_error(n, top, x, w, best.scale, best.min, q);
        rl_affine fit = rl_affine_refit(n, x, w, q);
        float error = rl_affine_error(n, top, x, w, fit.scale, fit.min, q);
        if (!(error < best_error)) break;
        best_error = error;
        best = fit;
    }
    return best;
}

/* A block of 256 as `groups` groups under one pair of scales: q * (d * s) - dmin * m. */
typedef struct {
    float d, dmin;
    int scale[16], min[16];
    float q[256];
} rl_affine_block;

RL_INLINE int rl_nearest(float v, int low, int high) {
    return (int)rl_level(v, (float)low, (float)high);
}

/* With d and dmin fixed, the best integer scale and min of each group: the nearest and around it. */
RL_INLINE float rl_affine_choose(int groups, float top, int max, const float *x, const float *w,
                                 const rl_affine *fit, rl_affine_block *b) {
    int n = 256 / groups;
    float total = 0.0f, id = b->d > 0.0f ? 1.0f / b->d : 0.0f;
    float im = b->dmin > 0.0f ? 1.0f / b->dmin : 0.0f;
    for (int g = 0; g < groups; g++) {
        int s0 = rl_nearest(fit[g].scale * id, 0, max), m0 = rl_nearest(fit[g].min * im, 0, max);
        float best = INFINITY, q[32];
        for (int s = s0 - 1; s <= s0 + 1; s++)
            for (int m = m0 - 1; m <= m0 + 1; m++) {
                if (s < 0 || s > max || m < 0 || m > max) continue;
                float error = rl_affine_error(n, top, x + g * n, w + g * n, b->d * (float)s,
                                              b->dmin * (float)m, q);
                if (error < best) {
                    best = error;
                    b->scale[g] = s;
                    b->min[g] = m;
                    memcpy(b->q + g * n, q, (size_t)n * sizeof(float));
                }
            }
        total += best;
    }
    return total;
}

/* The best d and dmin for the integers chosen, by least squares. */
RL_INLINE void rl_affine_refit_block(int groups, const float *x, const float *w,
                                     rl_affine_block *b) {
    int n = 256 / groups;
    double aa = 0, am = 0, mm = 0, ax = 0, mx = 0;
    for (int i = 0; i < 256; i++) {
        double a = (double)b->scale[i / n] * b->q[i], m = b->min[i / n], wi = w[i];
        aa += wi * a * a;
        am += wi * a * m;
        mm += wi * m * m;
        ax += wi * a * x[i];
        mx += wi * m * x[i];
    }
    double det = aa * mm - am * am;
    if (det > 1e-12 * aa * mm && det > 0) {
        double d = (mm * ax - am * mx) / det, dmin = (am * ax - aa * mx) / det;
        if (d > 0 && dmin >= 0) {
            b->d = (float)d;
            b->dmin = (float)dmin;
        }
    } else if (aa > 0 && ax > 0) {
        b->d = (float)(ax / aa);
    }
}

RL_INLINE int rl_affine_solve(int groups, float top, int max, const float *x, const float *w,
                              rl_affine_block *best) {
    int n = 256 / groups;
    rl_affine fit[16];
    float max_scale = 0.0f, max_min = 0.0f;
    for (int g = 0; g < groups; g++) {
        fit[g] = rl_affine_search(n, top, x + g * n, w + g * n);
        if (fit[g].scale > max_scale) max_scale = fit[g].scale;
        if (fit[g].min > max_min) max_min = fit[g].min;
    }
    rl_affine_block b;
    memset(best, 0, sizeof *best);
    b.d = max_scale / (float)max;
    b.dmin = max_min / (float)max;
    float best_error = INFINITY;
    for (int round = 0; round < 6; round++) {
        b.d = rl_round_to_f16(b.d);
        b.dmin = rl_round_to_f16(b.dmin);
        if (!(b.d < INFINITY) || !(b.dmin < INFINITY)) {
            if (round == 0) return RL_QUANT_TOO_LARGE;
            break;
        }
        float error = rl_affine_choose(groups, top, max, x, w, fit, &b);
        if (!(error < best_error)) break;
        best_error = error;
        *best = b;
        rl_affine_refit_block(groups, x, w, &b);
    }
    return best_error < INFINITY ? RL_QUANT_OK : RL_QUANT_TOO_LARGE;
}

RL_INLINE void rl_pack_k_scales(const int *scale, const int *min, uint8_t *s) {
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

RL_INLINE int rl_quantize_q4_k(const float *x, const float *w, uint8_t *b) {
    rl_affine_block best;
    int status = rl_affine_solve(8, 15.0f, 63, x, w, &best);
    if (status) return status;
    rl_store_f16(b, best.d);
    rl_store_f16(b + 2, best.dmin);
    rl_pack_k_scales(best.scale, best.min, b + 4);
    for (int g = 0; g < 4; g++)
        for (int l = 0; l < 32; l++) {
            const float *q = best.q + g * 64 + l;
            b[16 + g * 32 + l] = (uint8_t)((int)q[0] | (int)q[32] << 4);
        }
    return 0;
}

RL_INLINE int rl_quantize_q5_k(const float *x, const float *w, uint8_t *b) {
    rl_affine_block best;
    int status = rl_affine_solve(8, 31.0f, 63, x, w, &best);
    if (status) return status;
    rl_store_f16(b, best.d);
    rl_store_f16(b + 2, best.dmin);
    rl_pack_k_scales(best.scale, best.min, b + 4);
    memset(b + 16, 0, 32);
    for (int g = 0; g < 8; g++)
        for (int l = 0; l < 32; l++) {
            int q = (int)best.q[g * 32 + l];
            uint8_t *low = b + 48 + (g >> 1) * 32 + l;
            *low = (uint8_t)(g & 1 ? *low | (q & 15) << 4 : q & 15);
            b[16 + l] = (uint8_t)(b[16 + l] | q >> 4 << g);
        }
    return 0;
}

RL_INLINE int rl_quantize_q2_k(const float *x, const float *w, uint8_t *b) {
    rl_affine_block best;
    int status = rl_affine_solve(16, 3.0f, 15, x, w, &best);
    if (status) return status;
    memset(b, 0, 80);
    rl_store_f16(b + 80, best.d);
    rl_store_f16(b + 82, best.dmin);
    for (int g = 0; g < 16; g++) {
        uint8_t *to = b + 16 + (g >> 3) * 32 + (g & 1) * 16;
        int shift = (g >> 1 & 3) * 2;
        b[g] = (uint8_t)(best.scale[g] | best.min[g] << 4);
        for (int l = 0; l < 16; l++)
            to[l] = (uint8_t)(to[l] | (int)best.q[g * 16 + l] << shift);
    }
    return 0;
}

/* Symmetric: q * (d * s), levels -half .. half - 1, s of either sign. */

RL_INLINE float rl_symmetric_error(int n, float half, const float *x, const float *w, float scale,
                                   float *q) {
    float part[8] = {0}, inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k++) {
            float level = rl_level(x[i + k] * inverse, -half, half - 1.0f);
            float miss = scale * level - x[i + k];
            q[i + k] = level;
            part[k] += w[i + k] * miss * miss;
        }
    return rl_sum8(part);
}

RL_INLINE float rl_symmetric_refit(int n, const float *x, const float *w, const float *q) {
    float sqq[8] = {0}, sqx[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k++) {
            float a = w[i + k] * q[i + k];
            sqq[k] += a * q[i + k];
            sqx[k] += a * x[i + k];
        }
    float qq = rl_sum8(sqq);
    return qq > 0.0f ? rl_sum8(sqx) / qq : 0.0f;
}

RL_INLINE float rl_symmetric_search(int n, float half, const float *x, const float *w) {
    float max = rl_signed_max(x, n), best = 0.0f, best_error = INFINITY, q[16];
    if (max == 0.0f) return 0.0f;
    for (int sign = -1; sign <= 1; sign += 2)
        for (int step = -10; step <= 10; step++) {
            float levels = half + 0.1f * (float)step * (half > 4.0f ? 1.0f : 0.9f);
            float scale = (float)sign * max / levels;
            rl_symmetric_error(n, half, x, w, scale, q);
            scale = rl_symmetric_refit(n, x, w, q);
            float error = rl_symmetric_error(n, half, x, w, scale, q);
            if (error < best_error) {
                best_error = error;
                best = scale;
            }
        }
    return best;
}

typedef struct {
    float d;
    int scale[16];
    float q[256];
} rl_symmetric_block;

RL_INLINE int rl_symmetric_solve(float half, int max, const float *x, const float *w,
                                 rl_symmetric_block *best) {
    float fit[16], largest = 0.0f, best_error = INFINITY;
    for (int g = 0; g < 16; g++) {
        fit[g] = rl_symmetric_search(16, half, x + g * 16, w + g * 16);
        if (fabsf(fit[g]) > fabsf(largest)) largest = fit[g];
    }
    rl_symmetric_block b;
    memset(best, 0, sizeof *best);
    b.d = largest / (float)-max; /* the largest scale is exact: -max exists, +max does not */
    for (int round = 0; round < 6; round++) {
        b.d = rl_round_to_f16(b.d);
        if (!(fabsf(b.d) < INFINITY)) {
            if (round == 0) return RL_QUANT_TOO_LARGE;
            break;
        }
        float total = 0.0f, id = b.d != 0.0f ? 1.0f / b.d : 0.0f;
        for (int g = 0; g < 16; g++) {
            int s0 = rl_nearest(fit[g] * id, -max, max - 1);
            float group_best = INFINITY, q[16];
            for (int s = s0 - 1; s <= s0 + 1; s++) {
                if (s < -max || s > max - 1) continue;
                float error =
                    rl_symmetric_error(16, half, x + g * 16, w + g * 16, b.d * (float)s, q);
                if (error < group_best) {
                    group_best = error;
                    b.scale[g] = s;
                    memcpy(b.q + g * 16, q, sizeof q);
                }
            }
            total += group_best;
        }
        if (!(total < best_error)) break;
        best_error = total;
        *best = b;
        double aa = 0, ax = 0;
        for (int i = 0; i < 256; i++) {
            double a = (double)b.scale[i / 16] * b.q[i];
            aa += w[i] * a * a;
            ax += w[i] * a * x[i];
        }
        if (aa > 0) b.d = (float)(ax / aa);
    }
    return best_error < INFINITY ? RL_QUANT_OK : RL_QUANT_TOO_LARGE;
}

RL_INLINE int rl_quantize_q6_k(const float *x, const float *w, uint8_t *b) {
    rl_symmetric_block best;
    int status = rl_symmetric_solve(32.0f, 128, x, w, &best);
    if (status) return status;
    memset(b, 0, 192);
    rl_store_f16(b + 208, best.d);
    for (int g = 0; g < 16; g++) {
        int half = g >> 3, quarter = g >> 1 & 3, l = (g & 1) * 16;
        uint8_t *low = b + half * 64 + (quarter & 1) * 32 + l, *high = b + 128 + half * 32 + l;
        int low_shift = (quarter >> 1) * 4, high_shift = quarter * 2;
        b[192 + g] = (uint8_t)(int8_t)best.scale[g];
        for (int i = 0; i < 16; i++) {
            int q = (int)best.q[g * 16 + i] + 32;
            low[i] = (uint8_t)(low[i] | (q & 15) << low_shift);
            high[i] = (uint8_t)(high[i] | q >> 4 << high_shift);
        }
    }
    return 0;
}

RL_INLINE int rl_quantize_q3_k(const float *x, const float *w, uint8_t *b) {
    rl_symmetric_block best;
    int status = rl_symmetric_solve(4.0f, 32, x, w, &best);
    if (status) return status;
    memset(b, 0, 108);
    rl_store_f16(b + 108, best.d);
    for (int g = 0; g < 16; g++) {
        uint8_t *to = b + 32 + (g >> 3) * 32 + (g & 1) * 16, *mask = b + (g & 1) * 16;
        int shift = (g >> 1 & 3) * 2, bit = g >> 1, s = best.scale[g] + 32;
        uint8_t *low = b + 96 + (g & 7), *high = b + 104 + (g & 3);
        *low = (uint8_t)(*low | (s & 15) << (g >> 3) * 4);
        *high = (uint8_t)(*high | s >> 4 << (g >> 2) * 2);
        for (int l = 0; l < 16; l++) {
            int q = (int)best.q[g * 16 + l] + 4;
            to[l] = (uint8_t)(to[l] | (q & 3) << shift);
            mask[l] = (uint8_t)(mask[l] | q >> 2 << bit);
        }
    }
    return 0;
}

/* IQ4_NL: sixteen fixed values that are not evenly spaced, times d. */

/* Half-way between neighbours: a value belongs to as many levels as it is above of these. */
static const float rl_iq4_nl_borders[15] = {-115.5f, -93.5f, -74.0f, -57.0f, -42.0f,
                                            -28.5f,  -16.0f, -4.5f,  7.0f,   19.0f,
                                            31.5f,   45.5f,  61.0f,  79.0f,  101.0f};

RL_INLINE void rl_iq4_nl_levels(const float *x, float scale, float *value, int *index) {
    float inverse = scale != 0.0f ? 1.0f / scale : 0.0f, scaled[32];
    for (int i = 0; i < 32; i++) {
        scaled[i] = x[i] * inverse;
        index[i] = 0;
    }
    for (int k = 0; k < 15; k++)
        for (int i = 0; i < 32; i++) index[i] += scaled[i] > rl_iq4_nl_borders[k];
    for (int i = 0; i < 32; i++) value[i] = rl_iq4_nl_values[index[i]];
}

RL_INLINE float rl_scaled_error(const float *x, const float *w, float scale, const float *value) {
    float part[8] = {0};
    for (int i = 0; i < 32; i += 8)
        for (int k = 0; k < 8; k++) {
            float miss = scale * value[i + k] - x[i + k];
            part[k] += w[i + k] * miss * miss;
        }
    return rl_sum8(part);
}

RL_INLINE int rl_quantize_iq4_nl(const float *x, const float *w, uint8_t *b) {
    float max = rl_signed_max(x, 32), best_error = INFINITY, best = 0.0f, value[32];
    int index[32], best_index[32];
    uint8_t packed[32];
    rl_iq4_nl_levels(x, 0.0f, value, best_index);
    for (int step = -7; step <= 7 && max != 0.0f; step++)
        for (int end = 0; end < 2; end++) {
            float scale = max / (float)((end ? 113 : -127) + step * 2);
            rl_iq4_nl_levels(x, scale, value, index);
            scale = rl_round_to_f16(rl_symmetric_refit(32, x, w, value));
            if (!(fabsf(scale) < INFINITY)) return RL_QUANT_TOO_LARGE;
            rl_iq4_nl_levels(x, scale, value, index);
            float error = rl_scaled_error(x, w, scale, value);
            if (error < best_error) {
                best_error = error;
                best = scale;
                memcpy(best_index, index, sizeof index);
            }
        }
    for (int i = 0; i < 32; i++) packed[i] = (uint8_t)best_index[i];
    rl_store_f16(b, best);
    rl_pack_nibbles(packed, b + 2);
    return 0;
}

/* ---- rows ---------------------------------------------------------------------------------- */

RL_INLINE int rl_can_quantize(int type) {
    return rl_is_type(type) && !(type >= RL_I8 && type <= RL_I64);
}

RL_INLINE int rl_quantize_block(int type, const float *x, const float *w, uint8_t *b) {
    switch (type) {
    case RL_Q4_0: rl_quantize_symmetric(x, b, 8); return 0;
    case RL_Q5_0: rl_quantize_symmetric(x, b, 16); return 0;
    case RL_Q4_1: rl_quantize_affine(x, b, 15); return 0;
    case RL_Q5_1: rl_quantize_affine(x, b, 31); return 0;
    case RL_Q8_0: rl_quantize_q8_0(x, b); return 0;
    case RL_IQ4_NL: return rl_quantize_iq4_nl(x, w, b);
    case RL_Q2_K: return rl_quantize_q2_k(x, w, b);
    case RL_Q3_K: return rl_quantize_q3_k(x, w, b);
    case RL_Q4_K: return rl_quantize_q4_k(x, w, b);
    case RL_Q5_K: return rl_quantize_q5_k(x, w, b);
    case RL_Q6_K: return rl_quantize_q6_k(x, w, b);
    default: return RL_QUANT_BAD_TYPE;
    }
}

RL_INLINE int rl_quantize_plain(int type, const float *x, uint8_t *dst, ptrdiff_t n) {
    switch (type) {
    case RL_F32:
        if (n) memcpy(dst, x, (size_t)n * 4);
        return 0;
    case RL_F16:
        for (ptrdiff_t i = 0; i < n; i++) {
            uint16_t h = rl_f32_to_f16(x[i]);
            if (!rl_f16_is_finite(h)) return RL_QUANT_TOO_LARGE;
            rl_store_u16(dst + 2 * i, h);
        }
        return 0;
    case RL_BF16:
        for (ptrdiff_t i = 0; i < n; i++) rl_store_u16(dst + 2 * i, rl_f32_to_bf16(x[i]));
        return 0;
    default: /* RL_F64 */
        for (ptrdiff_t i = 0; i < n; i++) {
            double v = x[i];
            memcpy(dst + 8 * i, &v, 8);
        }
        return 0;
    }
}

/* n float32 at x to blocks of `type`. `weights` says how much each of the n elements matters, or is
   NULL. 0; BAD_TYPE also when n is not whole blocks; TOO_LARGE when a scale overflows float16;
   NOT_FINITE when a value or weight is NaN or infinite, or a weight negative. */
RL_INLINE int rl_quantize_row(int type, const float *x, const float *weights, uint8_t *dst,
                                  ptrdiff_t n) {
    if (!rl_can_quantize(type) || rl_row_bytes(type, n) < 0) return RL_QUANT_BAD_TYPE;
    ptrdiff_t elements = rl_block_sizes[type].elements, bytes = rl_block_sizes[type].bytes;
    for (ptrdiff_t i = 0; i < n; i++) {
        if ((rl_f32_to_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return RL_QUANT_NOT_FINITE;
        if (weights && !(weights[i] >= 0.0f && weights[i] < INFINITY)) return RL_QUANT_NOT_FINITE;
    }
    if (elements == 1) return rl_quantize_plain(type, x, dst, n);
    float w[256];
    int second, at = rl_scale_place(type, &second);
    for (ptrdiff_t i = 0; i < n; i += elements, dst += bytes) {
        for (int j = 0; j < elements; j++) w[j] = weights ? weights[i + j] : 1.0f;
        int status = rl_quantize_block(type, x + i, w, dst);
        if (status) return status;
        if (!rl_f16_is_finite(rl_load_u16(dst + at))) return RL_QUANT_TOO_LARGE;
        if (second && !rl_f16_is_finite(rl_load_u16(dst + at + 2))) return RL_QUANT_TOO_LARGE;
    }
    return 0;
}

#endif
