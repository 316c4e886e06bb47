// What a matrix product multiplies and adds at a step of k: float32, or, where the instruction set has dot products of
// bfloat16, those, added up in float32.
#pragma once

#include "../convert.h"

namespace vts::VTS_LEVEL {
namespace {

#if defined(__AVX512BF16__)

struct product_element {
    typedef uint16_t storage;
    typedef uint32_t words __attribute__((vector_size(VTS_BYTES)));
    typedef uint32_t word;  // two neighbours along k, the first in the lower half
    static constexpr int each = 2;

    static VTS_INLINE __m512i load_words(const uint32_t *from) { return _mm512_loadu_si512(from); }
    static VTS_INLINE uint32_t dense_word(const uint16_t *from) {
        uint32_t both;
        __builtin_memcpy(&both, from, sizeof both);
        return both;
    }
    static VTS_INLINE uint32_t word_at(const uint16_t *from, int64_t stride, int64_t left) {
        return from[0] | (left > 1 ? (uint32_t)from[stride] << 16 : 0u);
    }
    // Sixteen elements, each widened to a word. The masked form: GCC's plain one warns of an undefined operand.
    static VTS_INLINE words sixteen(const uint16_t *from) {
        return (words)_mm512_maskz_cvtepu16_epi32((__mmask16)-1, _mm256_loadu_si256((const __m256i *)from));
    }
    // Sixteen columns of two rows.
    static VTS_INLINE void pack_across(const uint16_t *from, int64_t stride, int64_t left, uint32_t *to) {
        const words first = sixteen(from), both = left > 1 ? first | (sixteen(from + stride) << 16) : first;
        __builtin_memcpy(to, &both, sizeof both);
    }
    static VTS_INLINE vec<float> add_products(vec<float> sum, __m512i b, uint32_t a) {
        return (vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)b, (__m512bh)_mm512_set1_epi32((int)a));
    }
    // The first `count` of sixteen sums, to the nearest bfloat16.
    static VTS_INLINE void store_rounded(uint16_t *to, vec<float> sum, int count) {
        const __m512i halves = (__m512i)(bfloat16::rounded(sum) >> 16);
        _mm512_mask_cvtepi32_storeu_epi16(to, (__mmask16)((1u << count) - 1u), halves);
    }
};

#else

struct product_element {
    typedef float storage, word;
    static constexpr int each = 1;  // elements along k in a word

    static VTS_INLINE vec<float> load_words(const float *from) { return load(from); }
    static VTS_INLINE float dense_word(const float *from) { return *from; }
    static VTS_INLINE float word_at(const float *from, int64_t, int64_t) { return *from; }
    static VTS_INLINE void pack_across(const float *from, int64_t, int64_t, float *to) { store(to, load(from)); }
    static VTS_INLINE vec<float> add_products(vec<float> sum, vec<float> b, float a) { return sum + b * a; }
    static VTS_INLINE void store_rounded(uint16_t *, vec<float>, int) {}  // of float32 products none are rounded
};

#endif

}  // namespace
}  // namespace vts::VTS_LEVEL
