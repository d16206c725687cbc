/* UTF-8 validation by table lookup: three 16-entry tables, indexed by the nibbles of each byte and of
   the one before it, name the errors that the pair can be part of; what all three name is an error.
   After J. Keiser, D. Lemire, "Validating UTF-8 in less than one instruction per byte" (2021).

   Every version only says in which block the first error is; the scalar one then finds its place. */
#ifndef RUSTLLM_UTF8_H
#define RUSTLLM_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* The oracle: offset of the first byte of the first bad sequence, or `n`. */
static inline size_t rl_utf8_scalar(const uint8_t *s, size_t n, size_t at) {
    while (at < n) {
        uint64_t word;
        while (n - at >= 8) {
            memcpy(&word, s + at, 8);
            if (word & 0x8080808080808080u) break;
            at += 8;
        }
        if (at >= n) break;
        uint8_t lead = s[at];
        if (lead < 0x80) {
            at += 1;
            continue;
        }
        size_t length;
        uint8_t low = 0x80, high = 0xBF; /* of the second byte */
        if (lead >= 0xC2 && lead <= 0xDF) {
            length = 2;
        } else if (lead >= 0xE0 && lead <= 0xEF) {
            length = 3;
            if (lead == 0xE0) low = 0xA0;  /* shorter form exists */
            if (lead == 0xED) high = 0x9F; /* surrogates */
        } else if (lead >= 0xF0 && lead <= 0xF4) {
            length = 4;
            if (lead == 0xF0) low = 0x90;
            if (lead == 0xF4) high = 0x8F; /* above U+10FFFF */
        } else {
            return at;
        }
        if (n - at < length || s[at + 1] < low || s[at + 1] > high) return at;
        for (size_t i = 2; i < length; i++) {
            if ((s[at + i] & 0xC0) != 0x80) return at;
        }
        at += length;
    }
    return n;
}

/* The same from the start: for short strings, where a vector has nothing to do. */
static inline size_t rl_utf8_valid_prefix(const uint8_t *s, size_t n) {
    return rl_utf8_scalar(s, n, 0);
}

/* A block holds the first error, or the end of a sequence begun before it: go back to its lead. */
static inline size_t rl_utf8_locate(const uint8_t *s, size_t n, size_t block) {
    size_t at = block;
    for (int i = 0; i < 3 && at > 0; i++) {
        at -= 1;
        if ((s[at] & 0xC0) != 0x80) break;
    }
    /* Not a lead within three bytes: stray continuation bytes, which begin in this block. */
    if ((s[at] & 0xC0) == 0x80) at = block;
    return rl_utf8_scalar(s, n, at);
}

enum {
    RL_TOO_SHORT = 1 << 0,      /* lead where a continuation byte must be */
    RL_TOO_LONG = 1 << 1,       /* ASCII followed by a continuation byte */
    RL_OVERLONG_3 = 1 << 2,
    RL_TOO_LARGE = 1 << 3,
    RL_SURROGATE = 1 << 4,
    RL_OVERLONG_2 = 1 << 5,
    RL_TOO_LARGE_1000 = 1 << 6,
    RL_OVERLONG_4 = 1 << 6,
    RL_TWO_CONTS = 1 << 7,      /* fine only as third or fourth byte */
    RL_CARRY = RL_TOO_SHORT | RL_TOO_LONG | RL_TWO_CONTS
};

#define RL_LARGE2 (RL_CARRY | RL_TOO_LARGE | RL_TOO_LARGE_1000)
#define RL_SECOND (RL_TOO_LONG | RL_OVERLONG_2 | RL_TWO_CONTS)
static const uint8_t rl_utf8_first_high[16] = {
    RL_TOO_LONG, RL_TOO_LONG, RL_TOO_LONG, RL_TOO_LONG, RL_TOO_LONG, RL_TOO_LONG, RL_TOO_LONG,
    RL_TOO_LONG, RL_TWO_CONTS, RL_TWO_CONTS, RL_TWO_CONTS, RL_TWO_CONTS,
    RL_TOO_SHORT | RL_OVERLONG_2, RL_TOO_SHORT, RL_TOO_SHORT | RL_OVERLONG_3 | RL_SURROGATE,
    RL_TOO_SHORT | RL_TOO_LARGE | RL_TOO_LARGE_1000 | RL_OVERLONG_4};
