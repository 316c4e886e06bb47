// Vectors of the width that the translation unit is compiled for, in the GCC and Clang vector extension, so that one
// source serves AVX-512, AVX2, SSE2 and NEON. Everything lives in a namespace named after the level: the same template
// compiled at two levels must never be merged by the linker, or an AVX-512 body would serve an older CPU. For the same
// reason nothing of the standard library with inline bodies is included here.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#if defined(__AVX512BF16__)
#define VTS_LEVEL avx512bf16
#define VTS_BYTES 64
#elif defined(__AVX512F__)
#define VTS_LEVEL avx512
#define VTS_BYTES 64
#elif defined(__AVX2__)
#define VTS_LEVEL avx2
#define VTS_BYTES 32
#else
#define VTS_LEVEL portable
#define VTS_BYTES 16
#endif

#define VTS_INLINE inline __attribute__((always_inline))
#define VTS_LAMBDA_INLINE __attribute__((always_inline))

namespace vts::VTS_LEVEL {

template <typename A>
struct lanes_of;
template <>
struct lanes_of<float> {
    typedef float vec __attribute__((vector_size(VTS_BYTES)));
    typedef int32_t ivec __attribute__((vector_size(VTS_BYTES)));
    typedef int32_t index;
    static constexpr int count = VTS_BYTES / 4;
};
template <>
struct lanes_of<double> {
    typedef double vec __attribute__((vector_size(VTS_BYTES)));
    typedef int64_t ivec __attribute__((vector_size(VTS_BYTES)));
    typedef int64_t index;
    static constexpr int count = VTS_BYTES / 8;
};

template <typename A>
using vec = typename lanes_of<A>::vec;
template <typename A>
using ivec = typename lanes_of<A>::ivec;
template <typename A>
inline constexpr int VL = lanes_of<A>::count;

template <typename A>
VTS_INLINE vec<A> load(const A *p) {
    vec<A> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <typename A>
VTS_INLINE void store(A *p, vec<A> v) {
    __builtin_memcpy(p, &v, sizeof v);
}
template <typename A>
VTS_INLINE vec<A> splat(A x) {
    return x - vec<A>{};
}

// One vector of any type past the caches: an output that is not read again soon need not be fetched before it is
// written. Wants alignment.
VTS_INLINE void store_past(void *to, const void *from) {
#if defined(__AVX512F__)
    _mm512_stream_si512((__m512i *)to, _mm512_loadu_si512(from));
#elif defined(__AVX2__)
    _mm256_stream_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)from));
#else
    __builtin_memcpy(to, from, VTS_BYTES);
#endif
}

template <int... I>
struct indices {};
template <int N, int... I>
struct make_indices : make_indices<N - 1, N - 1, I...> {};
template <int... I>
struct make_indices<0, I...> {
    typedef indices<I...> type;
};

template <int N>
struct constant {
    static constexpr int value = N;
};
template <typename F, int... I>
VTS_INLINE void repeat_for(const F &f, indices<I...>) {
    (f(constant<I>{}), ...);
}
// f(constant<0>{}), ..., f(constant<N - 1>{}): a loop that is certain to be unrolled, so that the arrays of vectors
// that it indexes live in registers.
template <int N, typename F>
VTS_INLINE void repeat(const F &f) {
    repeat_for(f, typename make_indices<N>::type{});
}

#if defined(__clang__)
#define VTS_SHUFFLE(A, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define VTS_SHUFFLE(A, a, b, ...) __builtin_shuffle(a, b, ivec<A>{__VA_ARGS__})
#endif

// Two vectors in which lane l holds a part of the sum numbered l % W; the result holds 2 W sums: those of a, then of b.
template <typename A, int W, int... I>
VTS_INLINE vec<A> fold(vec<A> a, vec<A> b, indices<I...>) {
    constexpr int n = VL<A>;
    const vec<A> stay = VTS_SHUFFLE(A, a, b, ((I % (2 * W)) < W ? I : n + I)...);
    const vec<A> move = VTS_SHUFFLE(A, a, b, ((I % (2 * W)) < W ? I + W : n + I - W)...);
    return stay + move;
}

// Lane l of the result is the sum over the lanes of part(l): the horizontal sums of VL vectors at the price of 1.5
// steps each, where one by one they would take log2(VL).
template <typename A, int W, typename F>
VTS_INLINE vec<A> sums_below(const F &part, int first) {
    if constexpr (W == 1) {
        return part(first);
    } else {
        const vec<A> a = sums_below<A, W / 2>(part, first);
        const vec<A> b = sums_below<A, W / 2>(part, first + W / 2);
        return fold<A, W / 2>(a, b, typename make_indices<VL<A>>::type{});
    }
}
template <typename A, typename F>
VTS_INLINE vec<A> horizontal_sums(const F &part) {
    return sums_below<A, VL<A>>(part, 0);
}

// exp of x <= 0 (a score less the row's maximum): 0 for -inf, NaN for NaN. At most 2 units in the last place off.
VTS_INLINE vec<float> exp_nonpositive(vec<float> x) {
    const float lowest = -87.3365f;  // below it the result would be subnormal: 0
    const vec<float> t = x < lowest ? splat(lowest) : x;
    const vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const vec<float> shifted = t * 1.44269504088896341f + magic;
    const vec<float> n = shifted - magic;
    vec<float> r = t - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec<float> y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const ivec<float> bits = ((ivec<float>)shifted + (127 - 0x4B400000)) << 23;  // 2^n
    const vec<float> result = y * (vec<float>)bits;
    return x < lowest ? vec<float>{} : result;
}
VTS_INLINE vec<double> exp_nonpositive(vec<double> x) {
    vec<double> y;
    for (int l = 0; l < VL<double>; ++l) y[l] = __builtin_exp(x[l]);
    return y;
}

// tanh, at most 3 units in the last place off. Near 0 by Lambert's continued fraction, whose fifth convergent is off by
// 2e-10 of its value at 0.55; further away by exp, where 1 - exp loses nothing.
VTS_INLINE vec<float> tanh_each(vec<float> x) {
    const vec<float> size = x < 0 ? -x : x, z = x * x;
    const vec<float> near = x * (945.0f + z * (105.0f + z)) / (945.0f + z * (420.0f + 15.0f * z));
    const vec<float> e = exp_nonpositive(-2.0f * size), far = (1.0f - e) / (1.0f + e);
    return size < 0.55f ? near : (x < 0 ? -far : far);
}
VTS_INLINE vec<double> tanh_each(vec<double> x) {
    vec<double> y;
    for (int l = 0; l < VL<double>; ++l) y[l] = __builtin_tanh(x[l]);
    return y;
}

template <typename A>
VTS_INLINE vec<A> log_each(vec<A> x) {
    vec<A> y;
    for (int l = 0; l < VL<A>; ++l)
        y[l] = sizeof(A) == 4 ? (A)__builtin_logf((float)x[l]) : (A)__builtin_log((double)x[l]);
    return y;
}

}  // namespace vts::VTS_LEVEL
