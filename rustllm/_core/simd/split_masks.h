/* Pretokens by bit masks, 64 bytes at a time.

   A block starts at the start of a pretoken, so nothing is carried from the block before. Its bytes
   become one mask per class, a character's continuation bytes sharing the class of the first; where
   pretokens start then follows by shifts and additions for all 64 at once. What a mask cannot tell
   (it would need more text, or is too rare to be worth the bits) sets a limit: starts before it are
   taken, the next block begins at the last of them, and when there is none, the definition in
   split.pyx is asked for one pretoken. */
#ifndef RUSTLLM_SPLIT_MASKS_H
#define RUSTLLM_SPLIT_MASKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "cpu.h"
#include "unicode_tables.h"

/* Numbers of the patterns, as in split.pxd. */
enum { RL_GPT2, RL_CL100K, RL_O200K, RL_QWEN2, RL_SMOLLM, RL_TEKKEN, RL_DEEPSEEK, RL_CL100K_TIKTOKEN };

typedef ptrdiff_t (*rl_next_end)(int, const uint8_t *, ptrdiff_t, ptrdiff_t);

typedef struct {
    uint64_t letter;   /* L, and for O200K marks too */
    uint64_t upper;    /* Lu, Lt */
    uint64_t lower;    /* Ll */
    uint64_t mark;     /* M */
    uint64_t number;   /* N */
    uint64_t space;    /* White_Space */
    uint64_t line;     /* \r \n */
    uint64_t blank;    /* U+0020 */
    uint64_t quote;    /* ' */
    uint64_t slash;    /* / */
    uint64_t follow;   /* bytes of a character after its first */
    uint64_t wide;     /* bytes outside ASCII */
} rl_masks;

#define RL_INLINE static inline __attribute__((always_inline))

