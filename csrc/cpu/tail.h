// Vectors of which only the first lanes lie in memory, and what is asked of all lanes together.
#pragma once

#include "vec.h"

namespace vts::VTS_LEVEL {

// The first `count` lanes, 0 <= count < VL, from memory; the others are 0.
template <typename A>
VTS_INLINE vec<A> load_part(const A *from, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == 4)
        return (vec<A>)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), (const float *)from);
    else
        return (vec<A>)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1u), (const double *)from);
#else
    vec<A> v = {};
    for (int l = 0; l < count; ++l) v[l] = from[l];
    return v;
#endif
}
template <typename A>
VTS_INLINE void store_part(A *to, vec<A> v, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == 4)
        _mm512_mask_storeu_ps((float *)to, (__mmask16)((1u << count) - 1u), (__m512)v);
    else
        _mm512_mask_storeu_pd((double *)to, (__mmask8)((1u << count) - 1u), (__m512d)v);
#else
    for (int l = 0; l < count; ++l) to[l] = v[l];
#endif
}

template <typename A>
VTS_INLINE ivec<A> lane_numbers() {
    ivec<A> n = {};
    for (int l = 0; l < VL<A>; ++l) n[l] = l;
    return n;
}
// The first `count` lanes of a, the others of b.
template <typename A>
VTS_INLINE vec<A> where_first(int count, vec<A> a, vec<A> b) {
    return lane_numbers<A>() < (typename lanes_of<A>::index)count ? a : b;
}

template <typename V>
VTS_INLINE V larger_of(V x, V y) {
    return x > y ? x : y;
}

template <typename A>
VTS_INLINE A sum_lanes(vec<A> v) {
    A total = 0;
    for (int l = 0; l < VL<A>; ++l) total += v[l];
    return total;
}

}  // namespace vts::VTS_LEVEL
