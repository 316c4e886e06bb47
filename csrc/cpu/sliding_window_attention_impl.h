// Sliding-window attention on one CPU: included once by each translation unit, which is compiled for one level.
//
// Dilation: frames i, i + dilation, ... form a sequence of their own with a plain window, so the kernel walks
// `dilation` interleaved sequences (phases) and knows nothing more of it.
// A strip whose rows and keys all exist and are not padded is worked on in place; others (borders, padding, dtypes
// narrower than float32, D that fills no whole vectors) are first copied into a small zero-filled scratch that stays in
// the cache.
#pragma once

#include "convert.h"
#include "strip.h"
#include "vtsum/sliding_window_attention.h"

// From the C library, declared rather than included: see vec.h.
extern "C" void *aligned_alloc(decltype(sizeof 0), decltype(sizeof 0));
extern "C" void free(void *);

namespace vts::VTS_LEVEL {

typedef vts_sliding_window_attention_params params;

VTS_INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
VTS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
VTS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// How the sequences are cut. Every level uses the same cut, so the task counts agree.
struct cut {
    int64_t left, right, keys;  // a window's keys = left + right + 1
    int64_t rows;               // rows of a strip whose results it owns
    int64_t scored;             // rows whose scores it computes: backward needs those of its neighbours too
    int64_t length, strips;     // of the longest phase
    int64_t tasks;

    cut(const params &p, bool backward) {
        length = (p.T + p.dilation - 1) / p.dilation;
        const int64_t reach = larger(length - 1, 0);
        left = p.left < 0 ? reach : smaller(p.left, reach);
        right = p.right < 0 ? reach : smaller(p.right, reach);
        keys = left + right + 1;
        // Whole vectors of rows at every level; no more of them than the sequence has.
        if (backward) {
            scored =
                smaller(round_up(larger(80, keys <= 128 ? 6 * keys : 3 * keys), 16), round_up(length + keys - 1, 16));
            rows = scored - (keys - 1);
        } else {
            scored = rows = smaller(keys <= 64 ? 64 : 128, round_up(length, 16));
        }
        strips = length ? (length + rows - 1) / rows : 0;
        tasks = p.B * p.H * p.dilation * strips;
    }
};

// Where a task works: one strip of one phase of one head.
struct place {
    int64_t b, h, phase, start, length;

    place(const params &p, const cut &c, int64_t task) {
        // Heads run fastest where they lie closest in memory ([B, T, H, D] seen as [B, H, T, D]).
        const bool heads_inside = p.q.stride_h < p.q.stride_t;
        if (heads_inside) {
            h = task % p.H, task /= p.H;
            start = task % c.strips * c.rows, task /= c.strips;
        } else {
            start = task % c.strips * c.rows, task /= c.strips;
            h = task % p.H, task /= p.H;
        }
        phase = task % p.dilation, b = task / p.dilation;
        length = p.T > phase ? (p.T - phase + p.dilation - 1) / p.dilation : 0;
    }
};

template <typename A>
struct view {
    char *base;
    int64_t step;  // bytes between neighbouring rows
    VTS_INLINE char *row(int64_t t) const { return base + t * step; }
    VTS_INLINE rows<A> direct(int64_t t) const { return {(const A *)row(t), step / (int64_t)sizeof(A)}; }
};

template <typename A>
struct worker {
    static constexpr int L = VL<A>;
    const params &p;
    const cut c;
    int64_t width, vectors, element;
    bool exact;  // rows can be read in place
    bool past;   // outputs too large to stay in a cache
    char *memory = nullptr;

    worker(const params &p_, bool backward) : p(p_), c(p_, backward) {
        width = round_up(p.D, L), vectors = width / L;
        element = p.dtype == VTS_FLOAT64 ? 8 : p.dtype == VTS_FLOAT32 ? 4 : 2;
        exact = element == (int64_t)sizeof(A) && p.D == width;
        past = p.B * p.H * p.T * p.D * element >= (int64_t)8 << 20;
    }
    ~worker() {
        free(memory);
#if defined(__x86_64__)
        _mm_sfence();  // stores past the caches become visible before the caller's threads meet again
#endif
    }

    // One allocation for all scratch; false when there is no memory.
    bool reserve(int64_t elements) {
        memory = (char *)aligned_alloc(64, (decltype(sizeof 0))round_up(elements * (int64_t)sizeof(A), 64));
        return memory != nullptr;
    }

    view<A> of(const vts_bhtd &x, const place &at) const {
        return {
            (char *)x.data + (at.b * x.stride_b + at.h * x.stride_h + at.phase * x.stride_t) * element,
            x.stride_t * p.dilation * element};
    }

