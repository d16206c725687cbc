/* Code points of valid UTF-8 in the units of a Python string: one, two or four bytes wide, whichever
   holds the largest. The caller has validated the bytes and counted the characters, so every function
   writes exactly as many units as there are characters and nothing behind them. */
#ifndef RUSTLLM_WIDEN_H
#define RUSTLLM_WIDEN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "target.h"

/* The definition, for any width: eight ASCII bytes at a time, else character by character. */
#define RL_WIDEN_PLAIN(NAME, UNIT)                                                            \
    static inline void NAME(const uint8_t *s, ptrdiff_t n, UNIT *out) {                       \
        const uint8_t *end = s + n;                                                           \
        while (s < end) {                                                                     \
            uint64_t word;                                                                    \
            if (end - s >= 8) {                                                               \
                memcpy(&word, s, 8);                                                          \
                if (!(word & 0x8080808080808080u)) {                                          \
                    for (int i = 0; i < 8; i++) out[i] = s[i];                                \
                    s += 8;                                                                   \
                    out += 8;                                                                 \
                    continue;                                                                 \
                }                                                                             \
            }                                                                                 \
            if (s[0] < 0x80) {                                                                \
                *out++ = s[0];                                                                \
                s += 1;                                                                       \
            } else if (s[0] < 0xE0) {                                                         \
                *out++ = (UNIT)((s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu));                        \
                s += 2;                                                                       \
            } else if (s[0] < 0xF0) {                                                         \
                *out++ = (UNIT)((s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu)); \
                s += 3;                                                                       \
            } else {                                                                          \
                *out++ = (UNIT)((s[0] & 0x07u) << 18 | (s[1] & 0x3Fu) << 12 |                 \
                                (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu));                        \
                s += 4;                                                                       \
            }                                                                                 \
        }                                                                                     \
    }

RL_WIDEN_PLAIN(rl_widen1_plain, uint8_t)
RL_WIDEN_PLAIN(rl_widen2_plain, uint16_t)
RL_WIDEN_PLAIN(rl_widen4_plain, uint32_t)

/* Characters, and in *largest the largest byte, which tells how wide the widest is. Counters of one
   byte, added up before they can overflow, so that a compiler makes vectors of them. */
static inline ptrdiff_t rl_measure_plain(const uint8_t *s, ptrdiff_t n, uint8_t *largest) {
    ptrdiff_t count = 0;
    uint8_t top = 0;
    while (n > 0) {
        const int step = n < 128 ? (int)n : 128;
        uint8_t some = 0;
        for (int i = 0; i < step; i++) {
            some = (uint8_t)(some + ((int8_t)s[i] > (int8_t)0xBF));
            top = s[i] > top ? s[i] : top;
        }
        count += some;
        s += step;
        n -= step;
    }
    *largest = top;
    return count;
}

#if defined(__x86_64__)

static RL_T_AVX512 ptrdiff_t rl_measure_avx512(const uint8_t *s, ptrdiff_t n, uint8_t *largest) {
    const __m512i continuation = _mm512_set1_epi8((char)0xBF);
    __m512i top = _mm512_setzero_si512();
    ptrdiff_t count = 0, at = 0;
    uint8_t tops[64], most = 0;
    for (; at + 64 <= n; at += 64) {
        const __m512i v = _mm512_loadu_si512(s + at);
        count += __builtin_popcountll(_mm512_cmpgt_epi8_mask(v, continuation));
        top = _mm512_max_epu8(top, v);
    }
    if (at < n) {
        const __mmask64 some = ~0ull >> (64 - (n - at));
        const __m512i v = _mm512_maskz_loadu_epi8(some, s + at);
        count += __builtin_popcountll(_mm512_mask_cmpgt_epi8_mask(some, v, continuation));
        top = _mm512_max_epu8(top, v);
    }
    _mm512_storeu_si512(tops, top);
    for (int i = 0; i < 64; i++) most = tops[i] > most ? tops[i] : most;
    *largest = most;
    return count;
}

