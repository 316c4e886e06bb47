// Sliding-window attention for windows of at most 9 keys, on CUDA cores: which calls it takes, and what serves them.
// The kernels are compiled for each dtype by itself, in ring_fwd_*.cu and ring_bwd_*.cu.
#include "ring_plan.h"

namespace vts::sliding_window_attention {
namespace ring {
namespace {

bool aligned(const vts_bhtd &x, int64_t element, const params &p) {
    const auto bytes = reinterpret_cast<uintptr_t>(x.data) | static_cast<uintptr_t>(x.stride_b * element) |
                       static_cast<uintptr_t>(x.stride_h * element) | static_cast<uintptr_t>(x.stride_t * element);
    const int64_t step = x.stride_t * element;  // times the dilation, it must fit 31 bits
    return bytes % 16 == 0 && step >= 0 && step <= 0x7FFFFFFF / p.dilation;
}

// dbias [H, keys] from the sums of every unit and row: a warp for each element, always in the same order.
__global__ void sliding_window_attention_ring_dbias_kernel(
    const __grid_constant__ params p, const __grid_constant__ plan cut) {
    const int64_t keys = p.left + p.right + 1, h = blockIdx.x / keys, o = blockIdx.x % keys;
    const int64_t strips = static_cast<int64_t>(cut.phases) * cut.strips, units = p.B * strips;
    float sum = 0.0f;
    for (int64_t j = threadIdx.x; j < units * R; j += 32) {
        const int64_t i = j / R, r = j % R;
        const int64_t unit = cut.heads_fastest ? i * p.H + h : (i / strips * p.H + h) * strips + i % strips;
        sum += static_cast<const float *>(p.scratch)[(unit * R + r) * keys + o];
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    if (threadIdx.x == 0) static_cast<float *>(p.dbias)[blockIdx.x] = sum;
}

}  // namespace

int dbias_of_units(const params &p, const plan &cut, cudaStream_t stream) {
    const auto entries = static_cast<unsigned>(p.H * (p.left + p.right + 1));
    if (entries == 0) return cudaSuccess;
    return VTS_LAUNCH(sliding_window_attention_ring_dbias_kernel, dim3(entries), dim3(32), 0, stream, p, cut);
}

}  // namespace ring

bool ring_takes(const params &p, bool backward) {
    using namespace ring;
    if (p.border != VTS_TRUNCATE || p.softcap > 0) return false;
    if (p.cu_seqlens != nullptr && (p.dilation != 1 || p.B != 1 || p.bounds == nullptr)) return false;
    if (p.left < 0 || p.right < 0 || p.left + p.right + 1 > MOST_KEYS || p.dilation < 1 || p.dilation > 0x7FFFFFFF)
        return false;
    const int64_t units = p.B * p.H * (p.T / R + p.dilation);  // at least as many as there can be
    if (p.T > 0x7FFFFF00 || units > 0x7FFFFFFF || p.H > 0xFFFFFF) return false;
    const int served = for_dtype(
        p, [&](auto element) { return for_kernel<decltype(element)>(p, [](auto, auto, auto) { return 0; }); });
    if (served != 0) return false;
    const int64_t element = p.dtype == VTS_FLOAT32 ? 4 : 2;
    if (p.D * element % 16 != 0) return false;
    for (const vts_bhtd *x : {&p.q, &p.k, &p.v})
        if (!aligned(*x, element, p)) return false;
    if (!backward) return aligned(p.out, element, p);
    for (const vts_bhtd *x : {&p.dout, &p.dq, &p.dk, &p.dv})
        if (!aligned(*x, element, p)) return false;
    return true;
}

int ring_fwd(const params &p, cudaStream_t stream) {
    if (p.B * p.H * p.T == 0) return cudaSuccess;
    return ring::for_dtype(p, [&](auto element) { return ring::fwd<decltype(element)>(p, stream); });
}

int ring_bwd(const params &p, cudaStream_t stream) {
    if (p.B * p.H * p.T == 0 && (p.dbias == nullptr || p.H == 0)) return cudaSuccess;
    return ring::for_dtype(p, [&](auto element) { return ring::bwd<decltype(element)>(p, stream); });
}

int64_t ring_bwd_scratch(const params &p) {
    if (p.dbias == nullptr) return 0;
    int64_t units = 0;
    ring::for_dtype(p, [&](auto element) {
        units = ring::bwd_units<decltype(element)>(p);
        return 0;
    });
    return units * ring::R * (p.left + p.right + 1) * static_cast<int64_t>(sizeof(float));
}

}  // namespace vts::sliding_window_attention
