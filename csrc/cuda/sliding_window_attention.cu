// Sliding-window attention on CUDA cores, forward and backward, for any window.
//
// A group of LANES threads serves one row; each thread holds 8 neighbouring features of it in registers. Forward: one
// pass over the window's keys with a running maximum. Backward, in two kernels: the first gives each row its lse, its
// delta and dq; in the second each key gathers dk and dv from the rows that see it. Every output is written once, by
// its owner, in a fixed order: no atomics, and the same bits each time.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "vtsum/sliding_window_attention.h"

namespace {

constexpr int E = 8;  // features a thread holds
constexpr int THREADS = 128;

using params = vts_sliding_window_attention_params;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void narrow(float x, float *to) { *to = x; }
__device__ __forceinline__ void narrow(float x, __half *to) { *to = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16 *to) { *to = __float2bfloat16_rn(x); }

struct row_of {
    int64_t b, h, t;
    bool exists;
};

template <typename T, int LANES, bool WHOLE>
struct group {
    const params &p;
    const int lane;  // within the group

    __device__ group(const params &p_) : p(p_), lane(threadIdx.x % LANES) {}

    // Which row this group serves. Heads run fastest where they lie closest in memory.
    __device__ row_of place() const {
        int64_t index = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
        const bool exists = index < p.B * p.H * p.T;
        if (!exists) index = 0;  // such a group still takes part in the shuffles
        row_of at;
        if (p.q.stride_h < p.q.stride_t) {
            at.h = index % p.H, index /= p.H;
            at.t = index % p.T, at.b = index / p.T;
        } else {
            at.t = index % p.T, index /= p.T;
            at.h = index % p.H, at.b = index / p.H;
        }
        at.exists = exists;
        return at;
    }

    __device__ const T *address(const vts_bhtd &x, const row_of &at, int64_t t) const {
        return static_cast<const T *>(x.data) + at.b * x.stride_b + at.h * x.stride_h + t * x.stride_t + lane * E;
    }

    __device__ void read(const vts_bhtd &x, const row_of &at, int64_t t, float (&to)[E]) const {
        const T *from = address(x, at, t);
        if constexpr (WHOLE) {
            struct alignas(16) chunk {
                T element[16 / sizeof(T)];
            };
            constexpr int n = 16 / sizeof(T);
#pragma unroll
            for (int c = 0; c < E / n; ++c) {
                const chunk part = reinterpret_cast<const chunk *>(from)[c];
#pragma unroll
                for (int e = 0; e < n; ++e) to[c * n + e] = widen(part.element[e]);
            }
        } else {
#pragma unroll
            for (int e = 0; e < E; ++e) to[e] = lane * E + e < p.D ? widen(from[e]) : 0.0f;
        }
    }

    __device__ void write(const vts_bhtd &x, const row_of &at, const float (&from)[E], float factor) const {
        if (!at.exists) return;
        T *to = const_cast<T *>(address(x, at, at.t));
        if constexpr (WHOLE) {
            struct alignas(16) chunk {
                T element[16 / sizeof(T)];
            };
            constexpr int n = 16 / sizeof(T);
#pragma unroll
            for (int c = 0; c < E / n; ++c) {
                chunk part;
#pragma unroll
                for (int e = 0; e < n; ++e) narrow(from[c * n + e] * factor, &part.element[e]);
                reinterpret_cast<chunk *>(to)[c] = part;
            }
        } else {
#pragma unroll
            for (int e = 0; e < E; ++e)
                if (lane * E + e < p.D) narrow(from[e] * factor, to + e);
        }
    }

    // The dot product over the group, the same in all its lanes.
    __device__ float dot(const float (&a)[E], const float (&b)[E]) const {
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < E; ++e) sum = fmaf(a[e], b[e], sum);
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
        return sum;
    }

    __device__ bool padded(const row_of &at, int64_t t) const {
        return p.mask != nullptr && p.mask[at.b * p.mask_stride_b + t * p.mask_stride_t] == 0;
    }

    // Steps of dilation one may go from t, at most `side` of them (-1: no limit), inside the sequence.
    __device__ int64_t before(int64_t t, int64_t side) const {
        const int64_t room = t / p.dilation;
        return side < 0 || side > room ? room : side;
    }
    __device__ int64_t after(int64_t t, int64_t side) const {
        const int64_t room = (p.T - 1 - t) / p.dilation;
        return side < 0 || side > room ? room : side;
    }

    __device__ int64_t statistic(const row_of &at, int64_t t) const { return (at.b * p.H + at.h) * p.T + t; }
};

