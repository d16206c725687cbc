/* Weights as the kernels read them: sixteen rows side by side.
 *
 * A matrix is cut into groups of 16 rows, a group into blocks of 32 columns. Vector i of a block's
 * quants has one 32-bit lane a row, holding four neighbouring columns, which is what the int8 dot
 * product instructions take. A group is two planes: the quants of all blocks, then the scales of
 * all blocks. Rows beyond the last are zero. The scales keep the precision of the file, so the
 * packed form is another order of the same numbers, never another rounding.
 *
 *   type   quants a block                         scales
 *   Q4_0   4 x 64 B nibbles                       a block: 16 half d
 *   Q4_1   4 x 64 B                               a block: 16 half d, 16 half m
 *   Q5_0   4 x 64 B, 8 x 64-bit fifth bits        a block: 16 half d
 *   Q5_1   4 x 64 B, 8 x 64-bit fifth bits        a block: 16 half d, 16 half m
 *   Q8_0   8 x 64 B, stored + 128                 a block: 16 half d
 *   Q4_K   4 x 64 B                               256 columns: 16 half d, 16 half dmin, 8 x (16 u8 sc, 16 u8 m)
 *   Q5_K   4 x 64 B, 8 x 64-bit fifth bits        as Q4_K
 *   Q6_K   4 x 64 B nibbles, 2 x 64 B top pairs   256 columns: 16 half d, 16 x 16 i8 sc
 *   F32, F16, BF16: 32 x 16 values                none
 *
 * Nibble order: byte lane of vector i holds columns 4i..4i+3 low, 16+4i..16+4i+3 high.
 */
#ifndef RUSTLLM_PACKED_H
#define RUSTLLM_PACKED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "half.h"
#include "target.h"

enum {
    RL_F32 = 0, RL_F16 = 1, RL_Q4_0 = 2, RL_Q4_1 = 3, RL_Q5_0 = 6, RL_Q5_1 = 7, RL_Q8_0 = 8,
    RL_Q4_K = 12, RL_Q5_K = 13, RL_Q6_K = 14, RL_BF16 = 30
};

enum { RL_GROUP = 16, RL_BLOCK = 32 };

typedef struct {
    int32_t type;
    int32_t n_rows;       /* rows of the matrix: outputs */
    int32_t n_cols;       /* columns: inputs */
    int32_t n_blocks;     /* columns / 32, rounded up */
    int64_t group_bytes;  /* distance between groups */
    int64_t scale_offset; /* start of the scale plane in a group */
    const uint8_t *data;  /* 64-byte aligned */
} rl_matrix;

RL_INLINE int rl_is_float(int type) { return type == RL_F32 || type == RL_F16 || type == RL_BF16; }
RL_INLINE int rl_is_k(int type) { return type == RL_Q4_K || type == RL_Q5_K || type == RL_Q6_K; }
RL_INLINE int rl_has_min(int type) {
    return type == RL_Q4_1 || type == RL_Q5_1 || type == RL_Q4_K || type == RL_Q5_K;
}
RL_INLINE int rl_has_fifth(int type) { return type == RL_Q5_0 || type == RL_Q5_1 || type == RL_Q5_K; }

/* log2 of what was added to make a quant unsigned; the kernel takes it back as shift(-sum x). */
RL_INLINE int rl_bias_shift(int type) {
    return type == RL_Q4_0 ? 3 : type == RL_Q5_0 ? 4 : type == RL_Q6_K ? 5 : type == RL_Q8_0 ? 7 : -1;
}

/* Bytes of one block of one row in the file; 0 for a type that cannot be packed. */
static inline size_t rl_file_block_bytes(int type, int *columns) {
    *columns = rl_is_float(type) ? 1 : rl_is_k(type) ? 256 : 32;
    switch (type) {
    case RL_F32: return 4;
    case RL_F16: case RL_BF16: return 2;
    case RL_Q4_0: return 18;
    case RL_Q4_1: return 20;
    case RL_Q5_0: return 22;
    case RL_Q5_1: return 24;
    case RL_Q8_0: return 34;
    case RL_Q4_K: return 144;
    case RL_Q5_K: return 176;
    case RL_Q6_K: return 210;
    default: return 0;
    }
}

