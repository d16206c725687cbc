/* Looking many short pretokens up together: first every key is made and its line of the table asked
   for, then every line is read, so that the waits for memory overlap.

   A key is the bytes of the pretoken, up to 15, with their number on top; a line is two entries of a
   key and up to four ids, how many in the top three bits of the first. Any pretoken has a key and any
   key a line: what is stored under another hash is merely not found. */
#ifndef RUSTLLM_LOOKUP_H
#define RUSTLLM_LOOKUP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "cpu.h"

enum { RL_ID_MASK = 0x1FFFFFFF };

typedef struct {
    uint64_t low, high;
    uint32_t id[4];
} rl_short_entry;

typedef struct {
    uint64_t low, high;
} rl_key;

/* What no pretoken has: the number of bytes of a key is at most 15. */
static const rl_key rl_no_key = {~0ull, ~0ull};

static inline int rl_keys_plain(
    const uint8_t *text, ptrdiff_t left, ptrdiff_t start, const uint32_t *ends, int many,
    const rl_short_entry *table, int bits, rl_key *key, uint32_t *line, uint32_t *longs
) {
    int n_longs = 0;
    for (int i = 0; i < many; i++) {
        const ptrdiff_t n = (ptrdiff_t)ends[i] - start;
        rl_key k = rl_no_key;
        uint32_t place = 0;
        if (n <= 15) {
            uint64_t h;
            if (left - start >= 16) {
                const uint64_t keep = n & 7 ? ~0ull >> (64 - 8 * (n & 7)) : 0;
                memcpy(&k, text + start, 16);
                k.high = n > 8 ? k.high & keep : 0;
                k.low = n < 8 ? k.low & keep : k.low;
            } else {
                k.low = k.high = 0;
                memcpy(&k, text + start, (size_t)n);
            }
            k.high |= (uint64_t)n << 56;
            h = k.low * 0x9E3779B97F4A7C15ull ^ k.high * 0xC2B2AE3D27D4EB4Full;
            h ^= h >> 32;
            h *= 0xD6E8FEB86659FD93ull;
            place = (uint32_t)(h >> (64 - bits));
            __builtin_prefetch(table + 2 * (size_t)place, 0, 3);
        } else {
            longs[n_longs++] = (uint32_t)i;
        }
        key[i] = k;
        line[i] = place;
        start = ends[i];
    }
    return n_longs;
}

static inline int rl_hits_plain(
    const rl_short_entry *table, const rl_key *key, const uint32_t *line, int i, int many,
    uint32_t **ids
) {
    uint32_t *out = *ids;
    for (; i < many; i++) {
        const rl_short_entry *entry = table + 2 * (size_t)line[i];
        entry += ((entry->low ^ key[i].low) | (entry->high ^ key[i].high)) != 0;
        if ((entry->low ^ key[i].low) | (entry->high ^ key[i].high)) break;
        memcpy(out, entry->id, 16);
        out[0] &= RL_ID_MASK;
        out += entry->id[0] >> 29;
    }
    *ids = out;
    return i;
}

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__) /* has them as a set of their own; GCC before version 11 does not know it */
#define RL_CRC32 "crc32"
#else
#define RL_CRC32 "sse4.2"
#endif
#define RL_T_LOOKUP \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi,bmi2,sse4.2," RL_CRC32)))

/* A masked load reads no byte behind the pretoken, so the end of the text needs no care. */
RL_T_LOOKUP static int rl_keys_avx512(
    const uint8_t *text, ptrdiff_t start, const uint32_t *ends, int many,
    const rl_short_entry *table, int bits, rl_key *key, uint32_t *line, uint32_t *longs
) {
    const uint32_t mask = (1u << bits) - 1;
    int n_longs = 0;
    for (int i = 0; i < many; i++) {
        const uint32_t n = ends[i] - (uint32_t)start;
        if (__builtin_expect(n <= 15, 1)) {
            const __m128i k = _mm_or_si128(
                _mm_maskz_loadu_epi8((__mmask16)_bzhi_u32(0xFFFF, n), text + start),
                _mm_slli_si128(_mm_cvtsi32_si128((int)n), 15));
            const uint64_t h = _mm_crc32_u64(
                _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(k)), (uint64_t)_mm_extract_epi64(k, 1));
            const uint32_t place = (uint32_t)h & mask;
            _mm_storeu_si128((__m128i *)(key + i), k);
            line[i] = place;
            _mm_prefetch((const char *)(table + 2 * (size_t)place), _MM_HINT_T0);
        } else {
            key[i] = rl_no_key;
            line[i] = 0;
            longs[n_longs++] = (uint32_t)i;
        }
        start = ends[i];
    }
    return n_longs;
}

/* A line is one vector: both keys are compared at once, and what is found is stored without asking
   how many ids it is. */
RL_T_LOOKUP static int rl_hits_avx512(
    const rl_short_entry *table, const rl_key *key, const uint32_t *line, int i, int many,
    uint32_t **ids
) {
    const __m128i keep = _mm_setr_epi32(RL_ID_MASK, -1, -1, -1);
    uint32_t *out = *ids;
    for (; i < many; i++) {
        const rl_short_entry *two = table + 2 * (size_t)line[i];
        const __m512i want = _mm512_broadcast_i64x2(_mm_loadu_si128((const __m128i *)(key + i)));
        unsigned same = _mm512_cmpeq_epi64_mask(_mm512_loadu_si512((const void *)two), want);
        __m128i found;
        same &= same >> 1 & 0x11;
        if (__builtin_expect(!same, 0)) break;
        found = _mm_loadu_si128(
            (const __m128i *)((const uint64_t *)two + 2 + _tzcnt_u32(same)));
        _mm_storeu_si128((__m128i *)out, _mm_and_si128(found, keep));
        out += (uint32_t)_mm_cvtsi128_si32(found) >> 29;
    }
    *ids = out;
    return i;
}
#endif

/* Keys of `many` pretokens of which the first starts at `start` and each ends where `ends` says, in
   a text of `left` bytes; their lines in a table of 2^bits. Those of more than 15 bytes get a key
   that is not found; returns how many they are, their indices in `longs`. */
static inline int rl_make_keys(
    int level, const uint8_t *text, ptrdiff_t left, ptrdiff_t start, const uint32_t *ends, int many,
    const rl_short_entry *table, int bits, rl_key *key, uint32_t *line, uint32_t *longs
) {
#if defined(__x86_64__)
    if (level == RL_AVX512)
        return rl_keys_avx512(text, start, ends, many, table, bits, key, line, longs);
#endif
    (void)level;
    return rl_keys_plain(text, left, start, ends, many, table, bits, key, line, longs);
}

/* Write the ids of pretokens i and on until one is not found or all `many` are done; returns its
   index. Four ids are written at a time, whatever they are. */
static inline int rl_take_hits(
    int level, const rl_short_entry *table, const rl_key *key, const uint32_t *line, int i, int many,
    uint32_t **ids
) {
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_hits_avx512(table, key, line, i, many, ids);
#endif
    (void)level;
    return rl_hits_plain(table, key, line, i, many, ids);
}

#endif