static const uint8_t rl_utf8_first_low[16] = {
    RL_CARRY | RL_OVERLONG_3 | RL_OVERLONG_2 | RL_OVERLONG_4, RL_CARRY | RL_OVERLONG_2, RL_CARRY,
    RL_CARRY, RL_CARRY | RL_TOO_LARGE, RL_LARGE2, RL_LARGE2, RL_LARGE2, RL_LARGE2, RL_LARGE2,
    RL_LARGE2, RL_LARGE2, RL_LARGE2, RL_LARGE2 | RL_SURROGATE, RL_LARGE2, RL_LARGE2};
static const uint8_t rl_utf8_second_high[16] = {
    RL_TOO_SHORT, RL_TOO_SHORT, RL_TOO_SHORT, RL_TOO_SHORT, RL_TOO_SHORT, RL_TOO_SHORT, RL_TOO_SHORT,
    RL_TOO_SHORT, RL_SECOND | RL_OVERLONG_3 | RL_TOO_LARGE_1000 | RL_OVERLONG_4,
    RL_SECOND | RL_OVERLONG_3 | RL_TOO_LARGE, RL_SECOND | RL_SURROGATE | RL_TOO_LARGE,
    RL_SECOND | RL_SURROGATE | RL_TOO_LARGE, RL_TOO_SHORT, RL_TOO_SHORT, RL_TOO_SHORT,
    RL_TOO_SHORT};

#if defined(__x86_64__)

#define RL_AVX2_TARGET __attribute__((target("avx2")))
#define RL_AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

RL_AVX2_TARGET static inline __m256i rl_utf8_errors_avx2(__m256i now, __m256i before) {
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    const __m256i first_high =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)rl_utf8_first_high));
    const __m256i first_low =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)rl_utf8_first_low));
    const __m256i second_high =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)rl_utf8_second_high));
    __m256i across = _mm256_permute2x128_si256(before, now, 0x21);
    __m256i prev1 = _mm256_alignr_epi8(now, across, 15);
    __m256i prev2 = _mm256_alignr_epi8(now, across, 14);
    __m256i prev3 = _mm256_alignr_epi8(now, across, 13);
    __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(prev1, 4), nibble);
    __m256i high2 = _mm256_and_si256(_mm256_srli_epi16(now, 4), nibble);
    __m256i pairs = _mm256_and_si256(
        _mm256_and_si256(_mm256_shuffle_epi8(first_high, high1),
                         _mm256_shuffle_epi8(first_low, _mm256_and_si256(prev1, nibble))),
        _mm256_shuffle_epi8(second_high, high2));
    __m256i third = _mm256_subs_epu8(prev2, _mm256_set1_epi8(0xE0 - 0x80));
    __m256i fourth = _mm256_subs_epu8(prev3, _mm256_set1_epi8((char)(0xF0 - 0x80)));
    __m256i must = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char)0x80));
    return _mm256_xor_si256(must, pairs);
}

/* Non-zero where the block ends inside a sequence. */
RL_AVX2_TARGET static inline __m256i rl_utf8_unfinished_avx2(__m256i now) {
    const __m256i most = _mm256_setr_epi8(
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, (char)(0xF0 - 1), (char)(0xE0 - 1), (char)(0xC0 - 1));
    return _mm256_subs_epu8(now, most);
}

RL_AVX2_TARGET static size_t rl_utf8_avx2(const uint8_t *s, size_t n) {
    __m256i before = _mm256_setzero_si256(), unfinished = _mm256_setzero_si256();
    size_t at = 0;
    uint8_t tail[64];
    while (at < n) {
        const uint8_t *p = s + at;
        size_t step = 64;
        if (n - at >= 128) {
            __m256i any = _mm256_or_si256(
                _mm256_or_si256(_mm256_loadu_si256((const __m256i *)p),
                                _mm256_loadu_si256((const __m256i *)(p + 32))),
                _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(p + 64)),
                                _mm256_loadu_si256((const __m256i *)(p + 96))));
            if (_mm256_movemask_epi8(any) == 0) {
                if (!_mm256_testz_si256(unfinished, unfinished)) return rl_utf8_locate(s, n, at);
                before = unfinished = _mm256_setzero_si256();
                at += 128;
                continue;
            }
        } else if (n - at < 64) {
            memset(tail, 0, sizeof tail);
            memcpy(tail, p, n - at);
            p = tail;
            step = n - at;
        }
        __m256i a = _mm256_loadu_si256((const __m256i *)p);
        __m256i b = _mm256_loadu_si256((const __m256i *)(p + 32));
        __m256i errors =
            _mm256_or_si256(rl_utf8_errors_avx2(a, before), rl_utf8_errors_avx2(b, a));
        if (!_mm256_testz_si256(errors, errors)) return rl_utf8_locate(s, n, at);
        unfinished = rl_utf8_unfinished_avx2(b);
        before = b;
        at += step;
    }
    /* A tail shorter than a block was padded with ASCII, so its errors showed above. */
    if (!_mm256_testz_si256(unfinished, unfinished)) return rl_utf8_locate(s, n, n);
    return n;
}

