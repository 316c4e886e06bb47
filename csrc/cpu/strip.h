// The arithmetic on one strip of consecutive rows whose keys all exist: scores, softmax, weighted sums. Row r of a
// strip sees the keys r + o, 0 <= o < n. Tables of scores are [n][rows], so that the softmax runs along rows, a vector
// at a time.
#pragma once

#include "vec.h"

namespace vts::VTS_LEVEL {

// Rows of one operand, as they are stored: row r starts at data + r * stride.
template <typename E>
struct rows {
    const typename E::storage *data;
    int64_t stride;
    VTS_INLINE const typename E::storage *at(int64_t r) const { return data + r * stride; }
};

// CH vectors of the accumulating type, from what is stored.
template <typename E, int CH>
VTS_INLINE void load_vectors(const typename E::storage *from, vec<typename E::accumulate> *to) {
    constexpr int L = VL<typename E::accumulate>;
#pragma GCC unroll 8
    for (int c = 0; c < CH; c += E::group / L) E::load_group(from + c * L, to + c);
}

// Rows of a that are held in registers while the rows of b pass by.
constexpr int held_rows = VTS_BYTES == 64 ? 4 : 2;
constexpr int most_keys = 5;  // of a block of products

// The products of VL rows of a with OC keys each, as vectors whose lanes are still to be summed: part[o * VL + r]
// belongs to a_r . b_{r + o}. Over CH vectors of features; where they are not the first ones they are added.
template <typename E, int CH, int OC>
void partial_products(rows<E> a, rows<E> b, bool first, vec<typename E::accumulate> *part) {
    typedef typename E::accumulate A;
    constexpr int L = VL<A>, R = held_rows;
    for (int r = 0; r < L; r += R) {
        vec<A> x[R][CH];
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) load_vectors<E, CH>(a.at(r + i), x[i]);
#pragma GCC unroll 16
        for (int j = 0; j < R + OC - 1; ++j) {
            vec<A> y[CH];
            load_vectors<E, CH>(b.at(r + j), y);
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i) {
                if (j - i < 0 || j - i >= OC) continue;
                vec<A> *to = part + (j - i) * L + r + i;
                vec<A> sum = x[i][0] * y[0];
#pragma GCC unroll 8
                for (int c = 1; c < CH; ++c) sum += x[i][c] * y[c];
                *to = first ? sum : *to + sum;
            }
        }
    }
}

template <typename E, int OC>
void products_of_keys(
    rows<E> a, rows<E> b, int64_t count, int64_t vectors, typename E::accumulate scale, typename E::accumulate *table) {
    typedef typename E::accumulate A;
    constexpr int L = VL<A>, G = E::group / L;
    vec<A> part[OC * L];
    for (int64_t r = 0; r < count; r += L) {
        int64_t c = 0;
        for (; c + 4 <= vectors; c += 4)
            partial_products<E, 4, OC>({a.at(r) + c * L, a.stride}, {b.at(r) + c * L, b.stride}, c == 0, part);
        for (; c < vectors; c += G)
            partial_products<E, G, OC>({a.at(r) + c * L, a.stride}, {b.at(r) + c * L, b.stride}, c == 0, part);
        for (int o = 0; o < OC; ++o) {
            const vec<A> dots = horizontal_sums<A>([&](int i) VTS_LAMBDA_INLINE { return part[o * L + i]; });
            store(table + o * count + r, dots * scale);
        }
    }
}

