// Sliding-window attention on one CPU: included once by each translation unit, which is compiled for one level.
//
// A strip whose rows and keys all exist and are not padded is worked on in place, where its dtype and its D allow it;
// others are first copied into a small zero-filled scratch that stays in the cache.
#pragma once

#include "../convert.h"
#include "dropout.h"
#include "hidden.h"

// From the C library, declared rather than included: see vec.h.
extern "C" void *aligned_alloc(decltype(sizeof 0), decltype(sizeof 0));
extern "C" void free(void *);

namespace vts::VTS_LEVEL {

template <typename E>
struct worker {
    typedef typename E::accumulate A;
    typedef typename E::storage S;
    typedef typename E::wide W;  // what scratch holds
    static constexpr int L = VL<A>;
    static constexpr A nothing = -(A)__builtin_inf();  // the score of what is not seen

    struct view {
        S *base;
        int64_t step;  // elements between neighbouring rows
        VTS_INLINE S *row(int64_t t) const { return base + t * step; }
    };

    const params &p;
    const bool is_backward;
    const cut c;
    schedule where, ahead;
    const int64_t width, vectors;
    const bool whole;  // rows are whole groups of features
    const bool past;   // outputs too large to stay in a cache
    dropout drop = {};
    char *memory = nullptr, *free_memory = nullptr;

    worker(const params &p, bool backward)
        : p(p),
          is_backward(backward),
          c(p, backward),
          where(p, c),
          ahead(p, c),
          width(round_up(p.D, L)),
          vectors(width / L),
          whole(p.D % E::group == 0),
          past(p.B * p.H * p.T * p.D * (int64_t)sizeof(S) >= (int64_t)8 << 20) {
        if (p.seed) drop = {(uint64_t)*p.seed, p.drop_below, p.keep_scale, p.row_offset};
    }
    ~worker() {
        free(memory);
#if defined(__x86_64__)
        _mm_sfence();  // stores past the caches become visible before the caller's threads meet again
#endif
    }

    // One allocation for all scratch, cut up by `take`; false when there is no memory.
    bool reserve(int64_t bytes) {
        memory = free_memory = (char *)aligned_alloc(64, (decltype(sizeof 0))bytes);
        return memory != nullptr;
    }
    static int64_t bytes_of(int64_t elements) { return round_up(elements * (int64_t)sizeof(A), 64); }
    A *take(int64_t elements) {
        A *part = (A *)free_memory;
        free_memory += bytes_of(elements);
        return part;
    }

    view of(const vts_bhtd &x, const strip &at, int64_t head) const {
        return {
            (S *)x.data + at.b * x.stride_b + head * x.stride_h + at.frame(p, 0) * x.stride_t, x.stride_t * p.dilation};
    }

    static rows<E> direct(const view &x, int64_t t) { return {x.row(t), x.step}; }

    // Whether a strip whose rows all exist is worked on in place: rows that many others read are converted once
    // instead.
    bool in_place(const band &w) const { return whole && (sizeof(S) == sizeof(A) || w.keys <= most_converted); }
    static constexpr int64_t most_converted = 16;

    bool padded(const strip &at, int64_t t) const {
        return p.mask && !p.mask[at.b * p.mask_stride_b + at.frame(p, t) * p.mask_stride_t];
    }

    // Whether the keys [first, first + count) exist, and none is padded.
    bool all_visible(const strip &at, int64_t first, int64_t count) const {
        if (first < 0 || first + count > at.length) return false;
        if (p.mask)
            for (int64_t t = first; t < first + count; ++t)
                if (padded(at, t)) return false;
        return true;
    }

    void mark_visible(const strip &at, int64_t first, int64_t count, uint8_t *visible) const {
        for (int64_t r = 0; r < count; ++r) {
            const int64_t t = first + r;
            visible[r] = t >= 0 && t < at.length && !padded(at, t);
        }
    }

