// What the tensor-core families of sliding-window attention share: tiles of rows between global and shared memory, what
// of a tile counts, and which calls those families can take at all.
#pragma once

#include "../tensor_core_operands.h"
#include "dropout.h"
#include "families.h"

namespace vts::sliding_window_attention {

// sum [16, 8 N] += a [16, 16] rows [16, D], of which columns from `column`
template <int D, int N, typename T>
__device__ __forceinline__ void add_product(float (&sum)[N][4], const uint32_t (&a)[4], const T *rows, int column = 0) {
#pragma unroll
    for (int n = 0; n < N / 2; ++n) {
        uint32_t first[2], second[2];
        read_b<D>(first, second, rows, column / 16 + n);
        mma_m16n8k16<T>(sum[2 * n], a, first);
        mma_m16n8k16<T>(sum[2 * n + 1], a, second);
    }
}

// Rounds columns 16 m to 16 m + 15 of x [16, 8 N] to the operand a of the next product.
template <typename T, int N>
__device__ __forceinline__ void round_to_a(uint32_t (&a)[4], const float (&x)[N][4], int m) {
    a[0] = pack<T>(x[2 * m][0], x[2 * m][1]), a[1] = pack<T>(x[2 * m][2], x[2 * m][3]);
    a[2] = pack<T>(x[2 * m + 1][0], x[2 * m + 1][1]), a[3] = pack<T>(x[2 * m + 1][2], x[2 * m + 1][3]);
}

// Rounds x [16, 8 N], times a factor for the rows of each half, into columns from `column` of 16 rows of shared memory.
template <int D, int N, typename T>
__device__ __forceinline__ void put(T *rows, const float (&x)[N][4], float upper, float lower, int column = 0) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        T *const to = rows + swizzled<D>(g, column / 8 + n) + 2 * t;  // 8 rows on, chunks are exchanged alike
        *reinterpret_cast<uint32_t *>(to) = pack<T>(x[n][0] * upper, x[n][1] * upper);
        *reinterpret_cast<uint32_t *>(to + 8 * D) = pack<T>(x[n][2] * lower, x[n][3] * lower);
    }
}

// Where a lane's first 16 bytes of some rows lie in global memory. A warp moves 32 chunks at a time.
template <int D>
struct lane_of_rows {
    static constexpr int chunks = D / 8, rows_at_once = 32 / chunks;
    const int row, chunk;
    __device__ __forceinline__ lane_of_rows() : row(threadIdx.x % 32 / chunks), chunk(threadIdx.x % 32 % chunks) {}

    template <typename T>
    __device__ __forceinline__ T *address(const vts_bhtd &x, int64_t b, int64_t h, int64_t t) const {
        return static_cast<T *>(x.data) + b * x.stride_b + h * x.stride_h + (t + row) * x.stride_t + chunk * 8;
    }

    // By one warp, ROWS rows: those whose bit in `valid` is not set become zeros and are not read.
    template <int ROWS = 16, typename T>
    __device__ __forceinline__ void load(T *to, const T *from, int64_t stride, uint32_t valid) const {
#pragma unroll
        for (int r = 0; r < ROWS; r += rows_at_once)
            cp_async_16(to + swizzled<D>(row + r, chunk), from + r * stride, (valid >> (row + r) & 1) != 0);
    }

    // By one warp, 16 rows in shared memory: those that load() brings by this lane.
    template <typename T>
    __device__ __forceinline__ void flip_signs(T *rows) const {
#pragma unroll
        for (int r = 0; r < 16; r += rows_at_once) {
            T *const at = rows + swizzled<D>(row + r, chunk);
            const uint4 x = load_16(at);
            store_16(at, make_uint4(x.x ^ 0x80008000u, x.y ^ 0x80008000u, x.z ^ 0x80008000u, x.w ^ 0x80008000u));
        }
    }