/* Width and class of the character at p, of which 4 bytes may be read; invalid bytes stand alone. */
RL_INLINE int rl_wide_char(const uint8_t *p, unsigned *cls) {
    uint32_t a = p[0], c;
    *cls = 0;
    if (a < 0xC2 || a > 0xF4) return 1;
    if (a < 0xE0) {
        if ((p[1] & 0xC0) != 0x80) return 1;
        c = (a & 0x1F) << 6 | (p[1] & 0x3F);
        *cls = rl_class_block[rl_class_index[c >> 7]][c & 127];
        return 2;
    }
    if ((p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80) return 1;
    if (a < 0xF0) {
        c = (a & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
        if (c < 0x800 || (c >= 0xD800 && c < 0xE000)) return 1;
        *cls = rl_class_block[rl_class_index[c >> 7]][c & 127];
        return 3;
    }
    if ((p[3] & 0xC0) != 0x80) return 1;
    c = (a & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
    if (c < 0x10000 || c > 0x10FFFF) return 1;
    *cls = rl_class_block[rl_class_index[c >> 7]][c & 127];
    return 4;
}

/* Characters outside ASCII, one at a time; their bytes are `left`. */
RL_INLINE void rl_classify_each(const uint8_t *p, rl_masks *m, uint64_t left) {
    while (left) {
        int i = __builtin_ctzll(left);
        unsigned cls;
        int width = rl_wide_char(p + i, &cls);
        uint64_t bits = ((1ull << width) - 1) << i;
        left &= ~bits;
        m->follow |= bits & ~(1ull << i);
        /* 1 space, 2 number, 3 upper, 4 lower, 5 other letter, 6 mark */
        m->space |= cls == 1 ? bits : 0;
        m->number |= cls == 2 ? bits : 0;
        m->letter |= cls - 3u < 3u ? bits : 0;
        m->upper |= cls == 3 ? bits : 0;
        m->lower |= cls == 4 ? bits : 0;
        m->mark |= cls == 6 ? bits : 0;
    }
}

/* The same for all of them but those that `ideograph` has already: first bytes of three-byte letters
   without case. */
RL_INLINE void rl_classify_wide(const uint8_t *p, rl_masks *m, uint64_t ideograph, uint64_t after) {
    uint64_t left = m->wide, run;
    ideograph &= ~0ull >> 2; /* how one goes on behind the block is not known here */
    run = ideograph | ideograph << 1 | ideograph << 2;
    if (ideograph && ((ideograph << 1 | ideograph << 2) & ~after) == 0) {
        m->letter |= run;
        m->follow |= run & ~ideograph;
        left &= ~run;
    }
    rl_classify_each(p, m, left);
}

RL_INLINE uint64_t rl_below(unsigned n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

RL_INLINE unsigned rl_first(uint64_t bits) { return bits ? (unsigned)__builtin_ctzll(bits) : 64; }

RL_INLINE unsigned rl_least(unsigned a, unsigned b) { return a < b ? a : b; }

/* Length of 's 't 'm 'd 'll 've 're behind an apostrophe, without it; 0 if none is there. */
RL_INLINE unsigned rl_contraction(const uint8_t *p, int any_case) {
    unsigned fold = any_case ? 0x20 : 0, a = p[1] | fold, b = p[2] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 1;
    if (any_case && p[1] == 0xC5 && p[2] == 0xBF) return 2; /* U+017F folds to s */
    if ((a == 'l' && b == 'l') || (b == 'e' && (a == 'v' || a == 'r'))) return 2;
    return 0;
}

/* First bytes of the characters whose last bytes are given. */
RL_INLINE uint64_t rl_lead_of(uint64_t last, uint64_t follow) {
    if (follow & last) {
        last = (last & ~follow) | (last & follow) >> 1;
        last = (last & ~follow) | (last & follow) >> 1;
        last = (last & ~follow) | (last & follow) >> 1;
    }
    return last;
}

/* Starts of numbers of at most three digits. */
RL_INLINE uint64_t rl_threes(uint64_t number) {
    uint64_t four = number & number << 1 & number << 2 & number << 3;
    uint64_t step = number & ~(number << 1), starts = step;
    while (four && (step = step << 3 & four)) starts |= step;
    return starts;
}

/* Starts of pretokens among the first *limit bytes, of which `n` are text; `last` says that the text
   ends there. */
RL_INLINE uint64_t rl_starts(
    int pattern, const uint8_t *p, const rl_masks *m, unsigned n, int last, unsigned *limit
) {
    const uint64_t valid = rl_below(n);
    const int cased = pattern == RL_O200K || pattern == RL_TEKKEN;
    const int plain = pattern == RL_GPT2 || pattern == RL_SMOLLM;
    const uint64_t N = m->number & valid, S = m->space & valid, B = m->blank & valid;
    const uint64_t R = m->line & valid, S1 = S & ~R;
    const uint64_t L = (cased ? m->letter | m->mark : m->letter) & valid;
    const uint64_t O = ~(L | N | S) & valid;
    const uint64_t l_start = L & ~(L << 1), s_start = S & ~(S << 1);
    const uint64_t o_start = O & ~(O << 1) & ~(B << 1);
    const uint64_t end = last && n ? 1ull << (n - 1) : 0;
    uint64_t starts, quotes;
    unsigned most = last ? n : 60;

    if (plain) {
        uint64_t tail = S & ~(S >> 1) & ~end;
        starts = (l_start & ~(B << 1)) | o_start | s_start;
        if (pattern == RL_SMOLLM) {
            starts |= N & ~m->follow;
            tail &= ~(N >> 1);
        } else {
            starts |= N & ~(N << 1) & ~(B << 1);
        }
        starts |= rl_lead_of(tail, m->follow);
        for (quotes = m->quote & o_start & L >> 1; quotes; quotes &= quotes - 1) {
            unsigned i = rl_first(quotes), width;
            if (i >= most) break;
            width = rl_contraction(p + i, 0);
            if (width && i + width < n) {
                starts &= ~(2ull << i);
                if (i + width + 1 < 64) starts |= L & 1ull << (i + width + 1);
            }
        }
        *limit = most;
        return starts;
    }

    if (cased) {
        /* A mark that no letter precedes, an upper-case letter after a letter without case, a slash
           after a line end: rare, and not to be told by neighbours alone. */
        uint64_t both = L & ~(m->upper | m->lower);
        uint64_t odd = (m->mark & valid & ~(L << 1)) | (m->upper & both << 1) | (m->slash & R << 1);
        most = rl_least(most, rl_first(odd));
    }

    starts = o_start;
    if (pattern == RL_QWEN2 || pattern == RL_TEKKEN) {
        starts |= N & ~m->follow;
    } else {
        if (N & m->wide) most = rl_least(most, rl_first(N & m->wide));
        starts |= rl_threes(N);
    }
    {   /* One character that is no letter goes with the letters after it, if it starts a pretoken. */
        uint64_t single = o_start;
        if (m->follow) {
            single |= single << 1 & m->follow;
            single |= single << 1 & m->follow;
            single |= single << 1 & m->follow;
            single &= ~(m->follow >> 1);
        }
        starts |= l_start & ~((single | S1) << 1);
    }
    {   /* White space: line ends behind other characters belong to those; the rest ends behind its
           last line end, and what follows leaves its last character to what comes next. */
        uint64_t eaten = s_start & R & O << 1;
        uint64_t run = eaten ? R & ~(R + eaten) : 0;
        uint64_t behind = S1 & R << 1;
        starts |= s_start & ~eaten;
        if (behind) {
            uint64_t fresh = behind & run << 1, tails = behind & ~fresh;
            starts |= fresh;
            for (uint64_t t = tails; t; t &= t - 1) {
                unsigned i = rl_first(t), stop = i + rl_first(~(S1 >> i));
                if (stop >= n && !last) {
                    most = rl_least(most, i);
                    break;
                }
                if (stop < n && (R >> stop & 1)) tails &= ~(1ull << i);
            }
            starts |= tails;
        }
        starts |= rl_lead_of(S1 & ~(S >> 1) & ~end, m->follow);
        if (pattern == RL_CL100K_TIKTOKEN && S >> 63)
            most = rl_least(most, 64 - (unsigned)__builtin_clzll(~S | 1));
    }
    if (cased) {
        starts |= m->upper & m->lower << 1 & ~m->follow & valid;
        if (pattern == RL_O200K) {
            unsigned ended = 64;
            for (quotes = m->quote & L << 1 & L >> 1; quotes; quotes &= quotes - 1) {
                unsigned i = rl_first(quotes), width;
                if (i >= most) break;
                if (i == ended) continue; /* it starts a word, the one before has its contraction */
                width = rl_contraction(p + i, 1);
                if (!width || i + width >= n) continue;
                starts &= ~(rl_below(width + 1) << i);
                ended = i + width + 1;
                if (ended < 64) starts |= (L | (m->quote & valid)) & 1ull << ended;
            }
        }
    } else {
        for (quotes = m->quote & o_start & L >> 1; quotes; quotes &= quotes - 1) {
            unsigned i = rl_first(quotes), width;
            if (i >= most) break;
            width = rl_contraction(p + i, 1);
            if (width && i + width + 1 < 64) starts |= L & 1ull << (i + width + 1);
        }
    }
    *limit = most;
    return starts;
}

typedef void (*rl_classify)(const uint8_t *, rl_masks *, int);

/* Ends of pretokens, as rustllm._core.split.split_ends defines them. */
RL_INLINE ptrdiff_t rl_split_with(
    int pattern, rl_classify classify, rl_next_end next, const uint8_t *text, ptrdiff_t at,
    ptrdiff_t stop, uint32_t *ends, ptrdiff_t room
) {
    const int cased = pattern == RL_O200K || pattern == RL_TEKKEN;
    uint8_t tail[96];
    ptrdiff_t got = 0;
    while (at < stop && got + 72 <= room) {
        ptrdiff_t left = stop - at;
        const uint8_t *p = text + at;
        int last = left <= 64;
        unsigned limit, n = last ? (unsigned)left : 64;
        rl_masks m;
        uint64_t starts;
        if (left < 72) {
            memset(tail, 0, sizeof(tail));
            memcpy(tail, p, (size_t)left);
            p = tail;
        }
        classify(p, &m, cased);
        if (pattern == RL_CL100K_TIKTOKEN && last) {
            starts = 0;
            limit = 0;
        } else {
            starts = rl_starts(pattern, p, &m, n, last, &limit);
        }
        starts &= rl_below(limit) & ~1ull;
        if (last && limit >= n) {
            /* Everything up to the end is certain. */
            for (; starts; starts &= starts - 1)
                ends[got++] = (uint32_t)(at + __builtin_ctzll(starts));
            ends[got++] = (uint32_t)stop;
            return got;
        }
        if (!starts) {
            at = next(pattern, text, at, stop);
            ends[got++] = (uint32_t)at;
            continue;
        }
        {
            int count = __builtin_popcountll(starts);
            uint32_t *out = ends + got;
            uint32_t base = (uint32_t)at;
            at += 63 - __builtin_clzll(starts);
            got += count;
            for (;;) {
                for (int i = 0; i < 8; i++) {
                    out[i] = base + (uint32_t)__builtin_ctzll(starts | 1ull << 63);
                    starts &= starts - 1;
                }
                if (count <= 8) break;
                count -= 8;
                out += 8;
            }
        }
    }
    return got;
}

#define RL_SPLIT_EVERY(classify) \
    switch (pattern) { \
    case RL_GPT2: return rl_split_with(RL_GPT2, classify, next, text, at, stop, ends, room); \
    case RL_CL100K: return rl_split_with(RL_CL100K, classify, next, text, at, stop, ends, room); \
    case RL_O200K: return rl_split_with(RL_O200K, classify, next, text, at, stop, ends, room); \
    case RL_QWEN2: return rl_split_with(RL_QWEN2, classify, next, text, at, stop, ends, room); \
    case RL_SMOLLM: return rl_split_with(RL_SMOLLM, classify, next, text, at, stop, ends, room); \
    case RL_TEKKEN: return rl_split_with(RL_TEKKEN, classify, next, text, at, stop, ends, room); \
    case RL_CL100K_TIKTOKEN: \
        return rl_split_with(RL_CL100K_TIKTOKEN, classify, next, text, at, stop, ends, room); \
    default: return 0; \
    }

#if defined(__x86_64__)
#include <immintrin.h>

#define RL_AVX512_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,bmi,bmi2,lzcnt,popcnt"

/* Characters of two and three bytes that differ in their last byte only have 64 classes among them,
   which are one vector: looking every byte's low six bits up in it classifies them all at once. The
   rest (four bytes, over the border of the block, invalid) is taken one at a time. */
__attribute__((target(RL_AVX512_TARGET), always_inline)) static inline void
rl_classify_wide_avx512(
    const uint8_t *p, __m512i v, rl_masks *m, uint64_t ideograph, uint64_t after
) {
    uint64_t left = m->wide, slow = 0, run;
    ideograph &= ~0ull >> 2; /* how one goes on behind the block is not known here */
    run = ideograph | ideograph << 1 | ideograph << 2;
    if (ideograph && ((ideograph << 1 | ideograph << 2) & ~after) == 0) {
        m->letter |= run;
        m->follow |= run & ~ideograph;
        left &= ~run;
    }
    while (left) {
        const int i = __builtin_ctzll(left);
        const uint32_t a = p[i], b = p[i + 1];
        uint64_t first = left & (uint64_t)_mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8((char)a));
        uint64_t last, bits, letter;
        uint32_t page;
        __m512i cls;
        if (a >= 0xC2 && a < 0xE0) {
            page = a & 0x1F;
            first &= after >> 1;
            last = first << 1;
            bits = first | last;
        } else if (a >= 0xE0 && a < 0xF0 && (b & 0xC0) == 0x80) {
            page = (a & 0x0F) << 6 | (b & 0x3F);
            first &= (uint64_t)_mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8((char)b)) >> 1 & after >> 2;
            if (page < 0x20 || page - 0x360 < 0x20) first = 0; /* too long a form, or surrogates */
            last = first << 2;
            bits = first | first << 1 | last;
        } else {
            first = 0;
            page = 0;
            last = bits = 0;
        }
        if (!(first >> i & 1)) {
            uint64_t behind = ~after & ~((2ull << i) - 1);
            /* This character alone; bytes that continue nothing are characters as well. */
            bits = a >= 0xC0 ? (behind ? (behind & -behind) - 1 : ~0ull) & ~((1ull << i) - 1) : 1ull << i;
            bits &= left;
            slow |= bits;
            left &= ~bits;
            continue;
        }
        left &= ~bits;
        m->follow |= bits & ~first;
        cls = _mm512_permutexvar_epi8(
            v, _mm512_loadu_si512((const void *)(
                   rl_class_block[rl_class_index[page >> 1]] + (page & 1) * 64)));
        /* 1 space, 2 number, 3 upper, 4 lower, 5 other letter, 6 mark */
#define RL_CLASS(k) \
    (uint64_t)_mm512_mask_cmpeq_epi8_mask((__mmask64)last, cls, _mm512_set1_epi8(k))
#define RL_TAKE(mask, x) mask |= a < 0xE0 ? (x) | (x) >> 1 : (x) | (x) >> 1 | (x) >> 2
        letter = (uint64_t)_mm512_mask_cmplt_epu8_mask(
            (__mmask64)last, _mm512_sub_epi8(cls, _mm512_set1_epi8(3)), _mm512_set1_epi8(3));
        RL_TAKE(m->letter, letter);
        if (letter) {
            const uint64_t upper = RL_CLASS(3), lower = RL_CLASS(4);
            RL_TAKE(m->upper, upper);
            RL_TAKE(m->lower, lower);
        }
        if (letter != last) {
            const uint64_t space = RL_CLASS(1), number = RL_CLASS(2), mark = RL_CLASS(6);
            RL_TAKE(m->space, space);
            RL_TAKE(m->number, number);
            RL_TAKE(m->mark, mark);
        }
#undef RL_CLASS
#undef RL_TAKE
    }
    rl_classify_each(p, m, slow);
}

__attribute__((target(RL_AVX512_TARGET), always_inline)) static inline void
rl_classify_avx512(const uint8_t *p, rl_masks *m, int cased) {
    const __m512i v = _mm512_loadu_si512((const void *)p);
    const __m512i folded = _mm512_or_si512(v, _mm512_set1_epi8(0x20));
#define RL_IS(c) _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(c))
#define RL_IN(x, low, n) \
    _mm512_cmplt_epu8_mask(_mm512_sub_epi8(x, _mm512_set1_epi8((char)(low))), _mm512_set1_epi8(n))
    m->wide = (uint64_t)_mm512_movepi8_mask(v);
    m->letter = RL_IN(folded, 'a', 26);
    m->number = RL_IN(v, '0', 10);
    m->blank = RL_IS(' ');
    m->space = m->blank | RL_IN(v, 9, 5);
    m->line = RL_IS('\n') | RL_IS('\r');
    m->quote = RL_IS('\'');
    m->upper = m->lower = m->mark = m->slash = m->follow = 0;
    if (cased) {
        m->upper = RL_IN(v, 'A', 26);
        m->lower = m->letter & ~m->upper;
        m->slash = RL_IS('/');
    }
    if (m->wide)
        /* U+5000 to U+9FFF and U+B000 to U+CFFF are letters without case, all of them. */
        rl_classify_wide_avx512(p, v, m, RL_IN(v, 0xE5, 5) | RL_IN(v, 0xEB, 2), RL_IN(v, 0x80, 64));
#undef RL_IS
#undef RL_IN
}

__attribute__((target(RL_AVX512_TARGET))) static ptrdiff_t rl_split_avx512(
    int pattern, rl_next_end next, const uint8_t *text, ptrdiff_t at, ptrdiff_t stop, uint32_t *ends,
    ptrdiff_t room
) {
    RL_SPLIT_EVERY(rl_classify_avx512)
}

#define RL_AVX2_TARGET "avx2,bmi,bmi2,lzcnt,popcnt"

__attribute__((target(RL_AVX2_TARGET), always_inline)) static inline void
rl_classify_avx2(const uint8_t *p, rl_masks *m, int cased) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)p);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(p + 32));
    const __m256i fold = _mm256_set1_epi8(0x20);
    const __m256i fa = _mm256_or_si256(a, fold), fb = _mm256_or_si256(b, fold);
