// What a row does not see, and what must not reach it: 0 times NaN is NaN, so neither a score of -inf nor a weight of 0
// keeps it out where the row of a key is multiplied all the same.
#pragma once

#include "../convert.h"
#include "../tail.h"
#include "schedule.h"
#include "strip.h"

namespace vts::VTS_LEVEL {

// The band of keys that a strip's table of scores holds: from `left` before a row to `right` after it.
struct band {
    int64_t left, right, keys;
    bool shifted;  // rows keep only a part of it
};

// What a table holds of keys that may not be seen, and of rows that do not look (live: null, all do), becomes `to`.
// Row r is row first + r of the phase.
template <typename A>
void hide(
    const cut &c, const strip &at, const band &w, int64_t first, int64_t count, const uint8_t *visible,
    const uint8_t *live, A to, A *table) {
    for (int64_t o = 0; o < w.keys; ++o) {
        for (int64_t r = 0; r < count; ++r)
            if (!visible[r + o]) table[o * count + r] = to;
        for (int64_t r = 0; live && r < count; ++r)
            if (!live[r]) table[o * count + r] = to;
    }
    if (!w.shifted) return;
    for (int64_t r = 0; r < count; ++r) {
        const int64_t row = first + r;
        const int64_t begin = larger(smaller(row - c.left, at.length - c.keys), 0);
        for (int64_t o = 0; o < w.keys; ++o) {
            const int64_t key = row - w.left + o;
            if (key < begin || key >= begin + c.keys) table[o * count + r] = to;
        }
    }
}

// Marks the rows that have a gradient: from the staged rows of dout, and dlse (null: none). The others, and those
// that do not exist, add nothing to dk, dv and dbias, whatever they and their keys hold.
template <typename A>
void mark_live(const A *dout, int64_t width, const A *dlse, int64_t count, uint8_t *live) {
    for (int64_t r = 0; r < count; ++r) {
        bool any = dlse && dlse[r] != 0;
        for (int64_t d = 0; d < width && !any; ++d) any = dout[r * width + d] != 0;
        live[r] = any;
    }
}

// count: a multiple of VL.
template <typename A>
bool all_finite(const A *x, int64_t count) {
    vec<A> sum = {};
    for (int64_t i = 0; i < count; i += VL<A>) sum += load(x + i) * (A)0;
    return sum_lanes<A>(sum) == 0;
}

// As `band_sums`, but where a weight is 0, what the row holds is not looked at.
template <typename E, typename In>
void careful_sums(
    const typename E::accumulate *weight, int64_t row_step, int64_t step, const rows<In> &x, int64_t n, int64_t count,
    int64_t width, int64_t D, typename E::storage *out, int64_t out_step, typename E::accumulate *sum) {
    for (int64_t r = 0; r < count; ++r) {
        for (int64_t d = 0; d < width; ++d) sum[d] = 0;
        for (int64_t j = r; j < r + n; ++j) {
            const typename E::accumulate share = weight[r * row_step + j * step];
            for (int64_t d = 0; share != 0 && d < width; ++d) sum[d] += share * x.at(j)[d];
        }
        store_row<E>(sum, out + r * out_step, D);
    }
}

}  // namespace vts::VTS_LEVEL
