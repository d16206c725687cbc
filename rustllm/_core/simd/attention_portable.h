/* Attention of a few queries over one segment of the KV cache, in C; its neighbours make it fast.
 *
 * The cache of one KV head is cut into segments of 128 positions. A segment is worked on from
 * nothing: scores, their maximum, exp, the sum and the weighted sum of values; segments are then
 * merged in order. One query's arithmetic never depends on which other queries, heads or threads
 * there are, so that a prompt fed whole and fed token by token give the same bits.
 *
 * Keys lie sixteen positions side by side ([position / 16][head_dim][16]), so that a lane is a
 * position and a score needs no horizontal sum; values lie row by row ([position][head_dim]).
 * Online softmax over segments: Milakov and Gimelshein 2018; split over the cache: Flash-Decoding.
 */
#ifndef RUSTLLM_ATTENTION_PORTABLE_H
#define RUSTLLM_ATTENTION_PORTABLE_H

#include <stddef.h>

#include "cpu.h"
#include "vector_math.h"

enum { RL_SEGMENT = 128, RL_MAX_QUERIES = 8 };

typedef struct {
    const void *keys;   /* of this segment */
    const void *values;
    int is_half;        /* half or float cache */
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
typedef void (*rl_store_fn)(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                            ptrdiff_t slot);

/* tanh through the same exp at every level. */
static inline float rl_cap_portable(float x, float cap) {
    float e = rl_exp_portable(-2.0f * (x / cap));
    return cap * ((1.0f - e) / (1.0f + e));
}

RL_INLINE float rl_cache_at(const void *p, int is_half, ptrdiff_t i) {
    return is_half ? rl_half_to_float(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static void rl_attend_portable(rl_segment *s) {
    const int hd = s->head_dim;
    for (int c = 0; c < s->n_queries; c++) {
        float p[RL_SEGMENT], lanes[16], max = -INFINITY;
        for (int k = s->first[c]; k < s->last[c]; k++) {
            float score = 0.0f;
            for (int d = 0; d < hd; d++)
                score = fmaf(rl_cache_at(s->keys, s->is_half, ((ptrdiff_t)(k / 16) * hd + d) * 16 + k % 16), s->query[c][d], score);
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
        for (int k = s->first[c]; k < s->last[c]; k++)
            for (int d = 0; d < hd; d++)
                s->out[c][d] = fmaf(p[k], rl_cache_at(s->values, s->is_half, (ptrdiff_t)k * hd + d), s->out[c][d]);
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

/* Writes one position's key and value of one head; `slot` is the position. */
RL_INLINE void rl_store_body(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                             ptrdiff_t slot) {
    const ptrdiff_t base = slot / 16 * head_dim * 16 + slot % 16;
    if (is_half) {
        uint16_t *k = (uint16_t *)keys + base, *v = (uint16_t *)values + slot * head_dim;
        for (int d = 0; d < head_dim; d++) {
            k[16 * d] = rl_float_to_half(key[d]);
            v[d] = rl_float_to_half(value[d]);
        }
    } else {
        float *k = (float *)keys + base, *v = (float *)values + slot * head_dim;
        for (int d = 0; d < head_dim; d++) {
            k[16 * d] = key[d];
            v[d] = value[d];
        }
    }
}

static void rl_merge_portable(float *running_max, float *running_sum, float *total, float max, float sum,
                              const float *part, int head_dim) {
    rl_merge_body(running_max, running_sum, total, max, sum, part, head_dim);
}

static void rl_store_portable(const float *key, const float *value, void *keys, void *values, int is_half, int head_dim,
                              ptrdiff_t slot) {
    rl_store_body(key, value, keys, values, is_half, head_dim, slot);
}

#endif
