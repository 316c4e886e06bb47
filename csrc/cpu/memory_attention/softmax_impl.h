// The softmax of memory attention on one CPU: included once by each translation unit, which is compiled for one level.
// A row of scores is worked on while it is in the cache; a task is a block of rows of one head of one group.
#pragma once

#include "../tail.h"
#include "vtsum/memory_attention.h"

namespace vts::VTS_LEVEL {

typedef vts_memory_softmax_params softmax_params;

constexpr int64_t softmax_rows = VTS_MEMORY_SOFTMAX_ROWS;

// Scores times factor plus bias, in vectors; lanes past the end hold -inf.
template <typename A, bool biased>
struct scaled_scores {
    const A *scores, *bias;
    A factor;

    VTS_INLINE vec<A> whole(int64_t s) const {
        const vec<A> z = load(scores + s) * factor;
        return biased ? z + load(bias + s) : z;
    }
    VTS_INLINE vec<A> part(int64_t s, int count) const {
        vec<A> z = load_part(scores + s, count) * factor;
        if (biased) z += load_part(bias + s, count);
        return where_first<A>(count, z, splat(-(A)__builtin_inf()));
    }
};

template <typename A, bool biased>
void softmax_row(const scaled_scores<A, biased> &z, int64_t slots, A *weights, A *lse, A *usage) {
    constexpr int L = VL<A>;
    const int64_t whole = slots / L * L;
    const int rest = (int)(slots - whole);
    const A nothing = -(A)__builtin_inf();
    vec<A> tops = splat(nothing), others = tops;
    int64_t s = 0;
    for (; s + 2 * L <= whole; s += 2 * L) {
        tops = larger_of(z.whole(s), tops);
        others = larger_of(z.whole(s + L), others);
    }
    for (; s < whole; s += L) tops = larger_of(z.whole(s), tops);
    if (rest) others = larger_of(z.part(whole, rest), others);
    tops = larger_of(tops, others);
    A top = tops[0];
    for (int l = 1; l < L; ++l) top = tops[l] > top ? tops[l] : top;  // a NaN shows in the sum
    const A base = top == nothing ? 0 : top;
    vec<A> totals = {}, more = {};
    for (s = 0; s + 2 * L <= whole; s += 2 * L) {
        const vec<A> a = exp_nonpositive(z.whole(s) - base), b = exp_nonpositive(z.whole(s + L) - base);
        store(weights + s, a), store(weights + s + L, b);
        totals += a, more += b;
    }
    for (; s < whole; s += L) {
        const vec<A> e = exp_nonpositive(z.whole(s) - base);
        store(weights + s, e);
        totals += e;
    }
    if (rest) {
        const vec<A> e = exp_nonpositive(z.part(whole, rest) - base);
        store_part(weights + whole, e, rest);
        more += e;
    }
    const A total = sum_lanes<A>(totals + more);
    const A share = total == 0 ? 0 : 1 / total;  // NaN stays NaN
    if (usage) {
        for (s = 0; s < whole; s += L) {
            const vec<A> w = load(weights + s) * share;
            store(weights + s, w);
            store(usage + s, load(usage + s) + w);
        }
        if (rest) {
            const vec<A> w = load_part(weights + whole, rest) * share;
            store_part(weights + whole, w, rest);
            store_part(usage + whole, load_part(usage + whole, rest) + w, rest);
        }
    } else {
        for (s = 0; s < whole; s += L) store(weights + s, load(weights + s) * share);
        if (rest) store_part(weights + whole, load_part(weights + whole, rest) * share, rest);
    }
    *lse = total == 0 ? nothing
                      : base + (sizeof(A) == 4 ? (A)__builtin_logf((float)total) : (A)__builtin_log((double)total));
}

// Where a task's rows lie.
struct softmax_block {
    int64_t g, h, head, first, last;  // head = g * H + h

