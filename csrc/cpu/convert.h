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

// What a tensor holds. `group`: how many elements are taken together, a whole number of vectors: rows of whole groups
// are read and written without a detour. The order of features inside a group of the accumulating type is the element's
// own affair: sums over features do not care, and storing undoes what loading did.
struct float32 {
    typedef float32 wide;  // the element that is stored as it is accumulated
    typedef float accumulate, storage;
    static constexpr int group = VL<float>;

    static VTS_INLINE float widen(float x) { return x; }
    static VTS_INLINE float narrow(float x) { return x; }
    static VTS_INLINE void load_group(const float *from, vec<float> *to) { to[0] = load(from); }
    static VTS_INLINE void store_group(float *to, const vec<float> *from) { store(to, from[0]); }
    static VTS_INLINE void store_group_past(float *to, const vec<float> *from) { store_past(to, &from[0]); }
};

struct float64 {
    typedef float64 wide;
    typedef double accumulate, storage;
    static constexpr int group = VL<double>;

    static VTS_INLINE double widen(double x) { return x; }
    static VTS_INLINE double narrow(double x) { return x; }
    static VTS_INLINE void load_group(const double *from, vec<double> *to) { to[0] = load(from); }
    static VTS_INLINE void store_group(double *to, const vec<double> *from) { store(to, from[0]); }
    static VTS_INLINE void store_group_past(double *to, const vec<double> *from) { store_past(to, &from[0]); }
};

struct bfloat16 {
    typedef float32 wide;
    typedef float accumulate;
    typedef uint16_t storage;
    typedef uint32_t words __attribute__((vector_size(VTS_BYTES)));
    static constexpr int group = 2 * VL<float>;

    static VTS_INLINE float widen(uint16_t x) { return from_bits((uint32_t)x << 16); }
    static VTS_INLINE uint16_t narrow(float x) {  // round to nearest, ties to even
        const uint32_t u = to_bits(x);
        const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
        return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
    }

    // A word holds two elements: the even ones make one vector, the odd ones another. No shuffle is needed.
    static VTS_INLINE void load_group(const uint16_t *from, vec<float> *to) {
        words w;
        __builtin_memcpy(&w, from, sizeof w);
        to[0] = (vec<float>)(w << 16);
        to[1] = (vec<float>)(w & 0xFFFF0000u);
    }
    // One vector of elements in their order.
    static VTS_INLINE vec<float> load_in_order(const uint16_t *from) {
#if defined(__AVX512F__)
        const __m512i wide = _mm512_maskz_cvtepu16_epi32((__mmask16)-1, _mm256_loadu_si256((const __m256i *)from));
        return (vec<float>)((words)wide << 16);
#else
        vec<float> v = {};
        for (int l = 0; l < VL<float>; ++l) v[l] = widen(from[l]);
        return v;
#endif
    }
    static VTS_INLINE words rounded(vec<float> x) {  // the upper half of each word is the result
        const words u = (words)x;
        const words sum = u + 0x7FFFu + ((u >> 16) & 1u);
        return x != x ? (words)(u | 0x00400000u) : sum;
    }
    static VTS_INLINE words joined(const vec<float> *from) {
        return (rounded(from[0]) >> 16) | (rounded(from[1]) & 0xFFFF0000u);
    }
    static VTS_INLINE void store_group(uint16_t *to, const vec<float> *from) {
        const words w = joined(from);
        __builtin_memcpy(to, &w, sizeof w);
    }
    static VTS_INLINE void store_group_past(uint16_t *to, const vec<float> *from) {
        const words w = joined(from);
        store_past(to, &w);
    }
};

struct float16 {
    typedef float32 wide;
    typedef float accumulate;
    typedef uint16_t storage;
    static constexpr int group = VL<float>;

    // Without the F16C instructions: by arithmetic on floats, which rounds as the standard asks.
    static VTS_INLINE float widen(uint16_t h) {
        const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
        const uint32_t rest = (uint32_t)(h & 0x7FFFu) << 13;
        const float value = from_bits(rest) * from_bits(0x77800000u);  // 2^112 moves the exponent's bias
        const uint32_t special = (h & 0x7C00u) == 0x7C00u ? (0x7F800000u | rest) : to_bits(value);
        return from_bits(special | sign);
    }
    static VTS_INLINE uint16_t narrow(float f) {
        const uint32_t u = to_bits(f), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7FFFFFFFu;
        if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
        if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);  // rounds to 65536 or more: infinity
        if (magnitude < 0x38800000u) {                                    // subnormal: adding 0.5 rounds at 2^-24
            return (uint16_t)(sign | (to_bits(from_bits(magnitude) + 0.5f) - 0x3F000000u));
        }
        return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13));
    }
    static VTS_INLINE void load_group(const uint16_t *from, vec<float> *to) {
#if defined(__AVX512F__)  // the masked forms: GCC's plain ones warn of an undefined operand
        to[0] = (vec<float>)_mm512_maskz_cvtph_ps((__mmask16)-1, _mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__)
        to[0] = (vec<float>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
        vec<float> all = {};
        for (int l = 0; l < VL<float>; ++l) all[l] = widen(from[l]);
        to[0] = all;
#endif
    }
    static VTS_INLINE void store_group(uint16_t *to, const vec<float> *from) {
#if defined(__AVX512F__)
        _mm256_storeu_si256((__m256i *)to, _mm512_maskz_cvtps_ph((__mmask16)-1, (__m512)from[0], 0));
#elif defined(__F16C__)
        _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph((__m256)from[0], 0));
#else
        for (int l = 0; l < VL<float>; ++l) to[l] = narrow(from[0][l]);
#endif
    }
    // Half a vector: a store past the caches would hand over less than a cache line at a time.
    static VTS_INLINE void store_group_past(uint16_t *to, const vec<float> *from) { store_group(to, from); }
};

// `count` elements into a row of the accumulating type.
template <typename E>
VTS_INLINE void load_row(const typename E::storage *from, typename E::accumulate *to, int64_t count) {
    typedef typename E::accumulate A;
    if (count % E::group == 0) {
        for (int64_t d = 0; d < count; d += E::group) {
            vec<A> part[E::group / VL<A>];
            E::load_group(from + d, part);
            for (int c = 0; c < E::group / VL<A>; ++c) store(to + d + c * VL<A>, part[c]);
        }
    } else {
        for (int64_t d = 0; d < count; ++d) to[d] = E::widen(from[d]);
    }
}

template <typename E>
VTS_INLINE void store_row(const typename E::accumulate *from, typename E::storage *to, int64_t count) {
    typedef typename E::accumulate A;
    if (count % E::group == 0) {
        for (int64_t d = 0; d < count; d += E::group) {
            vec<A> part[E::group / VL<A>];
            for (int c = 0; c < E::group / VL<A>; ++c) part[c] = load(from + d + c * VL<A>);
            E::store_group(to + d, part);
        }
    } else {
        for (int64_t d = 0; d < count; ++d) to[d] = E::narrow(from[d]);
    }
}

}  // namespace vts::VTS_LEVEL