#define RL_BITS(x, y) \
    ((uint64_t)(uint32_t)_mm256_movemask_epi8(x) | (uint64_t)(uint32_t)_mm256_movemask_epi8(y) << 32)
#define RL_IS(c) \
    RL_BITS(_mm256_cmpeq_epi8(a, _mm256_set1_epi8(c)), _mm256_cmpeq_epi8(b, _mm256_set1_epi8(c)))
#define RL_LESS(x, low, n) \
    _mm256_cmpeq_epi8( \
        _mm256_min_epu8(_mm256_sub_epi8(x, _mm256_set1_epi8((char)(low))), _mm256_set1_epi8((n)-1)), \
        _mm256_sub_epi8(x, _mm256_set1_epi8((char)(low))))
#define RL_IN(x, y, low, n) RL_BITS(RL_LESS(x, low, n), RL_LESS(y, low, n))
    m->wide = RL_BITS(a, b);
    m->letter = RL_IN(fa, fb, 'a', 26);
    m->number = RL_IN(a, b, '0', 10);
    m->blank = RL_IS(' ');
    m->space = m->blank | RL_IN(a, b, 9, 5);
    m->line = RL_IS('\n') | RL_IS('\r');
    m->quote = RL_IS('\'');
    m->upper = m->lower = m->mark = m->slash = m->follow = 0;
    if (cased) {
        m->upper = RL_IN(a, b, 'A', 26);
        m->lower = m->letter & ~m->upper;
        m->slash = RL_IS('/');
    }
    if (m->wide)
        rl_classify_wide(
            p, m, RL_IN(a, b, 0xE5, 5) | RL_IN(a, b, 0xEB, 2), RL_IN(a, b, 0x80, 64)
        );
