/* Exponentials of differences from a maximum, along a row and down the columns, for vectors of one
   width (see every_width.h). */
#if defined(RL_WIDTH)

RL_FN static float RL_V(rl_softmax)(const float *x, float max, float scale, ptrdiff_t n, float *y) {
    enum { LANES = RL_V(rl_lanes), PARTS = 16 / LANES };
    const RL_V(rl_vec) top = RL_V(rl_all)(max), factor = RL_V(rl_all)(scale);
    RL_V(rl_vec) sum[PARTS];
    float lanes[16];
    ptrdiff_t i = 0;
    for (int j = 0; j < PARTS; j++) sum[j] = RL_V(rl_all)(0.0f);
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < PARTS; j++) {
            RL_V(rl_vec) e = RL_V(rl_mul)(RL_V(rl_sub)(RL_V(rl_load)(x + i + LANES * j), top), factor);
            e = RL_V(rl_exp)(e);
            RL_V(rl_put)(y + i + LANES * j, e);
            sum[j] = RL_V(rl_add)(sum[j], e);
        }
    for (int j = 0; j < PARTS; j++) RL_V(rl_put)(lanes + LANES * j, sum[j]);
    for (int j = 0; i < n; i++, j++) lanes[j] += y[i] = rl_exp_portable((x[i] - max) * scale);
    for (int width = 8; width; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

/* One block: s[keys][width] become exp(s - max), with the running max and sum of every query, and
   `rescale` what the earlier blocks' results are to be multiplied by. */
RL_FN static void RL_V(rl_columns)(float *s, int keys, int width, float *max, float *sum, float *rescale) {
    for (int j = 0; j < width; j += RL_V(rl_lanes)) {
        const RL_V(rl_vec) before = RL_V(rl_load)(max + j);
        RL_V(rl_vec) top = before, other = before, total = RL_V(rl_all)(0.0f);
        int i = 0;
        for (; i + 2 <= keys; i += 2) {
            top = RL_V(rl_max)(RL_V(rl_load)(s + i * width + j), top);
            other = RL_V(rl_max)(RL_V(rl_load)(s + (i + 1) * width + j), other);
        }
        if (i < keys) top = RL_V(rl_max)(RL_V(rl_load)(s + i * width + j), top);
        top = RL_V(rl_max)(top, other);
        for (i = 0; i < keys; i++) {
            const RL_V(rl_vec) e = RL_V(rl_exp)(RL_V(rl_sub)(RL_V(rl_load)(s + i * width + j), top));
            RL_V(rl_put)(s + i * width + j, e);
            total = RL_V(rl_add)(total, e);
        }
        const RL_V(rl_vec) r = RL_V(rl_exp)(RL_V(rl_sub)(before, top));
        RL_V(rl_put)(rescale + j, r);
        RL_V(rl_put)(sum + j, RL_V(rl_fma)(RL_V(rl_load)(sum + j), r, total));
        RL_V(rl_put)(max + j, top);
    }
}

#endif
