/* Function attributes for code that only some processors can run. */
#ifndef RUSTLLM_TARGET_H
#define RUSTLLM_TARGET_H

#if defined(_WIN32) && !defined(__clang__)
#error "On Windows rustllm needs clang: MSVC has no vector types, and GCC does not align them (bug 54412)"
#endif

#define RL_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#include <immintrin.h>
#define RL_T_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define RL_T_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx512vbmi2," \
                          "avx2,fma,f16c,bmi,bmi2,popcnt")))
#define RL_INLINE_AVX2 RL_INLINE RL_T_AVX2
#define RL_INLINE_AVX512 RL_INLINE RL_T_AVX512
#elif defined(__aarch64__)
/* NEON is part of every aarch64; the dot products of bytes are not. */
#include <arm_neon.h>
#if defined(__ARM_FEATURE_DOTPROD)
#define RL_T_DOTPROD
#elif defined(__clang__)
#define RL_T_DOTPROD __attribute__((target("dotprod")))
#else
#define RL_T_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define RL_INLINE_DOTPROD RL_INLINE RL_T_DOTPROD
#endif

#endif
