// What the general kernels share: a group of LANES threads serves one row, each thread holding 8 neighbouring features.
#pragma once

#include <math.h>

#include "dropout.h"
#include "families.h"
#include "window.h"

namespace vts::sliding_window_attention {

constexpr int E = 8;  // features a thread holds
constexpr int THREADS = 128;
constexpr uint32_t WARP = 0xFFFFFFFFu;

struct spot {
    int64_t b;
    int h, t;
};

__device__ __forceinline__ int64_t divided(int64_t &index, int64_t by) {  // the quotient; index becomes the rest
    const int64_t quotient = (index | by) >> 32 == 0
                                 ? static_cast<int64_t>(static_cast<uint32_t>(index) / static_cast<uint32_t>(by))
                                 : index / by;
    index -= quotient * by;
    return quotient;
}

// WHOLE: D is a multiple of 8 and every row begins at a multiple of 16 bytes.
template <typename T, int LANES, bool WHOLE>
struct group {
    const params &p;
    const int lane;    // within the group
    const int start;   // the group's first lane in its warp
    const bool holds;  // whether any of the lane's features exist
    const float cap;

    __device__ explicit group(const params &p_)
        : p(p_),
          lane(threadIdx.x % LANES),
          start(threadIdx.x % 32 / LANES * LANES),
          holds(lane * E < p_.D),
          cap(static_cast<float>(p_.softcap)) {}

    __device__ static int64_t index() {
        return static_cast<int64_t>(blockIdx.x) * (THREADS / LANES) + threadIdx.x / LANES;
    }

    // The index-th row. Heads run fastest where they lie closest in memory.
    __device__ spot at_index(int64_t index) const {
        spot at;
        if (p.q.stride_h < p.q.stride_t) {
            const int64_t row = divided(index, p.H);
            at.h = static_cast<int>(index), index = row;
            at.b = divided(index, p.T), at.t = static_cast<int>(index);
        } else {
            const int64_t head = divided(index, p.T);
            at.t = static_cast<int>(index), index = head;
            at.b = divided(index, p.H), at.h = static_cast<int>(index);
        }
        return at;
    }

    __device__ int key_head(int h) const { return p.K == p.H ? h : h / static_cast<int>(p.H / p.K); }

    __device__ T *row(const vts_bhtd &x, int64_t b, int h) const {
        return static_cast<T *>(x.data) + b * x.stride_b + h * x.stride_h + lane * E;
    }

    __device__ void read(const T *from, float (&to)[E]) const {
        if constexpr (WHOLE) {
#pragma unroll
            for (int e = 0; e < E; ++e) to[e] = 0.0f;
            if (holds) load_8(from, to);
        } else {
#pragma unroll
            for (int e = 0; e < E; ++e) to[e] = lane * E + e < p.D ? widen(from[e]) : 0.0f;
        }
    }

    __device__ void write(const vts_bhtd &x, const spot &at, const float (&from)[E]) const {
        T *to = row(x, at.b, at.h) + at.t * x.stride_t;
        if constexpr (WHOLE) {
            if (holds) store_8(to, from);
        } else {
#pragma unroll
            for (int e = 0; e < E; ++e)
                if (lane * E + e < p.D) to[e] = narrow<T>(from[e]);
        }
    }

