// The softmax of memory retrieval on one CPU: included once by each translation unit, which is compiled for one level.
// A row of scores is read once from memory and worked on in the cache; a task is a block of rows of one head.
#pragma once

#include "vec.h"
#include "vtsum/memory_softmax.h"

namespace vts::VTS_LEVEL {

typedef vts_memory_softmax_params softmax_params;

constexpr int64_t softmax_rows = VTS_MEMORY_SOFTMAX_ROWS;

VTS_INLINE float exp_one(float x) { return exp_nonpositive(splat(x))[0]; }
VTS_INLINE double exp_one(double x) { return __builtin_exp(x); }

template <typename A>
VTS_INLINE A sum_lanes(vec<A> v) {
    A total = 0;
    for (int l = 0; l < VL<A>; ++l) total += v[l];
    return total;
}

template <typename A>
void softmax_row(const softmax_params &p, const A *scores, A factor, A *weights, A *lse, A *usage) {
    constexpr int L = VL<A>;
    const int64_t whole = p.S / L * L;
    const A nothing = -(A)__builtin_inf();
    for (int64_t s = 0; s < whole; s += L) store(weights + s, load(scores + s) * factor);
    for (int64_t s = whole; s < p.S; ++s) weights[s] = scores[s] * factor;
    if (p.slot_mask)
        for (int64_t s = 0; s < p.S; ++s)
            if (!p.slot_mask[s]) weights[s] = nothing;
    vec<A> tops = splat(nothing);
    for (int64_t s = 0; s < whole; s += L) {
        const vec<A> x = load(weights + s);
        tops = x > tops ? x : tops;
    }
    A top = nothing;
    for (int l = 0; l < L; ++l) top = tops[l] > top ? tops[l] : top;
    for (int64_t s = whole; s < p.S; ++s) top = weights[s] > top ? weights[s] : top;
    const A base = top == nothing ? 0 : top;
    vec<A> totals = {};
    for (int64_t s = 0; s < whole; s += L) {
        const vec<A> e = exp_nonpositive(load(weights + s) - base);
        store(weights + s, e);
        totals += e;
    }
    A total = sum_lanes<A>(totals);
    for (int64_t s = whole; s < p.S; ++s) total += weights[s] = exp_one(weights[s] - base);
    const A share = total == 0 ? 0 : 1 / total;  // NaN stays NaN
    for (int64_t s = 0; s < whole; s += L) {
        const vec<A> w = load(weights + s) * share;
        store(weights + s, w);
        store(usage + s, load(usage + s) + w);
    }
    for (int64_t s = whole; s < p.S; ++s) usage[s] += weights[s] *= share;
    *lse = total == 0 ? nothing
                      : base + (sizeof(A) == 4 ? (A)__builtin_logf((float)total) : (A)__builtin_log((double)total));
}

template <typename A>
void softmax_forward(const softmax_params &p, int64_t begin, int64_t end) {
    const int64_t blocks = (p.N + softmax_rows - 1) / softmax_rows;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t h = task / blocks, first = task % blocks * softmax_rows;
        const int64_t last = first + softmax_rows < p.N ? first + softmax_rows : p.N;
        A *usage = (A *)p.partial + task * p.S;
        for (int64_t s = 0; s < p.S; ++s) usage[s] = 0;
        for (int64_t n = first; n < last; ++n) {
            const int64_t row = h * p.N + n;
            A *weights = (A *)p.weights + row * p.S, *lse = (A *)p.lse + row;
            if (p.query_mask && !p.query_mask[n]) {
                for (int64_t s = 0; s < p.S; ++s) weights[s] = 0;
                *lse = -(A)__builtin_inf();
            } else {
                softmax_row<A>(p, (const A *)p.scores + row * p.S, ((const A *)p.factor)[row], weights, lse, usage);
            }
        }
    }
}

// dscores = factor * ds, dfactor = sum_s ds * scores, with ds = w * (g - sum_s w g + dlse) and g = dweights + dusage.
template <typename A>
void softmax_backward(const softmax_params &p, int64_t begin, int64_t end) {
    constexpr int L = VL<A>;
    const int64_t blocks = (p.N + softmax_rows - 1) / softmax_rows, whole = p.S / L * L;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t h = task / blocks, first = task % blocks * softmax_rows;
        const int64_t last = first + softmax_rows < p.N ? first + softmax_rows : p.N;
        const A *dusage = p.dusage ? (const A *)p.dusage + h * p.S : nullptr;
        for (int64_t n = first; n < last; ++n) {
            const int64_t row = h * p.N + n;
            A *out = (A *)p.dscores + row * p.S;
            if (p.query_mask && !p.query_mask[n]) {
                for (int64_t s = 0; s < p.S; ++s) out[s] = 0;
                ((A *)p.dfactor)[row] = 0;
                continue;
            }
            const A *w = (const A *)p.weights + row * p.S, *scores = (const A *)p.scores + row * p.S;
            const A *g = p.dweights ? (const A *)p.dweights + row * p.S : nullptr;
            const A factor = ((const A *)p.factor)[row];
            vec<A> dots = {};
            for (int64_t s = 0; s < whole; s += L) {
                vec<A> slope = g ? load(g + s) : vec<A>{};
                if (dusage) slope += load(dusage + s);
                store(out + s, slope);
                dots += slope * load(w + s);
            }
            A delta = sum_lanes<A>(dots);
            for (int64_t s = whole; s < p.S; ++s) {
                out[s] = (g ? g[s] : 0) + (dusage ? dusage[s] : 0);
                delta += out[s] * w[s];
            }
            if (p.dlse) delta -= ((const A *)p.dlse)[row];
            vec<A> along = {};
            for (int64_t s = 0; s < whole; s += L) {
                const vec<A> ds = load(w + s) * (load(out + s) - delta);
                store(out + s, ds * factor);
                along += ds * load(scores + s);
            }
            A slope_of_factor = sum_lanes<A>(along);
            for (int64_t s = whole; s < p.S; ++s) {
                const A ds = w[s] * (out[s] - delta);
                out[s] = ds * factor;
                slope_of_factor += ds * scores[s];
            }
            ((A *)p.dfactor)[row] = slope_of_factor;
        }
    }
}

void memory_softmax_forward(const softmax_params &p, int64_t begin, int64_t end) {
    p.dtype == VTS_FLOAT64 ? softmax_forward<double>(p, begin, end) : softmax_forward<float>(p, begin, end);
}
void memory_softmax_backward(const softmax_params &p, int64_t begin, int64_t end) {
    p.dtype == VTS_FLOAT64 ? softmax_backward<double>(p, begin, end) : softmax_backward<float>(p, begin, end);
}

}  // namespace vts::VTS_LEVEL
