/* Block formats of quantized tensors: sizes, and blocks to float32.

   A row is a whole number of blocks; a block is little-endian bytes at any address. Arithmetic is
   float32 in the order of the published reference, so results are equal to it bit for bit; nothing
   here may be compiled with contraction or reassociation. */
#ifndef RUSTLLM_BLOCKS_H
#define RUSTLLM_BLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    RL_F32 = 0, RL_F16 = 1, RL_Q4_0 = 2, RL_Q4_1 = 3, RL_Q5_0 = 6, RL_Q5_1 = 7, RL_Q8_0 = 8,
    RL_Q2_K = 10, RL_Q3_K = 11, RL_Q4_K = 12, RL_Q5_K = 13, RL_Q6_K = 14, RL_IQ4_NL = 20,
    RL_I8 = 24, RL_I16 = 25, RL_I32 = 26, RL_I64 = 27, RL_F64 = 28, RL_BF16 = 30,
    RL_N_TYPES = 31
};

#define RL_INLINE static inline __attribute__((always_inline))

typedef struct { uint16_t elements, bytes; } rl_block_size;

/* Indexed by type id; {0, 0} for an id that is not supported. */
static const rl_block_size rl_block_sizes[RL_N_TYPES] = {
    [RL_F32] = {1, 4},      [RL_F16] = {1, 2},      [RL_BF16] = {1, 2},     [RL_F64] = {1, 8},
    [RL_I8] = {1, 1},       [RL_I16] = {1, 2},      [RL_I32] = {1, 4},      [RL_I64] = {1, 8},
    [RL_Q4_0] = {32, 18},   [RL_Q4_1] = {32, 20},   [RL_Q5_0] = {32, 22},   [RL_Q5_1] = {32, 24},
    [RL_Q8_0] = {32, 34},   [RL_IQ4_NL] = {32, 18}, [RL_Q2_K] = {256, 84},  [RL_Q3_K] = {256, 110},
    [RL_Q4_K] = {256, 144}, [RL_Q5_K] = {256, 176}, [RL_Q6_K] = {256, 210},
};

static inline int rl_is_type(int type) {
    return type >= 0 && type < RL_N_TYPES && rl_block_sizes[type].elements != 0;
}

/* Bytes of n elements, or -1: unknown type, n negative or not whole blocks, or too many bytes. */
static inline ptrdiff_t rl_row_bytes(int type, ptrdiff_t n) {
    if (!rl_is_type(type) || n < 0) return -1;
    ptrdiff_t elements = rl_block_sizes[type].elements, bytes = rl_block_sizes[type].bytes;
    if (n % elements != 0) return -1;
    n /= elements;
    return n > PTRDIFF_MAX / bytes ? -1 : n * bytes;
}

RL_INLINE uint16_t rl_load_u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
RL_INLINE uint32_t rl_load_u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
RL_INLINE float rl_bits_to_f32(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
RL_INLINE uint32_t rl_f32_to_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

/* Exact, also when the processor is told to flush denormal numbers: those are never operands. */
RL_INLINE float rl_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, bits = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t exponent = bits & 0x0f800000u;
    bits += 112u << 23;
    if (exponent == 0x0f800000u) {
        bits += 112u << 23; /* infinity, NaN */
    } else if (exponent == 0) {
        bits = rl_f32_to_bits(rl_bits_to_f32(bits + (1u << 23)) - 0x1p-14f);
    }
    return rl_bits_to_f32(bits | sign);
}

/* To nearest, ties to even; NaN stays NaN. */
RL_INLINE uint16_t rl_f32_to_f16(float value) {
    uint32_t bits = rl_f32_to_bits(value), sign = bits & 0x80000000u, h;
    bits ^= sign;
    if (bits > 0x7f800000u) {
        h = 0x7e00;
    } else if (bits >= 143u << 23) {
        h = 0x7c00;
    } else if (bits < 113u << 23) { /* denormal in float16: let the adder round */
        h = rl_f32_to_bits(rl_bits_to_f32(bits) + 0.5f) - (126u << 23);
    } else {
        h = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    }
    return (uint16_t)(h | sign >> 16);
}

RL_INLINE float rl_bf16_to_f32(uint16_t h) { return rl_bits_to_f32((uint32_t)h << 16); }

