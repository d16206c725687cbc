/* Weights as the kernels read them: sixteen rows side by side.
 *
 * A matrix is cut into groups of 16 rows, a group into blocks of 32 columns. Vector i of a block's
 * quants has one 32-bit lane a row, holding four neighbouring columns, which is what the int8 dot
 * product instructions take. One, two or eight blocks form a chunk: their scales, then their quants,
 * so that a kernel reads memory strictly forwards and can ask for it ahead in one stream. Rows
 * beyond the last are zero. The scales keep the precision of the file, so the packed form is another
 * order of the same numbers, never another rounding.
 *
 *   type     blocks  scales of a chunk                               quants of a block
 *   Q4_0     2       a block: 16 half d                              4 x 64 B nibbles
 *   Q4_1     1       16 half d, 16 half m                            4 x 64 B
 *   Q5_0     2       a block: 16 half d                              4 x 64 B, 8 x 64-bit fifth bits
 *   Q5_1     1       16 half d, 16 half m                            4 x 64 B, 8 x 64-bit fifth bits
 *   Q8_0     2       a block: 16 half d                              8 x 64 B, stored + 128
 *   IQ4_NL   2       a block: 16 half d                              4 x 64 B nibbles, places in a table
 *   Q2_K     8       16 half d, 16 half dmin, 16 x 16 u8 (sc | m<<4) 2 x 64 B pairs
 *   Q3_K     8       16 half d, 16 x 16 i8 sc, 32 B empty            2 x 64 B pairs, 8 x 64-bit third bits
 *   Q4_K     8       16 half d, 16 half dmin, 8 x (16 u8 sc, 16 u8 m) 4 x 64 B
 *   Q5_K     8       as Q4_K                                         4 x 64 B, 8 x 64-bit fifth bits
 *   Q6_K     8       16 half d, 16 x 16 i8 sc, 32 B empty            4 x 64 B nibbles, 2 x 64 B top pairs
 *   F32, F16, BF16: 1, none, 32 x 16 values
 *
 * Nibble order: byte lane of vector i holds columns 4i..4i+3 low, 16+4i..16+4i+3 high. Pair order:
 * bits 2i of byte lane of vector v hold columns 16v+4i..16v+4i+3.
 */
#ifndef RUSTLLM_PACKED_H
#define RUSTLLM_PACKED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "half.h"
#include "target.h"

enum {
    RL_F32 = 0, RL_F16 = 1, RL_Q4_0 = 2, RL_Q4_1 = 3, RL_Q5_0 = 6, RL_Q5_1 = 7, RL_Q8_0 = 8, RL_Q2_K = 10,
    RL_Q3_K = 11, RL_Q4_K = 12, RL_Q5_K = 13, RL_Q6_K = 14, RL_IQ4_NL = 20, RL_BF16 = 30
};

enum { RL_GROUP = 16, RL_BLOCK = 32 };

/* Calls `call(TYPE, ...)` for the constant that equals `type`, so that a kernel is compiled for each. */
#define RL_CASE(t, call, ...) case t: call(t, __VA_ARGS__); break;
#define RL_FOR_QUANT_TYPE(type, call, ...)                                                           \
    switch (type) {                                                                                  \
        RL_CASE(RL_Q4_0, call, __VA_ARGS__) RL_CASE(RL_Q4_1, call, __VA_ARGS__)                       \
        RL_CASE(RL_Q5_0, call, __VA_ARGS__) RL_CASE(RL_Q5_1, call, __VA_ARGS__)                       \
        RL_CASE(RL_Q8_0, call, __VA_ARGS__) RL_CASE(RL_IQ4_NL, call, __VA_ARGS__)                     \
        RL_CASE(RL_Q2_K, call, __VA_ARGS__) RL_CASE(RL_Q3_K, call, __VA_ARGS__)                       \
        RL_CASE(RL_Q4_K, call, __VA_ARGS__) RL_CASE(RL_Q5_K, call, __VA_ARGS__)                       \
        RL_CASE(RL_Q6_K, call, __VA_ARGS__)                                                          \
    default: break;                                                                                  \
    }
#define RL_FOR_ANY_TYPE(type, call, ...)                                                             \
    switch (type) {                                                                                  \
        RL_CASE(RL_F32, call, __VA_ARGS__) RL_CASE(RL_F16, call, __VA_ARGS__)                         \
        RL_CASE(RL_BF16, call, __VA_ARGS__)                                                          \
    default: RL_FOR_QUANT_TYPE(type, call, __VA_ARGS__)                                              \
    }

