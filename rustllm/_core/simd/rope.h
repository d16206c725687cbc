/* Rotary position embedding of one head (Su et al. 2021).
 *
 * Angles come from the position in double precision, never by repeated multiplication, so that far
 * positions are as exact as near ones. */
#ifndef RUSTLLM_ROPE_H
#define RUSTLLM_ROPE_H

#include <math.h>

#include "cpu.h"
#include "target.h"

/* cos and sin of n/2 angles, times `factor`: table[0..n/2) and table[n/2..n). */
static inline void rl_rope_table(const double *inverse_frequency, int n, double position, double factor, float *table) {
    for (int i = 0; i < n / 2; i++) {
        double angle = position * inverse_frequency[i];
        table[i] = (float)(cos(angle) * factor);
        table[n / 2 + i] = (float)(sin(angle) * factor);
    }
}

/* Rotates the first `n` of `x` into `y`: pairs (i, i + n/2) where `halves`, else (2i, 2i + 1). */
RL_INLINE void rl_rope_body(const float *x, const float *table, int n, int halves, float *y) {
    const float *c = table, *s = table + n / 2;
    if (halves) {
        for (int i = 0; i < n / 2; i++) {
            float a = x[i], b = x[i + n / 2];
            y[i] = a * c[i] - b * s[i];
            y[i + n / 2] = a * s[i] + b * c[i];
        }
    } else {
        for (int i = 0; i < n / 2; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            y[2 * i] = a * c[i] - b * s[i];
            y[2 * i + 1] = a * s[i] + b * c[i];
        }
    }
}

typedef void (*rl_rope_fn)(const float *x, const float *table, int n, int halves, float *y);

static void rl_rope_portable(const float *x, const float *table, int n, int halves, float *y) {
    rl_rope_body(x, table, n, halves, y);
}

#if defined(__x86_64__)
RL_T_AVX2 static void rl_rope_avx2(const float *x, const float *table, int n, int halves, float *y) {
    rl_rope_body(x, table, n, halves, y);
}
RL_T_AVX512 static void rl_rope_avx512(const float *x, const float *table, int n, int halves, float *y) {
    rl_rope_body(x, table, n, halves, y);
}
#endif

static inline rl_rope_fn rl_rope_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_rope_avx512;
    if (level == RL_AVX2) return rl_rope_avx2;
#endif
    (void)level;
    return rl_rope_portable;
}

#endif
