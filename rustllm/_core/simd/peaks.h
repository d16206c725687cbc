/* What a core can do at most: loops that only read memory, and loops that only compute.
 *
 * Each compute loop keeps enough independent accumulators to hide the latency of its instruction and
 * touches no memory; the operands pass through an empty assembly statement, so that the compiler
 * cannot know them. The instructions are those that the kernels use, so the peaks are theirs.
 */
#ifndef RUSTLLM_PEAKS_H
#define RUSTLLM_PEAKS_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "target.h"

enum { RL_PEAK_FLOAT32 = 0, RL_PEAK_INT8 = 1, RL_PEAK_BFLOAT16 = 2, RL_N_PEAKS = 3 };

/* Runs `steps` steps; what it returns depends on all of them. */
typedef uint32_t (*rl_peak_fn)(int64_t steps);

/* Reads `bytes`, a multiple of 512. Asking for memory ahead of the hardware made no difference. */
typedef uint64_t (*rl_read_fn)(const uint8_t *data, size_t bytes);

/* ---- portable ---- */

enum { RL_PORTABLE_LANES = 64 };

static uint32_t rl_peak_float_portable(int64_t steps) {
    float sums[RL_PORTABLE_LANES] = {0}, a = 1.0f, b = 0.5f;
    uint32_t out = 0;
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+m"(a), "+m"(b));
        for (int i = 0; i < RL_PORTABLE_LANES; i++) sums[i] = sums[i] * b + a;
    }
    for (int i = 0; i < RL_PORTABLE_LANES; i++) out += (uint32_t)(int32_t)sums[i];
    return out;
}

static uint32_t rl_peak_int8_portable(int64_t steps) {
    uint32_t out = 0;
    int32_t sums[RL_PORTABLE_LANES] = {0};
    int8_t w[RL_PORTABLE_LANES], x[RL_PORTABLE_LANES];
    for (int i = 0; i < RL_PORTABLE_LANES; i++) w[i] = (int8_t)i, x[i] = (int8_t)(3 * i);
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : : "r"(w), "r"(x) : "memory");
        for (int i = 0; i < RL_PORTABLE_LANES; i++) sums[i] = (int32_t)((uint32_t)sums[i] + (uint32_t)(w[i] * x[i]));
    }
    for (int i = 0; i < RL_PORTABLE_LANES; i++) out += (uint32_t)sums[i];
    return out;
}

static uint64_t rl_read_portable(const uint8_t *data, size_t bytes) {
    const uint64_t *words = (const uint64_t *)data;
    uint64_t sums[8] = {0}, out = 0;
    for (size_t at = 0; at < bytes / 8; at += 64) {
        for (int i = 0; i < 64; i++) sums[i & 7] ^= words[at + i];
    }
    for (int i = 0; i < 8; i++) out ^= sums[i];
    return out;
}

#if defined(__x86_64__)

enum { RL_PEAK_ACCUMULATORS = 12 };

/* ---- AVX2 ---- */

RL_T_AVX2 static uint32_t rl_peak_float_256(int64_t steps) {
    __m256 sums[RL_PEAK_ACCUMULATORS], a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.5f);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm256_setzero_ps();
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm256_fmadd_ps(sums[i], b, a);
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = _mm256_add_ps(sums[0], sums[i]);
    return (uint32_t)(int32_t)_mm256_cvtss_f32(sums[0]);
}