typedef struct {
    int32_t type;
    int32_t n_rows;       /* rows of the matrix: outputs */
    int32_t n_cols;       /* columns: inputs */
    int32_t n_blocks;     /* columns / 32, rounded up */
    int32_t ahead;        /* how it is multiplied: many tokens ask for the weights before they need them */
    int32_t fine;         /* and: a token is two columns of a tile, see activations.h */
    int64_t group_bytes;  /* distance between groups */
    const uint8_t *data;  /* 64-byte aligned */
} rl_matrix;

RL_INLINE int rl_is_float(int type) { return type == RL_F32 || type == RL_F16 || type == RL_BF16; }
RL_INLINE int rl_is_k(int type) { return type >= RL_Q2_K && type <= RL_Q6_K; }
/* Two scales a block, one for each 16 columns? */
RL_INLINE int rl_has_halves(int type) { return type == RL_Q2_K || type == RL_Q3_K || type == RL_Q6_K; }
RL_INLINE int rl_has_min(int type) {
    return type == RL_Q4_1 || type == RL_Q5_1 || type == RL_Q2_K || type == RL_Q4_K || type == RL_Q5_K;
}
/* One bit more a quant, in masks after the rest? */
RL_INLINE int rl_has_extra(int type) {
    return type == RL_Q5_0 || type == RL_Q5_1 || type == RL_Q5_K || type == RL_Q3_K;
}
RL_INLINE int rl_has_pairs(int type) { return type == RL_Q2_K || type == RL_Q3_K; }

/* log2 of what was added to make a quant unsigned, or -1; the kernel takes it back as shift(-sum x). */
RL_INLINE int rl_bias_shift(int type) {
    return type == RL_Q4_0                         ? 3
           : type == RL_Q5_0                       ? 4
           : type == RL_Q3_K                       ? 2
           : type == RL_Q6_K                       ? 5
           : type == RL_Q8_0 || type == RL_IQ4_NL ? 7
                                                   : -1;
}

/* The values of IQ4_NL, + 128. */
#define RL_IQ4_NL_BYTES 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241

/* Bytes of one block of one row in the file; 0 for a type that cannot be packed. */
static inline size_t rl_file_block_bytes(int type, int *columns) {
    *columns = rl_is_float(type) ? 1 : rl_is_k(type) ? 256 : 32;
    switch (type) {
    case RL_F32: return 4;
    case RL_F16: case RL_BF16: return 2;
    case RL_Q4_0: case RL_IQ4_NL: return 18;
    case RL_Q4_1: return 20;
    case RL_Q5_0: return 22;
    case RL_Q5_1: return 24;
    case RL_Q8_0: return 34;
    case RL_Q2_K: return 84;
    case RL_Q3_K: return 110;
    case RL_Q4_K: return 144;
    case RL_Q5_K: return 176;
    case RL_Q6_K: return 210;
    default: return 0;
    }
}

/* Bytes of one block's quants for 16 rows: whole cache lines. */
RL_INLINE size_t rl_quant_bytes(int type) {
    switch (type) {
    case RL_F32: return 2048;
    case RL_F16: case RL_BF16: return 1024;
    case RL_Q4_0: case RL_Q4_1: case RL_IQ4_NL: case RL_Q4_K: return 256;
    case RL_Q5_0: case RL_Q5_1: case RL_Q5_K: return 320;
    case RL_Q2_K: return 128;
    case RL_Q3_K: return 192;
    case RL_Q6_K: return 384;
    case RL_Q8_0: return 512;
    default: return 0;
    }
}

/* Blocks that share a chunk. */
RL_INLINE int rl_chunk_blocks(int type) {
    return rl_is_k(type) ? 8 : rl_is_float(type) || rl_has_min(type) ? 1 : 2;
}

/* Bytes of the scales that begin a chunk: whole cache lines. */
RL_INLINE size_t rl_scale_bytes(int type) { return rl_is_float(type) ? 0 : rl_is_k(type) ? 320 : 64; }

RL_INLINE size_t rl_chunk_bytes(int type) {
    return rl_scale_bytes(type) + rl_quant_bytes(type) * (size_t)rl_chunk_blocks(type);
}

