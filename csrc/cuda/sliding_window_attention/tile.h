// Sliding-window attention with any window on tensor cores: what its forward and backward share.
//
// A block of four warps owns a tile of 64 rows (or, for dk and dv, of 64 keys), 16 for each warp, and walks the blocks
// of keys (or rows) that the tile's windows reach, the first one exactly where the first window begins. While a block
// is computed the next two are on their way to a ring of three; there is one barrier a block. A warp computes a block
// in parts. It leaves out those that none of its rows can see, and masks only those at the windows' edges or with
// padding.
#pragma once

#include "tile_operands.h"

namespace vts::sliding_window_attention {

constexpr int TILE = 64, RING = 3, TILE_WARPS = 4, TILE_THREADS = 32 * TILE_WARPS;

// Rows of a block, and how many blocks of threads share a multiprocessor: fewer where the sums take more registers.
template <int D>
constexpr int STEP = D == 128 ? 32 : 64;
template <int D>
constexpr int RESIDENT = D == 128 ? 2 : 3;

// Which tile of which (b, h) a block owns.
struct tile_grid {
    int count;  // tiles of a (b, h)
    bool heads_fastest;
    bool backwards;  // the last tiles first: they have most to do
};

struct tile_place {
    int b, h, first;  // its first row (or key)

    __device__ __forceinline__ tile_place(const tile_grid &grid, int heads)
        : tile_place(grid, heads, static_cast<int>(blockIdx.x)) {}

    __device__ __forceinline__ tile_place(const tile_grid &grid, int heads, int index) {
        int tile;
        if (grid.heads_fastest) {
            h = index % heads, index /= heads;
            tile = index % grid.count, b = index / grid.count;
        } else {
            tile = index % grid.count, index /= grid.count;
            h = index % heads, b = index / heads;
        }
        first = (grid.backwards ? grid.count - 1 - tile : tile) * TILE;
    }
};

inline tile_grid tiles_of(const params &p, bool backwards) {
    return {static_cast<int>((p.T + TILE - 1) / TILE), heads_run_fastest(p), backwards};
}

inline dim3 grid_of(const params &p, const tile_grid &tiles) {
    return dim3(static_cast<unsigned>(p.B * p.H * tiles.count));
}

// How far a window reaches on one side: unbounded is as far as the sequence is long.
__device__ __forceinline__ int reach_of(int64_t side, int64_t frames) {
    return static_cast<int>(side < 0 || side > frames ? frames : side);
}

// The blocks of SIZE frames from the first to the last that the frames of a tile reach; `end` is one past it.
template <int SIZE>
struct tile_walk {
    int begin, end, blocks;

    __device__ __forceinline__ tile_walk(int tile, int before, int after, int frames) {
        begin = tile > before ? tile - before : 0;
        end = tile + TILE + after < frames ? tile + TILE + after : frames;
        blocks = (end - begin + SIZE - 1) / SIZE;
    }
};

// What the windows of a warp's 16 frames leave of a part, where those of the first begin at `from` and end at `to`,
// counted from the part's first frame: those of frame r lie r further.
template <int PART>
struct tile_edges {
    const int from, to;

    __device__ __forceinline__ bool outside() const { return from >= PART || to + 15 < 0; }
    __device__ __forceinline__ bool cut() const { return from + 15 > 0 || to < PART - 1; }

    // A bit for each frame of the part that the window of frame r holds.
    __device__ __forceinline__ uint32_t window(int r) const {
        const int low = from + r < 0 ? 0 : from + r, high = to + r >= PART ? PART - 1 : to + r;
        return low > high ? 0 : ~0u >> (31 - high) & ~0u << low;
    }
};

// Blocks of KEYS keys in turn: a bit for each that comes before `end` and is not padding. A block's part of the mask
// is read a block before it is asked for. Every warp asks for itself.
template <int KEYS>
struct tile_keys {
    int t;  // this lane's first key of the next block
    const int end;
    const uint8_t *mask;
    const int64_t stride;
    uint8_t seen[KEYS / 32];

    __device__ __forceinline__ tile_keys(const params &p, int b, int first, int end_)
        : t(first + static_cast<int>(threadIdx.x % 32)),
          end(end_),
          mask(p.mask == nullptr ? nullptr : p.mask + b * p.mask_stride_b),
          stride(p.mask_stride_t) {
        look();
    }

    __device__ __forceinline__ void look() {
#pragma unroll
        for (int part = 0; part < KEYS / 32; ++part) {
            seen[part] = 0;
            if (t + 32 * part < end) seen[part] = mask == nullptr ? 1 : mask[(t + 32 * part) * stride];
        }
    }

    __device__ __forceinline__ uint64_t next() {
        uint64_t bits = 0;
#pragma unroll
        for (int part = 0; part < KEYS / 32; ++part)
            bits |= static_cast<uint64_t>(__ballot_sync(0xFFFFFFFFu, seen[part] != 0)) << 32 * part;
        t += KEYS;
        look();
        return bits;
    }
};

// Copies blocks of ROWS rows of two tensors in turn to [2][ROWS][D], a quarter of that by each warp.
template <typename T, int D, int ROWS>
struct pair_of_rows {
    static constexpr int share = 2 * ROWS / TILE_WARPS;  // rows
    const lane_of_rows<D> lane;
    const T *from;
    const int64_t stride;

    __device__ __forceinline__ static bool first() { return threadIdx.x / 32 < TILE_WARPS / 2; }
    __device__ __forceinline__ static int offset() { return threadIdx.x / 32 % (TILE_WARPS / 2) * share; }

    __device__ __forceinline__ pair_of_rows(const vts_bhtd &one, const vts_bhtd &other, int b, int h, int t)
        : from(lane.template address<const T>(first() ? one : other, b, h, t + offset())),
          stride(first() ? one.stride_t : other.stride_t) {}

    // valid: a bit for each row of the block; the others become zeros.
    __device__ __forceinline__ void load(T *to, uint64_t valid) {
        T *const own = to + ((first() ? 0 : ROWS) + offset()) * D;
        lane.template load<share>(own, from, stride, static_cast<uint32_t>(valid >> offset()));
        from += ROWS * stride;
    }
};

// x [16, 8 N] = rows [16, D] columns [8 N, D]^T
template <int D, int N, typename T>
__device__ __forceinline__ void tile_products(float (&x)[N][4], const T *rows, const T *columns) {
#pragma unroll
    for (int n = 0; n < N; ++n) x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0.0f;
#pragma unroll(D == 128 ? 2 : 4)  // more would take too many registers
    for (int k = 0; k < D / 16; ++k) {
        uint32_t a[4];
        read_a<D>(a, rows, k);
#pragma unroll
        for (int m = 0; m < N / 2; ++m) {
            uint32_t first[2], second[2];
            read_b_transposed<D>(first, second, columns + m * 16 * D, k);
            mma_m16n8k16<T>(x[2 * m], a, first);
            mma_m16n8k16<T>(x[2 * m + 1], a, second);
        }
    }
}

}  // namespace vts::sliding_window_attention
