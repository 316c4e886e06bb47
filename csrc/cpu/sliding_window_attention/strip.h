// The arithmetic on one strip of consecutive rows whose keys all exist: scores, softmax, weighted sums. Row r of a
// strip sees the keys r + o, 0 <= o < n. Tables of scores are [n][rows], so that the softmax runs along rows, a vector
// at a time.
#pragma once

#include "../vec.h"

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
    constexpr int L = VL<typename E::accumulate>, G = E::group / L;
    repeat<CH / G>([&](auto c) VTS_LAMBDA_INLINE { E::load_group(from + c.value * E::group, to + c.value * G); });
}

// Rows of a that are held in registers while the rows of b pass by.
constexpr int tile_rows = VTS_BYTES == 64 ? 4 : 2;
constexpr int most_keys = 5;  // of a block of products

// The products of VL rows of a with OC keys each, as vectors whose lanes are still to be summed: part[o * VL + r]
// belongs to a_r . b_{r + o}. Over CH vectors of features; where they are not the first ones they are added.
template <typename E, int CH, int OC>
void partial_products(rows<E> a, rows<E> b, bool first, vec<typename E::accumulate> *part) {
    typedef typename E::accumulate A;
    constexpr int L = VL<A>, R = tile_rows;
    for (int r = 0; r < L; r += R) {
        vec<A> x[R][CH];
        repeat<R>([&](auto i) VTS_LAMBDA_INLINE { load_vectors<E, CH>(a.at(r + i.value), x[i.value]); });
        repeat<R + OC - 1>([&](auto j) VTS_LAMBDA_INLINE {
            constexpr int J = decltype(j)::value;
            vec<A> y[CH];
            load_vectors<E, CH>(b.at(r + J), y);
            repeat<R>([&](auto i) VTS_LAMBDA_INLINE {
                constexpr int I = decltype(i)::value;
                if constexpr (J >= I && J - I < OC) {
                    vec<A> sum = x[I][0] * y[0];
                    repeat<CH - 1>([&](auto c) VTS_LAMBDA_INLINE { sum += x[I][c.value + 1] * y[c.value + 1]; });
                    vec<A> *to = part + (J - I) * L + r + I;
                    *to = first ? sum : *to + sum;
                }
            });
        });
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

// Scores become cap tanh(score / cap). slopes (null: not wanted) become the derivatives.
template <typename A>
void cap_scores(int64_t count, A cap, A *table, A *slopes) {
    for (int64_t i = 0; i < count; i += VL<A>) {
        const vec<A> t = tanh_each(load(table + i) / cap);
        store(table + i, t * cap);
        if (slopes) store(slopes + i, (A)1 - t * t);
    }
}

// In place: each column (row of the strip) becomes its softmax; one that sees nothing becomes 0, its lse -inf. sink
// (null: none) is a score that counts beside the column's, lse included.
template <typename A>
void softmax_columns(int64_t count, int64_t n, A *table, A *lse, const A *sink) {
    constexpr int L = VL<A>;
    const vec<A> nothing = splat(-(A)__builtin_inf());
    for (int64_t r = 0; r < count; r += L) {
        A *column = table + r;
        vec<A> top = sink ? splat(*sink) : load(column);
        for (int64_t o = sink ? 0 : 1; o < n; ++o) {
            const vec<A> s = load(column + o * count);
            top = s > top ? s : top;
        }
        top = top == nothing ? vec<A>{} : top;
        vec<A> total = sink ? exp_nonpositive(*sink - top) : vec<A>{};
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

// dscores = factor * p * (dp - delta), in place of dp; deltas (null: not wanted) = sum_o p dp - dlse.
template <typename A>
void softmax_columns_backward(int64_t count, int64_t n, const A *p, A *dp, const A *dlse, A factor, A *deltas) {
    constexpr int L = VL<A>;
    for (int64_t r = 0; r < count; r += L) {
        vec<A> delta = dlse ? -load(dlse + r) : vec<A>{};
        for (int64_t o = 0; o < n; ++o) delta += load(p + o * count + r) * load(dp + o * count + r);
        if (deltas) store(deltas + r, delta);
        for (int64_t o = 0; o < n; ++o) {
            const vec<A> w = load(p + o * count + r) * factor;
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

// Rows i = 0, ..., R - 1 of the result are the sums over j of w[i * row_step + j * step] x_j, i <= j < i + n, R <= n,
// for CH vectors: each row of x is loaded once for all of them. In and Out: how x and the result are stored.
template <typename In, typename Out, int R, int CH>
VTS_INLINE void band_sums_of(
    const typename In::accumulate *w, int64_t row_step, int64_t step, rows<In> x, int64_t n, typename Out::storage *out,
    int64_t out_step, bool past) {
    typedef typename In::accumulate A;
    constexpr int L = VL<A>, G = Out::group / L;
    vec<A> sum[R][CH] = {};
    // Row j of x, for the rows [first, last) of the result.
    const auto add = [&](int64_t j, auto first, auto last) VTS_LAMBDA_INLINE {
        vec<A> row[CH];
        load_vectors<In, CH>(x.at(j), row);
        const A *weights = w + j * step;
        repeat<last.value - first.value>([&](auto k) VTS_LAMBDA_INLINE {
            constexpr int i = decltype(first)::value + decltype(k)::value;
            const vec<A> weight = splat(weights[i * row_step]);
            repeat<CH>([&](auto c) VTS_LAMBDA_INLINE { sum[i][c.value] += weight * row[c.value]; });
        });
    };
    repeat<R - 1>([&](auto j) VTS_LAMBDA_INLINE { add(j.value, constant<0>{}, constant<decltype(j)::value + 1>{}); });
    for (int64_t j = R - 1; j < n; ++j) add(j, constant<0>{}, constant<R>{});
    repeat<R - 1>([&](auto j)
                      VTS_LAMBDA_INLINE { add(n + j.value, constant<decltype(j)::value + 1>{}, constant<R>{}); });
    repeat<R>([&](auto i) VTS_LAMBDA_INLINE {
        repeat<CH / G>([&](auto g) VTS_LAMBDA_INLINE {
            typename Out::storage *to = out + i.value * out_step + g.value * Out::group;
            if (past) {
                Out::store_group_past(to, sum[i.value] + g.value * G);
            } else {
                Out::store_group(to, sum[i.value] + g.value * G);
            }
        });
    });
}

// `count` rows of the result, all whole groups wide. soon: rows that the next strip reads, asked for on the way.
template <typename In, typename Out, int CH>
VTS_INLINE void band_sums_wide(
    const typename In::accumulate *w, int64_t row_step, int64_t step, rows<In> x, int64_t n, int64_t count,
    typename Out::storage *out, int64_t out_step, bool past, const prefetch *soon) {
    constexpr int R = tile_rows;
    int64_t r = 0;
    for (; R <= n && r + R <= count; r += R) {
        if (soon) soon->ask(r, R);
        band_sums_of<In, Out, R, CH>(
            w + r * (row_step + step), row_step, step, {x.at(r), x.stride}, n, out + r * out_step, out_step, past);
    }
    for (; r < count; ++r)
        band_sums_of<In, Out, 1, CH>(
            w + r * (row_step + step), row_step, step, {x.at(r), x.stride}, n, out + r * out_step, out_step, past);
}

// out_i = sum_j w[i * row_step + j * step] x_j, i <= j < i + n, for `count` rows of `vectors` vectors.
template <typename In, typename Out>
void band_sums(
    const typename In::accumulate *w, int64_t row_step, int64_t step, rows<In> x, int64_t n, int64_t count,
    int64_t vectors, typename Out::storage *out, int64_t out_step, bool past, const prefetch *soon) {
    constexpr int L = VL<typename In::accumulate>, G = (In::group > Out::group ? In::group : Out::group) / L;
    int64_t c = 0;
    for (; c + 4 <= vectors; c += 4)
        band_sums_wide<In, Out, 4>(
            w, row_step, step, {x.data + c * L, x.stride}, n, count, out + c * L, out_step, past, c ? nullptr : soon);
    for (; c < vectors; c += G)
        band_sums_wide<In, Out, G>(
            w, row_step, step, {x.data + c * L, x.stride}, n, count, out + c * L, out_step, past, c ? nullptr : soon);
}

}  // namespace vts::VTS_LEVEL
