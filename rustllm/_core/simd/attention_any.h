/* Attention over one segment for vectors of one width (see every_width.h): as attention_portable.h.
 *
 * A few queries share what is loaded of keys and values; each keeps its own chain of additions, in
 * the order of the portable version, so that its bits do not depend on the others.
 */
#if defined(RL_WIDTH)

enum {
    RL_V(rl_parts) = 16 / RL_V(rl_lanes),                    /* vectors of 16 positions */
    RL_V(rl_at_once) = RL_V(rl_lanes) == 16 ? 8 : 4,         /* queries whose scores fit the registers */
};

/* Elements i..i+15 of a block of sixteen positions, or of neighbouring ones. */
RL_INLINE_FN void RL_V(rl_cached)(const int kind, const uint8_t *block, ptrdiff_t i, RL_V(rl_vec) v[RL_V(rl_parts)]) {
    if (kind == RL_KV_F16) RL_V(rl_halves16)((const uint16_t *)block + i, v);
    else if (kind == RL_KV_BF16) RL_V(rl_bf16s16)((const uint16_t *)block + i, v);
    else if (kind == RL_KV_INT8) RL_V(rl_int8s16)((const int8_t *)block + i, v);
    else
        for (int p = 0; p < RL_V(rl_parts); p++) v[p] = RL_V(rl_load)((const float *)block + i + RL_V(rl_lanes) * p);
}

/* Scores of queries c0..c0+n-1 for the 16-position blocks b0..b1-1, `nb` of them side by side. */
RL_INLINE_FN void RL_V(rl_scores_by)(const int kind, const int n, const int nb, const rl_segment *s, int c0, int b0, int b1,
                                     float scores[][RL_SEGMENT]) {
    enum { PARTS = RL_V(rl_parts), LANES = RL_V(rl_lanes) };
    const int hd = s->head_dim, step = kind == RL_KV_INT8 ? RL_KV_BLOCK : hd;
    const ptrdiff_t bytes = rl_kv_block_bytes(kind, hd);
    for (int b = b0; b < b1; b += nb) {
        const uint8_t *block = (const uint8_t *)s->keys + b * bytes;
        RL_V(rl_vec) acc[4][8][PARTS], total[4][8][PARTS];
        for (int a = 0; a < nb; a++)
            for (int c = 0; c < n; c++)
                for (int p = 0; p < PARTS; p++) acc[a][c][p] = total[a][c][p] = RL_V(rl_all)(0.0f);
        for (int d0 = 0; d0 < hd; d0 += step) {
            const int d1 = d0 + step < hd ? d0 + step : hd;
#pragma GCC unroll 4
            for (int d = d0; d < d1; d++)
#pragma GCC unroll 4
                for (int a = 0; a < nb; a++) {
                    RL_V(rl_vec) k[PARTS];
                    RL_V(rl_cached)(kind, block + a * bytes, 16 * d, k);
#pragma GCC unroll 8
                    for (int c = 0; c < n; c++)
                        for (int p = 0; p < PARTS; p++)
                            acc[a][c][p] = RL_V(rl_fma)(k[p], RL_V(rl_all)(s->query[c0 + c][d]), acc[a][c][p]);
                }
            if (kind == RL_KV_INT8)
                for (int a = 0; a < nb; a++)
                    for (int p = 0; p < PARTS; p++) {
                        const uint16_t *scales = rl_kv_scales(block + a * bytes, hd, d0 / RL_KV_BLOCK);
                        const RL_V(rl_vec) scale = RL_V(rl_from_half)(scales + LANES * p);
                        for (int c = 0; c < n; c++) {
                            total[a][c][p] = RL_V(rl_fma)(acc[a][c][p], scale, total[a][c][p]);
                            acc[a][c][p] = RL_V(rl_all)(0.0f);
                        }
                    }
        }
        for (int a = 0; a < nb; a++)
            for (int c = 0; c < n; c++)
                for (int p = 0; p < PARTS; p++)
                    RL_V(rl_put)(scores[c0 + c] + 16 * (b + a) + LANES * p, kind == RL_KV_INT8 ? total[a][c][p] : acc[a][c][p]);
    }
}

