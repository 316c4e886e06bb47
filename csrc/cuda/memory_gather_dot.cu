// weights_ij = rows[i] . table[index_ij]: every frame's products with its chosen slots.
#include "memory_gather.h"

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

// L lanes serve a row, 8 slots at a time, of which each lane reads its own pieces: L pieces of each slot are a step.
// Narrow rows take 8 lanes, so that none is idle. The row's own pieces come from the L1 cache from the second 8 slots
// on.
template <typename T, int N, int L>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_gather_dot_kernel(const __grid_constant__ gather_params p) {
    static_assert(IN_FLIGHT == 8, "a step's pieces of 8 slots are the ring's");
    const unsigned own_row = thread_of_head() / L;
    const int lane = static_cast<int>(threadIdx.x) % L, k = static_cast<int>(p.k), e = static_cast<int>(p.e);
    const bool live = own_row < p.n;  // lanes without a row shuffle along
    const head_of_block head(p);
    const int64_t i = live ? own_row : 0, r = head.number * p.n + i;
    const T *const bank = bank_of<const T>(p, head.g, head.h), *const row = row_of<const T>(p, head.g, head.h, i);
    const int32_t *const index = p.index + r * p.k;
    float *const to = static_cast<float *>(p.weights) + r * p.k;
    const int last = (e - 1) / (L * N) * (L * N) + lane * N;  // this lane's column in the last step
    // Whether there is something to read at a column of slot j, and where.
    const auto there = [&](int j, int column) { return live && j < k && column < e; };
    const auto key = [&](int j, int column) { return bank + index[j] * p.table_stride_s + column; };
    const auto own_piece = [&](int column) {
        return live && column < e ? load_piece<T, N>(row + column) : piece<T, N>{};
    };
    const auto multiply = [&](float &dot, bool counts, const piece<T, N> &own, const piece<T, N> &slot) {
        if (!counts) return;
#pragma unroll
        for (int x = 0; x < N; ++x) dot = fmaf(widen(own.x[x]), widen(slot.x[x]), dot);
    };
    VTS_DYNAMIC_SHARED(unsigned char, shared);
    piece_ring<T> ring(shared);
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
            const piece<T, N> own = own_piece(column);
            if constexpr (queued) {
                const bool same = column < last;
                const int next_j = same ? j : j + 8, next_column = same ? column + L * N : lane * N;
#pragma unroll
                for (int u = 0; u < 8; ++u) {
                    multiply(dot[u], there(j + u, column), own, ring.take(u));
                    request(u, next_j + u, next_column);
                }
            } else {
                piece<T, N> slots[8];
#pragma unroll
                for (int u = 0; u < 8; ++u)
                    slots[u] = there(j + u, column) ? load_piece<T, N>(key(j + u, column)) : piece<T, N>{};
#pragma unroll
                for (int u = 0; u < 8; ++u) multiply(dot[u], true, own, slots[u]);
            }
        }
        const float sum = sum_of_lanes<L>(dot);
        if (live && lane < 8 && j + lane < k) to[j + lane] = sum;
    }
}

struct run {
    const gather_params &p;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        if (p.e / N <= 16)
            return launch_by_head(memory_gather_dot_kernel<T, N, 8>, p, p.n * 8, RING_BYTES<T, N>, stream, p);
        return launch_by_head(memory_gather_dot_kernel<T, N, 32>, p, p.n * 32, RING_BYTES<T, N>, stream, p);
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
    return vts::memory::with_pieces(*p, vts::memory::run{*p, static_cast<cudaStream_t>(stream)});
}