RL_INLINE uint16_t rl_f32_to_bf16(float value) {
    uint32_t bits = rl_f32_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

RL_INLINE float rl_load_f16(const uint8_t *p) { return rl_f16_to_f32(rl_load_u16(p)); }

/* One block each. `b` has the block's bytes, `y` room for its elements. */

RL_INLINE void rl_dequantize_q4_0(const uint8_t *b, float *y) {
    float d = rl_load_f16(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

RL_INLINE void rl_dequantize_q4_1(const uint8_t *b, float *y) {
    float d = rl_load_f16(b), m = rl_load_f16(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

RL_INLINE void rl_dequantize_q5_0(const uint8_t *b, float *y) {
    float d = rl_load_f16(b);
    uint32_t high = rl_load_u32(b + 2);
    for (int j = 0; j < 16; j++) {
        int lo = (b[6 + j] & 15) | (int)((high >> j & 1) << 4);
        int hi = (b[6 + j] >> 4) | (int)((high >> (j + 16) & 1) << 4);
        y[j] = d * (float)(lo - 16);
        y[j + 16] = d * (float)(hi - 16);
    }
}

RL_INLINE void rl_dequantize_q5_1(const uint8_t *b, float *y) {
    float d = rl_load_f16(b), m = rl_load_f16(b + 2);
    uint32_t high = rl_load_u32(b + 4);
    for (int j = 0; j < 16; j++) {
        int lo = (b[8 + j] & 15) | (int)((high >> j & 1) << 4);
        int hi = (b[8 + j] >> 4) | (int)((high >> (j + 16) & 1) << 4);
        y[j] = d * (float)lo + m;
        y[j + 16] = d * (float)hi + m;
    }
}

RL_INLINE void rl_dequantize_q8_0(const uint8_t *b, float *y) {
    float d = rl_load_f16(b);
    for (int j = 0; j < 32; j++) y[j] = (float)(int8_t)b[2 + j] * d;
}

static const int8_t rl_iq4_nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};

RL_INLINE void rl_dequantize_iq4_nl(const uint8_t *b, float *y) {
    float d = rl_load_f16(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)rl_iq4_nl_values[b[2 + j] & 15];
        y[j + 16] = d * (float)rl_iq4_nl_values[b[2 + j] >> 4];
    }
}

RL_INLINE void rl_dequantize_q2_k(const uint8_t *b, float *y) {
    const uint8_t *scales = b, *q = b + 16;
    float d = rl_load_f16(b + 80), dmin = rl_load_f16(b + 82);
    for (int g = 0; g < 16; g++) { /* 16 groups of 16 */
        const uint8_t *from = q + (g >> 3) * 32 + (g & 1) * 16;
        int shift = (g >> 1 & 3) * 2;
        float scale = d * (float)(scales[g] & 15), min = dmin * (float)(scales[g] >> 4);
        for (int l = 0; l < 16; l++) y[g * 16 + l] = scale * (float)(from[l] >> shift & 3) - min;
    }
}

/* Sixteen 6-bit scales in 12 bytes: low nibbles in bytes 0 to 7, high pairs in bytes 8 to 11. */
RL_INLINE int rl_q3_k_scale(const uint8_t *s, int g) {
    int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
    return (low | (s[8 + (g & 3)] >> (g >> 2) * 2 & 3) << 4) - 32;
}

RL_INLINE void rl_dequantize_q3_k(const uint8_t *b, float *y) {
    const uint8_t *mask = b, *q = b + 32, *scales = b + 96;
    float d = rl_load_f16(b + 108);
    for (int g = 0; g < 16; g++) {
        const uint8_t *from = q + (g >> 3) * 32 + (g & 1) * 16, *high = mask + (g & 1) * 16;
        int shift = (g >> 1 & 3) * 2, bit = g >> 1;
        float scale = d * (float)rl_q3_k_scale(scales, g);
        for (int l = 0; l < 16; l++) {
            int v = (from[l] >> shift & 3) - ((high[l] >> bit & 1) ? 0 : 4);
            y[g * 16 + l] = scale * (float)v;
        }
    }
}

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes. */
RL_INLINE void rl_q4_k_scale_min(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

RL_INLINE void rl_dequantize_q4_k(const uint8_t *b, float *y) {
    float d = rl_load_f16(b), dmin = rl_load_f16(b + 2);
    for (int g = 0; g < 8; g++) { /* 8 groups of 32 */
        const uint8_t *from = b + 16 + (g >> 1) * 32;
        int shift = (g & 1) * 4, sc, mn;
        rl_q4_k_scale_min(b + 4, g, &sc, &mn);
        float scale = d * (float)sc, min = dmin * (float)mn;
        for (int l = 0; l < 32; l++) y[g * 32 + l] = scale * (float)(from[l] >> shift & 15) - min;
    }
}

RL_INLINE void rl_dequantize_q5_k(const uint8_t *b, float *y) {
    const uint8_t *high = b + 16;
    float d = rl_load_f16(b), dmin = rl_load_f16(b + 2);
    for (int g = 0; g < 8; g++) {
        const uint8_t *from = b + 48 + (g >> 1) * 32;
        int shift = (g & 1) * 4, sc, mn;
        rl_q4_k_scale_min(b + 4, g, &sc, &mn);
        float scale = d * (float)sc, min = dmin * (float)mn;
        for (int l = 0; l < 32; l++) {
            int v = (from[l] >> shift & 15) | (high[l] >> g & 1) << 4;
            y[g * 32 + l] = scale * (float)v - min;
        }
    }
}

RL_INLINE void rl_dequantize_q6_k(const uint8_t *b, float *y) {
    const uint8_t *low = b, *high = b + 128, *scales = b + 192;
    float d = rl_load_f16(b + 208);
    for (int g = 0; g < 16; g++) {
        /* 16 elements from place l of the half-block; four 32-element quarters share bytes. */
        int half = g >> 3, quarter = g >> 1 & 3, l = (g & 1) * 16;
        const uint8_t *lo = low + half * 64 + (quarter & 1) * 32 + l, *hi = high + half * 32 + l;
        int low_shift = (quarter >> 1) * 4, high_shift = quarter * 2;
        float scale = d * (float)(int8_t)scales[g];
        for (int i = 0; i < 16; i++) {
            int v = (lo[i] >> low_shift & 15) | (hi[i] >> high_shift & 3) << 4;
            y[g * 16 + i] = scale * (float)(v - 32);
        }
    }
}

#define RL_EACH_BLOCK(call)                                                                        \
    for (ptrdiff_t i = 0; i < blocks; i++, src += bytes, dst += elements) call(src, dst)
#define RL_EACH_PLAIN(type)                                                                        \
    for (ptrdiff_t i = 0; i < n; i++) {                                                            \
        type v;                                                                                    \
        memcpy(&v, src + i * sizeof v, sizeof v);                                                  \
        dst[i] = (float)v;                                                                         \
    }

/* n elements of `type` at src to float32 at dst. 0, or -1 if rl_row_bytes(type, n) is. */
RL_INLINE int rl_dequantize_row(int type, const uint8_t *src, float *dst, ptrdiff_t n) {
    if (rl_row_bytes(type, n) < 0) return -1;
    ptrdiff_t elements = rl_block_sizes[type].elements, bytes = rl_block_sizes[type].bytes;
    ptrdiff_t blocks = n / elements;
    switch (type) {
    case RL_F32: if (n) memcpy(dst, src, (size_t)n * 4); break;
    case RL_F16: for (ptrdiff_t i = 0; i < n; i++) dst[i] = rl_load_f16(src + 2 * i); break;
    case RL_BF16:
        for (ptrdiff_t i = 0; i < n; i++) dst[i] = rl_bf16_to_f32(rl_load_u16(src + 2 * i));
        break;
    case RL_F64: RL_EACH_PLAIN(double) break;
    case RL_I8: RL_EACH_PLAIN(int8_t) break;
    case RL_I16: RL_EACH_PLAIN(int16_t) break;
    case RL_I32: RL_EACH_PLAIN(int32_t) break;
    case RL_I64: RL_EACH_PLAIN(int64_t) break;
    case RL_Q4_0: RL_EACH_BLOCK(rl_dequantize_q4_0); break;
    case RL_Q4_1: RL_EACH_BLOCK(rl_dequantize_q4_1); break;
    case RL_Q5_0: RL_EACH_BLOCK(rl_dequantize_q5_0); break;
    case RL_Q5_1: RL_EACH_BLOCK(rl_dequantize_q5_1); break;
    case RL_Q8_0: RL_EACH_BLOCK(rl_dequantize_q8_0); break;
    case RL_IQ4_NL: RL_EACH_BLOCK(rl_dequantize_iq4_nl); break;
    case RL_Q2_K: RL_EACH_BLOCK(rl_dequantize_q2_k); break;
    case RL_Q3_K: RL_EACH_BLOCK(rl_dequantize_q3_k); break;
    case RL_Q4_K: RL_EACH_BLOCK(rl_dequantize_q4_k); break;
    case RL_Q5_K: RL_EACH_BLOCK(rl_dequantize_q5_k); break;
    case RL_Q6_K: RL_EACH_BLOCK(rl_dequantize_q6_k); break;
    default: return -1;
    }
    return 0;
}

#undef RL_EACH_BLOCK
#undef RL_EACH_PLAIN

/* Where the float16 scales of a block stand: the first at `at`, and a second after it? */
static inline int rl_scale_place(int type, int *second) {
    *second = type == RL_Q4_1 || type == RL_Q5_1 || type == RL_Q2_K || type == RL_Q4_K ||
              type == RL_Q5_K;
    switch (type) {
    case RL_Q2_K: return 80;
    case RL_Q3_K: return 108;
    case RL_Q6_K: return 208;
    default: return 0;
    }
}

static inline int rl_f16_is_finite(uint16_t h) { return (h & 0x7c00u) != 0x7c00u; }

/* Index of the first of `n` 16- or 32-bit values whose exponent, under `mask`, is all ones; -1 if
 * there is none. Stretches without a branch vectorise. */
static inline ptrdiff_t rl_first_masked16(const uint8_t *src, ptrdiff_t n, uint16_t mask) {
    for (ptrdiff_t start = 0; start < n; start += 256) {
        ptrdiff_t stop = n - start < 256 ? n : start + 256;
        int found = 0;
        for (ptrdiff_t i = start; i < stop; i++) found |= (rl_load_u16(src + 2 * i) & mask) == mask;
        for (ptrdiff_t i = start; found && i < stop; i++)
            if ((rl_load_u16(src + 2 * i) & mask) == mask) return i;
    }
    return -1;
}

static inline ptrdiff_t rl_first_masked32(const uint8_t *src, ptrdiff_t n, uint32_t mask) {
    for (ptrdiff_t start = 0; start < n; start += 256) {
        ptrdiff_t stop = n - start < 256 ? n : start + 256;
        int found = 0;
        for (ptrdiff_t i = start; i < stop; i++) found |= (rl_load_u32(src + 4 * i) & mask) == mask;
        for (ptrdiff_t i = start; found && i < stop; i++)
            if ((rl_load_u32(src + 4 * i) & mask) == mask) return i;
    }
    return -1;
}

/* Index of the first block (value, of a plain type) that is not finite; -1 if all are. */
static inline ptrdiff_t rl_first_not_finite(int type, const uint8_t *src, ptrdiff_t blocks) {
    if (!rl_is_type(type)) return -1;
    ptrdiff_t bytes = rl_block_sizes[type].bytes;
    int second, at = rl_scale_place(type, &second);
    switch (type) {
    case RL_F32:
        return rl_first_masked32(src, blocks, 0x7f800000u);
    case RL_F16:
        return rl_first_masked16(src, blocks, 0x7c00u);
    case RL_F64:
        for (ptrdiff_t i = 0; i < blocks; i++)
            if ((rl_load_u32(src + 8 * i + 4) & 0x7ff00000u) == 0x7ff00000u) return i;
        return -1;
    case RL_BF16:
        return rl_first_masked16(src, blocks, 0x7f80u);
    case RL_I8: case RL_I16: case RL_I32: case RL_I64:
        return -1;
    default:
        for (ptrdiff_t i = 0; i < blocks; i++, src += bytes) {
            if (!rl_f16_is_finite(rl_load_u16(src + at))) return i;
            if (second && !rl_f16_is_finite(rl_load_u16(src + at + 2))) return i;
        }
        return -1;
    }
}

#endif
