// Rows of any dtype to and from rows of the accumulating type.
#pragma once

#include "vec.h"
#include "vtsum/common.h"

namespace vts::VTS_LEVEL {

VTS_INLINE float from_bits(uint32_t u) {
    float f;
    __builtin_memcpy(&f, &u, 4);
    return f;
}
VTS_INLINE uint32_t to_bits(float f) {
    uint32_t u;
    __builtin_memcpy(&u, &f, 4);
    return u;
}

VTS_INLINE uint16_t bfloat16_of(float f) {  // round to nearest, ties to even
    const uint32_t u = to_bits(f);
    const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
}

// float16 without the F16C instructions: by arithmetic on floats, which rounds as the standard asks.
VTS_INLINE float float_of_half(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = (uint32_t)(h & 0x7FFFu) << 13;
    const float value = from_bits(rest) * from_bits(0x77800000u);  // 2^112 moves the exponent's bias
    const uint32_t special = (h & 0x7C00u) == 0x7C00u ? (0x7F800000u | rest) : to_bits(value);
    return from_bits(special | sign);
}
VTS_INLINE uint16_t half_of(float f) {
    const uint32_t u = to_bits(f), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);  // rounds to 65536 or more: infinity
    if (magnitude < 0x38800000u) {                                    // subnormal: adding 0.5 rounds at 2^-24
        return (uint16_t)(sign | (to_bits(from_bits(magnitude) + 0.5f) - 0x3F000000u));
    }
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13));
}

template <typename A>
VTS_INLINE void load_row(vts_dtype dtype, const void *src, A *dst, int64_t n) {
    if constexpr (sizeof(A) == 8) {
        __builtin_memcpy(dst, src, (uint64_t)n * 8);
    } else if (dtype == VTS_FLOAT32) {
        __builtin_memcpy(dst, src, (uint64_t)n * 4);
    } else if (dtype == VTS_BFLOAT16) {
        const uint16_t *s = (const uint16_t *)src;
        for (int64_t i = 0; i < n; ++i) dst[i] = from_bits((uint32_t)s[i] << 16);
    } else {
        const uint16_t *s = (const uint16_t *)src;
        int64_t i = 0;
#if defined(__F16C__)
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(s + i))));
#endif
        for (; i < n; ++i) dst[i] = float_of_half(s[i]);
    }
}

template <typename A>
VTS_INLINE void store_row(vts_dtype dtype, const A *src, void *dst, int64_t n) {
    if constexpr (sizeof(A) == 8) {
        __builtin_memcpy(dst, src, (uint64_t)n * 8);
    } else if (dtype == VTS_FLOAT32) {
        __builtin_memcpy(dst, src, (uint64_t)n * 4);
    } else if (dtype == VTS_BFLOAT16) {
        uint16_t *d = (uint16_t *)dst;
        for (int64_t i = 0; i < n; ++i) d[i] = bfloat16_of(src[i]);
    } else {
        uint16_t *d = (uint16_t *)dst;
        int64_t i = 0;
#if defined(__F16C__)
        for (; i + 8 <= n; i += 8) _mm_storeu_si128((__m128i *)(d + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), 0));
#endif
        for (; i < n; ++i) d[i] = half_of(src[i]);
    }
}

}  // namespace vts::VTS_LEVEL
