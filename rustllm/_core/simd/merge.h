/* Merging few symbols: the pair of least priority by a vector minimum, no moving of what follows.

   Each place holds priority << 7 | place, so that the least of them says what to merge and where,
   the leftmost first among equals. Merged-away places hold all ones and are skipped by links. With
   AVX-512 the places of up to 62 symbols stay in registers, where a new priority need not be stored
   before the next minimum can be taken, and links are bits. */
#ifndef RUSTLLM_MERGE_H
#define RUSTLLM_MERGE_H

#include <stdint.h>
#include "cpu.h"

enum { RL_MAX_LINEAR = 96, RL_NO_PRIORITY = 0x1FFFFF };

/* A hash has four entries in one cache line, filled from the first; when all are taken, the next four
   follow. All are compared, since which one it is cannot be predicted. */
static inline __attribute__((always_inline)) uint32_t
rl_find_pair(const uint64_t *pair, uint64_t mask, int shift, uint32_t left, uint32_t right) {
    const uint64_t key = (uint64_t)left << 21 | right;
    uint64_t at = (key * 0x9E3779B97F4A7C15ull) >> shift << 2;
    for (;;) {
        const uint64_t *four = pair + at;
        uint32_t found = RL_NO_PRIORITY;
        for (int i = 0; i < 4; i++) found = four[i] >> 21 == key ? (uint32_t)four[i] : found;
        found &= RL_NO_PRIORITY;
        if (__builtin_expect((found != RL_NO_PRIORITY) | (four[3] == ~0ull), 1)) return found;
        at = (at + 4) & mask;
    }
}

/* Least of n words at an address of which whole vectors up to RL_MAX_LINEAR words may be read. */
typedef uint32_t (*rl_least_word)(const uint32_t *, int);

static inline __attribute__((always_inline)) int rl_merge_with(
    rl_least_word least, const uint64_t *pair, uint64_t mask, int shift, const uint32_t *made,
    uint32_t *symbol, int n, const uint32_t *byte_pair, const uint8_t *text, uint32_t limit
) {
    uint32_t place[RL_MAX_LINEAR + 16];
    uint8_t before[RL_MAX_LINEAR + 1], after[RL_MAX_LINEAR + 1];
    int count = 0, i;
    for (i = 0; i + 1 < n; i++) {
        uint32_t p = text ? byte_pair[(uint32_t)text[i] << 8 | text[i + 1]]
                          : rl_find_pair(pair, mask, shift, symbol[i], symbol[i + 1]);
        place[i] = p == RL_NO_PRIORITY ? ~0u : p << 7 | (uint32_t)i;
    }
    for (i = n - 1; i < ((n + 15) & ~15); i++) place[i] = ~0u;
    for (i = 0; i <= n; i++) {
        before[i] = (uint8_t)(i - 1);
        after[i] = (uint8_t)(i + 1);
    }
    for (;;) {
        const uint32_t best = least(place, n - 1);
        int at, gone, next;
        if (best >> 7 >= limit) break;
        at = (int)(best & 127);
        gone = after[at];
        next = after[gone];
        symbol[at] = made ? made[best >> 7] : best >> 7;
        place[gone] = ~0u;
        after[at] = (uint8_t)next;
        place[at] = ~0u;
        if (next < n) {
            uint32_t p = rl_find_pair(pair, mask, shift, symbol[at], symbol[next]);
            before[next] = (uint8_t)at;
            if (p != RL_NO_PRIORITY) place[at] = p << 7 | (uint32_t)at;
        }
        if (at) {
            int back = before[at];
            uint32_t p = rl_find_pair(pair, mask, shift, symbol[back], symbol[at]);
            place[back] = p == RL_NO_PRIORITY ? ~0u : p << 7 | (uint32_t)back;
        }
    }
    for (i = 0; i < n; i = after[i]) symbol[count++] = symbol[i];
    return count;
}

#define RL_MERGE_ARGUMENTS \
    const uint64_t *pair, uint64_t mask, int shift, const uint32_t *made, uint32_t *symbol, int n, \
        const uint32_t *byte_pair, const uint8_t *text, uint32_t limit
#define RL_MERGE_BODY(least) \
    return rl_merge_with(least, pair, mask, shift, made, symbol, n, byte_pair, text, limit);

static inline __attribute__((always_inline)) uint32_t rl_least_plain(const uint32_t *p, int n) {
    uint32_t a = ~0u;
    for (int i = 0; i < n; i++) a = p[i] < a ? p[i] : a;
    return a;
}

static int rl_merge_plain(RL_MERGE_ARGUMENTS) { RL_MERGE_BODY(rl_least_plain) }

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f,avx512bw,avx512vl,bmi,bmi2"), always_inline)) static inline uint32_t
rl_least_avx512(const uint32_t *p, int n) {
    __m512i a = _mm512_loadu_si512((const void *)p);
    for (int i = 16; i < n; i += 16)
        a = _mm512_min_epu32(a, _mm512_loadu_si512((const void *)(p + i)));
    return _mm512_reduce_min_epu32(a);
}

#define RL_T_MERGE __attribute__((target("avx512f,avx512bw,avx512vl,bmi,bmi2,lzcnt")))

/* Up to 16 * parts - 2 symbols. A lane is the place of a symbol plus one; around them stand symbols
   that no merge has, so that the ends need no care. */