    // The dot product over the group, the same in all its lanes.
    __device__ float dot(const float (&a)[E], const float (&b)[E]) const {
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < E; ++e) sum = fmaf(a[e], b[e], sum);
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WARP, sum, step);
        return sum;
    }

    // Whether the group's row holds anything but 0. Of the whole warp.
    __device__ bool any(const float (&a)[E]) const {
        bool some = false;
#pragma unroll
        for (int e = 0; e < E; ++e) some = some || a[e] != 0.0f;
        const uint32_t own = LANES == 32 ? ~0u : ((1u << LANES) - 1) << start;
        return (__ballot_sync(WARP, some) & own) != 0;
    }

    __device__ bool padded(int64_t b, int t) const {
        return p.mask != nullptr && p.mask[b * p.mask_stride_b + t * p.mask_stride_t] == 0;
    }

    __device__ const float *bias_of(int h) const {
        return p.bias == nullptr ? nullptr : static_cast<const float *>(p.bias) + h * bias_entries(p);
    }

    // The maximum and the sum that a running softmax begins with.
    __device__ float first_top(int h) const {
        return p.sinks == nullptr ? -INFINITY : static_cast<const float *>(p.sinks)[h];
    }
    __device__ float first_total() const { return p.sinks == nullptr ? 0.0f : 1.0f; }

    // A score as it is before a bias is added, and, from that, its derivative.
    __device__ float capped(float s) const { return cap > 0.0f ? cap * tanhf(__fdividef(s, cap)) : s; }
    __device__ float slope(float capped) const {
        const float t = __fdividef(capped, cap);
        return cap > 0.0f ? 1.0f - t * t : 1.0f;
    }

    __device__ int64_t statistic(const spot &at, int t) const { return (at.b * p.H + at.h) * p.T + t; }

    // Dropout of the group's pair o and the ones after it, a lane each: bit n is that of pair o + n. Of the whole warp.
    template <typename Pair>
    __device__ uint32_t kept(const dropout &d, int o, const Pair &pair) const {
        return __ballot_sync(WARP, pair(d, o + lane)) >> start;
    }
};

// The groups of a warp shuffle together, so all of them walk as many keys as the warp's longest window: `live` says
// whether a key is this group's own.
__device__ __forceinline__ int longest(int mine) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) mine = max(mine, __shfl_xor_sync(WARP, mine, step));
    return mine;
}

// Statistics that the backward's first kernel leaves for the others, and the partial sums of dbias.
struct scratch_of {
    float *lse, *delta;    // [B, H, T]; lse = inf in rows that see nothing, or have no gradient
    float *partial;        // [H, chunks, N]
    int64_t chunks, rows;  // rows of B * T in a chunk

    __host__ __device__ explicit scratch_of(const params &p) {
        const int64_t statistics = p.B * p.H * p.T, all = p.B * p.T;
        lse = static_cast<float *>(p.scratch), delta = lse + statistics, partial = delta + statistics;
        rows = all / 128 > 256 ? (all + 127) / 128 : 256;
        chunks = (all + rows - 1) / rows;
    }
};

// Calls with_<T, LANES, WHOLE> as the call's width and alignment ask for.
inline bool whole_rows(const params &p, int element) {
    uint64_t bits = static_cast<uint64_t>(p.D * element);
    for (const vts_bhtd *x : {&p.q, &p.k, &p.v, &p.out, &p.dout, &p.dq, &p.dk, &p.dv}) {
        if (x->data == nullptr) continue;
        bits |= reinterpret_cast<uintptr_t>(x->data);
        bits |= static_cast<uint64_t>((x->stride_b | x->stride_h | x->stride_t) * element);
    }
    return p.D % E == 0 && bits % 16 == 0;
}

template <template <typename, int, bool> class Launch, typename T>
int for_width(const params &p, cudaStream_t stream) {
    if (!whole_rows(p, sizeof(T))) {  // fewer kernels to compile; the lanes past D hold zeros
        if (p.D <= 64) return Launch<T, 8, false>::run(p, stream);
        return Launch<T, 32, false>::run(p, stream);
    }
    if (p.D <= 32) return Launch<T, 4, true>::run(p, stream);
    if (p.D <= 64) return Launch<T, 8, true>::run(p, stream);
    if (p.D <= 128) return Launch<T, 16, true>::run(p, stream);
    return Launch<T, 32, true>::run(p, stream);
}

template <template <typename, int, bool> class Launch>
int for_dtype(const params &p, cudaStream_t stream) {
    if (!general_takes(p, false)) return cudaErrorInvalidValue;
    switch (p.dtype) {
        case VTS_FLOAT32: return for_width<Launch, float>(p, stream);
        case VTS_FLOAT16: return for_width<Launch, __half>(p, stream);
        default: return for_width<Launch, __nv_bfloat16>(p, stream);
    }
}

}  // namespace vts::sliding_window_attention