RL_T_AVX2 static uint32_t rl_peak_int8_256(int64_t steps) {
    __m256i sums[RL_PEAK_ACCUMULATORS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm256_setzero_si256();
    for (int64_t s = 0; s < steps; s++) {
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) {
            __asm__ volatile("" : "+x"(a)); /* or one product would do for all */
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
    return (uint32_t)_mm256_cvtsi256_si32(sums[0]);
}

RL_T_AVX2 static uint64_t rl_read_256(const uint8_t *data, size_t bytes) {
    __m256i sums[8];
    for (int i = 0; i < 8; i++) sums[i] = _mm256_setzero_si256();
    for (size_t at = 0; at < bytes; at += 512) {
        for (int i = 0; i < 16; i++)
            sums[i & 7] = _mm256_xor_si256(sums[i & 7], _mm256_loadu_si256((const __m256i *)(data + at + 32 * i)));
    }
    for (int i = 1; i < 8; i++) sums[0] = _mm256_xor_si256(sums[0], sums[i]);
    return (uint64_t)_mm256_extract_epi64(sums[0], 0) ^ (uint64_t)_mm256_extract_epi64(sums[0], 1) ^
           (uint64_t)_mm256_extract_epi64(sums[0], 2) ^ (uint64_t)_mm256_extract_epi64(sums[0], 3);
}

/* ---- AVX-512 ---- */

RL_T_AVX512 static uint32_t rl_peak_float_512(int64_t steps) {
    __m512 sums[RL_PEAK_ACCUMULATORS], a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(0.5f);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm512_fmadd_ps(sums[i], b, a);
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return (uint32_t)(int32_t)_mm512_cvtss_f32(sums[0]);
}

RL_T_AVX512 static uint32_t rl_peak_int8_512(int64_t steps) {
    __m512i sums[RL_PEAK_ACCUMULATORS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    return (uint32_t)_mm512_cvtsi512_si32(sums[0]);
}

__attribute__((target("avx512f,avx512bf16"))) static uint32_t rl_peak_bfloat16_512(int64_t steps) {
    __m512 sums[RL_PEAK_ACCUMULATORS];
    __m512i a = _mm512_set1_epi16(0x3f80), b = _mm512_set1_epi16(0x3f00);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)a, (__m512bh)b);
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return (uint32_t)(int32_t)_mm512_cvtss_f32(sums[0]);
}

RL_T_AVX512 static uint64_t rl_read_512(const uint8_t *data, size_t bytes) {
    __m512i sums[8];
    for (int i = 0; i < 8; i++) sums[i] = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += 512) {
        for (int i = 0; i < 8; i++) sums[i] = _mm512_xor_si512(sums[i], _mm512_loadu_si512(data + at + 64 * i));
    }
    for (int i = 1; i < 8; i++) sums[0] = _mm512_xor_si512(sums[0], sums[i]);
    return (uint64_t)_mm512_reduce_or_epi64(sums[0]);
}

#elif defined(__aarch64__)

enum { RL_PEAK_ACCUMULATORS = 16 };

static uint32_t rl_peak_float_neon(int64_t steps) {
    float32x4_t sums[RL_PEAK_ACCUMULATORS], a = vdupq_n_f32(1.0f), b = vdupq_n_f32(0.5f);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = vdupq_n_f32(0.0f);
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+w"(a), "+w"(b));
        /* The sum is what is added to, as in the kernels; it grows, and stays finite. */
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = vfmaq_f32(sums[i], a, b);
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = vaddq_f32(sums[0], sums[i]);
    return (uint32_t)vgetq_lane_s32(vcvtq_s32_f32(sums[0]), 0);
}

RL_T_DOTPROD static uint32_t rl_peak_int8_neon(int64_t steps) {
    int32x4_t sums[RL_PEAK_ACCUMULATORS];
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
    for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = vdupq_n_s32(0);
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+w"(a), "+w"(b));
        for (int i = 0; i < RL_PEAK_ACCUMULATORS; i++) sums[i] = vdotq_s32(sums[i], a, b);
    }
    for (int i = 1; i < RL_PEAK_ACCUMULATORS; i++) sums[0] = vaddq_s32(sums[0], sums[i]);
    return (uint32_t)vgetq_lane_s32(sums[0], 0);
}

#endif

/* The loop of a peak at a level, or NULL where the processor has none; `operations` is what a step does,
   a multiplication and an addition being two. */
static inline rl_peak_fn rl_peak_loop(int kind, int level, int has_bf16, int64_t *operations) {
#if defined(__x86_64__)
    if (level == RL_AVX512) {
        *operations = RL_PEAK_ACCUMULATORS * (kind == RL_PEAK_FLOAT32 ? 32 : kind == RL_PEAK_INT8 ? 128 : 64);
        if (kind == RL_PEAK_BFLOAT16) return has_bf16 ? rl_peak_bfloat16_512 : NULL;
        return kind == RL_PEAK_FLOAT32 ? rl_peak_float_512 : rl_peak_int8_512;
    }
    if (level == RL_AVX2 && kind != RL_PEAK_BFLOAT16) {
        *operations = RL_PEAK_ACCUMULATORS * (kind == RL_PEAK_FLOAT32 ? 16 : 64);
        return kind == RL_PEAK_FLOAT32 ? rl_peak_float_256 : rl_peak_int8_256;
    }
#elif defined(__aarch64__)
    if (level >= RL_NEON && kind == RL_PEAK_FLOAT32) {
        *operations = RL_PEAK_ACCUMULATORS * 8;
        return rl_peak_float_neon;
    }
    if (level == RL_DOTPROD && kind == RL_PEAK_INT8) {
        *operations = RL_PEAK_ACCUMULATORS * 32;
        return rl_peak_int8_neon;
    }
#endif
    (void)level;
    (void)has_bf16;
    *operations = 2 * RL_PORTABLE_LANES;
    return kind == RL_PEAK_FLOAT32 ? rl_peak_float_portable : kind == RL_PEAK_INT8 ? rl_peak_int8_portable : NULL;
}

static inline rl_read_fn rl_read_loop(int level) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_read_512;
    if (level == RL_AVX2) return rl_read_256;
#endif
    (void)level;
    return rl_read_portable;
}

#endif