    softmax_block(const softmax_params &p, int64_t task) {
        const int64_t blocks = (p.n + softmax_rows - 1) / softmax_rows;
        head = task / blocks, g = head / p.H, h = head % p.H;
        first = task % blocks * softmax_rows;
        last = first + softmax_rows < p.n ? first + softmax_rows : p.n;
    }
    bool seen(const softmax_params &p, int64_t i) const { return !p.query_mask || p.query_mask[g * p.n + i]; }
};

template <typename A>
void softmax_forward(const softmax_params &p, int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
        const softmax_block at(p, task);
        A *usage = p.partial ? (A *)p.partial + task * p.S : nullptr;
        if (usage)
            for (int64_t s = 0; s < p.S; ++s) usage[s] = 0;
        const A *bias =
            p.slot_bias ? (const A *)p.slot_bias + at.g * p.bias_stride_g + at.h * p.bias_stride_h : nullptr;
        for (int64_t i = at.first; i < at.last; ++i) {
            const int64_t row = at.head * p.n + i;
            const A *scores = (const A *)p.scores + row * p.S;
            A *weights = (A *)p.weights + row * p.S, *lse = (A *)p.lse + row;
            const A factor = ((const A *)p.factor)[row];
            if (!at.seen(p, i)) {
                for (int64_t s = 0; s < p.S; ++s) weights[s] = 0;
                *lse = -(A)__builtin_inf();
            } else if (bias) {
                softmax_row<A, true>({scores, bias, factor}, p.S, weights, lse, usage);
            } else {
                softmax_row<A, false>({scores, nullptr, factor}, p.S, weights, lse, usage);
            }
        }
    }
}

// What reaches the weights: dweights + dusage, either of which may be missing.
template <typename A>
struct weight_gradient {
    const A *dweights, *dusage;

    VTS_INLINE vec<A> whole(int64_t s) const {
        vec<A> g = dweights ? load(dweights + s) : vec<A>{};
        return dusage ? g + load(dusage + s) : g;
    }
    VTS_INLINE vec<A> part(int64_t s, int count) const {
        vec<A> g = dweights ? load_part(dweights + s, count) : vec<A>{};
        return dusage ? g + load_part(dusage + s, count) : g;
    }
};

template <typename A>
void softmax_row_backward(
    const weight_gradient<A> &g, const A *w, int64_t slots, A dlse, A factor, A *out, A *dslot_bias) {
    constexpr int L = VL<A>;
    const int64_t whole = slots / L * L;
    const int rest = (int)(slots - whole);
    vec<A> dots = {}, more = {};
    int64_t s = 0;
    for (; s + 2 * L <= whole; s += 2 * L) {
        dots += g.whole(s) * load(w + s);
        more += g.whole(s + L) * load(w + s + L);
    }
    for (; s < whole; s += L) dots += g.whole(s) * load(w + s);
    if (rest) more += g.part(whole, rest) * load_part(w + whole, rest);
    const A delta = sum_lanes<A>(dots + more) - dlse;
    for (s = 0; s < whole; s += L) {
        const vec<A> ds = load(w + s) * (g.whole(s) - delta);
        if (dslot_bias) store(dslot_bias + s, load(dslot_bias + s) + ds);
        store(out + s, ds * factor);
    }
    if (rest) {
        const vec<A> ds = load_part(w + whole, rest) * (g.part(whole, rest) - delta);
        if (dslot_bias) store_part(dslot_bias + whole, load_part(dslot_bias + whole, rest) + ds, rest);
        store_part(out + whole, ds * factor, rest);
    }
}

