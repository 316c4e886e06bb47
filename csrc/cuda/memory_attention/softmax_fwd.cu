// The softmax of memory attention over the slots, forward: scale, bias, mask, softmax, lse and usage in one pass.
#include "softmax.h"

namespace vts::memory {
namespace {

// Blocks that share a multiprocessor: as many as have registers enough to spill none. The compiler wants two more for a
// warp a row on sm_100 than elsewhere.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 1000
constexpr bool FEWER = true;
#else
constexpr bool FEWER = false;
#endif
template <int P, int V, bool ALIGNED>
constexpr int RESIDENT = V <= 2                           ? 4
                         : V == 8                         ? 1
                         : ALIGNED && !(FEWER && P == 32) ? 3
                                                          : 2;

// The greatest z and the sum of 2^(z - greatest) over a block, from those of each warp. Called again, it reads and
// writes the other half of its memory: the barrier of one call is enough for both. NaN, which is never the greatest, is
// in the sum.
struct block_softmax {
    float (*const shared)[BLOCK / 32];  // [4][warps]
    int turn = 0;

    __device__ __forceinline__ void combine(float &top, float &total) {
        const int warp = static_cast<int>(threadIdx.x) / 32;
        float *const tops = shared[2 * turn], *const totals = shared[2 * turn + 1];
        if (threadIdx.x % 32 == 0) tops[warp] = top, totals[warp] = total;
        __syncthreads();
        turn ^= 1;
        float highest = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int w = 0; w < BLOCK / 32; ++w) highest = fmaxf(highest, tops[w]);
        const float base = highest == -INFINITY ? 0.0f : highest;
#pragma unroll
        for (int w = 0; w < BLOCK / 32; ++w) sum += totals[w] * power_of_2(tops[w] - base);
        top = highest, total = sum;
    }
};

__device__ __forceinline__ float lse_of(float top, float total) {
    return total == 0.0f ? -INFINITY : (top + __log2f(total)) * LN_2;
}

template <typename W, int P, int V, bool ALIGNED>
__global__ void __launch_bounds__(BLOCK, (RESIDENT<P, V, ALIGNED>))
    memory_softmax_fwd_kernel(const __grid_constant__ softmax_params p, const __grid_constant__ row_cut cut) {
    constexpr int AT_ONCE = BLOCK / P;
    __shared__ float of_warps[4][BLOCK / 32];
    block_softmax block{of_warps};
    const head_chunk at(p, cut);
    const columns<P, V, ALIGNED> own(p.S);
    const float *const bias = p.slot_bias == nullptr ? nullptr
                                                     : static_cast<const float *>(p.slot_bias) +
                                                           at.g * p.bias_stride_g + at.h * p.bias_stride_h;
    const int64_t begin = at.chunk * cut.rows, end = min(begin + cut.rows, p.n);
    float usage[V][4] = {};

    for (int64_t first = begin; first < end; first += AT_ONCE) {  // all threads of a block take part in each round
        const int64_t i = first + threadIdx.x / P, row = at.head * p.n + i;
        const bool live = i < end;
        const bool seen = live && (p.query_mask == nullptr || p.query_mask[at.g * p.n + i] != 0);
        float x[V][4], top = -INFINITY;
        if (seen) {
            own.load(static_cast<const float *>(p.scores) + row * p.S, x);
            const float factor = static_cast<const float *>(p.factor)[row] * LOG2_E;
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float b[4] = {};
                if (bias != nullptr) own.load_group(bias, v, b);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    x[v][e] = own.at(v, e) < own.S ? fmaf(x[v][e], factor, b[e] * LOG2_E) : -INFINITY;
                    top = fmaxf(top, x[v][e]);
                }
            }
        } else {
#pragma unroll
            for (int v = 0; v < V; ++v) x[v][0] = x[v][1] = x[v][2] = x[v][3] = -INFINITY;
        }
        top = max_of_row < P<32 ? P : 32>(top);
        const float base = top == -INFINITY ? 0.0f : top;
        float total = 0.0f;
#pragma unroll
        for (int v = 0; v < V; ++v)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                x[v][e] = power_of_2(x[v][e] - base);
                total += x[v][e];
            }
        total = sum_of_row < P<32 ? P : 32>(total);
        float share = 1.0f;
        if constexpr (P == BLOCK) {
            const bool some = total != 0.0f;
            block.combine(top, total);
            share = some ? power_of_2(base - top) : 0.0f;
        }
        share = total == 0.0f ? 0.0f : share / total;  // NaN stays NaN
