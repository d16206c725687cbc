/* Products of int8 by one of the rl_dot16 of linear_neon.h, which includes this once for each. */
#if defined(RL_WIDTH)

/* nc tokens with nq quarters of a group, from q0 on. */
RL_INLINE_FN void RL_V(rl_part_int8)(const int type, const int nc, const int nq, const rl_matrix *m, int32_t g, int q0,
                                     const uint8_t *act, float *y, ptrdiff_t stride, const float *bias) {
    const int nb = m->n_blocks, step = rl_chunk_blocks(type), halves = rl_has_halves(type), fine = nc > 1 && m->fine;
    const size_t qb = rl_quant_bytes(type), sb = rl_scale_bytes(type);
    const uint8_t *s = m->data + g * m->group_bytes, *a = act;
    float32x4_t acc[8], low[8]; /* [token][quarter] */
    for (int i = 0; i < nc * nq; i++) acc[i] = low[i] = vdupq_n_f32(0.0f);
    for (int b = 0; b < nb; b += step, s += sb + step * qb) {
        const int blocks = nb - b < step ? nb - b : step;
        const uint8_t *q = s + sb;
        for (int j = 0; j < blocks; j++, q += qb, a += nc * RL_ACT_INT8) {
            const uint8_t *tail = a + 32 * nc;
            int32x4_t dot[8], less[8]; /* minus the sums of x */
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                if (h == 0 || halves)
#pragma GCC unroll 8
                    for (int c = 0; c < nc; c++) {
                        less[c] = vdupq_n_s32(rl_int_at(tail + (halves && h == 0 ? 12 : 8) * nc, c));
                        if (halves && h == 1) less[c] = vsubq_s32(less[c], vdupq_n_s32(rl_int_at(tail + 12 * nc, c)));
#pragma GCC unroll 4
                        for (int r = 0; r < nq; r++) dot[c * nq + r] = vmulq_n_s32(less[c], rl_bias_neon(type));
                    }
#pragma GCC unroll 4
                for (int r = 0; r < nq; r++) {
                    int8x16_t w[4];
                    for (int i = 0; i < 4; i++) w[i] = rl_quants_neon(type, q, 4 * h + i, q0 + r);
#pragma GCC unroll 8
                    for (int c = 0; c < nc; c++)
                        dot[c * nq + r] = RL_V(rl_dot16)(type, dot[c * nq + r], w, vld1q_s8((const int8_t *)a + 32 * c + 16 * h));
                }
                if (h == 1 || halves)
#pragma GCC unroll 4
                    for (int r = 0; r < nq; r++) {
                        float32x4_t d, min;
                        rl_scales_neon(type, s, j, h, q0 + r, &d, &min);
                        if (fine) { /* two columns are one integer, and the token's scale comes last */
#pragma GCC unroll 4
                            for (int c = 0; c < nc - 1; c += 2) {
                                const int i = c * nq + r;
                                acc[i] = vfmaq_f32(acc[i], rl_both_neon(dot[i], dot[i + nq]), d);
                                if (type == RL_Q2_K) low[i] = vfmsq_f32(low[i], min, rl_both_neon(less[c], less[c + 1]));
                                else if (rl_has_min(type)) low[i] = vfmaq_n_f32(low[i], min, rl_float_at(tail + 4 * nc, c));
                            }
                            continue;
                        }
#pragma GCC unroll 8
                        for (int c = 0; c < nc; c++) {
                            const int i = c * nq + r;
                            const float dx = rl_float_at(tail, c);
                            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), vmulq_n_f32(d, dx));
                            if (type == RL_Q2_K) low[i] = vfmaq_f32(low[i], min, vmulq_n_f32(vcvtq_f32_s32(vnegq_s32(less[c])), dx));
                            else if (rl_has_min(type)) low[i] = vfmaq_n_f32(low[i], min, rl_float_at(tail + 4 * nc, c));
                        }
                    }
            }
        }
    }
    for (int r = 0; r < nq; r++)
        for (int c = 0; c < nc; c += fine ? 2 : 1) {
            const int row = g * RL_GROUP + 4 * (q0 + r), i = c * nq + r;
            float32x4_t v = rl_has_min(type) ? vaddq_f32(acc[i], low[i]) : acc[i];
            if (fine) v = vmulq_n_f32(v, rl_float_at(act + 32 * nc, c));
            rl_store_rows_neon(y + (fine ? c / 2 : c) * stride + row, v, bias ? bias + row : NULL, m->n_rows - row);
        }
}

RL_INLINE_FN void RL_V(rl_mm_int8)(const int type, const int nc, RL_MM_ARGUMENTS) {
    const int nq = rl_quarters_neon(nc);
    for (int32_t g = g0; g < g1; g++)
        for (int q0 = 0; q0 < 4; q0 += nq) RL_V(rl_part_int8)(type, nc, nq, m, g, q0, act, y, stride, bias);
}

#endif
