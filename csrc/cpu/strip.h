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

// Scores of keys that may not be seen become -inf. visible: a byte a key, key r + o for row r.
template <typename A>
void hide(const uint8_t *visible, int64_t count, int64_t n, A *table) {
    for (int64_t o = 0; o < n; ++o)
        for (int64_t r = 0; r < count; ++r)
            if (!visible[r + o]) table[o * count + r] = -(A)__builtin_inf();
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

// dscores = p * (dp - sum_o p dp + dlse) * scale, in place of dp.
template <typename A>
void softmax_columns_backward(int64_t count, int64_t n, const A *p, A *dp, const A *dlse, A scale) {
    constexpr int L = VL<A>;
    for (int64_t r = 0; r < count; r += L) {
        vec<A> delta = dlse ? -load(dlse + r) : vec<A>{};
        for (int64_t o = 0; o < n; ++o) delta += load(p + o * count + r) * load(dp + o * count + r);
        for (int64_t o = 0; o < n; ++o) {
            const vec<A> w = load(p + o * count + r);
            store(dp + o * count + r, w * (load(dp + o * count + r) - delta) * scale);
        }
    }
}

// out = sum_o weight[o * step] * row_{o * direction} of x, for CH vectors from column c on.
template <typename A, int CH>
VTS_INLINE void weigh(const A *weight, int64_t step, const A *x, int64_t stride, int64_t n, A *out, bool past) {
    constexpr int L = VL<A>;
    vec<A> sum[CH] = {};
    for (int64_t o = 0; o < n; ++o) {
        const vec<A> w = splat(weight[o * step]);
#pragma GCC unroll 8
        for (int c = 0; c < CH; ++c) sum[c] += w * load(x + o * stride + c * L);
    }
    if (past) {
#pragma GCC unroll 8
        for (int c = 0; c < CH; ++c) store_past(out + c * L, sum[c]);
    } else {
#pragma GCC unroll 8
        for (int c = 0; c < CH; ++c) store(out + c * L, sum[c]);
    }
}

// One output row: the weighted sum of n rows of x, step elements between weights and stride elements between rows.
template <typename A>
VTS_INLINE void weighted_row(
    const A *weight, int64_t step, const A *x, int64_t stride, int64_t n, int64_t vectors, A *out, bool past) {
    constexpr int L = VL<A>;
    int64_t c = 0;
    for (; c + 4 <= vectors; c += 4) weigh<A, 4>(weight, step, x + c * L, stride, n, out + c * L, past);
    for (; c < vectors; ++c) weigh<A, 1>(weight, step, x + c * L, stride, n, out + c * L, past);
}

}  // namespace vts::VTS_LEVEL