#pragma unroll
        for (int v = 0; v < V; ++v)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                x[v][e] *= share;
                usage[v][e] += x[v][e];
            }
        if (live) {
            own.store(static_cast<W *>(p.weights) + row * p.S, x);
            if (own.thread == 0) static_cast<float *>(p.lse)[row] = lse_of(top, total);
        }
    }
    if (p.usage == nullptr) return;
    float *const sums = static_cast<float *>(cut.count == 1 ? p.usage : p.partial);
    store_column_sums(own, usage, sums + (at.head * cut.count + at.chunk) * p.S);
}

// Rows that do not fit into registers are read twice, the second time from the L2 cache: its 50 MiB hold the rows that
// the resident blocks have under way.
template <typename W, bool ALIGNED>
__global__ void __launch_bounds__(BLOCK, ALIGNED ? 3 : 2)
    memory_softmax_fwd_long_kernel(const __grid_constant__ softmax_params p, const __grid_constant__ row_cut cut) {
    constexpr int V = 4, STEP = BLOCK * V * 4;
    __shared__ float of_warps[4][BLOCK / 32];
    block_softmax block{of_warps};
    const head_chunk at(p, cut);
    const float *const bias = p.slot_bias == nullptr ? nullptr
                                                     : static_cast<const float *>(p.slot_bias) +
                                                           at.g * p.bias_stride_g + at.h * p.bias_stride_h;
    const int64_t begin = at.chunk * cut.rows, end = min(begin + cut.rows, p.n);
    float *const sums = p.usage == nullptr ? nullptr
                                           : static_cast<float *>(cut.count == 1 ? p.usage : p.partial) +
                                                 (at.head * cut.count + at.chunk) * p.S;

    for (int64_t i = begin; i < end; ++i) {
        const int64_t row = at.head * p.n + i;
        const bool seen = p.query_mask == nullptr || p.query_mask[at.g * p.n + i] != 0;
        const float *const scores = static_cast<const float *>(p.scores) + row * p.S;
        const float factor = seen ? static_cast<const float *>(p.factor)[row] * LOG2_E : 0.0f;
        float x[V][4];
        const auto columns_at = [&](int64_t step) {
            return columns<BLOCK, V, ALIGNED>(min(p.S - step, static_cast<int64_t>(STEP)));
        };
        // z of the columns of a step; -inf in those that are not there.
        const auto read = [&](const columns<BLOCK, V, ALIGNED> &own, int64_t step) {
            own.load(scores + step, x);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float b[4] = {};
                if (bias != nullptr) own.load_group(bias + step, v, b);
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    x[v][e] = own.at(v, e) < own.S ? fmaf(x[v][e], factor, b[e] * LOG2_E) : -INFINITY;
            }
        };
        float top = -INFINITY, total = 0.0f;
        if (seen) {
            for (int64_t step = 0; step < p.S; step += STEP) {
                read(columns_at(step), step);
                float higher = top;
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int e = 0; e < 4; ++e) higher = fmaxf(higher, x[v][e]);
                const float base = higher == -INFINITY ? 0.0f : higher;
                total *= power_of_2(top - base);
                top = higher;
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int e = 0; e < 4; ++e) total += power_of_2(x[v][e] - base);
            }
        }
        const float highest = max_of_row<32>(top);
        total = sum_of_row<32>(total * power_of_2(top - (highest == -INFINITY ? 0.0f : highest)));
        top = highest;
        block.combine(top, total);
        const float base = top == -INFINITY ? 0.0f : top, share = total == 0.0f ? 0.0f : 1.0f / total;
        for (int64_t step = 0; step < p.S; step += STEP) {
            const columns<BLOCK, V, ALIGNED> own = columns_at(step);
            if (share > 0.0f) {
                read(own, step);
            } else {
#pragma unroll
                for (int v = 0; v < V; ++v) x[v][0] = x[v][1] = x[v][2] = x[v][3] = -INFINITY;
            }
#pragma unroll
            for (int v = 0; v < V; ++v)
#pragma unroll
                for (int e = 0; e < 4; ++e) x[v][e] = power_of_2(x[v][e] - base) * share;
            own.store(static_cast<W *>(p.weights) + row * p.S + step, x);
            if (sums == nullptr) continue;
            if (i > begin) {  // what this thread itself wrote for the row before
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    float before[4];
                    own.load_group(sums + step, v, before);
#pragma unroll
                    for (int e = 0; e < 4; ++e) x[v][e] += before[e];
                }
            }
            own.store(sums + step, x);
        }
        if (threadIdx.x == 0) static_cast<float *>(p.lse)[row] = lse_of(top, total);
    }
}

