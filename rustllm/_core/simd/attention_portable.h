/* Attention of a few queries over one segment of the KV cache, in C; its neighbours make it fast.
 *
 * The cache of one KV head is cut into segments of 128 positions. A segment is worked on from
 * nothing: scores, their maximum, exp, the sum and the weighted sum of values; segments are then
 * merged in order. One query's arithmetic never depends on which other queries, heads or threads
 * there are, so that a prompt fed whole and fed token by token give the same bits.
 *
 * Both come in blocks of sixteen positions. In one, keys lie side by side ([head_dim][16]), so that a
 * lane is a position and a score needs no horizontal sum; values lie row by row ([16][head_dim]). In
 * int8 the scales of a block follow its quants, [head_dim / 32, rounded up][16].
 * Online softmax over segments: Milakov and Gimelshein 2018; split over the cache: Flash-Decoding.
 */
#ifndef RUSTLLM_ATTENTION_PORTABLE_H
#define RUSTLLM_ATTENTION_PORTABLE_H

#include <stddef.h>

#include "cpu.h"
#include "vector_math.h"

enum { RL_SEGMENT = 128, RL_MAX_QUERIES = 8 };

/* What a cache holds. int8: blocks of 32 dimensions of one position share a half-precision scale. */
enum { RL_KV_F32 = 0, RL_KV_F16 = 1, RL_KV_BF16 = 2, RL_KV_INT8 = 3, RL_KV_BLOCK = 32 };

typedef struct {
    const void *keys;   /* of this segment */
    const void *values;
    int kind;           /* RL_KV_... */
    int head_dim;       /* multiple of 16 */
    float softcap;      /* 0: none */
    int n_queries;      /* 1..8 */
    const float *query[RL_MAX_QUERIES]; /* [head_dim], already scaled */
    int first[RL_MAX_QUERIES];          /* visible positions in the segment: first..last-1 */
    int last[RL_MAX_QUERIES];
    float max[RL_MAX_QUERIES];          /* out: maximum, -inf where nothing is visible */
    float sum[RL_MAX_QUERIES];          /* out: sum of exp(score - max) */
    float *out[RL_MAX_QUERIES];         /* out: [head_dim] weighted sum of values */
} rl_segment;

typedef void (*rl_segment_fn)(rl_segment *);
typedef void (*rl_merge_fn)(float *running_max, float *running_sum, float *total, float max, float sum,
                            const float *part, int head_dim);
typedef void (*rl_store_fn)(const float *key, const float *value, void *keys, void *values, int kind, int head_dim,
                            ptrdiff_t slot);

/* tanh through the same exp at every level. */
static inline float rl_cap_portable(float x, float cap) {
    float e = rl_exp_portable(-2.0f * (x / cap));
    return cap * ((1.0f - e) / (1.0f + e));
}

/* Bytes of sixteen positions' keys, or values, of one head. */
RL_INLINE ptrdiff_t rl_kv_block_bytes(int kind, int head_dim) {
    if (kind == RL_KV_INT8) return 16 * (ptrdiff_t)head_dim + 32 * (ptrdiff_t)((head_dim + RL_KV_BLOCK - 1) / RL_KV_BLOCK);
    return 16 * (ptrdiff_t)head_dim * (kind == RL_KV_F32 ? 4 : 2);
}

/* Scales of the sixteen positions of a block, for its dimensions 32 * part and on. */
RL_INLINE const uint16_t *rl_kv_scales(const uint8_t *block, int head_dim, int part) {
    return (const uint16_t *)(block + 16 * (ptrdiff_t)head_dim) + 16 * part;
}

/* Element i of a block as it is stored: without its scale. */
RL_INLINE float rl_cache_at(const uint8_t *block, int kind, ptrdiff_t i) {
    if (kind == RL_KV_INT8) return (float)((const int8_t *)block)[i];
    if (kind == RL_KV_F16) return rl_half_to_float(((const uint16_t *)block)[i]);
    if (kind == RL_KV_BF16) return rl_bf16_to_float(((const uint16_t *)block)[i]);
    return ((const float *)block)[i];
}