/* Scales of block b of a group, and its quants. */
RL_INLINE const uint8_t *rl_scales_of(int type, const uint8_t *group, int b) {
    const int step = rl_chunk_blocks(type);
    return group + rl_chunk_bytes(type) * (size_t)(b / step) + (step == 2 ? 32 * (b % 2) : 0);
}

RL_INLINE const uint8_t *rl_quants_of(int type, const uint8_t *group, int b) {
    const int step = rl_chunk_blocks(type);
    return group + rl_chunk_bytes(type) * (size_t)(b / step) + rl_scale_bytes(type) +
           rl_quant_bytes(type) * (size_t)(b % step);
}

/* Fills everything but `data`. Returns 0, or -1 where the type or the number of columns does not fit. */
static inline int rl_matrix_layout(rl_matrix *m, int type, int32_t n_rows, int32_t n_cols) {
    int columns;
    if (!rl_file_block_bytes(type, &columns) || n_rows < 1 || n_cols < 1 || n_cols % columns) return -1;
    m->type = type;
    m->n_rows = n_rows;
    m->n_cols = n_cols;
    m->n_blocks = (n_cols + RL_BLOCK - 1) / RL_BLOCK;
    m->ahead = m->fine = 0;
    const int step = rl_chunk_blocks(type);
    m->group_bytes = (int64_t)rl_quant_bytes(type) * m->n_blocks +
                     (int64_t)rl_scale_bytes(type) * ((m->n_blocks + step - 1) / step);
    m->data = NULL;
    return 0;
}

/* ---- packing ------------------------------------------------------------------------------- */

RL_INLINE uint32_t rl_load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

RL_INLINE void rl_store32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }

/* Bit k of `bits` is column k's: bit 4*row + j of mask g is column 4g + j. */
RL_INLINE void rl_pack_extra(uint8_t *masks, int row, uint32_t bits) {
    for (int g = 0; g < 8; g++) {
        int bit = 4 * row;
        masks[8 * g + bit / 8] |= (uint8_t)(((bits >> (4 * g)) & 15u) << (bit % 8));
    }
}

/* 32 columns of two bits, found at `shift` of 32 bytes. */
RL_INLINE void rl_pack_pairs(uint8_t *pairs, int row, const uint8_t *src, int shift) {
    for (int v = 0; v < 2; v++) {
        uint32_t packed = 0;
        for (int g = 0; g < 4; g++)
            packed |= ((rl_load32(src + 16 * v + 4 * g) >> shift) & 0x03030303u) << (2 * g);
        rl_store32(pairs + 64 * v + 4 * row, packed);
    }
}

/* 32 columns of four bits, at `shift` of 32 bytes: lanes as the packed nibbles want them. */
RL_INLINE void rl_pack_nibbles(uint8_t *q, int row, const uint8_t *src, int shift) {
    for (int i = 0; i < 4; i++) {
        uint32_t a = rl_load32(src + 4 * i) >> shift, c = rl_load32(src + 16 + 4 * i) >> shift;
        rl_store32(q + 64 * i + 4 * row, (a & 0x0f0f0f0fu) | ((c & 0x0f0f0f0fu) << 4));
    }
}

/* One row of blocks of 32 columns. */
RL_INLINE void rl_pack_row_32(const int type, const uint8_t *in, int nb, int row, uint8_t *group) {
    int columns;
    const size_t bytes = rl_file_block_bytes(type, &columns);
    const int has_min = rl_has_min(type), has_extra = rl_has_extra(type);
    for (int b = 0; b < nb; b++, in += bytes) {
        uint8_t *q = (uint8_t *)rl_quants_of(type, group, b), *s = (uint8_t *)rl_scales_of(type, group, b);
        const uint8_t *quants = in + 2;
        memcpy(s + 2 * row, in, 2);
        if (has_min) memcpy(s + 32 + 2 * row, in + 2, 2), quants += 2;
        if (has_extra) rl_pack_extra(q + 256, row, rl_load32(quants)), quants += 4;
        if (type == RL_Q8_0)
            for (int i = 0; i < 8; i++) rl_store32(q + 64 * i + 4 * row, rl_load32(quants + 4 * i) ^ 0x80808080u);
        else
            for (int i = 0; i < 4; i++) rl_store32(q + 64 * i + 4 * row, rl_load32(quants + 4 * i));
    }
}

