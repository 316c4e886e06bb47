// Sums over the rows of a table that an index chooses: what gather, its dot products and scatter share.
//
// All three are bound by the bytes of the chosen rows: n * k * e elements, 805 MB for 16,384 frames, 32 slots and 768
// bfloat16 numbers, 0.19 ms at the 4.3 TB/s at which an H200 copies. Rows are read 16 bytes a thread, whole rows by
// neighbouring threads. IN_FLIGHT vectors of every thread are always on their way to shared memory, where no register
// waits for them: 128 bytes a thread and four blocks a multiprocessor make 128 KiB under way, several times the 32 KiB
// that latency times bandwidth ask of each.
#pragma once

#include <algorithm>

#include "vectors.h"
#include "vtsum/memory_attention.h"

namespace vts::memory {

using gather_params = vts_memory_gather_params;

constexpr int GATHER_BLOCK = 256, IN_FLIGHT = 8;

template <typename T, int N>
__device__ __forceinline__ void add_scaled(float (&sum)[N], float weight, const vector<T, N> &row) {
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] = fmaf(weight, widen(row.x[e]), sum[e]);
}

// A thread's own ring of 16-byte vectors in shared memory: what is requested as number u, u = 0, 1, ..., IN_FLIGHT - 1,
// 0, ... is taken from there IN_FLIGHT requests later. Nothing is shared, so nothing waits for other threads.
template <typename T>
struct vector_ring {
    static constexpr int bytes = IN_FLIGHT * GATHER_BLOCK * 16;  // of a block
    using one = vector<T, 16 / sizeof(T)>;
    one *const own;

    __device__ __forceinline__ explicit vector_ring(void *shared) : own(static_cast<one *>(shared) + threadIdx.x) {}

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
constexpr int RING_BYTES = N * sizeof(T) == 16 ? vector_ring<T>::bytes : 0;

// sum += weight(j) row(j), N elements of each, for j = 0, 1, ..., count - 1 in order; a weight of 0 counts for nothing.
template <typename T, int N, typename Row, typename Weight>
__device__ __forceinline__ void add_rows(float (&sum)[N], int count, const Row &row, const Weight &weight) {
    if constexpr (N * sizeof(T) == 16) {
        VTS_DYNAMIC_SHARED(unsigned char, shared);
        vector_ring<T> ring(shared);
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) ring.request(u, u < count ? row(u) : nullptr, u < count);
        for (int first = 0; first < count; first += IN_FLIGHT) {
#pragma unroll
            for (int u = 0; u < IN_FLIGHT; ++u) {
                const int j = first + u, next = j + IN_FLIGHT;
                const vector<T, N> here = ring.take(u);
                if (const float w = j < count ? weight(j) : 0.0f; w != 0.0f) add_scaled(sum, w, here);
                ring.request(u, next < count ? row(next) : nullptr, next < count);
            }
        }
    } else {
#pragma unroll 8
        for (int j = 0; j < count; ++j)
            if (const float w = weight(j); w != 0.0f) add_scaled(sum, w, load_vector<T, N>(row(j)));
    }
}

// Row i of head g * H + h, and the head's bank.
template <typename T>
__device__ __forceinline__ T *row_of(const gather_params &p, int64_t head, int64_t i) {
    return static_cast<T *>(p.rows) + head / p.H * p.rows_stride_g + head % p.H * p.rows_stride_h + i * p.rows_stride_n;
}
template <typename T>
__device__ __forceinline__ T *bank_of(const gather_params &p, int64_t head) {
    return static_cast<T *>(p.table) + head / p.H * p.table_stride_g + head % p.H * p.table_stride_h;
}

// Threads [0, threads) of each head, GATHER_BLOCK of them a block; no block serves two heads. Where there are more
// blocks than a grid takes, each serves several in turn.
struct head_grid {
    int64_t of_head, blocks;

    head_grid(const gather_params &p, int64_t threads)
        : of_head((threads + GATHER_BLOCK - 1) / GATHER_BLOCK), blocks(p.G * p.H * of_head) {}

    dim3 size() const { return dim3(static_cast<unsigned>(std::min(blocks, most_blocks()))); }

    // body(head, thread): a whole block at a time.
    template <typename Body>
    __device__ __forceinline__ void each(const Body &body) const {
        for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x)
            body(block / of_head, block % of_head * GATHER_BLOCK + threadIdx.x);
    }
};

// Calls run.template with<T, N>() for the tensors' type and the greatest N that they allow.
template <typename Run>
int with_vectors(const gather_params &p, const Run &run) {
    const int64_t steps = p.e | p.table_stride_g | p.table_stride_h | p.table_stride_s | p.rows_stride_g |
                          p.rows_stride_n | p.rows_stride_h;
    return with_vectors(p.dtype, steps, {p.table, p.rows}, run);
}

inline bool fits(const gather_params &p) {
    constexpr int64_t most = 0x7FFFFFFF;
    return p.S <= most && p.e <= most && p.k <= most;
}

}  // namespace vts::memory
