/* Function attributes for code that only some processors can run. */
#ifndef RUSTLLM_TARGET_H
#define RUSTLLM_TARGET_H

#define RL_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#include <immintrin.h>
#define RL_T_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define RL_T_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx512vbmi2," \
                          "avx2,fma,f16c,bmi,bmi2,popcnt")))
#define RL_INLINE_AVX2 RL_INLINE RL_T_AVX2
#define RL_INLINE_AVX512 RL_INLINE RL_T_AVX512
#endif

#endif
