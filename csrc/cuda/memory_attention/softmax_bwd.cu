// The softmax of memory attention over the slots, backward: from the weights and their gradients to those of the
// scores.
#include "softmax.h"

namespace vts::memory {
namespace {

// Blocks that share a multiprocessor: as many as have registers enough to spill none.
template <int P, int V, bool ALIGNED>
constexpr int RESIDENT = V <= 2   ? 5
                         : V == 8 ? 1
                                  : 2;

// Calls as block_sum(x) in turn: the barrier of one call is enough, for the next writes elsewhere.
struct block_sum {
    float (*const shared)[BLOCK / 32];  // [2][warps]
    int turn = 0;

    __device__ __forceinline__ float operator()(float x) {
        float *const of_warp = shared[turn];
        x = sum_of_row<32>(x);
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
        __syncthreads();
        turn ^= 1;
        x = 0.0f;
#pragma unroll
        for (int w = 0; w < BLOCK / 32; ++w) x += of_warp[w];
        return x;
    }
};

// What a row needs beyond its weights and their gradients.
struct row_terms {
    bool seen;
    float dlse, factor;

    __device__ __forceinline__
    row_terms(const softmax_params &p, const head_chunk &at, int64_t i, int64_t row, bool live)
        : seen(live && (p.query_mask == nullptr || p.query_mask[at.g * p.n + i] != 0)),
          dlse(seen && p.dlse != nullptr ? static_cast<const float *>(p.dlse)[row] : 0.0f),
          factor(seen && p.scaled ? static_cast<const float *>(p.factor)[row] : 1.0f) {}
};

// W: of the weights and their gradient, D: of the scores' gradient.
template <typename W, typename D, int P, int V, bool ALIGNED>
__global__ void __launch_bounds__(BLOCK, (RESIDENT<P, V, ALIGNED>))
    memory_softmax_bwd_kernel(const __grid_constant__ softmax_params p, const __grid_constant__ row_cut cut) {
    constexpr int AT_ONCE = BLOCK / P;
    __shared__ float of_warps[2][BLOCK / 32];
    block_sum block{of_warps};
    const head_chunk at(p, cut);
    const columns<P, V, ALIGNED> own(p.S);
    const float *const dusage = p.dusage == nullptr ? nullptr : static_cast<const float *>(p.dusage) + at.head * p.S;
    const int64_t begin = at.chunk * cut.rows, end = min(begin + cut.rows, p.n);
    float sums[V][4] = {};

    for (int64_t first = begin; first < end; first += AT_ONCE) {  // all threads of a block take part in each round
        const int64_t i = first + threadIdx.x / P, row = at.head * p.n + i;
        const bool live = i < end;
        const row_terms terms(p, at, i, row, live);
        float w[V][4] = {}, gradient[V][4] = {};
        if (terms.seen) {
            own.load(static_cast<const W *>(p.weights) + row * p.S, w);
            if (p.dweights != nullptr) own.load(static_cast<const W *>(p.dweights) + row * p.S, gradient);
        }
        float mean = 0.0f;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            float du[4] = {};
            if (dusage != nullptr) own.load_group(dusage, v, du);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                gradient[v][e] += du[e];
                mean = fmaf(w[v][e], gradient[v][e], mean);
            }
        }
        if constexpr (P == BLOCK)
            mean = block(mean);
        else
            mean = sum_of_row<P>(mean);
        const float shift = terms.dlse - mean;
#pragma unroll
        for (int v = 0; v < V; ++v)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float ds = w[v][e] * (gradient[v][e] + shift);
                sums[v][e] += ds;
                w[v][e] = ds * terms.factor;
            }
        if (live) own.store(static_cast<D *>(p.dscores) + row * p.S, w);
    }
    if (p.dslot_bias == nullptr) return;
    float *const to = static_cast<float *>(cut.count == 1 ? p.dslot_bias : p.partial);
    store_column_sums(own, sums, to + (at.head * cut.count + at.chunk) * p.S);
}

// Rows that do not fit into registers are read twice, the second time from the L2 cache.
template <typename W, typename D, bool ALIGNED>
__global__ void __launch_bounds__(BLOCK, ALIGNED ? 2 : 1)
    memory_softmax_bwd_long_kernel(const __grid_constant__ softmax_params p, const __grid_constant__ row_cut cut) {
    constexpr int V = 4, STEP = BLOCK * V * 4;
    __shared__ float of_warps[2][BLOCK / 32];
    block_sum block{of_warps};
    const head_chunk at(p, cut);
    const float *const dusage = p.dusage == nullptr ? nullptr : static_cast<const float *>(p.dusage) + at.head * p.S;
    const int64_t begin = at.chunk * cut.rows, end = min(begin + cut.rows, p.n);
    float *const sums = p.dslot_bias == nullptr ? nullptr
                                                : static_cast<float *>(cut.count == 1 ? p.dslot_bias : p.partial) +
                                                      (at.head * cut.count + at.chunk) * p.S;

    for (int64_t i = begin; i < end; ++i) {
        const int64_t row = at.head * p.n + i;
        const row_terms terms(p, at, i, row, true);
        float w[V][4], gradient[V][4];
        const auto columns_at = [&](int64_t step) {
            return columns<BLOCK, V, ALIGNED>(min(p.S - step, static_cast<int64_t>(STEP)));
        };
        const auto read = [&](const columns<BLOCK, V, ALIGNED> &own, int64_t step) {
            own.load(static_cast<const W *>(p.weights) + row * p.S + step, w);
            if (p.dweights != nullptr) {
                own.load(static_cast<const W *>(p.dweights) + row * p.S + step, gradient);
            } else {
#pragma unroll
                for (int v = 0; v < V; ++v) gradient[v][0] = gradient[v][1] = gradient[v][2] = gradient[v][3] = 0.0f;
            }
            if (dusage == nullptr) return;
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float du[4];
                own.load_group(dusage + step, v, du);
#pragma unroll
                for (int e = 0; e < 4; ++e) gradient[v][e] += du[e];
            }
        };
        float mean = 0.0f;
        if (terms.seen) {
            for (int64_t step = 0; step < p.S; step += STEP) {
                read(columns_at(step), step);
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int e = 0; e < 4; ++e) mean = fmaf(w[v][e], gradient[v][e], mean);
            }
        }
        const float shift = terms.dlse - block(mean);
        for (int64_t step = 0; step < p.S; step += STEP) {
            const columns<BLOCK, V, ALIGNED> own = columns_at(step);
            if (terms.seen) {
                read(own, step);
            } else {
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int e = 0; e < 4; ++e) w[v][e] = gradient[v][e] = 0.0f;
            }
