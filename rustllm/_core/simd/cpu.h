/* Which instruction sets this processor and its operating system offer. */
#ifndef RUSTLLM_CPU_H
#define RUSTLLM_CPU_H

enum { RL_SCALAR = 0, RL_AVX2 = 1, RL_AVX512 = 2, RL_NEON = 3, RL_DOTPROD = 4 };

#if defined(__x86_64__)

#include <cpuid.h>

/* Asked of the processor and not of __builtin_cpu_supports, whose table stays empty where the
   compiler's run-time library does not fill it (clang as zig brings it). */
typedef struct {
    unsigned ecx1, ebx7, ecx7, eax71; /* of leaf 1, of leaf 7, and of its part 1 */
    unsigned saved;                   /* registers that the operating system saves (XCR0) */
} rl_cpu;

static inline rl_cpu rl_cpu_ask(void) {
    rl_cpu cpu = {0, 0, 0, 0, 0};
    unsigned eax, ebx, ecx, edx, high;
    if (!__get_cpuid(1, &eax, &ebx, &cpu.ecx1, &edx)) return cpu;
    if (cpu.ecx1 & 1u << 27) /* OSXSAVE: the instruction exists */
        __asm__ __volatile__("xgetbv" : "=a"(cpu.saved), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &eax, &cpu.ebx7, &cpu.ecx7, &edx)) return cpu;
    if (eax >= 1) (void)__get_cpuid_count(7, 1, &cpu.eax71, &ebx, &ecx, &edx);
    return cpu;
}

static inline int rl_detect_level(void) {
    /* AVX2, BMI2 / AVX-512 F, DQ, BW, VL / VBMI, VBMI2, VNNI: bits of leaf 7 */
    const unsigned avx2 = 1u << 5 | 1u << 8;
    const unsigned wide = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    const unsigned wide_more = 1u << 1 | 1u << 6 | 1u << 11;
    const unsigned fma_f16c = 1u << 12 | 1u << 29; /* bits of leaf 1 */
    const rl_cpu cpu = rl_cpu_ask();
    if ((cpu.saved & 0x06) != 0x06 || (cpu.ecx1 & fma_f16c) != fma_f16c || (cpu.ebx7 & avx2) != avx2)
        return RL_SCALAR;
    if ((cpu.saved & 0xe6) != 0xe6 || (cpu.ebx7 & wide) != wide || (cpu.ecx7 & wide_more) != wide_more)
        return RL_AVX2;
    return RL_AVX512;
}

static inline int rl_detect_bf16(void) {
    return rl_detect_level() == RL_AVX512 && (rl_cpu_ask().eax71 & 1u << 5) != 0;
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
