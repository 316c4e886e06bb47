// Sliding-window attention with at most 33 keys a row on tensor cores: what its forward and backward share.
//
// A block is one warp, or in backward of rows of 128 numbers two. It walks along T by units of 16 rows and scores, for
// the 16 rows of a strip, the BLOCKS blocks of 16 keys (32 or 48 keys) in which their windows lie: block m of strip u
// is the keys from 16 (u + m) - left, so that it is block m - 1 of the next strip, and each step of the walk reads one
// new block. What is read lies in rings of BLOCKS + 1 slots in shared memory: the copy of the next step's rows is under
// way while a step is computed. The softmax of a row is whole at once, without rescaling. Blocks share nothing and
// never wait for each other.
#pragma once

#include "families.h"
#include "tile_operands.h"

namespace vts::sliding_window_attention {

constexpr int STRIP = 16;  // rows of a strip, keys of a block

// How the units of 16 rows of each (b, h) are cut into walks.
struct strip_walks {
    int units;   // of a (b, h)
    int length;  // units of a walk
    int count;   // walks of a (b, h)
    bool heads_fastest;
};

struct strip_walk {
    int b, h, begin, end;  // units from begin to end - 1

    __device__ __forceinline__ strip_walk(const strip_walks &walks, int heads) {
        int index = static_cast<int>(blockIdx.x);
        if (walks.heads_fastest) {
            h = index % heads, index /= heads;
            begin = index % walks.count, b = index / walks.count;
        } else {
            begin = index % walks.count, index /= walks.count;
            h = index % heads, b = index / heads;
        }
        begin *= walks.length;
        end = begin + walks.length < walks.units ? begin + walks.length : walks.units;
    }
};

// A ring's slot `step` slots after (or before) `slot`.
template <int SLOTS>
__device__ __forceinline__ int around(int slot, int step) {
    const int to = slot + step;
    if constexpr ((SLOTS & (SLOTS - 1)) == 0)
        return to & (SLOTS - 1);
    else
        return to < 0 ? to + SLOTS : to >= SLOTS ? to - SLOTS : to;
}

// Blocks of 16 keys in turn: a bit for each key that is wanted, lies in the sequence and is not padding. A block's part
// of the mask is read a step before it is asked for, so that nothing waits for it.
struct strip_keys {
    const int begin, end;
    int t;  // this lane's key of the next block
    const uint8_t *mask;
    const int64_t stride;
    uint8_t seen;

    __device__ __forceinline__ strip_keys(const params &p, int b, int first, int begin_, int end_)
        : begin(begin_ > 0 ? begin_ : 0),
          end(end_ < p.T ? end_ : static_cast<int>(p.T)),
          t(threadIdx.x % 32 < STRIP ? first + static_cast<int>(threadIdx.x % 32) : end),
          mask(p.mask == nullptr ? nullptr : p.mask + b * p.mask_stride_b),
          stride(p.mask_stride_t) {
        look();
    }

    __device__ __forceinline__ void look() {
        seen = 0;
        if (t >= begin && t < end) seen = mask == nullptr ? 1 : mask[t * stride];
    }

    __device__ __forceinline__ uint32_t next() {
        const uint32_t bits = __ballot_sync(0xFFFFFFFFu, seen != 0);
        if (t < end) t += STRIP;
        look();
        return bits;
    }
};

// The keys that this lane's two rows of a strip see. keys: bits of the strip's keys; rows: bits of the rows there are;
// window: as many bits as a window has keys.
__device__ __forceinline__ sight<uint64_t> strip_sight(uint64_t keys, uint32_t rows, uint64_t window) {
    const int g = threadIdx.x % 32 / 4;
    return {(rows >> g & 1) != 0 ? keys & window << g : 0, (rows >> (g + 8) & 1) != 0 ? keys & window << (g + 8) : 0};
}

// x [16, 16 BLOCKS] = rows [16, D] keys^T, where block m of the keys lies in slot `slot` + m of a ring.
template <int D, int BLOCKS, typename T>
__device__ __forceinline__ void strip_products(float (&x)[2 * BLOCKS][4], const T *rows, const T *keys, int slot) {
#pragma unroll
    for (int n = 0; n < 2 * BLOCKS; ++n) x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        uint32_t a[4];
        read_a<D>(a, rows, k);
#pragma unroll
        for (int m = 0; m < BLOCKS; ++m) {
            uint32_t first[2], second[2];
            read_b_transposed<D>(first, second, keys + around<BLOCKS + 1>(slot, m) * STRIP * D, k);
            mma_m16n8k16<T>(x[2 * m], a, first);
            mma_m16n8k16<T>(x[2 * m + 1], a, second);
        }
    }
}

// Turns scores into the weights 2^(factor * score - top) of what a row sees, and adds those up. top is 0 where a row
// sees nothing.
template <int N>
__device__ __forceinline__ void strip_softmax(
    float (&s)[N][4], const sight<uint64_t> &seen, float factor, float (&top)[2], float (&total)[2]) {
    top[0] = top[1] = -INFINITY;
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[n][e] = seen.sees(n, e) ? s[n][e] * factor : -INFINITY;
            top[e / 2] = fmaxf(top[e / 2], s[n][e]);
        }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        top[half] = row_max(top[half]);
        if (top[half] == -INFINITY) top[half] = 0.0f;
        total[half] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[n][e] = power_of_2(s[n][e] - top[e / 2]);
            total[e / 2] += s[n][e];
        }
    total[0] = row_sum(total[0]), total[1] = row_sum(total[1]);
}

// Cuts (b, h)s of `units` units into walks so that a device which runs `resident` blocks at once is done soonest, where
// a walk costs `extra` steps beside its own.
inline strip_walks cut_walks(const params &p, int64_t units, int64_t resident, int64_t extra) {
    const int64_t lines = p.B * p.H;
    int64_t best = 1, least = INT64_MAX;
    for (int64_t per_warp = 1; per_warp <= 8; ++per_warp) {
        int64_t count = per_warp * resident / lines;
        count = count < 1 ? 1 : count > units ? units : count;
        const int64_t length = (units + count - 1) / count, walks = lines * ((units + length - 1) / length);
        const int64_t time = (walks + resident - 1) / resident * (length + extra);
        if (time < least) best = length, least = time;
    }
    return {
        static_cast<int>(units), static_cast<int>(best), static_cast<int>((units + best - 1) / best),
        heads_run_fastest(p)};
}

// How many blocks with this much shared memory an H100 runs at once: what the compiler gives registers for.
template <int SHARED_BYTES>
constexpr int resident = 227 * 1024 / (SHARED_BYTES + 1024) < 12 ? 227 * 1024 / (SHARED_BYTES + 1024) : 12;

// How many blocks with this much shared memory a device runs at once.
inline int64_t resident_blocks(int64_t shared_bytes) {
    int processors = 1, shared = 100 * 1024;  // where there is no device to ask
#ifdef __CUDACC__
    int device = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
#endif
    const int64_t blocks = shared / (shared_bytes + 1024);  // the system keeps 1 KiB of each block's
    return processors * (blocks < 1 ? 1 : blocks > 12 ? 12 : blocks);
}

}  // namespace vts::sliding_window_attention
