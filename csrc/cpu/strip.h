// The arithmetic on one strip of consecutive rows whose keys all exist: scores, softmax, weighted sums. Row r of a
// strip sees the keys r + o, 0 <= o < n. Tables of scores are [n][rows], so that the softmax runs along rows, a vector
// at a time.
#pragma once

#include "vec.h"

namespace vts::VTS_LEVEL {

// Rows of one operand: row r starts at data + r * stride.
template <typename A>
struct rows {
    const A *data;
    int64_t stride;
    VTS_INLINE const A *at(int64_t r) const { return data + r * stride; }
};

// table[o][r] = scale * a_r . b_{r + o}. NV: vectors a row, 0 = known only at run time. count: a multiple of VL.
template <typename A, int NV>
void band_products_of(rows<A> a, rows<A> b, int64_t count, int64_t n, int64_t vectors, A scale, A *table) {
    constexpr int L = VL<A>;
    for (int64_t o = 0; o < n; ++o) {
        for (int64_t r = 0; r < count; r += L) {
            const vec<A> dots = horizontal_sums<A>([&](int i) VTS_LAMBDA_INLINE {
                const A *x = a.at(r + i), *y = b.at(r + i + o);
                vec<A> sum = load(x) * load(y);
                if constexpr (NV > 0) {
#pragma GCC unroll 16
                    for (int c = 1; c < NV; ++c) sum += load(x + c * L) * load(y + c * L);
                } else {
                    for (int64_t c = 1; c < vectors; ++c) sum += load(x + c * L) * load(y + c * L);
                }
                return sum;
            });
            store(table + o * count + r, dots * scale);
        }
    }
}

template <typename A>
void band_products(rows<A> a, rows<A> b, int64_t count, int64_t n, int64_t vectors, A scale, A *table) {
    switch (vectors) {
        case 1: return band_products_of<A, 1>(a, b, count, n, vectors, scale, table);
        case 2: return band_products_of<A, 2>(a, b, count, n, vectors, scale, table);
        case 4: return band_products_of<A, 4>(a, b, count, n, vectors, scale, table);
        case 8: return band_products_of<A, 8>(a, b, count, n, vectors, scale, table);
        case 16: return band_products_of<A, 16>(a, b, count, n, vectors, scale, table);
        default: return band_products_of<A, 0>(a, b, count, n, vectors, scale, table);
    }
}

// table[o][r] += bias[o].
template <typename A>
void add_bias(const A *bias, int64_t count, int64_t n, A *table) {
    constexpr int L = VL<A>;
    for (int64_t o = 0; o < n; ++o)
        for (int64_t r = 0; r < count; r += L) store(table + o * count + r, load(table + o * count + r) + bias[o]);
}

// In place: each column (row of the strip) becomes its softmax; one that sees nothing becomes 0, its lse -inf.
template <typename A>
void softmax_columns(int64_t count, int64_t n, A *table, A *lse) {
    constexpr int L = VL<A>;
    const vec<A> nothing = splat(-(A)__builtin_inf());
    for (int64_t r = 0; r < count; r += L) {
        A *column = table + r;
        vec<A> top = load(column);
        for (int64_t o = 1; o < n; ++o) {
            const vec<A> s = load(column + o * count);
            top = s > top ? s : top;
        }
        top = top == nothing ? vec<A>{} : top;
        vec<A> total = {};
        for (int64_t o = 0; o < n; ++o) {
            const vec<A> e = exp_nonpositive(load(column + o * count) - top);
            store(column + o * count, e);
            total += e;
        }
        const vec<A> share = total > 0 ? (A)1 / total : vec<A>{};
        for (int64_t o = 0; o < n; ++o) store(column + o * count, load(column + o * count) * share);
        if (lse) store(lse + r, total > 0 ? top + log_each<A>(total) : (total == 0 ? nothing : total));
    }
}

// dscores = p * (dp - sum_o p dp + dlse), in place of dp.
template <typename A>
void softmax_columns_backward(int64_t count, int64_t n, const A *p, A *dp, const A *dlse) {
    constexpr int L = VL<A>;
    for (int64_t r = 0; r < count; r += L) {
        vec<A> delta = dlse ? -load(dlse + r) : vec<A>{};
        for (int64_t o = 0; o < n; ++o) delta += load(p + o * count + r) * load(dp + o * count + r);
        for (int64_t o = 0; o < n; ++o) {
            const vec<A> w = load(p + o * count + r);
            store(dp + o * count + r, w * (load(dp + o * count + r) - delta));
        }
    }
}

// Rows i = 0, ..., R - 1 of the result are sums over j of w[i * row_step + j * step] x_j, i <= j < i + n, for CH
// vectors from x on: each row of x is loaded once for all of them.
template <typename E, int R, int CH>
VTS_INLINE void band_sums_of(
    const typename E::accumulate *w, int64_t row_step, int64_t step, rows<typename E::accumulate> x, int64_t n,
    typename E::accumulate factor, typename E::storage *out, int64_t out_step, bool past) {
    typedef typename E::accumulate A;
    constexpr int L = VL<A>;
    vec<A> sum[R][CH] = {};
    const auto add = [&](int64_t j, int first, int last) VTS_LAMBDA_INLINE {
        vec<A> row[CH];
#pragma GCC unroll 8
        for (int c = 0; c < CH; ++c) row[c] = load(x.at(j) + c * L);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
            if (i < first || i >= last) continue;
            const vec<A> weight = splat(w[i * row_step + j * step]);
#pragma GCC unroll 8
            for (int c = 0; c < CH; ++c) sum[i][c] += weight * row[c];
        }
    };
    if (n >= R) {
#pragma GCC unroll 8
        for (int j = 0; j < R - 1; ++j) add(j, 0, j + 1);
        for (int64_t j = R - 1; j < n; ++j) add(j, 0, R);
#pragma GCC unroll 8
        for (int j = 0; j < R - 1; ++j) add(n + j, j + 1, R);
    } else {
        for (int64_t j = 0; j < n + R - 1; ++j) add(j, (int)(j >= n ? j - n + 1 : 0), (int)(j < R ? j + 1 : R));
    }
    constexpr int G = E::group / L;
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
        for (int c = 0; c < CH; ++c) sum[i][c] *= factor;
#pragma GCC unroll 8
        for (int c = 0; c < CH; c += G) {
            if (past) {
                E::store_group_past(out + i * out_step + c * L, sum[i] + c);
            } else {
                E::store_group(out + i * out_step + c * L, sum[i] + c);
            }
        }
    }
}