    // Rows [first, first + count) into scratch, 0 where they do not exist or (with `visible`) are not to be seen.
    rows<W> staged(const view &x, const strip &at, int64_t first, int64_t count, const uint8_t *visible, A *to) const {
        for (int64_t r = 0; r < count; ++r) {
            A *row = to + r * width;
            const int64_t t = first + r;
            int64_t filled = 0;
            if (t >= 0 && t < at.length && (!visible || visible[r])) {
                load_row<E>(x.row(t), row, p.D);
                filled = p.D;
            }
            for (int64_t d = filled; d < width; ++d) row[d] = 0;
        }
        return {to, width};
    }

    // Which band a strip needs: a wider one where a shifted window may reach into it.
    band band_of(const strip &at, int64_t count) const {
        if (p.border == VTS_SHIFT && (at.start - c.reach <= 0 || at.start + count - 1 + c.reach >= at.length - 1))
            return {c.reach, c.reach, 2 * c.reach + 1, true};
        return {c.left, c.right, c.keys, false};
    }

    // Rows whose scores a strip computes: those it owns, and in the backward pass those that see its keys.
    int64_t scored_of(const strip &at, const band &w) const {
        if (w.shifted) return c.scored_wide(is_backward);
        return smaller(c.scored, round_up(at.length + (is_backward ? w.keys - 1 : 0), 16));
    }

    const A *bias_of(const strip &at, const band &w) const {
        return (const A *)p.bias + at.h * dbias_length(p) + bias_offset(w);
    }
    // The entry of the bias that belongs to a band's first key: bands are cut to what a short sequence has.
    int64_t bias_offset(const band &w) const { return (p.border == VTS_SHIFT ? p.left + p.right : p.left) - w.left; }

    const A *sink_of(const strip &at) const { return p.sinks ? (const A *)p.sinks + at.h : nullptr; }

    void drop_weights(const strip &at, const band &w, int64_t first, int64_t count, A *table) const {
        drop.apply(
            at.frame(p, first), at.frame(p, first - w.left), p.dilation, (uint32_t)(at.b * p.H + at.h), count, w.keys,
            table);
    }

    void soon_read(prefetch &soon, const vts_bhtd &x, const strip &next, int64_t head, int64_t first) const {
        const view rows = of(x, next, head);
        soon.add(rows.base, rows.step * (int64_t)sizeof(S), next.start + first, next.length);
    }

    // Whether a shifted strip's staged rows hold what a weight of 0, that of a key not seen, would not take away.
    template <typename In>
    bool odd(const band &w, const rows<In> &x, int64_t count) const {
        if constexpr (sizeof(typename In::storage) == sizeof(A))
            return w.shifted && !all_finite<A>(x.data, count * width);
        return false;
    }

    // Result rows: straight to their place where they are whole groups, else through `spare`.
    template <typename In>
    void put(
        const A *weight, int64_t row_step, int64_t step, rows<In> x, int64_t n, int64_t count, const view &to,
        int64_t start, A *spare, bool careful, const prefetch *soon) const {
        S *out = to.row(start);
        if (careful) {
            careful_sums<E>(weight, row_step, step, x, n, count, width, p.D, out, to.step, spare);
        } else if (whole) {
            const bool aligned = (((uintptr_t)out | (uintptr_t)(to.step * (int64_t)sizeof(S))) & (VTS_BYTES - 1)) == 0;
            band_sums<In, E>(weight, row_step, step, x, n, count, vectors, out, to.step, past && aligned, soon);
        } else if constexpr (sizeof(typename In::storage) == sizeof(A)) {
            band_sums<In, W>(weight, row_step, step, x, n, count, vectors, spare, width, false, soon);
            for (int64_t r = 0; r < count; ++r) store_row<E>(spare + r * width, out + r * to.step, p.D);
        }
    }

    bool forward(int64_t begin, int64_t end) {
        const int64_t scored = p.border == VTS_SHIFT ? larger(c.scored, c.scored_wide(false)) : c.scored;
        const int64_t keys = p.border == VTS_SHIFT ? 2 * c.reach + 1 : c.keys, seen = scored + keys - 1;
        if (!reserve(
                bytes_of(scored * keys) + bytes_of(scored * width) + 2 * bytes_of(seen * width) +
                bytes_of(c.rows * width) + bytes_of(scored) + bytes_of(seen)))
            return false;
        A *scores = take(scored * keys), *sq = take(scored * width), *sk = take(seen * width), *sv = take(seen * width);
        A *spare = take(c.rows * width), *lse = take(scored);
        uint8_t *visible = (uint8_t *)take(seen);
        for (int64_t task = begin; task < end; ++task) {
            const strip at = where.find(task);
            const int64_t count = smaller(c.rows, at.length - at.start);
            if (count <= 0) continue;
            forward_strip(
                at, count, ahead.find(task + 1 < end ? task + 1 : task), scores, sq, sk, sv, spare,
                p.lse ? lse : nullptr, visible);
        }
        return true;
    }

