/* Matrix times activations in plain C: the reference that every vector version equals bit for bit.
 *
 * Each output is one chain over the blocks in order: exact integer dot product, then one fused
 * multiply-add with the product of both scales, and a second chain for the minima, added last.
 * Nothing depends on how many tokens, rows or threads there are.
 */
#ifndef RUSTLLM_LINEAR_PORTABLE_H
#define RUSTLLM_LINEAR_PORTABLE_H

#include <math.h>

#include "activations.h"
#include "packed.h"

RL_INLINE uint16_t rl_half_at(const uint8_t *p, int i) {
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return h;
}

RL_INLINE float rl_float_at(const uint8_t *p, int i) {
    float f;
    memcpy(&f, p + 4 * i, 4);
    return f;
}

RL_INLINE int32_t rl_int_at(const uint8_t *p, int i) {
    int32_t v;
    memcpy(&v, p + 4 * i, 4);
    return v;
}

static const uint8_t rl_iq4_nl_bytes[16] = {RL_IQ4_NL_BYTES};

/* One row's 32 unsigned quants, and its scales and minima for columns 0..15 and for the rest. */
RL_INLINE void rl_unpack_row_block(const int type, const uint8_t *group, int b, int row, uint8_t w[32], float d[2],
                                   float min[2]) {
    const uint8_t *q = rl_quants_of(type, group, b), *s = rl_scales_of(type, group, b);
    if (type == RL_Q8_0) {
        for (int k = 0; k < 32; k++) w[k] = q[64 * (k / 4) + 4 * row + k % 4];
    } else if (rl_has_pairs(type)) {
        for (int k = 0; k < 32; k++) w[k] = (q[64 * (k / 16) + 4 * row + k % 4] >> (2 * (k % 16 / 4))) & 3;
    } else {
        for (int k = 0; k < 16; k++) {
            uint8_t byte = q[64 * (k / 4) + 4 * row + k % 4];
            w[k] = byte & 15;
            w[k + 16] = byte >> 4;
        }
    }
    if (rl_has_extra(type)) {
        const uint8_t *masks = q + (type == RL_Q3_K ? 128 : 256);
        for (int k = 0; k < 32; k++) {
            int bit = 4 * row + k % 4;
            w[k] |= (uint8_t)(((masks[8 * (k / 4) + bit / 8] >> (bit % 8)) & 1) << (type == RL_Q3_K ? 2 : 4));
        }
    }
    if (type == RL_Q6_K)
        for (int k = 0; k < 32; k++)
            w[k] |= (uint8_t)(((q[256 + 64 * (k / 16) + 4 * row + k % 4] >> (2 * (k % 16 / 4))) & 3) << 4);
    if (type == RL_IQ4_NL)
        for (int k = 0; k < 32; k++) w[k] = rl_iq4_nl_bytes[w[k]];
    d[0] = d[1] = rl_half_to_float(rl_half_at(s, row));
    min[0] = min[1] = rl_has_min(type) ? rl_half_to_float(rl_half_at(s + 32, row)) : 0.0f;
    for (int h = 0; h < 2; h++) {
        const uint8_t *half = s + 16 * (2 * (b % 8) + h) + row;
        if (type == RL_Q2_K) {
            d[h] *= (float)(half[64] & 15);
            min[h] = -(min[h] * (float)(half[64] >> 4));
        } else if (rl_has_halves(type)) {
            d[h] *= (float)(int8_t)half[32];
        } else if (rl_is_k(type)) {
            const uint8_t *sub = s + 64 + 32 * (b % 8) + row;
            d[h] *= (float)sub[0];
            min[h] = -(min[h] * (float)sub[16]);
        }
    }
}

/* One row's 32 weights in float32, each exactly what the file's format defines. */
RL_INLINE void rl_unpack_row_float(const int type, const uint8_t *group, int b, int row, float w[32]) {
    if (rl_is_float(type)) {
        const uint8_t *q = rl_quants_of(type, group, b);
        for (int k = 0; k < 32; k++)
            w[k] = type == RL_F32   ? rl_float_at(q, 16 * k + row)
                   : type == RL_F16 ? rl_half_to_float(rl_half_at(q, 16 * k + row))
                                    : rl_bf16_to_float(rl_half_at(q, 16 * k + row));
        return;
    }
    uint8_t quants[32];
    float d[2], min[2];
    const int shift = rl_bias_shift(type), bias = shift < 0 ? 0 : 1 << shift;
    rl_unpack_row_block(type, group, b, row, quants, d, min);
    for (int k = 0; k < 32; k++) {
        float product = d[k / 16] * (float)(quants[k] - bias);
        w[k] = rl_has_min(type) ? product + min[k / 16] : product;
    }
}