// table[o][r] = scale * a_r . b_{r + o}, for 0 <= o < n. count: a multiple of VL.
template <typename E>
void band_products(
    rows<E> a, rows<E> b, int64_t count, int64_t n, int64_t vectors, typename E::accumulate scale,
    typename E::accumulate *table) {
    // Blocks of nearly the same size: 9 keys are 5 and 4, not 8 and 1.
    const int64_t blocks = (n + most_keys - 1) / most_keys;
    for (int64_t block = 0, o = 0; block < blocks; ++block) {
        const int64_t keys = (n - o) / (blocks - block);
        const rows<E> from = {b.at(o), b.stride};
        typename E::accumulate *to = table + o * count;
        switch (keys) {
            case 1: products_of_keys<E, 1>(a, from, count, vectors, scale, to); break;
            case 2: products_of_keys<E, 2>(a, from, count, vectors, scale, to); break;
            case 3: products_of_keys<E, 3>(a, from, count, vectors, scale, to); break;
            case 4: products_of_keys<E, 4>(a, from, count, vectors, scale, to); break;
            default: products_of_keys<E, 5>(a, from, count, vectors, scale, to); break;
        }
        o += keys;
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

// Rows of a few tensors that will be read soon, so that they are in the cache by then.
struct prefetch {
    struct stream {
        const char *base;
        int64_t step, first, count;  // bytes between rows; of the rows [first, first + r), those in [0, count) exist
    };
    stream streams[3];
    int used;
    int64_t bytes;  // of a row

    void add(const void *base, int64_t step, int64_t first, int64_t count) {
        streams[used++] = {(const char *)base, step, first, count};
    }
    VTS_INLINE void ask(int64_t r, int64_t more) const {
        for (int s = 0; s < used; ++s) {
            const stream &x = streams[s];
            for (int64_t t = x.first + r; t < x.first + r + more; ++t) {
                if (t < 0 || t >= x.count) continue;
                for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(x.base + t * x.step + line, 0, 2);
            }
        }
    }
};

// Rows i = 0, ..., R - 1 of the result are factor * sum over j of w[i * row_step + j * step] x_j, i <= j < i + n, for
// CH vectors: each row of x is loaded once for all of them. In and Out: how x and the result are stored.
template <typename In, typename Out, int R, int CH>
VTS_INLINE void band_sums_of(
    const typename In::accumulate *w, int64_t row_step, int64_t step, rows<In> x, int64_t n,
    typename In::accumulate factor, typename Out::storage *out, int64_t out_step, bool past) {
    typedef typename In::accumulate A;
    constexpr int L = VL<A>, G = Out::group / L;
    vec<A> sum[R][CH] = {};
    const auto add = [&](int64_t j, int first, int last) VTS_LAMBDA_INLINE {
        vec<A> row[CH];
        load_vectors<In, CH>(x.at(j), row);
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
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
        for (int c = 0; c < CH; ++c) sum[i][c] *= factor;
#pragma GCC unroll 8
        for (int c = 0; c < CH; c += G) {
            if (past) {
                Out::store_group_past(out + i * out_step + c * L, sum[i] + c);
            } else {
                Out::store_group(out + i * out_step + c * L, sum[i] + c);
            }
        }
    }
}

// `count` rows of the result, all whole groups wide. soon: rows that the next strip reads, asked for on the way.
template <typename In, typename Out, int CH>
VTS_INLINE void band_sums_wide(
    const typename In::accumulate *w, int64_t row_step, int64_t step, rows<In> x, int64_t n, int64_t count,
    typename In::accumulate factor, typename Out::storage *out, int64_t out_step, bool past, const prefetch *soon) {
    constexpr int R = held_rows;
    int64_t r = 0;
    for (; r + R <= count; r += R) {
        if (soon) soon->ask(r, R);
        band_sums_of<In, Out, R, CH>(
            w + r * (row_step + step), row_step, step, {x.at(r), x.stride}, n, factor, out + r * out_step, out_step,
            past);
    }
    for (; r < count; ++r)
        band_sums_of<In, Out, 1, CH>(
            w + r * (row_step + step), row_step, step, {x.at(r), x.stride}, n, factor, out + r * out_step, out_step,
            past);
}

// out_i = factor * sum_j w[i * row_step + j * step] x_j, i <= j < i + n, for `count` rows of `vectors` vectors.
template <typename In, typename Out>
void band_sums(
    const typename In::accumulate *w, int64_t row_step, int64_t step, rows<In> x, int64_t n, int64_t count,
    int64_t vectors, typename In::accumulate factor, typename Out::storage *out, int64_t out_step, bool past,
    const prefetch *soon) {
    constexpr int L = VL<typename In::accumulate>, G = (In::group > Out::group ? In::group : Out::group) / L;
    int64_t c = 0;
    for (; c + 4 <= vectors; c += 4)
        band_sums_wide<In, Out, 4>(
            w, row_step, step, {x.data + c * L, x.stride}, n, count, factor, out + c * L, out_step, past,
            c ? nullptr : soon);
    for (; c < vectors; c += G)
        band_sums_wide<In, Out, G>(
            w, row_step, step, {x.data + c * L, x.stride}, n, count, factor, out + c * L, out_step, past,
            c ? nullptr : soon);
}

}  // namespace vts::VTS_LEVEL
