/* UTF-8 of code units without a branch on the width of each character. */
#ifndef RUSTLLM_TRANSCODE_H
#define RUSTLLM_TRANSCODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Eight units at s: their low bytes to out if all are ASCII. */
static inline int rl_ascii8(const uint16_t *s, uint8_t *out) {
#if defined(__x86_64__)
    const __m128i v = _mm_loadu_si128((const __m128i *)s);
    if (_mm_movemask_epi8(_mm_cmpeq_epi16(_mm_and_si128(v, _mm_set1_epi16((short)0xFF80)),
                                          _mm_setzero_si128())) != 0xFFFF)
        return 0;
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(v, v));
    return 1;
#elif defined(__aarch64__)
    const uint16x8_t v = vld1q_u16(s);
    if (vmaxvq_u16(v) >= 0x80) return 0;
    vst1_u8(out, vmovn_u16(v));
    return 1;
#else
    uint64_t a, b;
    memcpy(&a, s, 8);
    memcpy(&b, s + 4, 8);
    if ((a | b) & 0xFF80FF80FF80FF80ull) return 0;
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)s[i];
    return 1;
#endif
}

/* One unit below 0x10000 that is no surrogate; writes four bytes, returns how many count. */
static inline int rl_put_unit(uint32_t c, uint8_t *out) {
    const uint32_t two = 0x80C0u | c >> 6 | (c & 0x3F) << 8;
    const uint32_t three = 0x8080E0u | c >> 12 | (c >> 6 & 0x3F) << 8 | (c & 0x3F) << 16;
    uint32_t word = c < 0x800 ? two : three;
    word = c < 0x80 ? c : word;
    memcpy(out, &word, 4); /* little-endian, as every platform that is built for */
    return 1 + (c >= 0x80) + (c >= 0x800);
}

/* Units up to the first surrogate, or all n; `out` has room for 3 n + 16 bytes. Returns the units
   taken and adds the bytes written to *used. */
static inline ptrdiff_t rl_units_to_utf8(
    const uint16_t *s, ptrdiff_t n, uint8_t *out, ptrdiff_t *used
) {
    uint8_t *p = out;
    ptrdiff_t i = 0;
    while (i + 8 <= n) {
        int odd = 0;
        if (rl_ascii8(s + i, p)) {
            p += 8;
            i += 8;
            continue;
        }
        for (int k = 0; k < 8; k++) odd |= (s[i + k] & 0xF800) == 0xD800;
        if (odd) break;
        for (int k = 0; k < 8; k++) p += rl_put_unit(s[i + k], p);
        i += 8;
    }
    for (; i < n && (s[i] & 0xF800) != 0xD800; i++) p += rl_put_unit(s[i], p);
    *used += p - out;
    return i;
}

#endif