    const uint8_t *mask_of(const place &at, int64_t *step) const {
        if (!p.mask) return nullptr;
        *step = p.mask_stride_t * p.dilation;
        return p.mask + at.b * p.mask_stride_b + at.phase * p.mask_stride_t;
    }

    // Whether the keys [first, first + count) exist, and none is padded.
    bool all_visible(const place &at, int64_t first, int64_t count) const {
        if (first < 0 || first + count > at.length) return false;
        int64_t step;
        const uint8_t *mask = mask_of(at, &step);
        if (mask)
            for (int64_t t = first; t < first + count; ++t)
                if (!mask[t * step]) return false;
        return true;
    }

    void mark_visible(const place &at, int64_t first, int64_t count, uint8_t *visible) const {
        int64_t step = 0;
        const uint8_t *mask = mask_of(at, &step);
        for (int64_t r = 0; r < count; ++r) {
            const int64_t t = first + r;
            visible[r] = t >= 0 && t < at.length && (!mask || mask[t * step]);
        }
    }

    // Rows [first, first + count) into scratch, 0 where they do not exist or (with `visible`) are not to be seen.
    rows<A> staged(
        const view<A> &x, const place &at, int64_t first, int64_t count, const uint8_t *visible, A *to) const {
        for (int64_t r = 0; r < count; ++r) {
            A *row = to + r * width;
            const int64_t t = first + r;
            int64_t filled = 0;
            if (t >= 0 && t < at.length && (!visible || visible[r])) {
                load_row<A>(p.dtype, x.row(t), row, p.D);
                filled = p.D;
            }
            for (int64_t d = filled; d < width; ++d) row[d] = 0;
        }
        return {to, width};
    }

    // Asks for row t of x, if it exists, so that it is in the cache when the next strip begins.
    VTS_INLINE void fetch(const view<A> &x, const place &at, int64_t t) const {
        if (t < 0 || t >= at.length) return;
        const char *row = x.row(t);
        for (int64_t line = 0; line < p.D * element; line += 64) __builtin_prefetch(row + line, 0, 2);
    }

    // A result row: straight to its place where the layouts agree, else through `spare`.
    VTS_INLINE void put(
        const A *weight, int64_t step, const A *x, int64_t stride, int64_t n, char *to, A *spare) const {
        if (exact) {
            const bool aligned = ((uintptr_t)to & (VTS_BYTES - 1)) == 0;
            weighted_row<A>(weight, step, x, stride, n, vectors, (A *)to, past && aligned);
        } else {
            weighted_row<A>(weight, step, x, stride, n, vectors, spare, false);
            store_row<A>(p.dtype, spare, to, p.D);
        }
    }

    bool forward(int64_t begin, int64_t end) {
        const int64_t seen = c.scored + c.keys - 1, table = c.scored * c.keys;
        const int64_t needed = table + (c.scored + 2 * seen + 1) * width + c.scored + round_up(seen, 64);
        if (!reserve(needed)) return false;
        A *scores = (A *)memory, *sq = scores + table, *sk = sq + c.scored * width, *sv = sk + seen * width;
        A *spare = sv + seen * width, *lse = spare + width;
        uint8_t *visible = (uint8_t *)(lse + c.scored);
        for (int64_t task = begin; task < end; ++task) {
            const place at(p, c, task);
            const int64_t count = smaller(c.rows, at.length - at.start);
            if (count <= 0) continue;
            const view<A> q = of(p.q, at), k = of(p.k, at), v = of(p.v, at), out = of(p.out, at);
            const int64_t first = at.start - c.left;
            const bool clear = all_visible(at, first, seen) && count == c.rows;
            rows<A> rq, rk, rv;
            if (exact && clear) {
                rq = q.direct(at.start), rk = k.direct(first), rv = v.direct(first);
            } else {
                mark_visible(at, first, seen, visible);
                rq = staged(q, at, at.start, c.scored, nullptr, sq);
                rk = staged(k, at, first, seen, visible, sk);
                rv = staged(v, at, first, seen, visible, sv);
            }
            band_products<A>(rq, rk, c.scored, c.keys, vectors, (A)p.scale, scores);
            if (!clear) hide<A>(visible, c.scored, c.keys, scores);
            softmax_columns<A>(c.scored, c.keys, scores, p.lse ? lse : nullptr);
            const place next(p, c, task + 1 < end ? task + 1 : task);
            const view<A> next_q = of(p.q, next), next_k = of(p.k, next), next_v = of(p.v, next);
            for (int64_t r = 0; r < count; ++r) {
                fetch(next_q, next, next.start + r);
                fetch(next_k, next, next.start + c.right + r);
                fetch(next_v, next, next.start + c.right + r);
                put(scores + r, c.scored, rv.at(r), rv.stride, c.keys, out.row(at.start + r), spare);
            }
            if (p.lse) {
                A *to = (A *)p.lse + (at.b * p.H + at.h) * p.T + at.phase;
                for (int64_t r = 0; r < count; ++r) to[(at.start + r) * p.dilation] = lse[r];
            }
        }
        return true;
    }

