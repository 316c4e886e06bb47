// The k best slots of each row on one CPU: included once by each level.
//
// A large bank is searched in two steps. Rows and keys are rounded to bfloat16 and multiplied in bfloat16, which is
// several times as fast as in float32; every slot that may be among the k best, given how far a rounded product can lie
// from the score, goes on a shortlist, and only those are scored in float32. What is found is exactly what scoring
// every slot finds.
//
// The bound. With rounded row x~ and key k~, and their residuals dx = x - x~ and dk = k - k~ (known, not estimated),
//   |x.k - x~.k~| = |x.dk + dx.k~| <= |x| |dk| + |dx| |k~|                                             (Cauchy-Schwarz)
// A product of two bfloat16 numbers has 16 significant bits and is exact in float32. Adding d of them in float32, in
// any order and with intermediate products rounded too, is off by at most g |x~| |k~| with g = 2 d 2^-24 / (1 - 2 d
// 2^-24); here g = d 2^-22. Rounding the sum to bfloat16, 8 significant bits, moves it by at most half a unit in the
// last place: 2^-8 of the rounded number. Numbers below 2^-126 may be taken for 0, on the way in, between and at the
// end: (2 d + 2) 2^-126 max(1, |x~|, |k~|) at most. The float32 score itself, what the shortlist must not lose, is off
// from x.k by g |x| |k| and by two roundings in factor * dot + bias. All of it is enlarged by 2^-10 for the roundings
// in computing the bound. Where anything overflows, a bound is infinite or NaN, the slot is kept, and the row soon has
// more slots than there is room for: then it is searched in full.
//
// A slot whose upper bound is below the k-th largest lower bound has k slots strictly above it, and is left out; ties
// are kept, and float32 decides.
#pragma once

#include "dots.h"
#include "vtsum/memory_attention.h"

namespace vts::VTS_LEVEL {

typedef vts_memory_search_params search_params;

// The worse of two: the lower score, then the higher slot.
template <typename A>
VTS_INLINE bool worse(A a, int32_t i, A b, int32_t j) {
    return a < b || (a == b && i > j);
}

// The k best seen so far, as a heap with the worst in front.
template <typename A>
struct best_of {
    A *score;
    int32_t *slot;
    int64_t k;

    VTS_INLINE void clear() {
        for (int64_t j = 0; j < k; ++j) score[j] = -(A)__builtin_inf(), slot[j] = INT32_MAX;
    }
    VTS_INLINE void sink(A z, int32_t s, int64_t size) {
        int64_t at = 0;
        for (;;) {
            int64_t child = 2 * at + 1;
            if (child >= size) break;
            if (child + 1 < size && worse(score[child + 1], slot[child + 1], score[child], slot[child])) ++child;
            if (!worse(score[child], slot[child], z, s)) break;
            score[at] = score[child], slot[at] = slot[child];
            at = child;
        }
        score[at] = z, slot[at] = s;
    }
    // A score of -inf or NaN is never better than what is there.
    VTS_INLINE void offer(A z, int32_t s) {
        if (z > score[0] || (z == score[0] && s < slot[0] && z > -(A)__builtin_inf())) sink(z, s, k);
    }
    // Best first; slot 0 where there was none.
    VTS_INLINE void finish() {
        for (int64_t size = k; size > 1; --size) {
            const A z = score[size - 1];
            const int32_t s = slot[size - 1];
            score[size - 1] = score[0], slot[size - 1] = slot[0];
            sink(z, s, size - 1);
        }
        for (int64_t j = 0; j < k; ++j)
            if (score[j] == -(A)__builtin_inf()) slot[j] = 0;
    }
};

// One arithmetic for every score, wherever it is computed.
template <typename A>
VTS_INLINE A score_of(A dot, A factor, const A *slot_bias, int64_t s) {
    const A scaled = dot * factor;
    return slot_bias ? scaled + slot_bias[s] : scaled;
}

constexpr int64_t search_rows = 64, search_slots = 64;

template <typename E>
void search_all(const search_params &p, int64_t begin, int64_t end) {
    typedef typename E::accumulate A;
    const A *x = (const A *)p.x, *keys = (const A *)p.keys, *bias = (const A *)p.slot_bias;
    A dots[search_rows * search_slots];
    for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * search_rows;
        const int64_t rows = p.rows - first < search_rows ? p.rows - first : search_rows;
        for (int64_t r = 0; r < rows; ++r)
            best_of<A>{(A *)p.best + (first + r) * p.k, p.index + (first + r) * p.k, p.k}.clear();
        for (int64_t s = 0; s < p.S; s += search_slots) {
            const int64_t slots = p.S - s < search_slots ? p.S - s : search_slots;
            int64_t j = 0;
            // A tile of 4 keys stays in the first cache while all rows of the task pass by.
            for (; j + 4 <= slots; j += 4) {
                const A *others[4];
                for (int o = 0; o < 4; ++o) others[o] = keys + (s + j + o) * p.keys_stride;
                int64_t r = 0;
                for (; r + 4 <= rows; r += 4) {
                    const A *mine[4];
                    for (int o = 0; o < 4; ++o) mine[o] = x + (first + r + o) * p.x_stride;
                    A sums[16];
                    dot_tile<E, 4, 4>(mine, others, p.d, sums);
                    for (int o = 0; o < 16; ++o) dots[(r + o / 4) * search_slots + j + o % 4] = sums[o];
                }
                for (; r < rows; ++r) {
                    const A *mine = x + (first + r) * p.x_stride;
                    dot_tile<E, 1, 4>(&mine, others, p.d, dots + r * search_slots + j);
                }
            }
            for (; j < slots; ++j) {
                const A *other = keys + (s + j) * p.keys_stride;
                for (int64_t r = 0; r < rows; ++r) {
                    const A *mine = x + (first + r) * p.x_stride;
                    dot_tile<E, 1, 1>(&mine, &other, p.d, dots + r * search_slots + j);
                }
            }
            for (int64_t r = 0; r < rows; ++r) {
                best_of<A> best{(A *)p.best + (first + r) * p.k, p.index + (first + r) * p.k, p.k};
                const A factor = ((const A *)p.factor)[first + r];
                for (int64_t o = 0; o < slots; ++o)
                    best.offer(score_of(dots[r * search_slots + o], factor, bias, s + o), (int32_t)(s + o));
            }
        }
        for (int64_t r = 0; r < rows; ++r)
            best_of<A>{(A *)p.best + (first + r) * p.k, p.index + (first + r) * p.k, p.k}.finish();
    }
}

