/* The kernels of a level: one function for each tile of 1, 2, 4 or 8 tokens, a switch over the types
   around a body that the compiler specialises for both. */
#ifndef RUSTLLM_LINEAR_TILES_H
#define RUSTLLM_LINEAR_TILES_H

#include "packed.h"

/* Rows of groups g0..g1-1 for one tile of activations: y[token * stride + row]. */
#define RL_MM_ARGUMENTS                                                                                       \
    const rl_matrix *m, int32_t g0, int32_t g1, const uint8_t *act, float *y, ptrdiff_t stride, const float *bias
typedef void (*rl_mm_fn)(RL_MM_ARGUMENTS);

#define RL_CALL_INT8(type, level, nc) rl_mm_int8_##level(type, nc, m, g0, g1, act, y, stride, bias)
#define RL_CALL_FLOAT(type, level, nc) rl_mm_float_##level(type, nc, m, g0, g1, act, y, stride, bias)
#define RL_INT8_TILE(level, attributes, nc)                               \
    attributes static void rl_mm_int8_##level##_##nc(RL_MM_ARGUMENTS) {   \
        RL_FOR_QUANT_TYPE(m->type, RL_CALL_INT8, level, nc)               \
    }
#define RL_FLOAT_TILE(level, attributes, nc)                              \
    attributes static void rl_mm_float_##level##_##nc(RL_MM_ARGUMENTS) {  \
        RL_FOR_ANY_TYPE(m->type, RL_CALL_FLOAT, level, nc)                \
    }
#define RL_FOR_EVERY_TILE(tile, level, attributes) \
    tile(level, attributes, 1) tile(level, attributes, 2) tile(level, attributes, 4) tile(level, attributes, 8)
#define RL_TILES_OF(kind, level) \
    {rl_mm_##kind##_##level##_1, rl_mm_##kind##_##level##_2, rl_mm_##kind##_##level##_4, rl_mm_##kind##_##level##_8}

#endif
