// The families of sliding-window attention kernels on CUDA, for the dispatcher in dispatch.cu.
//
// A family says whether it takes a call; if so, its launchers do the whole of it on a stream and return 0 or a
// cudaError_t. bwd_scratch is the number of bytes that its backward wants in p.scratch (aligned to 16).
#pragma once

#include <math.h>

#include "../device.h"
#include "vtsum/sliding_window_attention.h"

namespace vts::sliding_window_attention {

using params = vts_sliding_window_attention_params;

// Entries of the bias, for each head.
__host__ __device__ inline int64_t bias_entries(const params &p) {
    return p.border == VTS_SHIFT ? 2 * (p.left + p.right) + 1 : p.left + p.right + 1;
}

// Lets a head's sink (null: there is none) join a row's softmax, whose weights 2^(score - top) sum to total (0: none is
// seen), scores counted in powers of 2. Returns what brings these weights to the new top.
__device__ __forceinline__ float join_sink(const params &p, int h, float &top, float &total) {
    if (p.sinks == nullptr) return 1.0f;
    constexpr float log2_e = 1.4426950408889634f;
    const float sink = static_cast<const float *>(p.sinks)[h] * log2_e;
    const float highest = total == 0.0f ? sink : fmaxf(top, sink), base = highest == -INFINITY ? 0.0f : highest;
    const float keep = total == 0.0f ? 0.0f : exp2f(top - base);
    total = fmaf(total, keep, exp2f(sink - base)), top = base;
    return keep;
}

// Narrow windows, on CUDA cores: keys and values of a window live in registers.
bool ring_takes(const params &p, bool backward);
int ring_fwd(const params &p, cudaStream_t stream);
int ring_bwd(const params &p, cudaStream_t stream);
int64_t ring_bwd_scratch(const params &p);

// Narrow windows, on tensor cores: a warp serves a strip of rows.
bool strip_takes(const params &p, bool backward);
int strip_fwd(const params &p, cudaStream_t stream);
int strip_bwd(const params &p, cudaStream_t stream);
int64_t strip_bwd_scratch(const params &p);

// Wide windows, on tensor cores: a block serves a tile of rows and walks tiles of keys.
bool tile_takes(const params &p, bool backward);
int tile_fwd(const params &p, cudaStream_t stream);
int tile_bwd(const params &p, cudaStream_t stream);
int64_t tile_bwd_scratch(const params &p);

// Every window, option and width up to 256, on CUDA cores.
bool general_takes(const params &p, bool backward);
int general_fwd(const params &p, cudaStream_t stream);
int general_bwd(const params &p, cudaStream_t stream);
int64_t general_bwd_scratch(const params &p);

}  // namespace vts::sliding_window_attention