void memory_search(const search_params &p, int64_t begin, int64_t end) {
    p.dtype == VTS_FLOAT64 ? search_all<float64>(p, begin, end) : search_all<float32>(p, begin, end);
}

void memory_rescore(const search_params &p, int64_t begin, int64_t end) {
    const float *x = (const float *)p.x, *keys = (const float *)p.keys, *bias = (const float *)p.slot_bias;
    for (int64_t r = begin; r < end; ++r) {
        if (p.counts[r] < 0) continue;
        best_of<float> best{(float *)p.best + r * p.k, p.index + r * p.k, p.k};
        best.clear();
        const float floor = p.floors[r * p.k], factor = ((const float *)p.factor)[r];
        const int32_t *kept = p.kept + r * p.capacity;
        const float *ceilings = p.ceilings + r * p.capacity;
        const float *others[64];
        int32_t slots[64];
        float dots[64];
        for (int64_t t = 0; t < p.counts[r];) {
            int count = 0;
            for (; t < p.counts[r] && count < 64; ++t) {
                if (ceilings[t] < floor) continue;
                slots[count] = kept[t], others[count++] = keys + kept[t] * p.keys_stride;
            }
            dots_of_row<float32>(x + r * p.x_stride, others, count, p.d, dots);
            for (int j = 0; j < count; ++j) best.offer(score_of(dots[j], factor, bias, slots[j]), slots[j]);
        }
        best.finish();
    }
}

VTS_INLINE float rounded_up(double x) {
    // Double sums of at most 2^31 squares are right to 1e-6, and float rounds by less than that.
    return (float)(x * (1 + 2e-6)) + 1e-44f;
}

// Rounded to bfloat16, in float.
VTS_INLINE vec<float> nearest_bfloat16(vec<float> x) { return (vec<float>)(bfloat16::rounded(x) & 0xFFFF0000u); }

struct double_sums {
    vec<double> low = {}, high = {};

    // The squares in double: those of float could leave its range.
    VTS_INLINE void add(vec<float> x) {
        A lanes[VL<float>];
        store(lanes, x);
        vec<double> a = {}, b = {};
        for (int l = 0; l < VL<double>; ++l) a[l] = lanes[l], b[l] = lanes[VL<double> + l];
        low += a * a, high += b * b;
    }
    VTS_INLINE double norm() const { return __builtin_sqrt(sum_lanes<double>(low + high)); }
    typedef float A;
};

void memory_round(const vts_memory_round_params &p, int64_t begin, int64_t end) {
    constexpr int L = VL<float>;
    const int64_t whole = p.d / L * L;
    const int rest = (int)(p.d - whole);
    for (int64_t r = begin; r < end; ++r) {
        const float *row = p.rows + r * p.stride;
        uint16_t *to = p.rounded + r * p.d;
        double_sums squares, lost;
        for (int64_t d = 0; d < p.d; d += L) {
            const int count = d < whole ? L : rest;
            const vec<float> x = d < whole ? load(row + d) : load_part(row + d, rest), near = nearest_bfloat16(x);
            squares.add(near), lost.add(x - near);
            uint32_t words[L];
            __builtin_memcpy(words, &near, sizeof words);
            for (int l = 0; l < count; ++l) to[d + l] = (uint16_t)(words[l] >> 16);
        }
        p.norm[r] = rounded_up(squares.norm()), p.residual[r] = rounded_up(lost.norm());
    }
}