    void forward_strip(
        const strip &at, int64_t count, const strip &next, A *scores, A *sq, A *sk, A *sv, A *spare, A *lse,
        uint8_t *visible) const {
        const band w = band_of(at, count);
        const int64_t scored = scored_of(at, w), seen = scored + w.keys - 1, first = at.start - w.left;
        const view q = of(p.q, at, at.h), k = of(p.k, at, at.key_head), v = of(p.v, at, at.key_head);
        const bool clear = count == scored && !w.shifted && all_visible(at, first, seen);
        const auto attend = [&](auto rq, auto rk, auto rv) {
            band_products(rq, rk, scored, w.keys, vectors, (A)p.scale, scores);
            if (p.softcap > 0) cap_scores<A>(scored * w.keys, (A)p.softcap, scores, nullptr);
            if (p.bias) add_bias<A>(bias_of(at, w), scored, w.keys, scores);
            if (!clear) hide<A>(c, at, w, at.start, scored, visible, nullptr, nothing, scores);
            softmax_columns<A>(scored, w.keys, scores, lse, sink_of(at));
            const bool careful = odd(w, rv, seen);
            if (p.seed) drop_weights(at, w, at.start, scored, scores);
            prefetch soon = {{}, 0, p.D * (int64_t)sizeof(S)};
            soon_read(soon, p.q, next, next.h, 0);
            soon_read(soon, p.k, next, next.key_head, c.right);
            soon_read(soon, p.v, next, next.key_head, c.right);
            put(scores, 1 - scored, scored, rv, w.keys, count, of(p.out, at, at.h), at.start, spare, careful, &soon);
        };
        if (clear && in_place(w)) {
            attend(direct(q, at.start), direct(k, first), direct(v, first));
        } else {
            mark_visible(at, first, seen, visible);
            attend(
                staged(q, at, at.start, scored, nullptr, sq), staged(k, at, first, seen, visible, sk),
                staged(v, at, first, seen, visible, sv));
        }
        if (lse) {
            A *to = (A *)p.lse + (at.b * p.H + at.h) * p.T;
            for (int64_t r = 0; r < count; ++r) to[at.frame(p, at.start + r)] = lse[r];
        }
    }

    bool backward(int64_t begin, int64_t end) {
        const int64_t scored = p.border == VTS_SHIFT ? larger(c.scored, c.scored_wide(true)) : c.scored;
        const int64_t keys = p.border == VTS_SHIFT ? 2 * c.reach + 1 : c.keys, seen = scored + keys - 1;
        if (!reserve(
                (p.softcap > 0 ? 3 : 2) * bytes_of(scored * keys) + 2 * bytes_of(scored * width) +
                2 * bytes_of(seen * width) + bytes_of(c.rows * width) + 3 * bytes_of(scored) + bytes_of(seen)))
            return false;
        A *weights = take(scored * keys), *dscores = take(scored * keys);
        A *caps = p.softcap > 0 ? take(scored * keys) : nullptr;
        A *sq = take(scored * width), *sg = take(scored * width), *sk = take(seen * width), *sv = take(seen * width);
        A *spare = take(c.rows * width), *dlse = take(scored), *delta = take(scored);
        uint8_t *visible = (uint8_t *)take(seen), *live = (uint8_t *)take(scored);
        for (int64_t task = begin; task < end; ++task) {
            const strip at = where.find(task);
            const int64_t count = smaller(c.rows, at.length - at.start);
            if (p.dbias) {
                A *sums = dbias_of(task);
                for (int64_t o = 0; o < dbias_length(p); ++o) sums[o] = 0;
            }
            if (count <= 0) continue;
            backward_strip(
                task, at, count, ahead.find(task + 1 < end ? task + 1 : task), weights, dscores, caps, sq, sg, sk, sv,
                spare, p.dlse ? dlse : nullptr, p.delta ? delta : nullptr, visible, live);
        }
        return true;
    }

