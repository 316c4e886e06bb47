// Sliding-window attention for windows of at most 9 keys, on CUDA cores: how a call is cut into strips, and which
// kernel serves it.
#pragma once

#include <algorithm>
#include <atomic>

#include "../device.h"
#include "families.h"

namespace vts::sliding_window_attention::ring {

constexpr int R = 8;         // rows of a block
constexpr int HALF = R / 2;  // of a block: what is asked and waited for at a time
constexpr int WARPS = 2;     // of a thread block
constexpr int MOST_KEYS = 9;
constexpr unsigned ALL = 0xFFFFFFFFu;

// How the work is cut: a unit is a strip of one phase (frames t with t % dilation == phase) of a head of a batch entry.
struct plan {
    int64_t units;
    int phases, strips, rows;  // phases that have frames; strips of a phase; rows of a strip
    int blocks;                // that every strip walks: a count all threads share keeps warps together
    bool heads_fastest;        // neighbouring groups serve neighbouring heads
};

// Warps of this kernel that the device holds at a time: strips are cut so that all are at work from beginning to end.
template <auto KERNEL>
int resident_warps(size_t shared_bytes) {
#ifdef __CUDACC__
    int device = 0, processors = 0, blocks = 0;
    cudaFuncSetAttribute(KERNEL, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    if (allow_shared<KERNEL>(shared_bytes) != cudaSuccess || cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, KERNEL, WARPS * 32, shared_bytes) != cudaSuccess)
        return WARPS;  // a launch that cannot be says so itself
    return std::max(1, processors * blocks) * WARPS;
#else
    (void)shared_bytes;
    return 8;
#endif
}

// The same, asked once for each device: it costs more than a small launch does.
template <auto KERNEL>
int known_resident_warps(size_t shared_bytes) {
    static std::atomic<int> known[MOST_DEVICES];
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess || device >= MOST_DEVICES) return resident_warps<KERNEL>(shared_bytes);
    int warps = known[device].load(std::memory_order_relaxed);
    if (warps == 0) known[device].store(warps = resident_warps<KERNEL>(shared_bytes), std::memory_order_relaxed);
    return warps;
}

// Strips whose rows and halo make whole blocks, as long as can be while every resident warp has one; of very long
// inputs each warp serves several in turn, so that a slow one delays little.
inline plan cut(const params &p, int lanes, int halo, int warps) {
    constexpr int64_t longest = 512;
    const int64_t groups = static_cast<int64_t>(warps) * (32 / lanes), all = p.B * p.H * p.T;
    const int64_t frames = (p.T + p.dilation - 1) / p.dilation;
    const int64_t share = std::max<int64_t>((all + groups - 1) / groups, 1);
    const int64_t per_warp = (share + longest - 1) / longest;
    const int64_t wanted = (share + per_warp - 1) / per_warp;
    plan made;
    made.rows = static_cast<int>((wanted + halo + R - 1) / R * R - halo);
    made.strips = static_cast<int>((frames + made.rows - 1) / made.rows);
    made.blocks = (made.rows + halo + R - 1) / R;
    made.phases = static_cast<int>(std::min(p.dilation, p.T));
    made.units = p.B * p.H * made.phases * made.strips;
    made.heads_fastest = p.q.stride_h < p.q.stride_t;
    return made;
}

inline unsigned blocks_for(const plan &cut, int lanes) {
    const int64_t a_block = WARPS * (32 / lanes);
    return static_cast<unsigned>((cut.units + a_block - 1) / a_block);
}

// Calls act(constants LANES, W, CAREFUL) for the kernel that serves these parameters. Kernels that are not careful have
// windows of W keys and no packed sequences; the careful ones serve every other window of up to W keys, too.
template <int LANES, int W, bool CAREFUL, typename Act>
int call(Act act) {
    return act(
        std::integral_constant<int, LANES>{}, std::integral_constant<int, W>{},
        std::integral_constant<bool, CAREFUL>{});
}

template <int LANES, typename Act>
int for_keys(const params &p, Act act) {
    const int64_t keys = p.left + p.right + 1;
    if (p.cu_seqlens == nullptr && keys == 3) return call<LANES, 3, false>(act);
    if (p.cu_seqlens == nullptr && keys == 5) return call<LANES, 5, false>(act);
    if (p.cu_seqlens == nullptr && keys == 7) return call<LANES, 7, false>(act);
    if (p.cu_seqlens == nullptr && keys == 9) return call<LANES, 9, false>(act);
    if (keys <= 5) return call<LANES, 5, true>(act);
    if constexpr (LANES < 8)
        return cudaErrorInvalidValue;  // it would take more registers than there are: other families serve it
    else
        return call<LANES, 9, true>(act);
}

template <typename T, typename Act>
int for_kernel(const params &p, Act act) {
    switch (p.D * static_cast<int64_t>(sizeof(T)) / 16) {
        case 4:
            if constexpr (sizeof(T) == 2) return for_keys<4>(p, act);
            break;
        case 8: return for_keys<8>(p, act);
        case 16: return for_keys<16>(p, act);
        case 32:
            if constexpr (sizeof(T) == 4) return for_keys<32>(p, act);
            break;
        default: break;
    }
    return cudaErrorInvalidValue;
}

// Calls act(T{}) for the dtype.
template <typename Act>
int for_dtype(const params &p, Act act) {
    switch (p.dtype) {
        case VTS_FLOAT32: return act(float{});
        case VTS_FLOAT16: return act(__half{});
        case VTS_BFLOAT16: return act(__nv_bfloat16{});
        default: return cudaErrorInvalidValue;
    }
}

// What each dtype's units (ring_fwd_*.cu, ring_bwd_*.cu) define: the launches, and how many strips the backward makes.
template <typename T>
int fwd(const params &p, cudaStream_t stream);
template <typename T>
int bwd(const params &p, cudaStream_t stream);
template <typename T>
int64_t bwd_units(const params &p);

// dbias from what each of the backward's strips left in scratch.
int dbias_of_units(const params &p, const plan &cut, cudaStream_t stream);

}  // namespace vts::sliding_window_attention::ring