// The groups of a warp shuffle together, so all of them walk as many keys as the warp's longest window: `live` says
// whether a key is this group's own.
__device__ __forceinline__ int64_t longest(int64_t mine) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const int64_t other = __shfl_xor_sync(0xFFFFFFFFu, static_cast<long long>(mine), step);
        mine = other > mine ? other : mine;
    }
    return mine;
}

template <typename T, int LANES, bool WHOLE>
__global__ void __launch_bounds__(THREADS) sliding_window_attention_fwd_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const row_of at = g.place();
    float q[E], out[E] = {};
    g.read(p.q, at, at.t, q);
    const int64_t back = g.before(at.t, p.left), keys = back + g.after(at.t, p.right) + 1;
    const int64_t first = at.t - back * p.dilation, steps = longest(keys);
    float top = -INFINITY, total = 0.0f;
    for (int64_t o = 0; o < steps; ++o) {
        const int64_t j = o < keys ? first + o * p.dilation : first;
        const bool live = o < keys && !g.padded(at, j);
        float k[E], v[E];
        g.read(p.k, at, j, k);
        const float s = g.dot(q, k) * static_cast<float>(p.scale);
        if (!live) continue;
        g.read(p.v, at, j, v);
        const float higher = s > top ? s : top;  // NaN in s reaches the result through the weight
        const float keep = top == -INFINITY ? 0.0f : expf(top - higher);
        const float weight = s == -INFINITY ? 0.0f : expf(s - higher);
        total = total * keep + weight;
#pragma unroll
        for (int e = 0; e < E; ++e) out[e] = fmaf(weight, v[e], out[e] * keep);
        top = higher;
    }
    g.write(p.out, at, out, total == 0.0f ? 0.0f : 1.0f / total);
    if (p.lse != nullptr && g.lane == 0 && at.exists)
        static_cast<float *>(p.lse)[g.statistic(at, at.t)] = total == 0.0f ? -INFINITY : top + logf(total);
}

template <typename T, int LANES, bool WHOLE>
__global__ void __launch_bounds__(THREADS) sliding_window_attention_bwd_rows_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const row_of at = g.place();
    const float scale = static_cast<float>(p.scale);
    float q[E], dout[E], dq[E] = {};
    g.read(p.q, at, at.t, q);
    g.read(p.dout, at, at.t, dout);
    const int64_t back = g.before(at.t, p.left), keys = back + g.after(at.t, p.right) + 1;
    const int64_t first = at.t - back * p.dilation, steps = longest(keys);
    float top = -INFINITY, total = 0.0f, delta = 0.0f;
    for (int64_t o = 0; o < steps; ++o) {
        const int64_t j = o < keys ? first + o * p.dilation : first;
        const bool live = o < keys && !g.padded(at, j);
        float k[E], v[E];
        g.read(p.k, at, j, k);
        g.read(p.v, at, j, v);
        const float s = g.dot(q, k) * scale, slope = g.dot(dout, v);
        if (!live) continue;
        const float higher = s > top ? s : top;
        const float keep = top == -INFINITY ? 0.0f : expf(top - higher);
        const float weight = s == -INFINITY ? 0.0f : expf(s - higher);
        total = total * keep + weight;
        delta = fmaf(weight, slope, delta * keep);
        top = higher;
    }
    const bool sees = total != 0.0f;
    const float lse = sees ? top + logf(total) : INFINITY;  // exp(s - lse) = 0 in the second kernel
    delta = sees ? delta / total : 0.0f;
    if (p.dlse != nullptr && sees) delta -= static_cast<const float *>(p.dlse)[g.statistic(at, at.t)];
    for (int64_t o = 0; o < steps; ++o) {
        const int64_t j = o < keys ? first + o * p.dilation : first;
        const bool live = o < keys && !g.padded(at, j);
        float k[E], v[E];
        g.read(p.k, at, j, k);
        g.read(p.v, at, j, v);
        const float s = g.dot(q, k) * scale, slope = g.dot(dout, v);
        if (!live) continue;
        const float ds = expf(s - lse) * (slope - delta) * scale;
#pragma unroll
        for (int e = 0; e < E; ++e) dq[e] = fmaf(ds, k[e], dq[e]);
    }
    g.write(p.dq, at, dq, 1.0f);
    if (g.lane == 0 && at.exists) {
        float *stats = static_cast<float *>(p.row_stats);
        stats[g.statistic(at, at.t)] = lse;
        stats[p.B * p.H * p.T + g.statistic(at, at.t)] = delta;
    }
}