    A *dbias_of(int64_t task) const { return (A *)p.scratch + task * dbias_length(p); }
    static int64_t dbias_length(const params &p) { return (p.border == VTS_SHIFT ? 2 : 1) * (p.left + p.right) + 1; }

    void backward_strip(
        int64_t task, const strip &at, int64_t count, const strip &next, A *weights, A *dscores, A *caps, A *sq, A *sg,
        A *sk, A *sv, A *spare, A *dlse, A *delta, uint8_t *visible, uint8_t *live) const {
        const band w = band_of(at, count);
        const int64_t scored = scored_of(at, w), seen = scored + w.keys - 1;
        const view q = of(p.q, at, at.h), k = of(p.k, at, at.key_head), v = of(p.v, at, at.key_head);
        const view g = of(p.dout, at, at.h);
        // The key at `start` is seen by rows from start - right on, and those see keys from `left` before them on.
        const int64_t first_row = at.start - w.right, first_key = first_row - w.left;
        const bool clear = !w.shifted && all_visible(at, first_key, seen);
        if (dlse) {
            const A *from = (const A *)p.dlse + (at.b * p.H + at.h) * p.T;
            for (int64_t r = 0; r < scored; ++r) {
                const int64_t t = first_row + r;
                dlse[r] = t >= 0 && t < at.length ? from[at.frame(p, t)] : 0;
            }
        }
        // False where a row worked on in place holds, or sees, what is not finite: then nothing was written.
        const auto attend = [&](auto rq, auto rg, auto rk, auto rv, bool unstaged) {
            band_products(rq, rk, scored, w.keys, vectors, (A)p.scale, weights);
            if (unstaged && !all_finite<A>(weights, scored)) return false;
            if (caps) cap_scores<A>(scored * w.keys, (A)p.softcap, weights, caps);
            if (caps && !clear) hide<A>(c, at, w, first_row, scored, visible, nullptr, 0, caps);
            if (p.bias) add_bias<A>(bias_of(at, w), scored, w.keys, weights);
            if (!clear) hide<A>(c, at, w, first_row, scored, visible, nullptr, nothing, weights);
            softmax_columns<A>(scored, w.keys, weights, nullptr, sink_of(at));
            const auto slopes = [&](bool careful) {
                if (careful) hide<A>(c, at, w, first_row, scored, visible, live, 0, weights);
                band_products(rg, rv, scored, w.keys, vectors, (A)1, dscores);
                if (p.seed) drop_weights(at, w, first_row, scored, dscores);
                if (careful) hide<A>(c, at, w, first_row, scored, visible, live, 0, dscores);
                softmax_columns_backward<A>(scored, w.keys, weights, dscores, dlse, p.dbias ? (A)1 : (A)p.scale, delta);
                if (careful) hide<A>(c, at, w, first_row, scored, visible, live, 0, dscores);
            };
            slopes(false);
            // What is odd anywhere in a row's sum of p dp is so in all its slopes, those of the first key too.
            if (!all_finite<A>(dscores, scored)) {
                if (unstaged) return false;
                slopes(true);
            }
            if (delta) {
                A *to = (A *)p.delta + (at.b * p.H + at.h) * p.T;
                for (int64_t r = 0; r < count; ++r) to[at.frame(p, at.start + r)] = delta[w.right + r];
            }
            const bool odd_q = odd(w, rq, scored), odd_g = odd(w, rg, scored), odd_k = odd(w, rk, seen);
            if (p.dbias) {
                add_up(dscores + w.right, scored, w.keys, count, dbias_of(task) + bias_offset(w));
                for (int64_t i = 0; i < scored * w.keys; ++i) dscores[i] *= (A)p.scale;
            }
            // A row without a gradient passes nothing to a key of NaN, whose cap has a slope of NaN.
            for (int64_t i = 0; caps && i < scored * w.keys; ++i)
                dscores[i] = dscores[i] == 0 ? 0 : dscores[i] * caps[i];
            if (p.seed) drop_weights(at, w, first_row, scored, weights);
            const decltype(rk) own_keys = {rk.at(w.right), rk.stride};
            put(dscores + w.right, 1 - scored, scored, own_keys, w.keys, count, of(p.dq, at, at.h), at.start, spare,
                odd_k, nullptr);
            // Key r of the strip is key o of row r + keys - 1 - o: along o the rows run backwards.
            const int64_t last = (w.keys - 1) * scored;
            prefetch soon = {{}, 0, p.D * (int64_t)sizeof(S)};
            soon_read(soon, p.q, next, next.h, c.left);
            soon_read(soon, p.dout, next, next.h, c.left);
            put(dscores + last, scored, 1 - scored, rq, w.keys, count, of(p.dk, at, at.h), at.start, spare, odd_q,
                &soon);
            soon.used = 0;
            soon_read(soon, p.k, next, next.key_head, c.reach);
            soon_read(soon, p.v, next, next.key_head, c.reach);
            put(weights + last, scored, 1 - scored, rg, w.keys, count, of(p.dv, at, at.h), at.start, spare, odd_g,
                &soon);
            return true;
        };
        if (clear && in_place(w) &&
            attend(direct(q, first_row), direct(g, first_row), direct(k, first_key), direct(v, first_key), true))
            return;
        mark_visible(at, first_key, seen, visible);
        const rows<W> rg = staged(g, at, first_row, scored, nullptr, sg);
        mark_live<A>(sg, width, dlse, scored, live);
        attend(
            staged(q, at, first_row, scored, live, sq), rg, staged(k, at, first_key, seen, visible, sk),
            staged(v, at, first_key, seen, visible, sv), false);
    }