static void rl_row_portable(const rl_matrix *m, int32_t row, float *out) {
    const uint8_t *group = m->data + (row / RL_GROUP) * m->group_bytes;
    float w[32];
    for (int b = 0; b < m->n_blocks; b++) {
        int n = m->n_cols - 32 * b < 32 ? m->n_cols - 32 * b : 32;
        rl_unpack_row_float(m->type, group, b, row % RL_GROUP, w);
        memcpy(out + 32 * b, w, 4 * (size_t)n);
    }
}

/* Quant k of a token of one column or two, and minus a sum of them. */
RL_INLINE int32_t rl_quant_at(const int8_t *x, int k, int columns) { return columns == 2 ? 128 * x[k] + x[32 + k] : x[k]; }

RL_INLINE int32_t rl_less_at(const uint8_t *sums, int c, int columns) {
    return columns == 2 ? 128 * rl_int_at(sums, c) + rl_int_at(sums, c + 1) : rl_int_at(sums, c);
}

static void rl_mm_int8_portable(const rl_matrix *m, int32_t g0, int32_t g1, int nc, const uint8_t *act, float *y,
                                ptrdiff_t stride, const float *bias) {
    const int type = m->type, shift = rl_bias_shift(type), columns = m->fine ? 2 : 1;
    for (int32_t row = g0 * RL_GROUP; row < g1 * RL_GROUP && row < m->n_rows; row++) {
        const uint8_t *group = m->data + (row / RL_GROUP) * m->group_bytes;
        float acc[8] = {0}, low[8] = {0};
        const uint8_t *a = act;
        for (int b = 0; b < m->n_blocks; b++, a += nc * RL_ACT_INT8) {
            uint8_t w[32];
            float d[2], min[2];
            rl_unpack_row_block(type, group, b, row % RL_GROUP, w, d, min);
            const uint8_t *tail = a + 32 * nc;
            for (int c = 0; c < nc; c += columns) {
                const int8_t *x = (const int8_t *)a + 32 * c;
                float dx = columns == 2 ? 1.0f : rl_float_at(tail, c);
                int32_t dot[2] = {0, 0};
                for (int k = 0; k < 32; k++) dot[k / 16] += w[k] * rl_quant_at(x, k, columns);
                if (rl_has_halves(type)) {
                    int32_t less[2] = {rl_less_at(tail + 12 * nc, c, columns), 0}; /* minus the sums of x */
                    less[1] = rl_less_at(tail + 8 * nc, c, columns) - less[0];
                    for (int h = 0; h < 2; h++) {
                        if (shift >= 0) dot[h] += less[h] * (1 << shift);
                        acc[c] = fmaf((float)dot[h], d[h] * dx, acc[c]);
                        if (rl_has_min(type)) low[c] = fmaf(min[h], dx * (float)-less[h], low[c]);
                    }
                } else {
                    int32_t sum = dot[0] + dot[1];
                    if (shift >= 0) sum += rl_less_at(tail + 8 * nc, c, columns) * (1 << shift);
                    acc[c] = fmaf((float)sum, d[0] * dx, acc[c]);
                    if (rl_has_min(type)) low[c] = fmaf(min[0], rl_float_at(tail + 4 * nc, c), low[c]);
                }
            }
        }
        for (int c = 0; c < nc; c += columns) {
            float v = rl_has_min(type) ? acc[c] + low[c] : acc[c];
            if (columns == 2) v *= rl_float_at(act + 32 * nc, c);
            y[c / columns * stride + row] = bias ? v + bias[row] : v;
        }
    }
}

static void rl_mm_float_portable(const rl_matrix *m, int32_t g0, int32_t g1, int nc, const uint8_t *act, float *y,
                                 ptrdiff_t stride, const float *bias) {
    for (int32_t row = g0 * RL_GROUP; row < g1 * RL_GROUP && row < m->n_rows; row++) {
        const uint8_t *group = m->data + (row / RL_GROUP) * m->group_bytes;
        float acc[8] = {0};
        const uint8_t *a = act;
        for (int b = 0; b < m->n_blocks; b++, a += nc * RL_ACT_FLOAT) {
            float w[32];
            rl_unpack_row_float(m->type, group, b, row % RL_GROUP, w);
            for (int c = 0; c < nc; c++)
                for (int k = 0; k < 32; k++) acc[c] = fmaf(w[k], rl_float_at(a, 32 * c + k), acc[c]);
        }
        for (int c = 0; c < nc; c++) y[c * stride + row] = bias ? acc[c] + bias[row] : acc[c];
    }
}

#endif
