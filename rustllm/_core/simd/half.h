/* IEEE half and bfloat16 to and from float, bit for bit as the hardware converts them. */
#ifndef RUSTLLM_HALF_H
#define RUSTLLM_HALF_H

#include <stdint.h>
#include <string.h>

static inline float rl_bits_to_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t rl_float_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float rl_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 0x1f) return rl_bits_to_float(sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0));
    if (exponent) return rl_bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
    /* Subnormal: mantissa units of 2^-24, exact in float. */
    float magnitude = (float)mantissa * 5.9604644775390625e-08f;
    return rl_bits_to_float(sign | rl_float_to_bits(magnitude));
}

/* Round to nearest even, as VCVTPS2PH does. */
static inline uint16_t rl_float_to_half(float f) {
    uint32_t bits = rl_float_to_bits(f);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to infinity */
    if (magnitude < 0x38800000u) {                                 /* subnormal half or zero */
        /* Adding 0.5 leaves the half's 2^-24 units in the low mantissa bits, rounded to even. */
        float shifted = rl_bits_to_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (uint16_t)(rl_float_to_bits(shifted) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | (uint16_t)((rounded - 0x38000000u) >> 13));
}

static inline float rl_bf16_to_float(uint16_t h) { return rl_bits_to_float((uint32_t)h << 16); }

/* Round to nearest even; a NaN stays one. */
static inline uint16_t rl_float_to_bf16(float f) {
    uint32_t bits = rl_float_to_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