/* Latin-1: leads go; what follows C3 gets the bit that it lost. */
static RL_T_AVX512 void rl_widen1_avx512(const uint8_t *s, ptrdiff_t n, uint8_t *out) {
    uint64_t carry = 0;
    for (ptrdiff_t at = 0; at < n; at += 64) {
        const __mmask64 some = n - at >= 64 ? ~0ull : ~0ull >> (64 - (n - at));
        const __m512i v = _mm512_maskz_loadu_epi8(some, s + at);
        const uint64_t c3 = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8((char)0xC3));
        const __mmask64 keep =
            _mm512_mask_cmplt_epu8_mask(some, v, _mm512_set1_epi8((char)0xC0));
        const __m512i full = _mm512_mask_add_epi8(v, c3 << 1 | carry, v, _mm512_set1_epi8(0x40));
        const int count = __builtin_popcountll(keep);
        if (count) {
            _mm512_mask_storeu_epi8(out, ~0ull >> (64 - count), _mm512_maskz_compress_epi8(keep, full));
            out += count;
        }
        carry = c3 >> 63;
    }
}

/* The code points of sixteen characters that start at the bytes of `place` in `now` and `next`. Every
   lane takes four bytes, the first on top; those of the character are kept, six bits of each pushed
   together, and what is below them shifted out. */
RL_INLINE_AVX512 __m512i rl_points_avx512(__m512i now, __m512i next, __m128i place) {
    const __m512i spread = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
    const __m512i shifts =
        _mm512_setr_epi32(18, 18, 18, 18, 18, 18, 18, 18, 0, 0, 0, 0, 12, 12, 6, 0);
    const __m512i keeps = _mm512_setr_epi32(
        0x7F000000, 0x7F000000, 0x7F000000, 0x7F000000, 0x7F000000, 0x7F000000, 0x7F000000,
        0x7F000000, 0, 0, 0, 0, 0x1F3F0000, 0x1F3F0000, 0x0F3F3F00, 0x073F3F3F);
    const __m512i index = _mm512_add_epi32(
        _mm512_shuffle_epi8(_mm512_cvtepu8_epi32(place), spread), _mm512_set1_epi32(0x00010203));
    const __m512i bytes = _mm512_permutex2var_epi8(now, index, next);
    const __m512i kind = _mm512_srli_epi32(bytes, 28);
    const __m512i bits = _mm512_and_si512(bytes, _mm512_permutexvar_epi32(kind, keeps));
    const __m512i pairs = _mm512_maddubs_epi16(bits, _mm512_set1_epi16(0x4001));
    const __m512i all = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x10000001));
    return _mm512_srlv_epi32(all, _mm512_permutexvar_epi32(kind, shifts));
}

/* `put` stores the first `count` of sixteen lanes, `put_ascii` the first `count` of 64 bytes. */
#define RL_WIDEN_AVX512(NAME, UNIT, PUT, PUT_ASCII)                                              \
    static RL_T_AVX512 void NAME(const uint8_t *s, ptrdiff_t n, UNIT *out) {                     \
        const __m512i places = _mm512_loadu_si512(rl_places);                                    \
        for (ptrdiff_t at = 0; at < n; at += 64) {                                               \
            const ptrdiff_t left = n - at;                                                       \
            const __mmask64 some = left >= 64 ? ~0ull : ~0ull >> (64 - left);                    \
            const __m512i now = _mm512_maskz_loadu_epi8(some, s + at);                           \
            if (_mm512_movepi8_mask(now) == 0) {                                                 \
                const int count = left >= 64 ? 64 : (int)left;                                   \
                PUT_ASCII(out, now, count);                                                      \
                out += count;                                                                    \
                continue;                                                                        \
            }                                                                                    \
            const __m512i next = _mm512_maskz_loadu_epi8(                                        \
                left >= 128 ? ~0ull : left > 64 ? ~0ull >> (128 - left) : 0, s + at + 64);       \
            const __mmask64 leads =                                                              \
                _mm512_mask_cmpgt_epi8_mask(some, now, _mm512_set1_epi8((char)0xBF));            \
            __m512i place = _mm512_maskz_compress_epi8(leads, places);                           \
            for (int count = __builtin_popcountll(leads); count > 0; count -= 16) {              \
                const int many = count < 16 ? count : 16;                                        \
                PUT(out, rl_points_avx512(now, next, _mm512_castsi512_si128(place)), many);      \
                out += many;                                                                     \
                place = _mm512_alignr_epi32(place, place, 4);                                    \
            }                                                                                    \
        }                                                                                        \
    }