#pragma unroll
            for (int v = 0; v < V; ++v)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    gradient[v][e] = w[v][e] * (gradient[v][e] + shift);
                    w[v][e] = gradient[v][e] * terms.factor;
                }
            own.store(static_cast<D *>(p.dscores) + row * p.S + step, w);
            if (sums == nullptr) continue;
            if (i > begin) {  // what this thread itself wrote for the row before
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    float before[4];
                    own.load_group(sums + step, v, before);
#pragma unroll
                    for (int e = 0; e < 4; ++e) gradient[v][e] += before[e];
                }
            }
            own.store(sums + step, gradient);
        }
    }
}

template <typename W, typename D>
struct launcher {
    const softmax_params &p;
    const row_cut cut;
    const cudaStream_t stream;

    dim3 grid() const { return dim3(static_cast<unsigned>(p.G * p.H * cut.count)); }

    template <int P, int V, bool ALIGNED>
    int in_registers() const {
        return VTS_LAUNCH((memory_softmax_bwd_kernel<W, D, P, V, ALIGNED>), grid(), dim3(BLOCK), 0, stream, p, cut);
    }

    template <bool ALIGNED>
    int streamed() const {
        return VTS_LAUNCH((memory_softmax_bwd_long_kernel<W, D, ALIGNED>), grid(), dim3(BLOCK), 0, stream, p, cut);
    }
};

// Gradients come in the weights' type and leave in that of the product they go into: that of the weights, or, for
// weights kept in float32, one of 16 bits.
int of_types(const softmax_params &p, const row_cut &cut, bool aligned, cudaStream_t stream) {
    if (p.weights_dtype == VTS_FLOAT32) {
        if (p.dscores_dtype == VTS_FLOAT32) return with_form(p.S, aligned, launcher<float, float>{p, cut, stream});
        if (p.dscores_dtype == VTS_FLOAT16) return with_form(p.S, aligned, launcher<float, __half>{p, cut, stream});
        if (p.dscores_dtype == VTS_BFLOAT16)
            return with_form(p.S, aligned, launcher<float, __nv_bfloat16>{p, cut, stream});
    }
    if (p.weights_dtype == VTS_FLOAT16 && p.dscores_dtype == VTS_FLOAT16)
        return with_form(p.S, aligned, launcher<__half, __half>{p, cut, stream});
    if (p.weights_dtype == VTS_BFLOAT16 && p.dscores_dtype == VTS_BFLOAT16)
        return with_form(p.S, aligned, launcher<__nv_bfloat16, __nv_bfloat16>{p, cut, stream});
    return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" int vts_memory_softmax_bwd_cuda(const mem::softmax_params *p, void *stream) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (p->dtype != VTS_FLOAT32 || p->S > (int64_t{1} << 30)) return cudaErrorInvalidValue;
    if (p->dweights != nullptr && p->dweights_dtype != p->weights_dtype) return cudaErrorInvalidValue;
    if (p->G * p->H * p->S == 0) return cudaSuccess;
    if (p->n == 0) {
        if (p->dslot_bias == nullptr) return cudaSuccess;
        return cudaMemsetAsync(p->dslot_bias, 0, static_cast<size_t>(p->G * p->H * p->S) * sizeof(float), on);
    }
    bool aligned = p->S % 4 == 0;
    for (const void *x :
         {static_cast<const void *>(p->weights), p->dweights, p->dusage, static_cast<const void *>(p->dscores),
          static_cast<const void *>(p->dslot_bias), static_cast<const void *>(p->partial)})
        aligned = aligned && mem::aligned_16(x);
    const mem::row_cut cut = mem::cut_rows(*p);
    if (p->G * p->H * cut.count > 0x7FFFFFFF) return cudaErrorInvalidValue;
    const int error = mem::of_types(*p, cut, aligned, on);
    if (error != cudaSuccess || p->dslot_bias == nullptr || cut.count == 1) return error;
    return mem::add_up_columns(
        static_cast<const float *>(p->partial), p->G * p->H, cut.count, p->S, static_cast<float *>(p->dslot_bias), on);
}
