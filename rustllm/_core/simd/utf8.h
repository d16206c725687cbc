/* Is this UTF-8? Eight ASCII bytes at a time, else one character at a time. */
#ifndef RUSTLLM_UTF8_H
#define RUSTLLM_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Where the first byte stands that no valid text has there; n if the text is valid. Overlong forms,
   surrogates and values above U+10FFFF are not valid. */
static inline size_t rl_utf8_valid_prefix(const uint8_t *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, p + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        uint8_t c = p[i], low = 0x80, high = 0xbf;
        size_t more;
        if (c < 0x80) {
            i++;
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf) more = 1;
        else if (c >= 0xe0 && c <= 0xef) more = 2;
        else if (c >= 0xf0 && c <= 0xf4) more = 3;
        else return i;
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
        if (n - i <= more || p[i + 1] < low || p[i + 1] > high) return i;
        for (size_t k = 2; k <= more; k++)
            if ((p[i + k] & 0xc0) != 0x80) return i;
        i += more + 1;
    }
    return n;
}

#endif
