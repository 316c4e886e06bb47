// Sliding-window attention on CUDA: the entry points of vtsum/sliding_window_attention.h. The first family of kernels
// that takes a call serves it, forward and backward each for itself.
#include "../device.h"
#include "families.h"

namespace vts::sliding_window_attention {
namespace {

struct family {
    const char *name;
    bool (*takes)(const params &, bool backward);
    int (*fwd)(const params &, cudaStream_t);
    int (*bwd)(const params &, cudaStream_t);
    int64_t (*bwd_scratch)(const params &);
};

constexpr family families[] = {
    {"ring", ring_takes, ring_fwd, ring_bwd, ring_bwd_scratch},
    {"strip", strip_takes, strip_fwd, strip_bwd, strip_bwd_scratch},
    {"tile", tile_takes, tile_fwd, tile_bwd, tile_bwd_scratch},
    {"general", general_takes, general_fwd, general_bwd, general_bwd_scratch},
};

const family *family_of(const params &p, bool backward) {
    for (const family &f : families)
        if (f.takes(p, backward)) return &f;
    return nullptr;
}

// A thread finds its frame's sequence by bisection. A frame outside of all of them belongs to an empty one.
__global__ void sequence_bounds_kernel(const int32_t *cu_seqlens, int64_t sequences, int64_t frames, int32_t *bounds) {
    const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (t >= frames) return;
    int64_t low = 0, high = sequences;  // the number of sequences that begin at or before t lies in [low, high]
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (cu_seqlens[middle] <= t)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0 && t < cu_seqlens[low]) {  // whatever cu_seqlens holds, no kernel is led outside of the tensors
        bounds[t] = max(cu_seqlens[low - 1], 0);
        bounds[frames + t] = min(cu_seqlens[low], static_cast<int32_t>(frames));
    } else {
        bounds[t] = bounds[frames + t] = 0;
    }
}

}  // namespace
}  // namespace vts::sliding_window_attention

namespace swa = vts::sliding_window_attention;

extern "C" {

int vts_sequence_bounds_cuda(const int32_t *cu_seqlens, int64_t sequences, int64_t T, int32_t *bounds, void *stream) {
    constexpr int threads = 256;
    if (T > 0x7FFFFFFF) return cudaErrorInvalidValue;
    return VTS_LAUNCH(
        swa::sequence_bounds_kernel, dim3(static_cast<unsigned>((T + threads - 1) / threads)), threads, 0,
        static_cast<cudaStream_t>(stream), cu_seqlens, sequences, T, bounds);
}

const char *vts_sliding_window_attention_form_cuda(const swa::params *p, bool backward) {
    const swa::family *f = swa::family_of(*p, backward);
    return f == nullptr ? "none" : f->name;
}

int vts_sliding_window_attention_fwd_cuda(const swa::params *p, void *stream) {
    if (p->B * p->H * p->T == 0) return 0;
    const swa::family *f = swa::family_of(*p, false);
    return f == nullptr ? static_cast<int>(cudaErrorInvalidValue) : f->fwd(*p, static_cast<cudaStream_t>(stream));
}

int64_t vts_sliding_window_attention_bwd_cuda_scratch(const swa::params *p) {
    if (p->B * p->H * p->T == 0) return 0;
    const swa::family *f = swa::family_of(*p, true);
    return f == nullptr ? 0 : f->bwd_scratch(*p);
}

int vts_sliding_window_attention_bwd_cuda(const swa::params *p, void *stream) {
    if (p->B * p->H * p->T == 0) {
        if (p->dbias == nullptr) return 0;
        const size_t bytes = static_cast<size_t>(p->H * swa::bias_entries(*p)) * sizeof(float);
        return cudaMemsetAsync(p->dbias, 0, bytes, static_cast<cudaStream_t>(stream));
    }
    const swa::family *f = swa::family_of(*p, true);
    return f == nullptr ? static_cast<int>(cudaErrorInvalidValue) : f->bwd(*p, static_cast<cudaStream_t>(stream));
}

}  // extern "C"
