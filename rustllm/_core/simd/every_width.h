/* Includes RL_TEMPLATE once for each width of vector (see vectors.h) that the processor may have, with
   RL_WIDTH, RL_FN (attributes of a function) and RL_INLINE_FN set. No guard: it is for repeated use. */
#if defined(RL_TEMPLATE)
#if defined(__x86_64__)
#define RL_WIDTH 256
#define RL_FN RL_T_AVX2
#define RL_INLINE_FN RL_INLINE_AVX2
#include RL_TEMPLATE
#undef RL_WIDTH
#undef RL_FN
#undef RL_INLINE_FN
#define RL_WIDTH 512
#define RL_FN RL_T_AVX512
#define RL_INLINE_FN RL_INLINE_AVX512
#include RL_TEMPLATE
#undef RL_WIDTH
#undef RL_FN
#undef RL_INLINE_FN
#elif defined(__aarch64__)
#define RL_WIDTH neon
#define RL_FN
#define RL_INLINE_FN RL_INLINE
#include RL_TEMPLATE
#undef RL_WIDTH
#undef RL_FN
#undef RL_INLINE_FN
#endif
#undef RL_TEMPLATE
#endif
