// What lies around the products of the backward pass: the factor's part, and sums over blocks of rows.
//
// Bound by bytes: x and u are read, dx and factor x are written, once each. A lane asks for all its vectors of up to
// 1,024 16-bit numbers of both rows before it uses the first.
#include <algorithm>

#include "vectors.h"
#include "vtsum/memory_attention.h"

namespace vts::memory {
namespace {

using factor_bwd_params = vts_memory_factor_bwd_params;

constexpr int BLOCK = 256, VECTORS = 4;

// L lanes serve a row. Rows are counted as u lies in memory: frame * H + h, frame = g * n + i.
template <typename T, int N, int L>
__global__ void __launch_bounds__(BLOCK, 2) memory_factor_bwd_kernel(const __grid_constant__ factor_bwd_params p) {
    const int lane = static_cast<int>(threadIdx.x) % L, d = static_cast<int>(p.d);
    const int64_t rows = p.G * p.n * p.H, stride = static_cast<int64_t>(gridDim.x) * (BLOCK / L);
    // A whole block takes each turn: lanes without a row shuffle along.
    for (int64_t begin = static_cast<int64_t>(blockIdx.x) * (BLOCK / L); begin < rows; begin += stride) {
        const int64_t r = begin + threadIdx.x / L, frame = r / p.H, h = r % p.H, g = frame / p.n, i = frame % p.n;
        const bool live = r < rows;
        const bool seen = live && (p.query_mask == nullptr || p.query_mask[frame] != 0);
        const int64_t statistic = (g * p.H + h) * p.n + i;
        const float factor = seen ? p.factor[statistic] : 0.0f;
        const T *const x = static_cast<const T *>(p.x) + g * p.x_stride_g + i * p.x_stride_n + h * p.x_stride_h;
        T *const u = static_cast<T *>(p.u) + r * p.d, *const scaled = static_cast<T *>(p.scaled) + r * p.d;
        float dot = 0.0f;
        for (int first = lane * N; live && first < d; first += VECTORS * L * N) {
            vector<T, N> row[VECTORS] = {}, gradient[VECTORS] = {};
#pragma unroll
            for (int q = 0; q < VECTORS; ++q)
                if (const int column = first + q * L * N; seen && column < d)
                    row[q] = load_vector<T, N>(x + column), gradient[q] = load_vector<T, N>(u + column);
#pragma unroll
            for (int q = 0; q < VECTORS; ++q) {
                const int column = first + q * L * N;
                float to_u[N], to_scaled[N];
#pragma unroll
                for (int e = 0; e < N; ++e) {
                    const float own = widen(row[q].x[e]), by = widen(gradient[q].x[e]);
                    dot = fmaf(own, by, dot);
                    to_u[e] = factor * by, to_scaled[e] = factor * own;
                }
                if (column < d) store_vector<T, N>(u + column, to_u), store_vector<T, N>(scaled + column, to_scaled);
            }
        }
#pragma unroll
        for (int step = L / 2; step > 0; step /= 2) dot += __shfl_xor_sync(0xFFFFFFFFu, dot, step);
        if (live && lane == 0) p.dfactor[statistic] = dot;
    }
}

struct factor_bwd_run {
    const factor_bwd_params &p;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        return p.d / N <= 16 ? launch<T, N, 8>() : launch<T, N, 32>();
    }

    template <typename T, int N, int L>
    int launch() const {
        const int64_t rows = p.G * p.n * p.H, blocks = (rows + BLOCK / L - 1) / (BLOCK / L);
        const dim3 grid(static_cast<unsigned>(std::min(blocks, most_blocks())));
        return VTS_LAUNCH((memory_factor_bwd_kernel<T, N, L>), grid, dim3(BLOCK), 0, stream, p);
    }
};

__global__ void __launch_bounds__(BLOCK) memory_add_kernel(float *sum, const float *term, int64_t length) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * BLOCK;
    for (int64_t at = static_cast<int64_t>(blockIdx.x) * BLOCK + threadIdx.x; at < length; at += step)
        sum[at] += term[at];
}

}  // namespace
}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" {

int vts_memory_factor_bwd_cuda(const vts_memory_factor_bwd_params *p, void *stream) {
    if (p->G * p->H * p->n == 0) return cudaSuccess;
    if (p->d > 0x7FFFFFFF / 8) return cudaErrorInvalidValue;
    const int64_t steps = p->d | p->x_stride_g | p->x_stride_n | p->x_stride_h;
    return mem::with_vectors(
        p->dtype, steps, {p->x, p->u, p->scaled}, mem::factor_bwd_run{*p, static_cast<cudaStream_t>(stream)});
}

int vts_memory_add_cuda(float *sum, const float *term, int64_t length, void *stream) {
    const int64_t blocks = (length + mem::BLOCK - 1) / mem::BLOCK;
    return VTS_LAUNCH(
        mem::memory_add_kernel, dim3(static_cast<unsigned>(blocks < 4096 ? blocks : 4096)), dim3(mem::BLOCK), 0,
        static_cast<cudaStream_t>(stream), sum, term, length);
}

}  // extern "C"