/* 6-bit scale and minimum j of 8, of Q4_K and Q5_K. */
RL_INLINE void rl_six_bits(const uint8_t *s, int j, uint8_t *scale, uint8_t *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4));
        *min = (uint8_t)((s[j + 4] >> 4) | ((s[j] >> 6) << 4));
    }
}

/* One row of blocks of 256 columns. Block j of 8 takes 32 bytes of pairs or nibbles at one shift. */
RL_INLINE void rl_pack_row_256(const int type, const uint8_t *in, int nb, int row, uint8_t *group) {
    int columns;
    const size_t bytes = rl_file_block_bytes(type, &columns);
    for (int b = 0; b < nb; b += 8, in += bytes) {
        uint8_t *s = (uint8_t *)rl_scales_of(type, group, b);
        const int d_at = type == RL_Q2_K ? 80 : type == RL_Q3_K ? 108 : type == RL_Q6_K ? 208 : 0;
        memcpy(s + 2 * row, in + d_at, 2);
        if (rl_has_min(type)) memcpy(s + 32 + 2 * row, in + d_at + 2, 2);
        for (int j = 0; j < 16; j++) {
            if (type == RL_Q2_K) s[64 + 16 * j + row] = in[j];
            if (type == RL_Q6_K) s[32 + 16 * j + row] = in[192 + j];
            if (type == RL_Q3_K) { /* low nibbles in bytes 0..7, high pairs in bytes 8..11 */
                const uint8_t *six = in + 96;
                int low = j < 8 ? six[j] & 15 : six[j - 8] >> 4, high = (six[8 + (j & 3)] >> (2 * (j >> 2))) & 3;
                s[32 + 16 * j + row] = (uint8_t)((low | high << 4) - 32);
            }
        }
        for (int j = 0; j < 8; j++) {
            uint8_t *q = (uint8_t *)rl_quants_of(type, group, b + j);
            uint32_t bits = 0;
            switch (type) {
            case RL_Q2_K: rl_pack_pairs(q, row, in + 16 + j / 4 * 32, 2 * (j & 3)); break;
            case RL_Q3_K:
                rl_pack_pairs(q, row, in + 32 + j / 4 * 32, 2 * (j & 3));
                for (int k = 0; k < 32; k++) bits |= (uint32_t)((in[k] >> j) & 1) << k;
                rl_pack_extra(q + 128, row, bits);
                break;
            case RL_Q6_K:
                rl_pack_nibbles(q, row, in + j / 4 * 64 + (j & 1) * 32, j & 2 ? 4 : 0);
                rl_pack_pairs(q + 256, row, in + 128 + j / 4 * 32, 2 * (j & 3));
                break;
            default: /* Q4_K, Q5_K */
                rl_six_bits(in + 4, j, s + 64 + 32 * j + row, s + 64 + 32 * j + 16 + row);
                rl_pack_nibbles(q, row, in + (type == RL_Q4_K ? 16 : 48) + j / 2 * 32, 4 * (j & 1));
                if (type == RL_Q5_K) {
                    for (int k = 0; k < 32; k++) bits |= (uint32_t)((in[16 + k] >> j) & 1) << k;
                    rl_pack_extra(q + 256, row, bits);
                }
            }
        }
    }
}

/* Packs `n_valid` (1..16) rows of a file's row-major blocks into one group of zeroed memory. */
static void rl_pack_group(const rl_matrix *m, const uint8_t *src, size_t row_bytes, int n_valid, uint8_t *dst) {
    for (int r = 0; r < n_valid; r++, src += row_bytes) {
#define RL_PACK(type, ...)                                                                                           \
    if (rl_is_k(type)) rl_pack_row_256(type, src, m->n_blocks, r, dst);                                             \
    else rl_pack_row_32(type, src, m->n_blocks, r, dst)
        if (m->type == RL_F32) {
            for (int k = 0; k < m->n_cols; k++) memcpy(dst + (k * 16 + r) * 4, src + 4 * k, 4);
        } else if (rl_is_float(m->type)) {
            for (int k = 0; k < m->n_cols; k++) memcpy(dst + (k * 16 + r) * 2, src + 2 * k, 2);
        } else {
            RL_FOR_QUANT_TYPE(m->type, RL_PACK)
        }
#undef RL_PACK
    }
}

#endif
