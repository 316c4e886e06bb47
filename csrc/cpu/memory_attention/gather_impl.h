// Sums over the slots that each row chose, and their gradients, on one CPU: included once by each level.
#pragma once

#include "dots.h"
#include "vtsum/memory_attention.h"

namespace vts::VTS_LEVEL {

typedef vts_memory_gather_params gather_params;

// Rows of a gather's task, slots of a scatter's.
constexpr int64_t gather_rows = 16, scatter_slots = 32;
// So many terms of sums before it is read a row is asked for, of a table of so many bytes that most rows of it come
// from beyond the second cache.
constexpr int64_t ahead = 32, far_table = 4 << 20;

// acc[v] += weight * group v of a row, for the vectors of `count` elements from d on.
template <typename E, int N>
struct strip_sum {
    typedef typename E::accumulate A;
    static constexpr int groups = N / vectors_of<E>;
    vec<A> acc[N];

    VTS_INLINE strip_sum() {
        repeat<N>([&](auto v) VTS_LAMBDA_INLINE { acc[v.value] = vec<A>{}; });
    }
    VTS_INLINE void add(A weight, const typename E::storage *from) {
        repeat<groups>([&](auto u) VTS_LAMBDA_INLINE {
            vec<A> part[vectors_of<E>];
            E::load_group(from + u.value * E::group, part);
            repeat<vectors_of<E>>(
                [&](auto v) VTS_LAMBDA_INLINE { acc[u.value * vectors_of<E> + v.value] += part[v.value] * weight; });
        });
    }
    VTS_INLINE void add_part(A weight, const typename E::storage *from, int count) {
        vec<A> part[vectors_of<E>];
        load_group_part<E>(from, count, part);
        repeat<vectors_of<E>>([&](auto v) VTS_LAMBDA_INLINE { acc[v.value] += part[v.value] * weight; });
    }
    VTS_INLINE void write(typename E::storage *to) const {
        repeat<groups>(
            [&](auto u) VTS_LAMBDA_INLINE { E::store_group(to + u.value * E::group, acc + u.value * vectors_of<E>); });
    }
    VTS_INLINE void write_part(typename E::storage *to, int count) const {
        typename E::storage whole[E::group];
        E::store_group(whole, acc);
        for (int d = 0; d < count; ++d) to[d] = whole[d];
    }
};

// to = sum over the terms of weight_of(t) * row_of(t), 0 <= t < terms. Up to `known`, 0 for not at all, row_of says
// what is summed next, too, and is asked for well before: no processor foresees where it lies.
template <typename E, typename W, typename R>
VTS_INLINE void weighted_sum(
    int64_t terms, int64_t known, int64_t e, typename E::storage *to, const W &weight_of, const R &row_of) {
    typedef typename E::accumulate A;
    constexpr int line = 64 / (int)sizeof(*to);
    int64_t d = 0;
    // In strips of N vectors of sums, as far as they reach.
    const auto strips = [&](auto vectors) VTS_LAMBDA_INLINE {
        constexpr int N = vectors.value, wide = N / vectors_of<E> * E::group;
        for (; d + wide <= e; d += wide) {
            strip_sum<E, N> sum;
            for (int64_t t = 0; t < terms; ++t) {
                if (t + ahead < known)
                    for (int at = 0; at < wide; at += line) __builtin_prefetch(row_of(t + ahead) + d + at, 0, 2);
                if (const A weight = weight_of(t); weight != 0) sum.add(weight, row_of(t) + d);
            }
            sum.write(to + d);
        }
    };
    if constexpr (VTS_BYTES == 64) strips(constant<16>{});
    strips(constant<8>{});
    strips(constant<vectors_of<E>>{});
    if (d < e) {
        const int rest = (int)(e - d);
        strip_sum<E, vectors_of<E>> sum;
        for (int64_t t = 0; t < terms; ++t)
            if (const A weight = weight_of(t); weight != 0) sum.add_part(weight, row_of(t) + d, rest);
        sum.write_part(to + d, rest);
    }
}

template <typename E>
struct gather_views {
    typedef typename E::storage T;
    const gather_params &p;

    VTS_INLINE T *table(int64_t head) const {
        return (T *)p.table + head / p.H * p.table_stride_g + head % p.H * p.table_stride_h;
    }
    VTS_INLINE T *row(int64_t head, int64_t i) const {
        return (T *)p.rows + head / p.H * p.rows_stride_g + i * p.rows_stride_n + head % p.H * p.rows_stride_h;
    }
};

template <typename E, typename F>
VTS_INLINE void each_row(const gather_params &p, int64_t begin, int64_t end, const F &f) {
    const int64_t blocks = (p.n + gather_rows - 1) / gather_rows;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t head = task / blocks, first = task % blocks * gather_rows;
        const int64_t last = first + gather_rows < p.n ? first + gather_rows : p.n;
        for (int64_t i = first; i < last; ++i) f(head, i);
    }
}