template <typename W>
struct launcher {
    const softmax_params &p;
    const row_cut cut;
    const cudaStream_t stream;

    dim3 grid() const { return dim3(static_cast<unsigned>(p.G * p.H * cut.count)); }

    template <int P, int V, bool ALIGNED>
    int in_registers() const {
        return VTS_LAUNCH((memory_softmax_fwd_kernel<W, P, V, ALIGNED>), grid(), dim3(BLOCK), 0, stream, p, cut);
    }

    template <bool ALIGNED>
    int streamed() const {
        return VTS_LAUNCH((memory_softmax_fwd_long_kernel<W, ALIGNED>), grid(), dim3(BLOCK), 0, stream, p, cut);
    }
};

}  // namespace
}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" int vts_memory_softmax_fwd_cuda(const mem::softmax_params *p, void *stream) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (p->dtype != VTS_FLOAT32 || p->S > (int64_t{1} << 30)) return cudaErrorInvalidValue;
    if (p->G * p->H * p->n == 0) {
        if (p->usage == nullptr || p->G * p->H * p->S == 0) return cudaSuccess;
        return cudaMemsetAsync(p->usage, 0, static_cast<size_t>(p->G * p->H * p->S) * sizeof(float), on);
    }
    const bool aligned = p->S % 4 == 0 && (p->bias_stride_g | p->bias_stride_h) % 4 == 0 &&
                         mem::aligned_16(p->scores) && mem::aligned_16(p->weights) && mem::aligned_16(p->slot_bias) &&
                         mem::aligned_16(p->usage) && mem::aligned_16(p->partial);
    const mem::row_cut cut = mem::cut_rows(*p);
    if (p->G * p->H * cut.count > 0x7FFFFFFF) return cudaErrorInvalidValue;
    int error = cudaErrorInvalidValue;
    switch (p->weights_dtype) {
        case VTS_FLOAT32: error = mem::with_form(p->S, aligned, mem::launcher<float>{*p, cut, on}); break;
        case VTS_FLOAT16: error = mem::with_form(p->S, aligned, mem::launcher<__half>{*p, cut, on}); break;
        case VTS_BFLOAT16: error = mem::with_form(p->S, aligned, mem::launcher<__nv_bfloat16>{*p, cut, on}); break;
        default: break;
    }
    if (error != cudaSuccess || p->usage == nullptr || cut.count == 1) return error;
    return mem::add_up_columns(
        static_cast<const float *>(p->partial), p->G * p->H, cut.count, p->S, static_cast<float *>(p->usage), on);
}