/* A chain of additions waits for itself: a single query takes several blocks side by side. */
RL_INLINE_FN void RL_V(rl_scores)(const int kind, const int n, const rl_segment *s, int c0, int b0, int b1,
                                  float scores[][RL_SEGMENT]) {
    const int nb = n > 1 ? 1 : RL_V(rl_parts) <= 2 ? 4 : 2, middle = b1 - (b1 - b0) % nb;
    RL_V(rl_scores_by)(kind, n, nb, s, c0, b0, middle, scores);
    if (nb > 1) RL_V(rl_scores_by)(kind, n, 1, s, c0, middle, b1, scores);
}

/* The exponentials of one query's scores, their sum and their maximum. */
RL_INLINE_FN void RL_V(rl_weights)(rl_segment *s, int c, float *scores) {
    enum { PARTS = RL_V(rl_parts), LANES = RL_V(rl_lanes) };
    static const float places[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const RL_V(rl_vec) nothing = RL_V(rl_all)(-INFINITY), one = RL_V(rl_all)(1.0f), cap = RL_V(rl_all)(s->softcap);
    const int first = s->first[c], last = s->last[c], from = first / 16 * 16, to = (last + 15) / 16 * 16;
    const RL_V(rl_vec) low = RL_V(rl_all)((float)first), high = RL_V(rl_all)((float)last);
    RL_V(rl_vec) max = nothing, bad = RL_V(rl_all)(0.0f);
    for (int i = from; i < to; i += LANES) {
        RL_V(rl_vec) v = RL_V(rl_load)(scores + i);
        if (s->softcap > 0.0f) {
            RL_V(rl_vec) e = RL_V(rl_exp)(RL_V(rl_mul)(RL_V(rl_all)(-2.0f), RL_V(rl_div)(v, cap)));
            v = RL_V(rl_mul)(cap, RL_V(rl_div)(RL_V(rl_sub)(one, e), RL_V(rl_add)(one, e)));
        }
        if (i < first || i + LANES > last) {
            const RL_V(rl_vec) at = RL_V(rl_add)(RL_V(rl_load)(places), RL_V(rl_all)((float)i));
            v = RL_V(rl_pick)(RL_V(rl_less)(at, low), nothing, RL_V(rl_pick)(RL_V(rl_less)(at, high), v, nothing));
        }
        bad = RL_V(rl_pick)(RL_V(rl_nan)(v), v, bad);
        RL_V(rl_put)(scores + i, v);
        max = RL_V(rl_max)(v, max);
    }
    const float top = RL_V(rl_any_nan)(bad) ? rl_bits_to_float(0x7fc00000u) : RL_V(rl_top)(max);
    s->max[c] = top;
    s->sum[c] = 0.0f;
    if (top == -INFINITY) return;
    RL_V(rl_vec) sum[PARTS];
    for (int p = 0; p < PARTS; p++) sum[p] = RL_V(rl_all)(0.0f);
    for (int i = from; i < to; i += 16)
        for (int p = 0; p < PARTS; p++) {
            RL_V(rl_vec) e = RL_V(rl_exp)(RL_V(rl_sub)(RL_V(rl_load)(scores + i + LANES * p), RL_V(rl_all)(top)));
            RL_V(rl_put)(scores + i + LANES * p, e);
            sum[p] = RL_V(rl_add)(sum[p], e);
        }
    for (int half = PARTS / 2; half; half /= 2)
        for (int p = 0; p < half; p++) sum[p] = RL_V(rl_add)(sum[p], sum[p + half]);
    s->sum[c] = RL_V(rl_tree)(sum[0]);
}

/* Adds weight * V[k] for n queries, `width` vectors of dimensions from d0 and positions k0..k1-1 to what is there. */
RL_INLINE_FN void RL_V(rl_values)(const int kind, const int n, const int width, const rl_segment *s, int c0, int d0, int k0,
                                  int k1, float scores[][RL_SEGMENT]) {
    enum { PARTS = RL_V(rl_parts), LANES = RL_V(rl_lanes) };
    const int hd = s->head_dim, blocks = kind == RL_KV_INT8 ? (width * LANES + RL_KV_BLOCK - 1) / RL_KV_BLOCK : 1;
    const ptrdiff_t bytes = rl_kv_block_bytes(kind, hd);
    const uint8_t *values = (const uint8_t *)s->values;
    float scaled[2][4][RL_SEGMENT] __attribute__((aligned(64))); /* for int8: weights times the scales of a block */
    RL_V(rl_vec) acc[4][8];
    if (kind == RL_KV_INT8)
        for (int i = k0 / 16 * 16; i < k1; i += LANES)
            for (int j = 0; j < blocks; j++) {
                const uint16_t *scales = rl_kv_scales(values + i / 16 * bytes, hd, d0 / RL_KV_BLOCK + j) + i % 16;
                for (int c = 0; c < n; c++)
                    RL_V(rl_put)(scaled[j][c] + i, RL_V(rl_mul)(RL_V(rl_load)(scores[c0 + c] + i), RL_V(rl_from_half)(scales)));
            }
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) acc[c][j] = RL_V(rl_load)(s->out[c0 + c] + d0 + LANES * j);
    for (int k = k0; k < k1; k++) {
        /* Rows follow each other, but for the scales behind every sixteen. */
        const uint8_t *rows = kind == RL_KV_INT8 ? values + k / 16 * (bytes - 16 * hd) : values;
        RL_V(rl_vec) v[8];
        for (int j = 0; j < width; j += PARTS) RL_V(rl_cached)(kind, rows, (ptrdiff_t)k * hd + d0 + LANES * j, v + j);
#pragma GCC unroll 4
        for (int c = 0; c < n; c++)
            for (int j = 0; j < width; j++) {
                const float *weights = kind == RL_KV_INT8 ? scaled[LANES * j / RL_KV_BLOCK][c] : scores[c0 + c];
                acc[c][j] = RL_V(rl_fma)(RL_V(rl_all)(weights[k]), v[j], acc[c][j]);
            }
    }
    for (int c = 0; c < n; c++)
        for (int j = 0; j < width; j++) RL_V(rl_put)(s->out[c0 + c] + d0 + LANES * j, acc[c][j]);
}