template <typename E>
void gather(const gather_params &p, int64_t begin, int64_t end) {
    typedef typename E::accumulate A;
    const gather_views<E> at{p};
    each_row<E>(p, begin, end, [&](int64_t head, int64_t i) {
        const A *weights = (const A *)p.weights + (head * p.n + i) * p.k;
        const int32_t *index = p.index + (head * p.n + i) * p.k;
        const typename E::storage *table = at.table(head);
        const bool far = p.S * p.e * (int64_t)sizeof(*table) > far_table;
        weighted_sum<E>(
            p.k, far ? (p.n - i) * p.k : 0, p.e, at.row(head, i),
            [&](int64_t j) VTS_LAMBDA_INLINE { return weights[j]; },
            [&](int64_t j) VTS_LAMBDA_INLINE { return table + index[j] * p.table_stride_s; });
    });
}

template <typename E>
void gather_dot(const gather_params &p, int64_t begin, int64_t end) {
    typedef typename E::accumulate A;
    const gather_views<E> at{p};
    each_row<E>(p, begin, end, [&](int64_t head, int64_t i) {
        A *weights = (A *)p.weights + (head * p.n + i) * p.k;
        const int32_t *index = p.index + (head * p.n + i) * p.k;
        const typename E::storage *table = at.table(head), *others[64];
        for (int64_t first = 0; first < p.k; first += 64) {
            const int count = (int)(p.k - first < 64 ? p.k - first : 64);
            for (int j = 0; j < count; ++j) others[j] = table + index[first + j] * p.table_stride_s;
            dots_of_row<E>(at.row(head, i), others, count, p.e, weights + first);
        }
    });
}

// A counting sort of each head's positions by slot; those of one slot stay in order.
void memory_sort(const gather_params &p, int64_t begin, int64_t end) {
    const int64_t positions = p.n * p.k;
    for (int64_t head = begin; head < end; ++head) {
        const int32_t *index = p.index + head * positions;
        int32_t *starts = p.starts + head * (p.S + 1), *order = p.order + head * positions;
        for (int64_t s = 0; s <= p.S; ++s) starts[s] = 0;
        for (int64_t t = 0; t < positions; ++t) ++starts[index[t]];
        int32_t before = 0;
        for (int64_t s = 0; s <= p.S; ++s) before += starts[s], starts[s] = before;
        // starts[s] is where slot s ends; going backwards, it comes to where s begins.
        for (int64_t t = positions - 1; t >= 0; --t) order[--starts[index[t]]] = (int32_t)t;
    }
}

template <typename E>
void scatter(const gather_params &p, int64_t begin, int64_t end) {
    typedef typename E::accumulate A;
    const gather_views<E> at{p};
    const int64_t blocks = (p.S + scatter_slots - 1) / scatter_slots, positions = p.n * p.k;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t head = task / blocks, first = task % blocks * scatter_slots;
        const int64_t last = first + scatter_slots < p.S ? first + scatter_slots : p.S;
        const int32_t *starts = p.starts + head * (p.S + 1), *order = p.order + head * positions;
        const A *weights = (const A *)p.weights + head * positions;
        for (int64_t s = first; s < last; ++s) {
            const int32_t *mine = order + starts[s];
            weighted_sum<E>(
                starts[s + 1] - starts[s], 0, p.e, at.table(head) + s * p.table_stride_s,
                [&](int64_t t) VTS_LAMBDA_INLINE { return weights[mine[t]]; },
                [&](int64_t t) VTS_LAMBDA_INLINE { return at.row(head, mine[t] / p.k); });
        }
    }
}

#define VTS_BY_DTYPE(function)                                                   \
    void memory_##function(const gather_params &p, int64_t begin, int64_t end) { \
        switch (p.dtype) {                                                       \
            case VTS_FLOAT64: return function<float64>(p, begin, end);           \
            case VTS_FLOAT16: return function<float16>(p, begin, end);           \
            case VTS_BFLOAT16: return function<bfloat16>(p, begin, end);         \
            default: return function<float32>(p, begin, end);                    \
        }                                                                        \
    }
VTS_BY_DTYPE(gather)
VTS_BY_DTYPE(gather_dot)
VTS_BY_DTYPE(scatter)

int64_t memory_gather_tasks(const gather_params &p) { return p.G * p.H * ((p.n + gather_rows - 1) / gather_rows); }
int64_t memory_scatter_tasks(const gather_params &p) { return p.G * p.H * ((p.S + scatter_slots - 1) / scatter_slots); }

}  // namespace vts::VTS_LEVEL