template <typename A>
void softmax_backward(const softmax_params &p, int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
        const softmax_block at(p, task);
        A *dslot_bias = p.partial ? (A *)p.partial + task * p.S : nullptr;
        if (dslot_bias)
            for (int64_t s = 0; s < p.S; ++s) dslot_bias[s] = 0;
        const A *dusage = p.dusage ? (const A *)p.dusage + at.head * p.S : nullptr;
        for (int64_t i = at.first; i < at.last; ++i) {
            const int64_t row = at.head * p.n + i;
            A *out = (A *)p.dscores + row * p.S;
            if (!at.seen(p, i)) {
                for (int64_t s = 0; s < p.S; ++s) out[s] = 0;
                continue;
            }
            const weight_gradient<A> g = {p.dweights ? (const A *)p.dweights + row * p.S : nullptr, dusage};
            softmax_row_backward<A>(
                g, (const A *)p.weights + row * p.S, p.S, p.dlse ? ((const A *)p.dlse)[row] : 0,
                p.scaled ? ((const A *)p.factor)[row] : 1, out, dslot_bias);
        }
    }
}

template <typename A>
void softmax_sums(const softmax_params &p, A *sums) {
    const int64_t blocks = (p.n + softmax_rows - 1) / softmax_rows;
    for (int64_t head = 0; head < p.G * p.H; ++head) {
        A *to = sums + head * p.S;
        for (int64_t s = 0; s < p.S; ++s) to[s] = 0;
        for (int64_t b = 0; b < blocks; ++b) {
            const A *from = (const A *)p.partial + (head * blocks + b) * p.S;
            for (int64_t s = 0; s < p.S; ++s) to[s] += from[s];
        }
    }
}

template <typename A>
VTS_INLINE vec<A> widened(const A *from) {
    return load(from);
}
VTS_INLINE vec<float> widened(const uint16_t *from) { return bfloat16::load_in_order(from); }
template <typename A>
VTS_INLINE vec<A> widened_part(const A *from, int count) {
    return load_part(from, count);
}
VTS_INLINE vec<float> widened_part(const uint16_t *from, int count) {
    vec<float> v = {};
    for (int l = 0; l < count; ++l) v[l] = bfloat16::widen(from[l]);
    return v;
}

template <typename A, typename X>
void unproject(const vts_memory_unproject_params &p, int64_t begin, int64_t end) {
    constexpr int L = VL<A>;
    const int64_t whole = p.d / L * L;
    const int rest = (int)(p.d - whole);
    for (int64_t r = begin; r < end; ++r) {
        A *u = (A *)p.u + r * p.d;
        const X *x = (const X *)p.x + r * p.x_stride;
        const A share = ((const A *)p.share)[r];
        vec<A> dots = {}, more = {};
        int64_t d = 0;
        for (; d + 2 * L <= whole; d += 2 * L) {
            dots += load(u + d) * widened(x + d);
            more += load(u + d + L) * widened(x + d + L);
        }
        for (; d < whole; d += L) dots += load(u + d) * widened(x + d);
        if (rest) more += load_part(u + whole, rest) * widened_part(x + whole, rest);
        const A along = sum_lanes<A>(dots + more) * share * share;
        for (d = 0; d < whole; d += L) store(u + d, load(u + d) - widened(x + d) * along);
        if (rest) store_part(u + whole, load_part(u + whole, rest) - widened_part(x + whole, rest) * along, rest);
    }
}

void memory_unproject(const vts_memory_unproject_params &p, int64_t begin, int64_t end) {
    if (p.dtype == VTS_FLOAT64)
        unproject<double, double>(p, begin, end);
    else if (p.x_dtype == VTS_BFLOAT16)
        unproject<float, uint16_t>(p, begin, end);
    else
        unproject<float, float>(p, begin, end);
}
void memory_softmax_forward(const softmax_params &p, int64_t begin, int64_t end) {
    p.dtype == VTS_FLOAT64 ? softmax_forward<double>(p, begin, end) : softmax_forward<float>(p, begin, end);
}
void memory_softmax_backward(const softmax_params &p, int64_t begin, int64_t end) {
    p.dtype == VTS_FLOAT64 ? softmax_backward<double>(p, begin, end) : softmax_backward<float>(p, begin, end);
}
void memory_softmax_sums(const softmax_params &p, void *sums) {
    p.dtype == VTS_FLOAT64 ? softmax_sums(p, (double *)sums) : softmax_sums(p, (float *)sums);
}

}  // namespace vts::VTS_LEVEL
