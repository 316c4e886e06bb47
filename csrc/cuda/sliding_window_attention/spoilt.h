// What the tensor-core families of sliding-window attention do about NaN and infinities.
//
// A product of matrices multiplies what a row does not see by 0, and 0 times NaN is NaN: so a frame reaches all of its
// tile. But whoever is reached so is NaN itself. A warp looks at what it writes, at half an instruction an element, and
// where something is not finite it goes through its results once more: rows (or keys) that are NaN are computed anew,
// one by one, from what they see alone. A row whose dout and dlse are 0 adds nothing to dk and dv, whatever it holds:
// its keys are found in the same way.
#pragma once

#include "dropout.h"
#include "families.h"

namespace vts::sliding_window_attention {

// Whether a warp has written anything that is not finite: what lane_of_rows::store says.
template <typename T>
__device__ __forceinline__ bool any_odd(uint32_t odd) {
    const float2 pair = unpack<T>(odd);
    return __any_sync(0xFFFFFFFFu, pair.x != pair.x || pair.y != pair.y) != 0;
}

// Rows and keys of one head, one by one, by a whole warp; a lane holds the features lane, lane + 32, ... of a row.
// HANDED: the backward pass has the forward's out and lse.
template <typename T, int D, bool HANDED>
struct one_by_one {
    static constexpr int N = D / 32, CACHED = 64;

    struct statistics {  // of a row: the lse in powers of two, +inf where it sees nothing or has no gradient
        float lse, delta;
    };

    const params &p;
    const int b, h, key_head, frames, left, right, lane;
    const float scale, factor, keep_scale;
    const dropout drop;

    __device__ __forceinline__ one_by_one(const params &p_, int b_, int h_)
        : p(p_),
          b(b_),
          h(h_),
          key_head(h_ / static_cast<int>(p_.H / p_.K)),
          frames(anew(static_cast<int>(p_.T))),
          left(static_cast<uint64_t>(p_.left) < static_cast<uint64_t>(frames) ? static_cast<int>(p_.left) : frames),
          right(static_cast<uint64_t>(p_.right) < static_cast<uint64_t>(frames) ? static_cast<int>(p_.right) : frames),
          lane(threadIdx.x % 32),
          scale(static_cast<float>(p_.scale)),
          factor(static_cast<float>(p_.scale) * LOG2_E),
          keep_scale(static_cast<float>(p_.keep_scale)),
          drop(p_.seed, p_.drop_below, static_cast<int64_t>(b_) * p_.H + h_, p_.row_offset) {}

    __device__ __forceinline__ T *address(const vts_bhtd &x, int head, int t) const {
        return static_cast<T *>(x.data) + b * x.stride_b + head * x.stride_h + t * x.stride_t + lane;
    }
    __device__ __forceinline__ void read(float (&to)[N], const vts_bhtd &x, int head, int t) const {
        const T *const from = address(x, head, t);
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = widen(from[32 * n]);
    }
    __device__ __forceinline__ void write(const vts_bhtd &x, int t, const float (&from)[N], float times) const {
        T *const to = address(x, h, t);
#pragma unroll
        for (int n = 0; n < N; ++n) to[32 * n] = narrow<T>(from[n] * times);
    }
    __device__ __forceinline__ static void add(float (&to)[N], float weight, const float (&x)[N]) {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = fmaf(weight, x[n], to[n]);
    }
    __device__ __forceinline__ static float dot(const float (&x)[N], const float (&y)[N]) {
        float sum = 0.0f;
        add_products(sum, x, y);
#pragma unroll
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
        return sum;
    }
    __device__ __forceinline__ static void add_products(float &sum, const float (&x)[N], const float (&y)[N]) {
#pragma unroll
        for (int n = 0; n < N; ++n) sum = fmaf(x[n], y[n], sum);
    }

    __device__ __forceinline__ bool is_nan(const vts_bhtd &x, int t) const {
        float row[N];
        read(row, x, h, t);
        bool nan = false;
#pragma unroll
        for (int n = 0; n < N; ++n) nan = nan || row[n] != row[n];
        return __any_sync(0xFFFFFFFFu, nan) != 0;
    }
    // What dropout makes of row i's weight of key j, or of the gradient with respect to it.
    __device__ __forceinline__ float dropped(float x, int i, int j) const {
        return p.seed == nullptr ? x : drop.keeps(i, j) ? x * keep_scale : 0.0f;
    }
    __device__ __forceinline__ bool padded(int t) const {
        return p.mask != nullptr && p.mask[b * p.mask_stride_b + t * p.mask_stride_t] == 0;
    }
    __device__ __forceinline__ int first_key(int i) const { return i > left ? i - left : 0; }
    __device__ __forceinline__ int last_key(int i) const { return right < frames - 1 - i ? i + right : frames - 1; }
    __device__ __forceinline__ int64_t statistic(int i) const { return (static_cast<int64_t>(b) * p.H + h) * p.T + i; }