RL_AVX512_TARGET static size_t rl_utf8_avx512(const uint8_t *s, size_t n) {
    const __m512i nibble = _mm512_set1_epi8(0x0F);
    const __m512i first_high =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)rl_utf8_first_high));
    const __m512i first_low =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)rl_utf8_first_low));
    const __m512i second_high =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)rl_utf8_second_high));
    /* The last three bytes may not be a lead of more bytes than follow. */
    uint8_t most_bytes[64];
    memset(most_bytes, 0xFF, sizeof most_bytes);
    most_bytes[61] = 0xF0 - 1, most_bytes[62] = 0xE0 - 1, most_bytes[63] = 0xC0 - 1;
    const __m512i most = _mm512_loadu_si512(most_bytes);
    __m512i before = _mm512_setzero_si512();
    int unfinished = 0;
    size_t at = 0;
    while (at < n) {
        if (n - at >= 256) {
            const uint8_t *p = s + at;
            __m512i any = _mm512_or_si512(
                _mm512_or_si512(_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)),
                _mm512_or_si512(_mm512_loadu_si512(p + 128), _mm512_loadu_si512(p + 192)));
            if (_mm512_movepi8_mask(any) == 0) {
                if (unfinished) return rl_utf8_locate(s, n, at);
                before = _mm512_setzero_si512();
                at += 256;
                continue;
            }
        }
        size_t left = n - at;
        __m512i now = left >= 64
                          ? _mm512_loadu_si512(s + at)
                          : _mm512_maskz_loadu_epi8((__mmask64)((1ull << left) - 1), s + at);
        if (_mm512_movepi8_mask(now) == 0) {
            if (unfinished) return rl_utf8_locate(s, n, at);
        } else {
            __m512i across = _mm512_alignr_epi32(now, before, 12);
            __m512i prev1 = _mm512_alignr_epi8(now, across, 15);
            __m512i prev2 = _mm512_alignr_epi8(now, across, 14);
            __m512i prev3 = _mm512_alignr_epi8(now, across, 13);
            __m512i high1 = _mm512_and_si512(_mm512_srli_epi16(prev1, 4), nibble);
            __m512i high2 = _mm512_and_si512(_mm512_srli_epi16(now, 4), nibble);
            __m512i pairs = _mm512_and_si512(
                _mm512_and_si512(_mm512_shuffle_epi8(first_high, high1),
                                 _mm512_shuffle_epi8(first_low, _mm512_and_si512(prev1, nibble))),
                _mm512_shuffle_epi8(second_high, high2));
            __m512i third = _mm512_subs_epu8(prev2, _mm512_set1_epi8(0xE0 - 0x80));
            __m512i fourth = _mm512_subs_epu8(prev3, _mm512_set1_epi8((char)(0xF0 - 0x80)));
            __m512i must = _mm512_and_si512(_mm512_or_si512(third, fourth),
                                            _mm512_set1_epi8((char)0x80));
            __m512i errors = _mm512_xor_si512(must, pairs);
            if (_mm512_test_epi8_mask(errors, errors)) return rl_utf8_locate(s, n, at);
        }
        unfinished = _mm512_cmpgt_epu8_mask(now, most) != 0;
        before = now;
        at += left >= 64 ? 64 : left;
    }
    if (unfinished) return rl_utf8_locate(s, n, n);
    return n;
}

RL_AVX2_TARGET static size_t rl_ascii_avx2(const uint8_t *s, size_t n) {
    size_t at = 0;
    for (; n - at >= 128; at += 128) {
        const uint8_t *p = s + at;
        __m256i any = _mm256_or_si256(
            _mm256_or_si256(_mm256_loadu_si256((const __m256i *)p),
                            _mm256_loadu_si256((const __m256i *)(p + 32))),
            _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(p + 64)),
                            _mm256_loadu_si256((const __m256i *)(p + 96))));
        if (_mm256_movemask_epi8(any)) break;
    }
    return at;
}

