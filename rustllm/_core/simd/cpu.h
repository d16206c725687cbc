/* Which instruction sets this processor and its operating system offer. */
#ifndef RUSTLLM_CPU_H
#define RUSTLLM_CPU_H

enum { RL_SCALAR = 0, RL_AVX2 = 1, RL_AVX512 = 2, RL_NEON = 3, RL_DOTPROD = 4 };

#if defined(__x86_64__)

/* The compiler's run-time library also asks the operating system (XGETBV) whether it saves the wide
   registers, which a bare CPUID does not tell. */
static inline int rl_detect_level(void) {
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vbmi") &&
                 __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni");
    return avx512 ? RL_AVX512 : avx2 ? RL_AVX2 : RL_SCALAR;
}

static inline int rl_detect_bf16(void) {
    __builtin_cpu_init();
    return rl_detect_level() == RL_AVX512 && __builtin_cpu_supports("avx512bf16");
}

#elif defined(__aarch64__) /* NEON is part of it; dot products of bytes came with ARMv8.2 */

#if defined(__linux__)
#include <sys/auxv.h>
static inline int rl_detect_level(void) {
    return (getauxval(AT_HWCAP) & (1UL << 20)) ? RL_DOTPROD : RL_NEON; /* HWCAP_ASIMDDP */
}
#elif defined(__APPLE__)
static inline int rl_detect_level(void) { return RL_DOTPROD; } /* every Apple arm64 has dot products */
#else
static inline int rl_detect_level(void) { return RL_NEON; }
#endif
static inline int rl_detect_bf16(void) { return 0; }

#else

static inline int rl_detect_level(void) { return RL_SCALAR; }
static inline int rl_detect_bf16(void) { return 0; }

#endif
#endif
