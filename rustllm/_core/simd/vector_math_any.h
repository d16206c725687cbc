/* exp and the activations for vectors of one width (see every_width.h). */
#if defined(RL_WIDTH)

RL_INLINE_FN RL_V(rl_vec) RL_V(rl_exp)(RL_V(rl_vec) x) {
    const RL_V(rl_mask) tiny = RL_V(rl_less)(x, RL_V(rl_all)(RL_EXP_MIN)), nan = RL_V(rl_nan)(x);
    RL_V(rl_vec) v = RL_V(rl_min)(x, RL_V(rl_all)(RL_EXP_MAX));
    RL_V(rl_vec) n = RL_V(rl_round)(RL_V(rl_mul)(v, RL_V(rl_all)(RL_LOG2E)));
    RL_V(rl_vec) r = RL_V(rl_fnma)(n, RL_V(rl_all)(RL_LN2_HI), v);
    r = RL_V(rl_fnma)(n, RL_V(rl_all)(RL_LN2_LO), r);
    RL_V(rl_vec) p = RL_V(rl_fma)(RL_V(rl_all)(RL_EXP_P0), r, RL_V(rl_all)(RL_EXP_P1));
    p = RL_V(rl_fma)(p, r, RL_V(rl_all)(RL_EXP_P2));
    p = RL_V(rl_fma)(p, r, RL_V(rl_all)(RL_EXP_P3));
    p = RL_V(rl_fma)(p, r, RL_V(rl_all)(RL_EXP_P4));
    p = RL_V(rl_fma)(p, r, RL_V(rl_all)(RL_EXP_P5));
    p = RL_V(rl_add)(RL_V(rl_fma)(p, RL_V(rl_mul)(r, r), r), RL_V(rl_all)(1.0f));
    p = RL_V(rl_zero_where)(tiny, RL_V(rl_mul)(p, RL_V(rl_pow2)(n)));
    return RL_V(rl_pick)(nan, x, p);
}

RL_INLINE_FN RL_V(rl_vec) RL_V(rl_gelu)(RL_V(rl_vec) x) {
    const RL_V(rl_vec) one = RL_V(rl_all)(1.0f), two = RL_V(rl_all)(2.0f);
    RL_V(rl_vec) z = RL_V(rl_mul)(RL_V(rl_abs)(x), RL_V(rl_all)(0.70710678118654752440f));
    RL_V(rl_vec) t = RL_V(rl_div)(two, RL_V(rl_add)(two, z));
    RL_V(rl_vec) p = RL_V(rl_all)(rl_erfc_p[RL_ERFC_DEGREE]);
    for (int i = RL_ERFC_DEGREE - 1; i >= 0; i--) p = RL_V(rl_fma)(p, t, RL_V(rl_all)(rl_erfc_p[i]));
    RL_V(rl_vec) e = RL_V(rl_exp)(RL_V(rl_fnma)(z, z, p));
    RL_V(rl_vec) tail = RL_V(rl_mul)(RL_V(rl_mul)(RL_V(rl_all)(0.5f), t), e);
    const RL_V(rl_mask) negative = RL_V(rl_less)(x, RL_V(rl_all)(0.0f));
    return RL_V(rl_mul)(x, RL_V(rl_pick)(negative, tail, RL_V(rl_sub)(one, tail)));
}

RL_INLINE_FN RL_V(rl_vec) RL_V(rl_act)(const int act, RL_V(rl_vec) x) {
    if (act == RL_ACT_GELU) return RL_V(rl_gelu)(x);
    RL_V(rl_vec) e;
    if (act == RL_ACT_SILU) {
        e = RL_V(rl_exp)(RL_V(rl_neg)(x));
    } else {
        RL_V(rl_vec) cube = RL_V(rl_mul)(RL_V(rl_mul)(RL_V(rl_all)(RL_GELU_B), x), x);
        RL_V(rl_vec) u = RL_V(rl_mul)(RL_V(rl_all)(RL_GELU_A), RL_V(rl_fma)(cube, x, x));
        e = RL_V(rl_exp)(RL_V(rl_mul)(RL_V(rl_all)(-2.0f), u));
    }
    return RL_V(rl_div)(x, RL_V(rl_add)(RL_V(rl_all)(1.0f), e));
}

RL_INLINE_FN void RL_V(rl_activate_as)(const int act, float *gate, const float *up, int n) {
    const int lanes = RL_V(rl_lanes);
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        RL_V(rl_vec) v = RL_V(rl_act)(act, RL_V(rl_load)(gate + i));
        if (up) v = RL_V(rl_mul)(v, RL_V(rl_load)(up + i));
        RL_V(rl_put)(gate + i, v);
    }
    if (i < n) { /* the rest, in a vector of its own */
        float x[RL_V(rl_lanes)] = {0};
        memcpy(x, gate + i, 4 * (size_t)(n - i));
        RL_V(rl_put)(x, RL_V(rl_act)(act, RL_V(rl_load)(x)));
        for (int j = 0; i + j < n; j++) gate[i + j] = up ? x[j] * up[i + j] : x[j];
    }
}

RL_FN static void RL_V(rl_activate)(int act, float *gate, const float *up, int n) {
    if (act == RL_ACT_SILU) RL_V(rl_activate_as)(RL_ACT_SILU, gate, up, n);
    else if (act == RL_ACT_GELU) RL_V(rl_activate_as)(RL_ACT_GELU, gate, up, n);
    else RL_V(rl_activate_as)(RL_ACT_GELU_TANH, gate, up, n);
}

#endif