// `count` rows of the result, all whole groups wide. between(r, n) is called now and then, for rows [r, r + n).
template <typename E, int CH, typename F>
VTS_INLINE void band_sums_wide(
    const typename E::accumulate *w, int64_t row_step, int64_t step, rows<typename E::accumulate> x, int64_t n,
    int64_t count, typename E::accumulate factor, typename E::storage *out, int64_t out_step, bool past,
    const F &between) {
    constexpr int R = VTS_BYTES == 64 ? 4 : 2;  // accumulators that fit the registers
    int64_t r = 0;
    for (; r + R <= count; r += R) {
        between(r, R);
        band_sums_of<E, R, CH>(
            w + r * (row_step + step), row_step, step, {x.at(r), x.stride}, n, factor, out + r * out_step, out_step,
            past);
    }
    for (; r < count; ++r)
        band_sums_of<E, 1, CH>(
            w + r * (row_step + step), row_step, step, {x.at(r), x.stride}, n, factor, out + r * out_step, out_step,
            past);
}

// out_i = factor * sum_j w[i * row_step + j * step] x_j, i <= j < i + n, for `count` rows of `vectors` vectors.
template <typename E, typename F>
void band_sums(
    const typename E::accumulate *w, int64_t row_step, int64_t step, rows<typename E::accumulate> x, int64_t n,
    int64_t count, int64_t vectors, typename E::accumulate factor, typename E::storage *out, int64_t out_step,
    bool past, const F &between) {
    typedef typename E::accumulate A;
    constexpr int L = VL<A>, G = E::group / L;
    int64_t c = 0;
    const auto once = [&](int64_t r, int64_t more) VTS_LAMBDA_INLINE {
        if (c == 0) between(r, more);
    };
    for (; c + 4 <= vectors; c += 4)
        band_sums_wide<E, 4>(
            w, row_step, step, {x.data + c * L, x.stride}, n, count, factor, out + c * L, out_step, past, once);
    for (; c < vectors; c += G)
        band_sums_wide<E, G>(
            w, row_step, step, {x.data + c * L, x.stride}, n, count, factor, out + c * L, out_step, past, once);
}

}  // namespace vts::VTS_LEVEL
