// weights_ij = rows[i] . table[index_ij]: every frame's products with its chosen slots.
#include "gather.h"

namespace vts::memory {
namespace {

// The sum of each of 8 numbers over L lanes, L >= 8: lane l % 8 gets that of number l % 8. Halving what is passed on at
// every step takes 7 shuffles and one more for each doubling of L, where one sum at a time would take 8 log2(L).
template <int L>
__device__ __forceinline__ float sum_of_lanes(float (&x)[8]) {
    const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int half = 4; half > 0; half /= 2) {
        const bool upper = (lane & half) != 0;
#pragma unroll
        for (int u = 0; u < half; ++u) {
            const float other = __shfl_xor_sync(0xFFFFFFFFu, upper ? x[u] : x[u + half], half);
            x[u] = (upper ? x[u + half] : x[u]) + other;
        }
    }
#pragma unroll
    for (int step = 8; step < L; step *= 2) x[0] += __shfl_xor_sync(0xFFFFFFFFu, x[0], step);
    return x[0];
}

// L lanes serve a row, 8 slots at a time, of which each lane reads its own vectors: L vectors of each slot are a step.
// Narrow rows take 8 lanes, so that none is idle. The row's own vectors come from the L1 cache from the second 8 slots
// on.
template <typename T, int N, int L>
__global__ void __launch_bounds__(GATHER_BLOCK, 4)
    memory_gather_dot_kernel(const __grid_constant__ gather_params p, const __grid_constant__ head_grid grid) {
    static_assert(IN_FLIGHT == 8, "a step's vectors of 8 slots are the ring's");
    const int lane = static_cast<int>(threadIdx.x) % L, k = static_cast<int>(p.k), e = static_cast<int>(p.e);
    const int last = (e - 1) / (L * N) * (L * N) + lane * N;  // this lane's column in the last step
    VTS_DYNAMIC_SHARED(unsigned char, shared);
    vector_ring<T> ring(shared);
    grid.each([&](int64_t head, int64_t thread) {
        const bool live = thread / L < p.n;  // lanes without a row shuffle along
        const int64_t i = live ? thread / L : 0, r = head * p.n + i;
        const T *const bank = bank_of<const T>(p, head), *const row = row_of<const T>(p, head, i);
        const int32_t *const index = p.index + r * p.k;
        float *const to = static_cast<float *>(p.weights) + r * p.k;
        // Whether there is something to read at a column of slot j, and where.
        const auto there = [&](int j, int column) { return live && j < k && column < e; };
        const auto key = [&](int j, int column) { return bank + index[j] * p.table_stride_s + column; };
        const auto own_vector = [&](int column) {
            return live && column < e ? load_vector<T, N>(row + column) : vector<T, N>{};
        };
        const auto multiply = [&](float &dot, bool counts, const vector<T, N> &own, const vector<T, N> &slot) {
            if (!counts) return;
#pragma unroll
            for (int x = 0; x < N; ++x) dot = fmaf(widen(own.x[x]), widen(slot.x[x]), dot);
        };
        const auto request = [&](int u, int j, int column) {
            const bool some = there(j, column);
            ring.request(u, some ? key(j, column) : nullptr, some);
        };
        constexpr bool queued = N * sizeof(T) == 16;
        if constexpr (queued)
#pragma unroll
            for (int u = 0; u < 8; ++u) request(u, u, lane * N);
        for (int j = 0; j < k; j += 8) {
            float dot[8] = {};
            for (int column = lane * N; column <= last; column += L * N) {
                const vector<T, N> own = own_vector(column);
                if constexpr (queued) {
                    const bool same = column < last;
                    const int next_j = same ? j : j + 8, next_column = same ? column + L * N : lane * N;
#pragma unroll
                    for (int u = 0; u < 8; ++u) {
                        multiply(dot[u], there(j + u, column), own, ring.take(u));
                        request(u, next_j + u, next_column);
                    }
                } else {
                    vector<T, N> slots[8];
#pragma unroll
                    for (int u = 0; u < 8; ++u)
                        slots[u] = there(j + u, column) ? load_vector<T, N>(key(j + u, column)) : vector<T, N>{};
#pragma unroll
                    for (int u = 0; u < 8; ++u) multiply(dot[u], true, own, slots[u]);
                }
            }
            const float sum = sum_of_lanes<L>(dot);
            if (live && lane < 8 && j + lane < k) to[j + lane] = sum;
        }
    });
}

struct run {
    const gather_params &p;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        return p.e / N <= 16 ? launch<T, N, 8>() : launch<T, N, 32>();
    }

    template <typename T, int N, int L>
    int launch() const {
        const head_grid grid(p, p.n * L);
        return VTS_LAUNCH(
            (memory_gather_dot_kernel<T, N, L>), grid.size(), dim3(GATHER_BLOCK), (RING_BYTES<T, N>), stream, p, grid);
    }
};

}  // namespace
}  // namespace vts::memory

extern "C" int vts_memory_gather_dot_cuda(const vts::memory::gather_params *p, void *stream) {
    if (!vts::memory::fits(*p)) return cudaErrorInvalidValue;
    const int64_t all = p->G * p->H * p->n * p->k;
    if (all == 0) return cudaSuccess;
    if (p->S * p->e == 0)
        return cudaMemsetAsync(
            p->weights, 0, static_cast<size_t>(all) * sizeof(float), static_cast<cudaStream_t>(stream));
    return vts::memory::with_vectors(*p, vts::memory::run{*p, static_cast<cudaStream_t>(stream)});
}