RL_T_MERGE static inline __attribute__((always_inline)) int rl_merge_lanes(
    const int parts, const uint64_t *pair, uint64_t mask, int shift, const uint32_t *made,
    uint32_t *symbol, int n, const uint32_t *byte_pair, const uint8_t *text, uint32_t limit
) {
    uint32_t lane[66], first[64];
    uint64_t alive = ((1ull << n) - 1) << 1;
    const uint64_t ends = 1 | 1ull << (n + 1);
    __m512i place[4];
    int count = 0, i, k;
    lane[0] = lane[n + 1] = RL_NO_PRIORITY;
    for (i = 0; i < n; i++) lane[i + 1] = symbol[i];
    for (i = 0; i < 16 * parts; i++) first[i] = ~0u;
    for (i = 0; i + 1 < n; i++) {
        const uint32_t p = text ? byte_pair[(uint32_t)text[i] << 8 | text[i + 1]]
                                : rl_find_pair(pair, mask, shift, symbol[i], symbol[i + 1]);
        first[i + 1] = p << 7 | (uint32_t)(i + 1);
    }
    for (k = 0; k < parts; k++) place[k] = _mm512_loadu_si512((const void *)(first + 16 * k));
    alive |= ends;
    for (;;) {
        __m512i least = place[0];
        uint32_t best, made_now, right, left;
        uint64_t after;
        int at, gone, next, back;
        for (k = 1; k < parts; k++) least = _mm512_min_epu32(least, place[k]);
        best = _mm512_reduce_min_epu32(least);
        if (best >> 7 >= limit) break;
        at = (int)(best & 127);
        made_now = made ? made[best >> 7] : best >> 7;
        after = alive & (~1ull << at);
        gone = (int)_tzcnt_u64(after);
        next = (int)_tzcnt_u64(_blsr_u64(after));
        back = 63 - (int)_lzcnt_u64(alive & ((1ull << at) - 1));
        right = rl_find_pair(pair, mask, shift, made_now, lane[next]);
        left = rl_find_pair(pair, mask, shift, lane[back], made_now);
        lane[at] = made_now;
        alive &= ~(1ull << gone);
        for (k = 0; k < parts; k++) {
            const int from = 16 * k;
            place[k] = _mm512_mask_mov_epi32(
                place[k], (__mmask16)((1ull << gone) >> from), _mm512_set1_epi32(-1));
            place[k] = _mm512_mask_mov_epi32(
                place[k], (__mmask16)((1ull << at) >> from),
                _mm512_set1_epi32((int)(right << 7 | (uint32_t)at)));
            place[k] = _mm512_mask_mov_epi32(
                place[k], (__mmask16)((1ull << back) >> from),
                _mm512_set1_epi32((int)(left << 7 | (uint32_t)back)));
        }
    }
    for (alive &= ~ends; alive; alive = _blsr_u64(alive)) symbol[count++] = lane[_tzcnt_u64(alive)];
    return count;
}

RL_T_MERGE static int rl_merge_avx512(RL_MERGE_ARGUMENTS) {
    if (n <= 14)
        return rl_merge_lanes(1, pair, mask, shift, made, symbol, n, byte_pair, text, limit);
    if (n <= 30)
        return rl_merge_lanes(2, pair, mask, shift, made, symbol, n, byte_pair, text, limit);
    if (n <= 62)
        return rl_merge_lanes(4, pair, mask, shift, made, symbol, n, byte_pair, text, limit);
    RL_MERGE_BODY(rl_least_avx512)
}

__attribute__((target("avx2,bmi,bmi2"), always_inline)) static inline uint32_t
rl_least_avx2(const uint32_t *p, int n) {
    __m256i a = _mm256_loadu_si256((const __m256i *)p);
    __m128i b;
    for (int i = 8; i < n; i += 8)
        a = _mm256_min_epu32(a, _mm256_loadu_si256((const __m256i *)(p + i)));
    b = _mm_min_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_min_epu32(b, _mm_shuffle_epi32(b, 0x4E));
    b = _mm_min_epu32(b, _mm_shuffle_epi32(b, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(b);
}

__attribute__((target("avx2,bmi,bmi2"))) static int
rl_merge_avx2(RL_MERGE_ARGUMENTS) { RL_MERGE_BODY(rl_least_avx2) }
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

static inline __attribute__((always_inline)) uint32_t rl_least_neon(const uint32_t *p, int n) {
    uint32x4_t a = vld1q_u32(p);
    for (int i = 4; i < n; i += 4) a = vminq_u32(a, vld1q_u32(p + i));
    return vminvq_u32(a);
}

static int rl_merge_neon(RL_MERGE_ARGUMENTS) { RL_MERGE_BODY(rl_least_neon) }
#endif

/* Merge n symbols, 2 to RL_MAX_LINEAR, in place; returns how many are left. With `text` the symbols
   are its bytes, whose pairs have a table of their own. Only priorities below `limit`, which is at
   most RL_NO_PRIORITY, are merged. Priorities are what `made` makes of them, or symbols
   themselves when it is NULL; no symbol is RL_NO_PRIORITY. */
static inline int rl_merge_linear(int level, RL_MERGE_ARGUMENTS) {
#if defined(__x86_64__)
    if (level == RL_AVX512)
        return rl_merge_avx512(pair, mask, shift, made, symbol, n, byte_pair, text, limit);
    if (level == RL_AVX2) return rl_merge_avx2(pair, mask, shift, made, symbol, n, byte_pair, text, limit);
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_merge_neon(pair, mask, shift, made, symbol, n, byte_pair, text, limit);
#endif
    (void)level;
    return rl_merge_plain(pair, mask, shift, made, symbol, n, byte_pair, text, limit);
}

#endif