RL_INLINE_FN void RL_V(rl_values_of)(const int kind, const int n, const rl_segment *s, int c0, int k0, int k1,
                                     float scores[][RL_SEGMENT]) {
    enum { PARTS = RL_V(rl_parts), LANES = RL_V(rl_lanes) };
    const int wide = LANES == 16 ? 64 : n <= 2 ? 32 : 16;
    if (k0 >= k1) return;
    int d = 0;
    for (; d + wide <= s->head_dim; d += wide) RL_V(rl_values)(kind, n, wide / LANES, s, c0, d, k0, k1, scores);
    if (wide > 16)
        for (; d < s->head_dim; d += 16) RL_V(rl_values)(kind, n, PARTS, s, c0, d, k0, k1, scores);
}

/* Values of queries c0..c0+n-1. Those that every one sees are read once; one that a query does not see must not reach
   it even as 0 * infinity. */
RL_INLINE_FN void RL_V(rl_values_seen)(const int kind, const int n, const rl_segment *s, int c0, float scores[][RL_SEGMENT]) {
    int from = 0, to = RL_SEGMENT, together = n > 1;
    for (int c = c0; c < c0 + n; c++) {
        for (int d = 0; d < s->head_dim; d++) s->out[c][d] = 0.0f;
        from = s->first[c] > from ? s->first[c] : from;
        to = s->last[c] < to ? s->last[c] : to;
        together = together && s->max[c] != -INFINITY;
    }
    together = together && from < to;
    for (int c = c0; c < c0 + n; c++)
        if (s->max[c] != -INFINITY) RL_V(rl_values_of)(kind, 1, s, c, s->first[c], together ? from : s->last[c], scores);
    if (!together) return;
    RL_V(rl_values_of)(kind, n, s, c0, from, to, scores);
    for (int c = c0; c < c0 + n; c++) RL_V(rl_values_of)(kind, 1, s, c, to, s->last[c], scores);
}