    bool backward(int64_t begin, int64_t end) {
        const int64_t seen = c.scored + c.keys - 1, table = c.scored * c.keys;
        const int64_t needed = 2 * table + (2 * c.scored + 2 * seen + 1) * width + c.scored + round_up(seen, 64);
        if (!reserve(needed)) return false;
        A *weights = (A *)memory, *slopes = weights + table;
        A *sq = slopes + table, *sg = sq + c.scored * width, *sk = sg + c.scored * width, *sv = sk + seen * width;
        A *spare = sv + seen * width, *dlse = spare + width;
        uint8_t *visible = (uint8_t *)(dlse + c.scored);
        for (int64_t task = begin; task < end; ++task) {
            const place at(p, c, task);
            const int64_t count = smaller(c.rows, at.length - at.start);
            if (count <= 0) continue;
            const view<A> q = of(p.q, at), k = of(p.k, at), v = of(p.v, at), g = of(p.dout, at);
            const view<A> dq = of(p.dq, at), dk = of(p.dk, at), dv = of(p.dv, at);
            // The key at `start` is seen by rows from start - right on, and those see keys from `left` before them on.
            const int64_t first_row = at.start - c.right, first_key = first_row - c.left;
            const bool clear = all_visible(at, first_key, seen);
            rows<A> rq, rg, rk, rv;
            if (exact && clear) {
                rq = q.direct(first_row), rg = g.direct(first_row), rk = k.direct(first_key), rv = v.direct(first_key);
            } else {
                mark_visible(at, first_key, seen, visible);
                rq = staged(q, at, first_row, c.scored, nullptr, sq);
                rg = staged(g, at, first_row, c.scored, nullptr, sg);
                rk = staged(k, at, first_key, seen, visible, sk);
                rv = staged(v, at, first_key, seen, visible, sv);
            }
            band_products<A>(rq, rk, c.scored, c.keys, vectors, (A)p.scale, weights);
            if (!clear) hide<A>(visible, c.scored, c.keys, weights);
            softmax_columns<A>(c.scored, c.keys, weights, nullptr);
            band_products<A>(rg, rv, c.scored, c.keys, vectors, (A)1, slopes);
            if (p.dlse) {
                const A *from = (const A *)p.dlse + (at.b * p.H + at.h) * p.T + at.phase;
                for (int64_t r = 0; r < c.scored; ++r) {
                    const int64_t t = first_row + r;
                    dlse[r] = t >= 0 && t < at.length ? from[t * p.dilation] : 0;
                }
            }
            softmax_columns_backward<A>(c.scored, c.keys, weights, slopes, p.dlse ? dlse : nullptr, (A)p.scale);
            for (int64_t r = 0; r < count; ++r) {
                const int64_t row = r + c.right;
                put(slopes + row, c.scored, rk.at(row), rk.stride, c.keys, dq.row(at.start + r), spare);
            }
            // Key r of the strip is key o of row r + keys - 1 - o: along o the rows run backwards.
            const int64_t step = c.scored - 1;
            const place next(p, c, task + 1 < end ? task + 1 : task);
            const view<A> next_q = of(p.q, next), next_k = of(p.k, next), next_v = of(p.v, next),
                          next_g = of(p.dout, next);
            for (int64_t r = 0; r < count; ++r) {
                fetch(next_q, next, next.start + c.left + r);
                fetch(next_g, next, next.start + c.left + r);
                fetch(next_k, next, next.start + c.left + c.right + r);
                fetch(next_v, next, next.start + c.left + c.right + r);
                const int64_t last = r + c.keys - 1;
                put(slopes + last, step, rq.at(last), -rq.stride, c.keys, dk.row(at.start + r), spare);
                put(weights + last, step, rg.at(last), -rg.stride, c.keys, dv.row(at.start + r), spare);
            }
        }
        return true;
    }
};

bool forward(const params &p, int64_t begin, int64_t end) {
    if (p.dtype == VTS_FLOAT64) return worker<double>(p, false).forward(begin, end);
    return worker<float>(p, false).forward(begin, end);
}

bool backward(const params &p, int64_t begin, int64_t end) {
    if (p.dtype == VTS_FLOAT64) return worker<double>(p, true).backward(begin, end);
    return worker<float>(p, true).backward(begin, end);
}

int64_t tasks(const params &p, bool backward) { return cut(p, backward).tasks; }

}  // namespace vts::VTS_LEVEL