#undef RL_BITS
#undef RL_IS
#undef RL_LESS
#undef RL_IN
}

__attribute__((target(RL_AVX2_TARGET))) static ptrdiff_t rl_split_avx2(
    int pattern, rl_next_end next, const uint8_t *text, ptrdiff_t at, ptrdiff_t stop, uint32_t *ends,
    ptrdiff_t room
) {
    RL_SPLIT_EVERY(rl_classify_avx2)
}
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

/* One bit a byte of four vectors of 0x00 and 0xFF. */
RL_INLINE uint64_t rl_neon_bits(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d) {
    const uint8x16_t weight = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t ab = vpaddq_u8(vandq_u8(a, weight), vandq_u8(b, weight));
    uint8x16_t cd = vpaddq_u8(vandq_u8(c, weight), vandq_u8(d, weight));
    ab = vpaddq_u8(ab, cd);
    ab = vpaddq_u8(ab, ab);
    return vgetq_lane_u64(vreinterpretq_u64_u8(ab), 0);
}

RL_INLINE void rl_classify_neon(const uint8_t *p, rl_masks *m, int cased) {
    uint8x16_t v[4], f[4];
    for (int i = 0; i < 4; i++) {
        v[i] = vld1q_u8(p + 16 * i);
        f[i] = vorrq_u8(v[i], vdupq_n_u8(0x20));
    }
#define RL_EACH(test) rl_neon_bits(test(0), test(1), test(2), test(3))
#define RL_LETTER(i) vcltq_u8(vsubq_u8(f[i], vdupq_n_u8('a')), vdupq_n_u8(26))
#define RL_UPPER(i) vcltq_u8(vsubq_u8(v[i], vdupq_n_u8('A')), vdupq_n_u8(26))
#define RL_DIGIT(i) vcltq_u8(vsubq_u8(v[i], vdupq_n_u8('0')), vdupq_n_u8(10))
#define RL_BLANK(i) vceqq_u8(v[i], vdupq_n_u8(' '))
#define RL_CONTROL(i) vcltq_u8(vsubq_u8(v[i], vdupq_n_u8(9)), vdupq_n_u8(5))
#define RL_LINE(i) vorrq_u8(vceqq_u8(v[i], vdupq_n_u8('\n')), vceqq_u8(v[i], vdupq_n_u8('\r')))
#define RL_QUOTE(i) vceqq_u8(v[i], vdupq_n_u8('\''))
#define RL_SLASH(i) vceqq_u8(v[i], vdupq_n_u8('/'))
#define RL_WIDE(i) vcgeq_u8(v[i], vdupq_n_u8(0x80))
#define RL_IDEOGRAPH(i) \
    vorrq_u8(vcltq_u8(vsubq_u8(v[i], vdupq_n_u8(0xE5)), vdupq_n_u8(5)), \
             vcltq_u8(vsubq_u8(v[i], vdupq_n_u8(0xEB)), vdupq_n_u8(2)))
#define RL_AFTER(i) vcltq_u8(vsubq_u8(v[i], vdupq_n_u8(0x80)), vdupq_n_u8(64))
    m->wide = RL_EACH(RL_WIDE);
    m->letter = RL_EACH(RL_LETTER);
    m->number = RL_EACH(RL_DIGIT);
    m->blank = RL_EACH(RL_BLANK);
    m->space = m->blank | RL_EACH(RL_CONTROL);
    m->line = RL_EACH(RL_LINE);
    m->quote = RL_EACH(RL_QUOTE);
    m->upper = m->lower = m->mark = m->slash = m->follow = 0;
    if (cased) {
        m->upper = RL_EACH(RL_UPPER);
        m->lower = m->letter & ~m->upper;
        m->slash = RL_EACH(RL_SLASH);
    }
    if (m->wide)
        rl_classify_wide(p, m, RL_EACH(RL_IDEOGRAPH), RL_EACH(RL_AFTER));
#undef RL_EACH
}

static ptrdiff_t rl_split_neon(
    int pattern, rl_next_end next, const uint8_t *text, ptrdiff_t at, ptrdiff_t stop, uint32_t *ends,
    ptrdiff_t room
) {
    RL_SPLIT_EVERY(rl_classify_neon)
}
#endif

/* -1 when this level has no version of its own. */
static inline ptrdiff_t rl_split_masks(
    int level, int pattern, rl_next_end next, const uint8_t *text, ptrdiff_t at, ptrdiff_t stop,
    uint32_t *ends, ptrdiff_t room
) {
    if (room < 72 || pattern == RL_DEEPSEEK) return -1;
#if defined(__x86_64__)
    if (level == RL_AVX512) return rl_split_avx512(pattern, next, text, at, stop, ends, room);
    if (level == RL_AVX2) return rl_split_avx2(pattern, next, text, at, stop, ends, room);
#elif defined(__aarch64__)
    if (level >= RL_NEON) return rl_split_neon(pattern, next, text, at, stop, ends, room);
#endif
    return -1;
}

#endif