static const uint8_t rl_places[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

RL_INLINE_AVX512 void rl_put2(uint16_t *out, __m512i points, int many) {
    const __mmask16 some = (__mmask16)(0xFFFFu >> (16 - many));
    _mm256_mask_storeu_epi16(out, some, _mm512_cvtepi32_epi16(points));
}
RL_INLINE_AVX512 void rl_put4(uint32_t *out, __m512i points, int many) {
    _mm512_mask_storeu_epi32(out, (__mmask16)(0xFFFFu >> (16 - many)), points);
}
RL_INLINE_AVX512 void rl_put2_ascii(uint16_t *out, __m512i bytes, int many) {
    const uint64_t some = ~0ull >> (64 - many);
    _mm512_mask_storeu_epi16(
        out, (__mmask32)some, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes)));
    _mm512_mask_storeu_epi16(
        out + 32, (__mmask32)(some >> 32), _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(bytes, 1)));
}
RL_INLINE_AVX512 void rl_put4_ascii(uint32_t *out, __m512i bytes, int many) {
    const uint64_t some = ~0ull >> (64 - many);
    _mm512_mask_storeu_epi32(out, (__mmask16)some,
                             _mm512_cvtepu8_epi32(_mm512_castsi512_si128(bytes)));
    _mm512_mask_storeu_epi32(out + 16, (__mmask16)(some >> 16),
                             _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, 1)));
    _mm512_mask_storeu_epi32(out + 32, (__mmask16)(some >> 32),
                             _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, 2)));
    _mm512_mask_storeu_epi32(out + 48, (__mmask16)(some >> 48),
                             _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, 3)));
}

RL_WIDEN_AVX512(rl_widen2_avx512, uint16_t, rl_put2, rl_put2_ascii)
RL_WIDEN_AVX512(rl_widen4_avx512, uint32_t, rl_put4, rl_put4_ascii)

#endif

/* Characters of `n` bytes of valid UTF-8, and the bytes a unit must have for all of them: 0 when all
   are ASCII, else 1, 2 or 4. */
static inline ptrdiff_t rl_measure(const uint8_t *s, ptrdiff_t n, int level, int *kind) {
    uint8_t largest;
    ptrdiff_t count;
#if defined(__x86_64__)
    if (level == RL_AVX512)
        count = rl_measure_avx512(s, n, &largest);
    else
#endif
        count = rl_measure_plain(s, n, &largest);
    (void)level;
    *kind = largest < 0x80 ? 0 : largest < 0xC4 ? 1 : largest < 0xF0 ? 2 : 4;
    return count;
}

/* Write the characters of valid UTF-8 in units of `kind` bytes. */
static inline void rl_widen(const uint8_t *s, ptrdiff_t n, int level, int kind, void *out) {
#if defined(__x86_64__)
    if (level == RL_AVX512) {
        if (kind == 1) rl_widen1_avx512(s, n, (uint8_t *)out);
        if (kind == 2) rl_widen2_avx512(s, n, (uint16_t *)out);
        if (kind == 4) rl_widen4_avx512(s, n, (uint32_t *)out);
        return;
    }
#endif
    (void)level;
    if (kind == 1) rl_widen1_plain(s, n, (uint8_t *)out);
    if (kind == 2) rl_widen2_plain(s, n, (uint16_t *)out);
    if (kind == 4) rl_widen4_plain(s, n, (uint32_t *)out);
}

#endif