    // By one warp, 16 rows from shared to global memory: those whose bit in `valid` is set. `odd` becomes a pair with
    // NaN where one of their elements is not finite, see spoilt.h.
    template <typename T>
    __device__ __forceinline__ void store(T *to, const T *from, int64_t stride, uint32_t valid, uint32_t &odd) const {
#pragma unroll
        for (int r = 0; r < 16; r += rows_at_once) {
            if ((valid >> (row + r) & 1) == 0) continue;
            const uint4 x = load_16(from + swizzled<D>(row + r, chunk));
            store_16(to + r * stride, x);
            odd = watch<T>(x.w, watch<T>(x.z, watch<T>(x.y, watch<T>(x.x, odd))));
        }
    }
};

// Of 16 frames from `first` on, a bit for each that is at least `begin` and less than `end`.
__device__ __forceinline__ uint32_t inside(int first, int begin, int end) {
    const int low = begin > first ? begin - first : 0, high = end - first < 16 ? end - first : 16;
    return low < high ? (1u << high) - (1u << low) : 0;
}

// Which columns of a product [16, 8 N] count, in the two rows of which this lane holds elements: bit 8 n + e is for
// element e (or e + 2) of tile n, in this lane's own columns.
template <typename Bits>
struct sight {
    Bits row[2];

    // upper, lower: a bit for each column, for rows l / 4 and l / 4 + 8.
    __device__ __forceinline__ sight(Bits upper, Bits lower) {
        const int t = threadIdx.x % 4;
        row[0] = upper >> 2 * t, row[1] = lower >> 2 * t;
    }

    __device__ __forceinline__ bool sees(int n, int e) const { return (row[e / 2] >> (8 * n + e % 2) & 1) != 0; }
};

// Dropout of a product [16, 8 N] of rows with keys, or, TRANSPOSED, of keys with rows, whose first ones these are: bit
// 4 n + e is set where what this lane holds in element e of tile n is kept. A word at a time: registers are dear.
template <int N, bool TRANSPOSED = false>
__device__ __forceinline__ uint32_t kept_elements(const params &p, int b, int h, int first_row, int first_key) {
    static_assert(4 * N <= 32);
    const dropout drop(p.seed, p.drop_below, static_cast<int64_t>(b) * p.H + h, p.row_offset);
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t kept = 0;
#pragma unroll 1
    for (int i = 0; i < 4 * N; ++i) {
        const int down = g + i / 2 % 2 * 8, across = i / 4 * 8 + 2 * t + i % 2;
        const bool keeps = TRANSPOSED ? drop.keeps(first_row + across, first_key + down)
                                      : drop.keeps(first_row + down, first_key + across);
        kept |= keeps ? 1u << i : 0u;
    }
    return kept;
}

// What dropout makes of weights, or of the gradients with respect to them.
template <int N>
__device__ __forceinline__ void drop_out(float (&x)[N][4], uint32_t kept, const params &p) {
    const float keep_scale = static_cast<float>(p.keep_scale);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = kept >> (4 * n + e) & 1 ? x[n][e] * keep_scale : 0.0f;
}

// Heads run fastest in the grid where they lie closest in memory.
inline bool heads_run_fastest(const params &p) { return p.q.stride_h < p.q.stride_t; }

// Whether a row can be moved 16 bytes at a time.
inline bool rows_of_chunks(const vts_bhtd &x) {
    const int64_t steps = x.stride_b | x.stride_h | x.stride_t;
    return x.data == nullptr || (reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && steps % 8 == 0);
}

// What tensor cores are used for: 16-bit tensors of common widths, truncated windows without bias.
inline bool tensor_cores_take(const params &p) {
    if (p.dtype != VTS_FLOAT16 && p.dtype != VTS_BFLOAT16) return false;
    if (p.D != 32 && p.D != 64 && p.D != 128) return false;
    if (p.dilation != 1 || p.border != VTS_TRUNCATE) return false;
    if (p.bias != nullptr || p.cu_seqlens != nullptr || p.softcap > 0) return false;
    constexpr int64_t rows = 16;  // of a block, at least
    if (p.T > (int64_t{1} << 29) || p.B * p.H * ((p.T + rows - 1) / rows) > 0x7FFFFFFF) return false;
    for (const vts_bhtd *x : {&p.q, &p.k, &p.v, &p.out, &p.dout, &p.dq, &p.dk, &p.dv})
        if (!rows_of_chunks(*x)) return false;
    return true;
}

}  // namespace vts::sliding_window_attention
