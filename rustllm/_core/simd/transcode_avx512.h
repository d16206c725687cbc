/* UTF-8 of code units, sixteen at a time: every unit becomes a lane of up to four bytes, and the
   bytes that count are pushed together. Each function takes what it can and leaves the rest (ends,
   surrogates) to the code that calls it; each needs 64 bytes of room beyond what it writes. */
#ifndef RUSTLLM_TRANSCODE_AVX512_H
#define RUSTLLM_TRANSCODE_AVX512_H

#include <stddef.h>
#include <stdint.h>

#include "target.h"

#if defined(__x86_64__)

/* The UTF-8 of sixteen code points below 0x10000, one in each lane. */
RL_INLINE_AVX512 __m512i rl_words_avx512(__m512i c) {
    const __m512i six = _mm512_set1_epi32(0x3F);
    const __m512i last = _mm512_and_si512(c, six);
    const __m512i middle = _mm512_and_si512(_mm512_srli_epi32(c, 6), six);
    const __mmask16 wide = _mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x80));
    const __mmask16 wider = _mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x800));
    const __m512i two = _mm512_or_si512(
        _mm512_or_si512(_mm512_set1_epi32(0x80C0), _mm512_srli_epi32(c, 6)),
        _mm512_slli_epi32(last, 8));
    const __m512i three = _mm512_or_si512(
        _mm512_or_si512(_mm512_set1_epi32(0x8080E0), _mm512_srli_epi32(c, 12)),
        _mm512_or_si512(_mm512_slli_epi32(middle, 8), _mm512_slli_epi32(last, 16)));
    return _mm512_mask_blend_epi32(wider, _mm512_mask_blend_epi32(wide, c, two), three);
}

/* Store the bytes of `word` that count, those that are not zero and those in `first`: only the first
   byte of a character can be a zero that counts. Returns how many. */
RL_INLINE_AVX512 ptrdiff_t rl_put_words_avx512(__m512i word, __mmask64 first, uint8_t *out) {
    const __mmask64 keep = _mm512_test_epi8_mask(word, word) | first;
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(keep, word));
    return __builtin_popcountll(keep);
}

#define RL_FIRST_OF_TWO 0x5555555555555555ull
#define RL_FIRST_OF_FOUR 0x1111111111111111ull

/* Units of two bytes, up to the first sixteen that hold a surrogate. */
static RL_T_AVX512 ptrdiff_t rl_units2_avx512(
    const uint16_t *s, ptrdiff_t n, uint8_t *out, ptrdiff_t *used
) {
    uint8_t *p = out;
    ptrdiff_t i = 0;
    while (i + 16 <= n) {
        if (i + 32 <= n) {
            const __m512i v = _mm512_loadu_si512(s + i);
            if (_mm512_test_epi16_mask(v, _mm512_set1_epi16((short)0xFF80)) == 0) {
                _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi16_epi8(v));
                p += 32;
                i += 32;
                continue;
            }
        }
        const __m512i c = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(s + i)));
        if (_mm512_cmpeq_epi32_mask(_mm512_and_si512(c, _mm512_set1_epi32(0xF800)),
                                    _mm512_set1_epi32(0xD800)))
            break;
        p += rl_put_words_avx512(rl_words_avx512(c), RL_FIRST_OF_FOUR, p);
        i += 16;
    }
    *used += p - out;
    return i;
}

/* Latin-1. */
static RL_T_AVX512 ptrdiff_t rl_units1_avx512(
    const uint8_t *s, ptrdiff_t n, uint8_t *out, ptrdiff_t *used
) {
    uint8_t *p = out;
    ptrdiff_t i = 0;
    while (i + 32 <= n) {
        if (i + 64 <= n) {
            const __m512i v = _mm512_loadu_si512(s + i);
            if (_mm512_movepi8_mask(v) == 0) {
                _mm512_storeu_si512(p, v);
                p += 64;
                i += 64;
                continue;
            }
        }
        const __m512i c = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(s + i)));
        const __mmask32 wide = _mm512_cmpge_epu16_mask(c, _mm512_set1_epi16(0x80));
        const __m512i two = _mm512_or_si512(
            _mm512_or_si512(_mm512_set1_epi16((short)0x80C0), _mm512_srli_epi16(c, 6)),
            _mm512_slli_epi16(_mm512_and_si512(c, _mm512_set1_epi16(0x3F)), 8));
        const __m512i word = _mm512_mask_blend_epi16(wide, c, two);
        p += rl_put_words_avx512(word, RL_FIRST_OF_TWO, p);
        i += 32;
    }
    *used += p - out;
    return i;
}

/* Units of four bytes, up to the first sixteen that hold a surrogate. */
static RL_T_AVX512 ptrdiff_t rl_units4_avx512(
    const uint32_t *s, ptrdiff_t n, uint8_t *out, ptrdiff_t *used
) {
    uint8_t *p = out;
    ptrdiff_t i = 0;
    while (i + 16 <= n) {
        const __m512i c = _mm512_loadu_si512(s + i);
        if (_mm512_test_epi32_mask(c, _mm512_set1_epi32(~0x7F)) == 0) {
            _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(c));
            p += 16;
            i += 16;
            continue;
        }
        if (_mm512_cmpeq_epi32_mask(_mm512_and_si512(c, _mm512_set1_epi32(~0x7FF)),
                                    _mm512_set1_epi32(0xD800)))
            break;
        __m512i word = rl_words_avx512(c);
        const __mmask16 widest = _mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x10000));
        if (widest) {
            const __m512i six = _mm512_set1_epi32(0x3F);
            const __m512i second = _mm512_and_si512(_mm512_srli_epi32(c, 12), six);
            const __m512i third = _mm512_and_si512(_mm512_srli_epi32(c, 6), six);
            const __m512i last = _mm512_and_si512(c, six);
            word = _mm512_mask_blend_epi32(
                widest, word,
                _mm512_or_si512(
                    _mm512_or_si512(_mm512_set1_epi32((int)0x808080F0), _mm512_srli_epi32(c, 18)),
                    _mm512_or_si512(
                        _mm512_slli_epi32(second, 8),
                        _mm512_or_si512(_mm512_slli_epi32(third, 16), _mm512_slli_epi32(last, 24)))));
        }
        p += rl_put_words_avx512(word, RL_FIRST_OF_FOUR, p);
        i += 16;
    }
    *used += p - out;
    return i;
}

#else

/* Never called: the level that needs them does not exist here. */
static inline ptrdiff_t rl_units1_avx512(const uint8_t *s, ptrdiff_t n, uint8_t *o, ptrdiff_t *u) {
    (void)s, (void)n, (void)o, (void)u;
    return 0;
}
static inline ptrdiff_t rl_units2_avx512(const uint16_t *s, ptrdiff_t n, uint8_t *o, ptrdiff_t *u) {
    (void)s, (void)n, (void)o, (void)u;
    return 0;
}
static inline ptrdiff_t rl_units4_avx512(const uint32_t *s, ptrdiff_t n, uint8_t *o, ptrdiff_t *u) {
    (void)s, (void)n, (void)o, (void)u;
    return 0;
}

#endif
#endif
