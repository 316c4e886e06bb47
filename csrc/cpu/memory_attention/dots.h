// Dot products of rows. The sum of a row and another is the same to the last bit however many are computed at once: one
// accumulator a pair, features in order, the lanes added by one tree. Equal rows get equal scores, wherever they stand.
#pragma once

#include "../convert.h"
#include "../tail.h"

namespace vts::VTS_LEVEL {

template <typename E>
inline constexpr int vectors_of = E::group / VL<typename E::accumulate>;

// A group of which only the first `count` elements lie in memory; the others are 0.
template <typename E>
VTS_INLINE void load_group_part(const typename E::storage *from, int count, vec<typename E::accumulate> *to) {
    typename E::storage whole[E::group] = {};
    for (int d = 0; d < count; ++d) whole[d] = from[d];
    E::load_group(whole, to);
}

// sums[i * J + j] = rows[i] . others[j]; I * J at most VL.
template <typename E, int I, int J>
VTS_INLINE void dot_tile(
    const typename E::storage *const *rows, const typename E::storage *const *others, int64_t e,
    typename E::accumulate *sums) {
    typedef typename E::accumulate A;
    constexpr int V = vectors_of<E>;
    vec<A> acc[I * J];
    repeat<I * J>([&](auto p) VTS_LAMBDA_INLINE { acc[p.value] = vec<A>{}; });
    const auto step = [&](const vec<A>(&a)[I][V], const vec<A>(&b)[J][V]) VTS_LAMBDA_INLINE {
        repeat<I>([&](auto i) VTS_LAMBDA_INLINE {
            repeat<J>([&](auto j) VTS_LAMBDA_INLINE {
                repeat<V>([&](auto v) VTS_LAMBDA_INLINE {
                    acc[i.value * J + j.value] += a[i.value][v.value] * b[j.value][v.value];
                });
            });
        });
    };
    const int64_t whole = e / E::group * E::group;
    for (int64_t d = 0; d < whole; d += E::group) {
        vec<A> a[I][V], b[J][V];
        repeat<I>([&](auto i) VTS_LAMBDA_INLINE { E::load_group(rows[i.value] + d, a[i.value]); });
        repeat<J>([&](auto j) VTS_LAMBDA_INLINE { E::load_group(others[j.value] + d, b[j.value]); });
        step(a, b);
    }
    if (whole < e) {
        vec<A> a[I][V], b[J][V];
        const int rest = (int)(e - whole);
        repeat<I>([&](auto i) VTS_LAMBDA_INLINE { load_group_part<E>(rows[i.value] + whole, rest, a[i.value]); });
        repeat<J>([&](auto j) VTS_LAMBDA_INLINE { load_group_part<E>(others[j.value] + whole, rest, b[j.value]); });
        step(a, b);
    }
    if constexpr (I * J == VL<A>) {
        store(sums, horizontal_sums<A>([&](int p) VTS_LAMBDA_INLINE { return acc[p]; }));
    } else {
        // The tree of horizontal_sums, one sum at a time: neighbours first, then pairs, then fours.
        for (int p = 0; p < I * J; ++p) {
            A lanes[VL<A>];
            store(lanes, acc[p]);
            for (int width = 1; width < VL<A>; width *= 2)
                for (int l = 0; l < VL<A>; l += 2 * width) lanes[l] += lanes[l + width];
            sums[p] = lanes[0];
        }
    }
}

// sums[j] = row . others[j], 0 <= j < count.
template <typename E>
VTS_INLINE void dots_of_row(
    const typename E::storage *row, const typename E::storage *const *others, int count, int64_t e,
    typename E::accumulate *sums) {
    int j = 0;
    for (; j + 8 <= count; j += 8) dot_tile<E, 1, 8>(&row, others + j, e, sums + j);
    for (; j < count; ++j) dot_tile<E, 1, 1>(&row, others + j, e, sums + j);
}

}  // namespace vts::VTS_LEVEL