    // sums[o] = sum over the strip's own rows of table[o][r].
    static void add_up(const A *table, int64_t step, int64_t n, int64_t count, A *sums) {
        for (int64_t o = 0; o < n; ++o) {
            A sum = 0;
            for (int64_t r = 0; r < count; ++r) sum += table[o * step + r];
            sums[o] = sum;
        }
    }

    // A row of sums for each task, and totals in float64.
    static int64_t scratch(const params &p) {
        if (!p.bias) return 0;
        return round_up(cut(p, true).tasks * dbias_length(p) * (int64_t)sizeof(A), 8) + p.H * dbias_length(p) * 8;
    }

    // The sums of every task, added up by head in the order of tasks.
    static void finish(const params &p) {
        const cut c(p, true);
        schedule where(p, c);
        const int64_t n = dbias_length(p);
        double *total = (double *)((char *)p.scratch + round_up(c.tasks * n * (int64_t)sizeof(A), 8));
        for (int64_t i = 0; i < p.H * n; ++i) total[i] = 0;
        for (int64_t task = 0; task < c.tasks; ++task) {
            const int64_t h = where.find(task).h;
            const A *sums = (const A *)p.scratch + task * n;
            for (int64_t o = 0; o < n; ++o) total[h * n + o] += sums[o];
        }
        for (int64_t i = 0; i < p.H * n; ++i) ((A *)p.dbias)[i] = (A)total[i];
    }
};

template <typename F>
auto by_dtype(const params &p, const F &run) {
    switch (p.dtype) {
        case VTS_FLOAT64: return run(float64{});
        case VTS_BFLOAT16: return run(bfloat16{});
        case VTS_FLOAT16: return run(float16{});
        default: return run(float32{});
    }
}

bool forward(const params &p, int64_t begin, int64_t end) {
    return by_dtype(p, [&](auto element) { return worker<decltype(element)>(p, false).forward(begin, end); });
}

bool backward(const params &p, int64_t begin, int64_t end) {
    return by_dtype(p, [&](auto element) { return worker<decltype(element)>(p, true).backward(begin, end); });
}

void finish(const params &p) {
    by_dtype(p, [&](auto element) {
        worker<decltype(element)>::finish(p);
        return true;
    });
}

int64_t scratch(const params &p) {
    return by_dtype(p, [&](auto element) { return worker<decltype(element)>::scratch(p); });
}

int64_t tasks(const params &p, bool backward) { return cut(p, backward).tasks; }

}  // namespace vts::VTS_LEVEL