/* Bytes of one block's quants for 16 rows. */
RL_INLINE size_t rl_quant_bytes(int type) {
    switch (type) {
    case RL_F32: return 2048;
    case RL_F16: case RL_BF16: return 1024;
    case RL_Q4_0: case RL_Q4_1: case RL_Q4_K: return 256;
    case RL_Q5_0: case RL_Q5_1: case RL_Q5_K: return 320;
    case RL_Q6_K: return 384;
    case RL_Q8_0: return 512;
    default: return 0;
    }
}

/* Bytes of the scales for 16 rows of one block, or of one 256-column block for the K types. */
RL_INLINE size_t rl_scale_bytes(int type) {
    switch (type) {
    case RL_Q4_0: case RL_Q5_0: case RL_Q8_0: return 32;
    case RL_Q4_1: case RL_Q5_1: return 64;
    case RL_Q4_K: case RL_Q5_K: return 64 + 8 * 32;
    case RL_Q6_K: return 32 + 16 * 16;
    default: return 0;
    }
}

/* Fills everything but `data`. Returns 0, or -1 where the type or the number of columns does not fit. */
static inline int rl_matrix_layout(rl_matrix *m, int type, int32_t n_rows, int32_t n_cols) {
    int columns;
    if (!rl_file_block_bytes(type, &columns) || n_rows < 1 || n_cols < 1 || n_cols % columns) return -1;
    m->type = type;
    m->n_rows = n_rows;
    m->n_cols = n_cols;
    m->n_blocks = (n_cols + RL_BLOCK - 1) / RL_BLOCK;
    int64_t n_scales = rl_is_k(type) ? m->n_blocks / 8 : m->n_blocks;
    m->scale_offset = (int64_t)rl_quant_bytes(type) * m->n_blocks;
    m->group_bytes = (m->scale_offset + (int64_t)rl_scale_bytes(type) * n_scales + 63) & ~(int64_t)63;
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

/* Four bits a lane into the fifth-bit masks: bit 4*row + j of mask g is column 4g + j. */
RL_INLINE void rl_pack_fifth(uint8_t *masks, int row, uint32_t bits) {
    for (int g = 0; g < 8; g++) {
        int bit = 4 * row;
        masks[8 * g + bit / 8] |= (uint8_t)(((bits >> (4 * g)) & 15u) << (bit % 8));
    }
}

/* Packs `n_valid` (1..16) rows of a file's row-major blocks into one group. */
static void rl_pack_group(const rl_matrix *m, const uint8_t *src, size_t row_bytes, int n_valid, uint8_t *dst) {
    const int type = m->type, nb = m->n_blocks;
    const size_t qb = rl_quant_bytes(type), sb = rl_scale_bytes(type);
    uint8_t *scales = dst + m->scale_offset;
    if (n_valid < RL_GROUP || rl_has_fifth(type) || m->n_cols % RL_BLOCK)
        memset(dst, 0, (size_t)m->group_bytes);
    if (type == RL_F32) {
        for (int r = 0; r < n_valid; r++)
            for (int k = 0; k < m->n_cols; k++) memcpy(dst + (k * 16 + r) * 4, src + r * row_bytes + 4 * k, 4);
    } else if (type == RL_F16 || type == RL_BF16) {
        for (int r = 0; r < n_valid; r++)
            for (int k = 0; k < m->n_cols; k++) memcpy(dst + (k * 16 + r) * 2, src + r * row_bytes + 2 * k, 2);
    } else if (!rl_is_k(type)) {
        int columns;
        const size_t fb = rl_file_block_bytes(type, &columns);
        const int has_min = rl_has_min(type), has_fifth = rl_has_fifth(type);
        for (int r = 0; r < n_valid; r++) {
            const uint8_t *in = src + r * row_bytes;
            for (int b = 0; b < nb; b++, in += fb) {
                uint8_t *q = dst + b * qb, *s = scales + b * sb;
                const uint8_t *quants = in + 2;
                memcpy(s + 2 * r, in, 2);
                if (has_min) memcpy(s + 32 + 2 * r, in + 2, 2), quants += 2;
                if (has_fifth) rl_pack_fifth(q + 256, r, rl_load32(quants)), quants += 4;
                if (type == RL_Q8_0)
                    for (int i = 0; i < 8; i++) rl_store32(q + 64 * i + 4 * r, rl_load32(quants + 4 * i) ^ 0x80808080u);
                else
                    for (int i = 0; i < 4; i++) rl_store32(q + 64 * i + 4 * r, rl_load32(quants + 4 * i));
            }
        }
    } else if (type == RL_Q6_K) {
        for (int r = 0; r < n_valid; r++) {
            const uint8_t *in = src + r * row_bytes;
            for (int sup = 0; sup < nb / 8; sup++, in += 210) {
                uint8_t *s = scales + sup * sb;
                memcpy(s + 2 * r, in + 208, 2);
                for (int j = 0; j < 16; j++) s[32 + 16 * j + r] = in[192 + j];
                for (int blk = 0; blk < 8; blk++) {
                    /* Block blk of a half: nibbles from ql[(blk&1)*32..], low then high; pairs from qh. */
                    const uint8_t *ql = in + (blk / 4) * 64 + (blk & 1) * 32, *qh = in + 128 + (blk / 4) * 32;
                    const int high = (blk & 2) != 0, pair = 2 * (blk & 3);
                    uint8_t *q = dst + (sup * 8 + blk) * qb;
                    for (int i = 0; i < 4; i++) {
                        uint32_t a = rl_load32(ql + 4 * i) >> (4 * high), c = rl_load32(ql + 16 + 4 * i) >> (4 * high);
                        rl_store32(q + 64 * i + 4 * r, (a & 0x0f0f0f0fu) | ((c & 0x0f0f0f0fu) << 4));
                    }
                    for (int v = 0; v < 2; v++) { /* vector v holds the pairs of columns 16v..16v+15 */
                        uint32_t packed = 0;
                        for (int g = 0; g < 4; g++)
                            packed |= ((rl_load32(qh + 16 * v + 4 * g) >> pair) & 0x03030303u) << (2 * g);
                        rl_store32(q + 256 + 64 * v + 4 * r, packed);
                    }
                }
            }
        }
    } else { /* Q4_K, Q5_K */
        const size_t fb = type == RL_Q4_K ? 144 : 176;
        for (int r = 0; r < n_valid; r++) {
            const uint8_t *in = src + r * row_bytes;
            for (int sup = 0; sup < nb / 8; sup++, in += fb) {
                uint8_t *s = scales + sup * sb;
                const uint8_t *packed_scales = in + 4, *qh = in + 16, *qs = in + (type == RL_Q4_K ? 16 : 48);
                memcpy(s + 2 * r, in, 2);
                memcpy(s + 32 + 2 * r, in + 2, 2);
                for (int j = 0; j < 8; j++) {
                    uint8_t sc, mn;
                    if (j < 4) {
                        sc = packed_scales[j] & 63;
                        mn = packed_scales[j + 4] & 63;
                    } else {
                        sc = (uint8_t)((packed_scales[j + 4] & 15) | ((packed_scales[j - 4] >> 6) << 4));
                        mn = (uint8_t)((packed_scales[j + 4] >> 4) | ((packed_scales[j] >> 6) << 4));
                    }
                    s[64 + 32 * j + r] = sc;
                    s[64 + 32 * j + 16 + r] = mn;
                    uint8_t *q = dst + (sup * 8 + j) * qb;
                    const uint8_t *nibbles = qs + (j / 2) * 32;
                    const int high = 4 * (j & 1);
                    for (int i = 0; i < 4; i++) {
                        uint32_t a = rl_load32(nibbles + 4 * i) >> high, c = rl_load32(nibbles + 16 + 4 * i) >> high;
                        rl_store32(q + 64 * i + 4 * r, (a & 0x0f0f0f0fu) | ((c & 0x0f0f0f0fu) << 4));
                    }
                    if (type == RL_Q5_K) {
                        uint32_t bits = 0;
                        for (int k = 0; k < 32; k++) bits |= (uint32_t)((qh[k] >> j) & 1) << k;
                        rl_pack_fifth(q + 256, r, bits);
                    }
                }
            }
        }
    }
}

#endif