template <typename T, int LANES, bool WHOLE>
__global__ void __launch_bounds__(THREADS) sliding_window_attention_bwd_keys_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const row_of at = g.place();
    const float scale = static_cast<float>(p.scale);
    const float *stats = static_cast<const float *>(p.row_stats);
    float k[E], v[E], dk[E] = {}, dv[E] = {};
    g.read(p.k, at, at.t, k);
    g.read(p.v, at, at.t, v);
    const bool dead = g.padded(at, at.t);
    // Row i sees key j at i + o * dilation, -left <= o <= right: rows from j - right to j + left.
    const int64_t back = g.before(at.t, p.right), rows = back + g.after(at.t, p.left) + 1;
    const int64_t first = at.t - back * p.dilation, steps = longest(rows);
    for (int64_t o = 0; o < steps; ++o) {
        const int64_t i = o < rows ? first + o * p.dilation : first;
        const bool live = o < rows && !dead;
        float q[E], dout[E];
        g.read(p.q, at, i, q);
        g.read(p.dout, at, i, dout);
        const float s = g.dot(q, k) * scale, slope = g.dot(dout, v);
        if (!live) continue;
        const float weight = expf(s - stats[g.statistic(at, i)]);
        const float ds = weight * (slope - stats[p.B * p.H * p.T + g.statistic(at, i)]) * scale;
#pragma unroll
        for (int e = 0; e < E; ++e) {
            dk[e] = fmaf(ds, q[e], dk[e]);
            dv[e] = fmaf(weight, dout[e], dv[e]);
        }
    }
    g.write(p.dk, at, dk, 1.0f);
    g.write(p.dv, at, dv, 1.0f);
}

// Whether every row of x starts at a multiple of 16 bytes and is a whole number of lanes' features.
bool whole_rows(const vts_bhtd &x, const params &p, int lanes, int element) {
    if (x.data == nullptr) return true;
    const int64_t bytes = reinterpret_cast<uintptr_t>(x.data) | static_cast<uintptr_t>(x.stride_b * element) |
                          static_cast<uintptr_t>(x.stride_h * element) | static_cast<uintptr_t>(x.stride_t * element);
    return p.D == lanes * E && bytes % 16 == 0;
}

enum class pass { forward, backward };

template <typename T, int LANES, bool WHOLE>
int launch(const params &p, pass which, cudaStream_t stream) {
    constexpr int rows = THREADS / LANES;
    const int64_t blocks = (p.B * p.H * p.T + rows - 1) / rows;
    if (blocks == 0) return 0;
    if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
    const unsigned grid = static_cast<unsigned>(blocks);
    if (which == pass::forward) {
        sliding_window_attention_fwd_kernel<T, LANES, WHOLE><<<grid, THREADS, 0, stream>>>(p);
    } else {
        sliding_window_attention_bwd_rows_kernel<T, LANES, WHOLE><<<grid, THREADS, 0, stream>>>(p);
        sliding_window_attention_bwd_keys_kernel<T, LANES, WHOLE><<<grid, THREADS, 0, stream>>>(p);
    }
    return cudaGetLastError();
}

template <typename T, int LANES>
int with_alignment(const params &p, pass which, cudaStream_t stream) {
    bool whole = true;
    for (const vts_bhtd *x : {&p.q, &p.k, &p.v, &p.out, &p.dout, &p.dq, &p.dk, &p.dv})
        whole = whole && whole_rows(*x, p, LANES, sizeof(T));
    if (whole) return launch<T, LANES, true>(p, which, stream);
    constexpr int wider = LANES <= 8 ? 8 : 32;  // fewer kernels to compile; the lanes past D hold zeros
    return launch<T, wider, false>(p, which, stream);
}

template <typename T>
int with_width(const params &p, pass which, cudaStream_t stream) {
    if (p.D <= 16) return with_alignment<T, 2>(p, which, stream);
    if (p.D <= 32) return with_alignment<T, 4>(p, which, stream);
    if (p.D <= 64) return with_alignment<T, 8>(p, which, stream);
    if (p.D <= 128) return with_alignment<T, 16>(p, which, stream);
    if (p.D <= 256) return with_alignment<T, 32>(p, which, stream);
    return cudaErrorInvalidValue;
}

int with_dtype(const params &p, pass which, void *stream) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    switch (p.dtype) {
        case VTS_FLOAT32: return with_width<float>(p, which, on);
        case VTS_FLOAT16: return with_width<__half>(p, which, on);
        case VTS_BFLOAT16: return with_width<__nv_bfloat16>(p, which, on);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace

extern "C" int vts_sliding_window_attention_fwd_cuda(const params *p, void *stream) {
    return with_dtype(*p, pass::forward, stream);
}

extern "C" int vts_sliding_window_attention_bwd_cuda(const params *p, void *stream) {
    return with_dtype(*p, pass::backward, stream);
}
