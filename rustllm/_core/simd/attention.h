/* The attention kernels of every level behind one signature. */
#ifndef RUSTLLM_ATTENTION_H
#define RUSTLLM_ATTENTION_H

#include "attention_portable.h"

#define RL_TEMPLATE "attention_any.h"
#include "every_width.h"

static inline rl_merge_fn rl_merge_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_merge_512;
    if (level == RL_AVX2) return rl_merge_256;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_merge_neon;
#endif
    (void)level;
    return rl_merge_portable;
}

static inline rl_store_fn rl_store_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_store_512;
    if (level == RL_AVX2) return rl_store_256;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_store_neon;
#endif
    (void)level;
    return rl_store_portable;
}

static inline rl_segment_fn rl_attend_kernel(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_attend_512;
    if (level == RL_AVX2) return rl_attend_256;
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_attend_neon;
#endif
    (void)level;
    return rl_attend_portable;
}

#endif
