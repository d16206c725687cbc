/* How far a JSON string goes on without anything that has to be looked at: a quote, a backslash, or
   a control character, which may not stand there. Sixteen bytes at a time where the processor always
   can, else eight. */
#ifndef RUSTLLM_JSON_STRING_H
#define RUSTLLM_JSON_STRING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* The oracle: the first byte of s[at:n] that is one of these, or `n`. */
static inline size_t rl_json_run_scalar(const uint8_t *s, size_t n, size_t at) {
    while (at < n && s[at] >= 0x20 && s[at] != '"' && s[at] != '\\') at++;
    return at;
}

static inline size_t rl_json_run(const uint8_t *s, size_t n, size_t at) {
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), top = _mm_set1_epi8(0x1F);
    while (n - at >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(s + at));
        __m128i odd = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(_mm_min_epu8(v, top), v));
        unsigned mask = (unsigned)_mm_movemask_epi8(odd);
        if (mask) return at + (size_t)__builtin_ctz(mask);
        at += 16;
    }
#elif defined(__aarch64__)
    while (n - at >= 16) {
        uint8x16_t v = vld1q_u8(s + at);
        uint8x16_t odd = vorrq_u8(vceqq_u8(v, vdupq_n_u8('"')), vceqq_u8(v, vdupq_n_u8('\\')));
        odd = vorrq_u8(odd, vcltq_u8(v, vdupq_n_u8(0x20)));
        /* four bits a byte */
        uint64_t mask = vget_lane_u64(
            vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(odd), 4)), 0);
        if (mask) return at + (size_t)(__builtin_ctzll(mask) >> 2);
        at += 16;
    }
#else
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    while (n - at >= 8) {
        uint64_t v, quote, slash;
        memcpy(&v, s + at, 8);
        quote = v ^ ones * '"';
        slash = v ^ ones * '\\';
        /* A byte is below k <= 0x80 where subtracting borrows and its own top bit is clear; above the
           first hit a borrow may tell of more, which the scalar loop sorts out. */
        if ((((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)) & tops)
            break;
        at += 8;
    }
#endif
    return rl_json_run_scalar(s, n, at);
}

#endif
