// Sums over the rows of a table that an index chooses: what gather, its dot products and scatter share.
//
// All three are bound by the bytes of the chosen rows: n * k * e elements, 805 MB for 16,384 frames, 32 slots and 768
// bfloat16 numbers, 0.19 ms at the 4.3 TB/s at which an H200 copies. Rows are read 16 bytes a thread, whole rows by
// neighbouring threads. IN_FLIGHT pieces of every thread are always on their way to shared memory, where no register
// waits for them: 128 bytes a thread and four blocks a multiprocessor make 128 KiB under way, several times the 32 KiB
// that latency times bandwidth ask of each.
#pragma once

#include "memory_pieces.h"
#include "vtsum/memory_sparse.h"

namespace vts::memory {

using gather_params = vts_memory_gather_params;

constexpr int GATHER_BLOCK = 256, IN_FLIGHT = 8;

template <typename T, int N>
__device__ __forceinline__ void add_scaled(float (&sum)[N], float weight, const piece<T, N> &row) {
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] = fmaf(weight, widen(row.x[e]), sum[e]);
}

// A thread's own ring of 16-byte pieces in shared memory: what is requested in place u, u = 0, 1, ..., IN_FLIGHT - 1,
// 0, ... is taken from there IN_FLIGHT requests later. Nothing is shared, so nothing waits for other threads.
template <typename T>
struct piece_ring {
    static constexpr int bytes = IN_FLIGHT * GATHER_BLOCK * 16;  // of a block
    using one = piece<T, 16 / sizeof(T)>;
    one *const own;

    __device__ __forceinline__ explicit piece_ring(void *shared) : own(static_cast<one *>(shared) + threadIdx.x) {}

    __device__ __forceinline__ void request(int u, const T *from, bool there) {
        if (there) cp_async_16(own + u * GATHER_BLOCK, from, true);
        cp_async_commit();
    }
    __device__ __forceinline__ one take(int u) {
        cp_async_wait<IN_FLIGHT - 1>();
        one to;
        reinterpret_cast<uint4 &>(to) = load_16(own + u * GATHER_BLOCK);
        return to;
    }
};

template <typename T, int N>
constexpr int RING_BYTES = N * sizeof(T) == 16 ? piece_ring<T>::bytes : 0;

// sum += weight(j) row(j), N elements of each, for j = 0, 1, ..., count - 1 in order; a weight of 0 counts for nothing.
template <typename T, int N, typename Row, typename Weight>
__device__ __forceinline__ void add_rows(float (&sum)[N], int count, const Row &row, const Weight &weight) {
    if constexpr (N * sizeof(T) == 16) {
        VTS_DYNAMIC_SHARED(unsigned char, shared);
        piece_ring<T> ring(shared);
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) ring.request(u, u < count ? row(u) : nullptr, u < count);
        for (int first = 0; first < count; first += IN_FLIGHT) {
#pragma unroll
            for (int u = 0; u < IN_FLIGHT; ++u) {
                const int j = first + u, next = j + IN_FLIGHT;
                const piece<T, N> here = ring.take(u);
                if (const float w = j < count ? weight(j) : 0.0f; w != 0.0f) add_scaled(sum, w, here);
                ring.request(u, next < count ? row(next) : nullptr, next < count);
            }
        }
    } else {
#pragma unroll 8
        for (int j = 0; j < count; ++j)
            if (const float w = weight(j); w != 0.0f) add_scaled(sum, w, load_piece<T, N>(row(j)));
    }
}

// Row i of head (g, h) and slot s of its bank.
template <typename T>
__device__ __forceinline__ T *row_of(const gather_params &p, int64_t g, int64_t h, int64_t i) {
    return static_cast<T *>(p.rows) + g * p.rows_stride_g + h * p.rows_stride_h + i * p.rows_stride_n;
}
template <typename T>
__device__ __forceinline__ T *bank_of(const gather_params &p, int64_t g, int64_t h) {
    return static_cast<T *>(p.table) + g * p.table_stride_g + h * p.table_stride_h;
}

// The head that a block serves: the grid's second dimension. The first counts what threads do in a head.
struct head_of_block {
    int64_t number, g, h;

    __device__ __forceinline__ explicit head_of_block(const gather_params &p)
        : number(blockIdx.y), g(blockIdx.y / static_cast<unsigned>(p.H)), h(blockIdx.y % static_cast<unsigned>(p.H)) {}
};

__device__ __forceinline__ unsigned thread_of_head() { return blockIdx.x * GATHER_BLOCK + threadIdx.x; }

// Starts a kernel with so many threads for each head, fewer than 2^31.
template <typename Kernel, typename... Arguments>
int launch_by_head(
    Kernel kernel, const gather_params &p, int64_t threads, int shared, cudaStream_t stream,
    const Arguments &...arguments) {
    if (threads > 0x7FFFFFFF - GATHER_BLOCK || p.G * p.H > 65535) return cudaErrorInvalidValue;
    const dim3 grid(
        static_cast<unsigned>((threads + GATHER_BLOCK - 1) / GATHER_BLOCK), static_cast<unsigned>(p.G * p.H));
    return VTS_LAUNCH(kernel, grid, dim3(GATHER_BLOCK), shared, stream, arguments...);
}

// Calls run.template with<T, N>() for the tensors' type and the greatest N that they allow.
template <typename Run>
int with_pieces(const gather_params &p, const Run &run) {
    const int64_t steps = p.e | p.table_stride_g | p.table_stride_h | p.table_stride_s | p.rows_stride_g |
                          p.rows_stride_n | p.rows_stride_h;
    return with_pieces(p.dtype, steps, {p.table, p.rows}, run);
}

inline bool fits(const gather_params &p) {
    constexpr int64_t most = 0x7FFFFFFF;
    return p.S <= most && p.e <= most && p.k <= most && p.n <= most && p.n * p.k <= most;
}

}  // namespace vts::memory