static void rl_attend_portable(rl_segment *s) {
    const int hd = s->head_dim, kind = s->kind, step = kind == RL_KV_INT8 ? RL_KV_BLOCK : hd;
    const ptrdiff_t bytes = rl_kv_block_bytes(kind, hd);
    for (int c = 0; c < s->n_queries; c++) {
        float p[RL_SEGMENT], lanes[16], max = -INFINITY;
        for (int k = s->first[c]; k < s->last[c]; k++) {
            const uint8_t *block = (const uint8_t *)s->keys + k / 16 * bytes;
            float score = 0.0f;
            for (int d0 = 0; d0 < hd; d0 += step) {
                float part = 0.0f;
                for (int d = d0; d < d0 + step && d < hd; d++)
                    part = fmaf(rl_cache_at(block, kind, 16 * d + k % 16), s->query[c][d], part);
                if (kind == RL_KV_INT8) score = fmaf(part, rl_half_to_float(rl_kv_scales(block, hd, d0 / RL_KV_BLOCK)[k % 16]), score);
                else score = part;
            }
            if (s->softcap > 0.0f) score = rl_cap_portable(score, s->softcap);
            p[k] = score;
            if (score > max || score != score) max = score;
        }
        s->max[c] = max;
        for (int i = 0; i < 16; i++) lanes[i] = 0.0f;
        for (int d = 0; d < hd; d++) s->out[c][d] = 0.0f;
        s->sum[c] = 0.0f;
        if (max == -INFINITY) continue;
        for (int k = s->first[c]; k < s->last[c]; k++) {
            p[k] = rl_exp_portable(p[k] - max);
            lanes[k % 16] += p[k];
        }
        for (int width = 8; width; width /= 2)
            for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
        s->sum[c] = lanes[0];
        for (int k = s->first[c]; k < s->last[c]; k++) {
            const uint8_t *block = (const uint8_t *)s->values + k / 16 * bytes;
            for (int d = 0; d < hd; d++) {
                float w = p[k];
                if (kind == RL_KV_INT8) w *= rl_half_to_float(rl_kv_scales(block, hd, d / RL_KV_BLOCK)[k % 16]);
                s->out[c][d] = fmaf(w, rl_cache_at(block, kind, (ptrdiff_t)(k % 16) * hd + d), s->out[c][d]);
            }
        }
    }
}

/* Adds a segment's result to the running one: total = total * exp(M - M') + part * exp(m - M'). */
RL_INLINE void rl_merge_body(float *running_max, float *running_sum, float *total, float max, float sum,
                             const float *part, int head_dim) {
    if (max == -INFINITY) return;
    float m = *running_max;
    float top = max > m || max != max ? max : m;
    float keep = m == -INFINITY ? 0.0f : rl_exp_portable(m - top), add = rl_exp_portable(max - top);
    *running_max = top;
    *running_sum = fmaf(sum, add, *running_sum * keep);
    for (int d = 0; d < head_dim; d++) total[d] = fmaf(part[d], add, total[d] * keep);
}

/* One vector as int8 in blocks of 32, element d at q[d * apart], with the scale of block b at scales[16 * b]. */
RL_INLINE void rl_store_int8(const float *x, int head_dim, int8_t *q, ptrdiff_t apart, uint16_t *scales) {
    for (int d0 = 0; d0 < head_dim; d0 += RL_KV_BLOCK, scales += 16) {
        const int n = head_dim - d0 < RL_KV_BLOCK ? head_dim - d0 : RL_KV_BLOCK;
        uint32_t max_bits = 0;
        for (int i = 0; i < n; i++) {
            uint32_t bits = rl_float_to_bits(x[d0 + i]) & 0x7fffffffu;
            max_bits = bits > max_bits ? bits : max_bits;
        }
        /* Quants belong to the scale as it is stored. What is not finite makes the scale so. */
        const float max = rl_bits_to_float(max_bits);
        *scales = rl_float_to_half(max_bits >= 0x7f800000u ? rl_bits_to_float(0x7fc00000u) : max / 127.0f);
        const float d = rl_half_to_float(*scales), inverse = d > 0.0f && d < INFINITY ? 1.0f / d : 0.0f;
        for (int i = 0; i < n; i++) {
            float v = inverse > 0.0f ? x[d0 + i] * inverse : 0.0f;
            v = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
            q[(d0 + i) * apart] = (int8_t)(int32_t)rintf(v);
        }
    }
}

/* Writes one position's key and value of one head; `slot` is the position. */
RL_INLINE void rl_store_body(const float *key, const float *value, void *keys, void *values, int kind, int head_dim,
                             ptrdiff_t slot) {
    const ptrdiff_t at = slot / 16 * rl_kv_block_bytes(kind, head_dim), lane = slot % 16;
    uint8_t *k = (uint8_t *)keys + at, *v = (uint8_t *)values + at;
    if (kind == RL_KV_INT8) {
        rl_store_int8(key, head_dim, (int8_t *)k + lane, 16, (uint16_t *)rl_kv_scales(k, head_dim, 0) + lane);
        rl_store_int8(value, head_dim, (int8_t *)v + lane * head_dim, 1, (uint16_t *)rl_kv_scales(v, head_dim, 0) + lane);
        return;
    }
    for (int d = 0; d < head_dim; d++) {
        const ptrdiff_t in_key = 16 * d + lane, in_value = lane * head_dim + d;
        if (kind == RL_KV_F32) {
            ((float *)k)[in_key] = key[d];
            ((float *)v)[in_value] = value[d];
        } else if (kind == RL_KV_F16) {
            ((uint16_t *)k)[in_key] = rl_float_to_half(key[d]);
            ((uint16_t *)v)[in_value] = rl_float_to_half(value[d]);
        } else {
            ((uint16_t *)k)[in_key] = rl_float_to_bf16(key[d]);
            ((uint16_t *)v)[in_value] = rl_float_to_bf16(value[d]);
        }
    }
}

static void rl_merge_portable(float *running_max, float *running_sum, float *total, float max, float sum,
                              const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
}

static void rl_store_portable(const float *key, const float *value, void *keys, void *values, int kind, int head_dim,
                              ptrdiff_t slot) {
    rl_store_body(key, value, keys, values, kind, head_dim, slot);
}

#endif