#elif defined(__aarch64__)

static size_t rl_utf8_neon(const uint8_t *s, size_t n) {
    static const uint8_t most_bytes[16] = {255, 255, 255, 255, 255, 255, 255, 255,
                                           255, 255, 255, 255, 255, 0xEF, 0xDF, 0xBF};
    const uint8x16_t first_high = vld1q_u8(rl_utf8_first_high);
    const uint8x16_t first_low = vld1q_u8(rl_utf8_first_low);
    const uint8x16_t second_high = vld1q_u8(rl_utf8_second_high);
    const uint8x16_t most = vld1q_u8(most_bytes), nibble = vdupq_n_u8(0x0F);
    uint8x16_t before = vdupq_n_u8(0);
    int unfinished = 0;
    size_t at = 0;
    uint8_t tail[16];
    while (at < n) {
        const uint8_t *p = s + at;
        size_t left = n - at;
        if (left >= 64) {
            uint8x16_t any = vorrq_u8(vorrq_u8(vld1q_u8(p), vld1q_u8(p + 16)),
                                      vorrq_u8(vld1q_u8(p + 32), vld1q_u8(p + 48)));
            if (vmaxvq_u8(any) < 0x80) {
                if (unfinished) return rl_utf8_locate(s, n, at);
                before = vdupq_n_u8(0);
                at += 64;
                continue;
            }
        } else if (left < 16) {
            memset(tail, 0, sizeof tail);
            memcpy(tail, p, left);
            p = tail;
        }
        uint8x16_t now = vld1q_u8(p);
        uint8x16_t prev1 = vextq_u8(before, now, 15);
        uint8x16_t prev2 = vextq_u8(before, now, 14);
        uint8x16_t prev3 = vextq_u8(before, now, 13);
        uint8x16_t pairs = vandq_u8(vandq_u8(vqtbl1q_u8(first_high, vshrq_n_u8(prev1, 4)),
                                             vqtbl1q_u8(first_low, vandq_u8(prev1, nibble))),
                                    vqtbl1q_u8(second_high, vshrq_n_u8(now, 4)));
        uint8x16_t third = vqsubq_u8(prev2, vdupq_n_u8(0xE0 - 0x80));
        uint8x16_t fourth = vqsubq_u8(prev3, vdupq_n_u8(0xF0 - 0x80));
        uint8x16_t must = vandq_u8(vorrq_u8(third, fourth), vdupq_n_u8(0x80));
        if (vmaxvq_u8(veorq_u8(must, pairs)) != 0) return rl_utf8_locate(s, n, at);
        unfinished = vmaxvq_u8(vqsubq_u8(now, most)) != 0;
        before = now;
        at += left >= 16 ? 16 : left;
    }
    if (unfinished) return rl_utf8_locate(s, n, n);
    return n;
}

#endif

/* Offset of the first byte of the first bad sequence, or `n` when all is UTF-8. */
static inline size_t rl_utf8_valid_up_to(const uint8_t *s, size_t n, int level) {
#if defined(__x86_64__)
    if (n >= 32 && level == RL_AVX512) return rl_utf8_avx512(s, n);
    if (n >= 32 && level == RL_AVX2) return rl_utf8_avx2(s, n);
#elif defined(__aarch64__)
    if (n >= 32 && level >= RL_NEON) return rl_utf8_neon(s, n);
#endif
    (void)level;
    return rl_utf8_scalar(s, n, 0);
}

/* Whether every byte is below 128. */
static inline int rl_is_ascii(const uint8_t *s, size_t n, int level) {
    size_t at = 0;
#if defined(__x86_64__)
    if (n >= 128 && level >= RL_AVX2) at = rl_ascii_avx2(s, n);
#endif
    (void)level;
    uint64_t any = 0, word;
    for (; n - at >= 8; at += 8) {
        memcpy(&word, s + at, 8);
        any |= word;
        if (any & 0x8080808080808080u) return 0;
    }
    for (; at < n; at++) any |= s[at];
    return (any & 0x8080808080808080u) == 0;
}

/* Characters of valid UTF-8: bytes that do not continue one. */
static inline size_t rl_utf8_count(const uint8_t *s, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += (int8_t)s[i] > (int8_t)0xBF;
    return count;
}

#endif