    // The softmax of row i: the sums of the weights and, where there is `sum`, of the weights times gives(j, to), to a
    // common top. Returns the total with the head's sink, 0 where nothing is seen.
    template <typename Gives>
    __device__ __forceinline__ float softmax(
        const float (&q)[N], int i, float &top, float (&sum)[N], Gives gives) const {
        float total = 0.0f;
        top = -INFINITY;
#pragma unroll 1
        for (int j = first_key(i); j <= last_key(i); ++j) {
            if (padded(j)) continue;
            float k[N], given[N];
            read(k, p.k, key_head, j), gives(j, given);
            const float s = dot(q, k) * factor, higher = s > top ? s : top;  // NaN comes by the weight
            const float base = higher == -INFINITY ? 0.0f : higher;
            const float keep = power_of_2(top - base), weight = power_of_2(s - base);
            total = fmaf(total, keep, weight), top = higher;
            const float left_over = dropped(weight, i, j);
#pragma unroll
            for (int n = 0; n < N; ++n) sum[n] = fmaf(left_over, given[n], sum[n] * keep);
        }
        const float keep = join_sink(p, h, top, total);
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] *= keep;
        return total;
    }

    __device__ __forceinline__ statistics of_row(int i, const float (&q)[N], const float (&dout)[N]) const {
        const float down = p.dlse == nullptr ? 0.0f : static_cast<const float *>(p.dlse)[statistic(i)];
        bool some = down != 0.0f;
#pragma unroll
        for (int n = 0; n < N; ++n) some = some || dout[n] != 0.0f;
        if (!__any_sync(0xFFFFFFFFu, some)) return {INFINITY, 0.0f};
        float out[N] = {}, lse;
        if constexpr (HANDED) {
            read(out, p.out, h, i);
            lse = static_cast<const float *>(p.lse)[statistic(i)] * LOG2_E;
        } else {
            float top;
            const float total = softmax(q, i, top, out, [&](int j, float (&to)[N]) { read(to, p.v, key_head, j); });
            lse = total == 0.0f ? -INFINITY : top + log2f(total);
#pragma unroll
            for (int n = 0; n < N; ++n) out[n] /= total;
        }
        if (lse == -INFINITY) return {INFINITY, 0.0f};
        return {lse, dot(dout, out) - down};
    }

    // Of the rows from `first` to `end` - 1 that there are.
    __device__ __forceinline__ void mend_out(int first, int end) const {
#pragma unroll 1
        for (int i = first > 0 ? first : 0; i < end && i < frames; ++i) {
            if (!is_nan(p.out, i)) continue;
            float q[N], out[N] = {}, top;
            read(q, p.q, h, i);
            const float total = softmax(q, i, top, out, [&](int j, float (&to)[N]) { read(to, p.v, key_head, j); });
            write(p.out, i, out, total == 0.0f ? 0.0f : 1.0f / total);
        }
    }

    __device__ __forceinline__ void mend_dq(int first, int end) const {
#pragma unroll 1
        for (int i = first > 0 ? first : 0; i < end && i < frames; ++i) {
            if (!is_nan(p.dq, i)) continue;
            float q[N], dout[N], dq[N] = {};
            read(q, p.q, h, i), read(dout, p.dout, h, i);
            const statistics row = of_row(i, q, dout);
#pragma unroll 1
            for (int j = first_key(i); j <= last_key(i) && row.lse != INFINITY; ++j) {
                if (padded(j)) continue;
                float k[N], v[N];
                read(k, p.k, key_head, j), read(v, p.v, key_head, j);
                add(dq, power_of_2(fmaf(dot(q, k), factor, -row.lse)) * (dropped(dot(dout, v), i, j) - row.delta), k);
            }
            write(p.dq, i, dq, scale);
        }
    }

    // Of the keys from `first` to `end` - 1 that there are. cache: unless HANDED, room for the statistics of CACHED
    // rows, and a window holds no more keys.
    __device__ __forceinline__ void mend_dk_dv(int first, int end, [[maybe_unused]] statistics *cache = nullptr) const {
        [[maybe_unused]] int known = 0;  // rows before this one were asked for
#pragma unroll 1
        for (int j = first > 0 ? first : 0; j < end && j < frames; ++j) {
            if (!is_nan(p.dk, j) && !is_nan(p.dv, j)) continue;
            float k[N], v[N], dk[N] = {}, dv[N] = {};
            read(k, p.k, key_head, j), read(v, p.v, key_head, j);
            const int last = padded(j) ? -1 : left < frames - 1 - j ? j + left : frames - 1;
#pragma unroll 1
            for (int i = j > right ? j - right : 0; i <= last; ++i) {
                float q[N], dout[N];
                read(q, p.q, h, i), read(dout, p.dout, h, i);
                statistics row;
                if constexpr (HANDED) {
                    row = of_row(i, q, dout);
                } else {
                    if (i >= known) {
                        row = of_row(i, q, dout);
                        __syncwarp();
                        if (lane == 0) cache[i % CACHED] = row;
                        known = i + 1;
                        __syncwarp();
                    }
                    row = cache[i % CACHED];
                }
                if (row.lse == INFINITY) continue;
                const float weight = power_of_2(fmaf(dot(q, k), factor, -row.lse));
                add(dk, weight * (dropped(dot(dout, v), i, j) - row.delta), q), add(dv, dropped(weight, i, j), dout);
            }
            write(p.dk, j, dk, scale), write(p.dv, j, dv, 1.0f);
        }
    }
};

}  // namespace vts::sliding_window_attention