VTS_INLINE uint32_t bits_of(ivec<float> mask) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
#else
    uint32_t bits = 0;
    for (int l = 0; l < VL<float>; ++l) bits |= (uint32_t)(mask[l] != 0) << l;
    return bits;
#endif
}

// One row's shortlist.
struct shortlist {
    float *floors, *ceilings;
    int32_t *kept, count;
    int64_t k, capacity;

    // The least of the k largest lower bounds gives way to a larger one.
    VTS_INLINE void raise(float lower) {
        int64_t at = 0;
        for (;;) {
            int64_t child = 2 * at + 1;
            if (child >= k) break;
            if (child + 1 < k && floors[child + 1] < floors[child]) ++child;
            if (!(floors[child] < lower)) break;
            floors[at] = floors[child];
            at = child;
        }
        floors[at] = lower;
    }
    // Makes room by dropping what the floor has risen above; false where that is not enough.
    VTS_INLINE bool squeeze() {
        int32_t stay = 0;
        for (int32_t t = 0; t < count; ++t)
            if (!(ceilings[t] < floors[0])) ceilings[stay] = ceilings[t], kept[stay++] = kept[t];
        count = stay;
        return count <= capacity - capacity / 4;
    }
    VTS_INLINE bool keep(int32_t slot, float lower, float upper) {
        if (upper < floors[0]) return true;  // the floor may have risen since the vector was compared
        if (count == capacity && !squeeze()) return false;
        ceilings[count] = upper, kept[count++] = slot;
        if (lower > floors[0]) raise(lower);
        return true;
    }
};

void memory_shortlist(const vts_memory_shortlist_params &p, int64_t begin, int64_t end) {
    constexpr int L = VL<float>;
    const float sum_error = (float)p.d * 0x1p-22f, slack = 1 + 0x1p-10f;
    const float least = (float)(2 * p.d + 2) * 0x1p-126f;
    for (int64_t r = begin; r < end; ++r) {
        if (p.counts[r] < 0) continue;
        shortlist list{p.floors + r * p.k, p.ceilings + r * p.capacity, p.kept + r * p.capacity, p.counts[r], p.k,
                       p.capacity};
        const uint16_t *scores = p.scores + r * p.slots;
        const float factor = p.factor[r], size = __builtin_fabsf(factor) * slack;
        const float norm = p.row_norm[r] + p.row_residual[r];
        // What is multiplied by |k~|, by |dk|, by the rounded product itself, and by nothing.
        const float by_norm = size * (p.row_residual[r] + 2 * sum_error * norm + least);
        const float by_residual = size * norm * (1 + sum_error);
        const float by_score = size * (0x1p-8f + 0x1p-21f), by_none = size * least * (1 + norm);
        bool room = true;
        for (int64_t s = 0; s < p.slots && room; s += L) {
            const int count = (int)(p.slots - s < L ? p.slots - s : L);
            vec<float> score, slot_norm, slot_residual, bias = {};
            if (count == L) {
                score = bfloat16::load_in_order(scores + s);
                slot_norm = load(p.slot_norm + s), slot_residual = load(p.slot_residual + s);
                if (p.slot_bias) bias = load(p.slot_bias + s);
            } else {
                uint16_t last[L] = {};
                for (int l = 0; l < count; ++l) last[l] = scores[s + l];
                score = bfloat16::load_in_order(last);
                slot_norm = load_part(p.slot_norm + s, count), slot_residual = load_part(p.slot_residual + s, count);
                if (p.slot_bias) bias = load_part(p.slot_bias + s, count);
            }
            vec<float> error = slot_norm * by_norm + slot_residual * by_residual;
            error += (vec<float>)((ivec<float>)score & 0x7FFFFFFF) * by_score + by_none;
            if (p.slot_bias) error += (vec<float>)((ivec<float>)bias & 0x7FFFFFFF) * 0x1p-21f;
            const vec<float> z = score * factor + bias, upper = z + error;
            // Written so that a NaN is kept; a slot that the bias leaves out is not.
            ivec<float> wanted = ~(upper < splat(list.floors[0]));
            if (p.slot_bias) wanted &= bias > -__builtin_inff();
            uint32_t bits = bits_of(wanted) & (0xFFFFFFFFu >> (32 - count));
            if (!bits) continue;
            const vec<float> lower = z - error;
            for (; bits && room; bits &= bits - 1) {
                const int l = __builtin_ctz(bits);
                room = list.keep((int32_t)(p.first + s + l), lower[l], upper[l]);
            }
        }
        p.counts[r] = room ? list.count : -1;
    }
}

int64_t memory_search_tasks(const search_params &p) { return (p.rows + search_rows - 1) / search_rows; }

}  // namespace vts::VTS_LEVEL