RL_INLINE_FN void RL_V(rl_attend_as)(const int kind, rl_segment *s) {
    float scores[RL_MAX_QUERIES][RL_SEGMENT] __attribute__((aligned(64)));
    const int n = s->n_queries;
    int low = RL_SEGMENT, high = 0;
    for (int c = 0; c < n; c++) {
        low = s->first[c] < low ? s->first[c] : low;
        high = s->last[c] > high ? s->last[c] : high;
    }
    const int b0 = low / 16, b1 = (high + 15) / 16;
    for (int c = 0; c < n;) {
        switch (RL_V(rl_at_once) == 8 && n - c >= 8 ? 8 : n - c >= 4 ? 4 : n - c) {
        case 8: RL_V(rl_scores)(kind, 8, s, c, b0, b1, scores); c += 8; break;
        case 4: RL_V(rl_scores)(kind, 4, s, c, b0, b1, scores); c += 4; break;
        case 3: RL_V(rl_scores)(kind, 3, s, c, b0, b1, scores); c += 3; break;
        case 2: RL_V(rl_scores)(kind, 2, s, c, b0, b1, scores); c += 2; break;
        default: RL_V(rl_scores)(kind, 1, s, c, b0, b1, scores); c += 1; break;
        }
    }
    for (int c = 0; c < n; c++) RL_V(rl_weights)(s, c, scores[c]);
    for (int c = 0; c < n; c += 4) {
        switch (n - c >= 4 ? 4 : n - c) {
        case 4: RL_V(rl_values_seen)(kind, 4, s, c, scores); break;
        case 3: RL_V(rl_values_seen)(kind, 3, s, c, scores); break;
        case 2: RL_V(rl_values_seen)(kind, 2, s, c, scores); break;
        default: RL_V(rl_values_seen)(kind, 1, s, c, scores); break;
        }
    }
}

RL_FN static void RL_V(rl_attend)(rl_segment *s) {
    switch (s->kind) {
    case RL_KV_F32: RL_V(rl_attend_as)(RL_KV_F32, s); break;
    case RL_KV_F16: RL_V(rl_attend_as)(RL_KV_F16, s); break;
    case RL_KV_BF16: RL_V(rl_attend_as)(RL_KV_BF16, s); break;
    default: RL_V(rl_attend_as)(RL_KV_INT8, s); break;
    }
}

RL_FN static void RL_V(rl_merge)(float *running_max, float *running_sum, float *total, float max, float sum,
                                 const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
}

RL_FN static void RL_V(rl_store)(const float *key, const float *value, void *keys, void *values, int kind, int head_dim,
                                 ptrdiff_t slot) {
    if (kind != RL_KV_F16) {
        rl_store_body(key, value, keys, values, kind, head_dim, slot);
        return;
    }
    /* The hardware's conversion rounds as rl_float_to_half does. */
    uint16_t *k = (uint16_t *)keys + slot / 16 * head_dim * 16 + slot % 16, *v = (uint16_t *)values + slot * head_dim;
    for (int d = 0; d < head_dim; d += RL_V(rl_lanes)) {
        uint16_t halves[RL_V(rl_lanes)];
        RL_V(rl_to_half)(halves, RL_V(rl_load)(key + d));
        for (int i = 0; i < RL_V(rl_lanes); i++) k[16 * (d + i)] = halves[i];
        RL_V(rl_to_half)(v + d, RL_V(rl_load)(value + d));
    }
}

#endif
