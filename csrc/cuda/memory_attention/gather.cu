// rows[i] = sum_j weights_ij table[index_ij]: a weighted sum of chosen slots for every frame.
#include "gather.h"

namespace vts::memory {
namespace {

// A thread owns one vector of one row of the result: any width is served without threads to spare, and no sum is passed
// from thread to thread. The index and weights of a row are read by all its threads at once, from the L1 cache.
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_BLOCK, 4)
    memory_gather_kernel(const __grid_constant__ gather_params p, const __grid_constant__ head_grid grid) {
    const int64_t vectors = p.e / N;
    grid.each([&](int64_t head, int64_t thread) {
        const int64_t i = thread / vectors, column = thread % vectors * N, r = head * p.n + i;
        if (i >= p.n) return;
        const T *const bank = bank_of<const T>(p, head) + column;
        const int32_t *const index = p.index + r * p.k;
        const float *const weights = static_cast<const float *>(p.weights) + r * p.k;
        float sum[N] = {};
        add_rows<T, N>(
            sum, static_cast<int>(p.S > 0 ? p.k : 0), [&](int j) { return bank + index[j] * p.table_stride_s; },
            [&](int j) { return weights[j]; });
        store_vector<T, N>(row_of<T>(p, head, i) + column, sum);
    });
}

struct run {
    const gather_params &p;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        const head_grid grid(p, p.n * (p.e / N));
        return VTS_LAUNCH(
            (memory_gather_kernel<T, N>), grid.size(), dim3(GATHER_BLOCK), (RING_BYTES<T, N>), stream, p, grid);
    }
};

}  // namespace
}  // namespace vts::memory

extern "C" int vts_memory_gather_cuda(const vts::memory::gather_params *p, void *stream) {
    if (!vts::memory::fits(*p)) return cudaErrorInvalidValue;
    if (p->G * p->H * p->n * p->e == 0) return cudaSuccess;
    return vts::memory::with_vectors(*p, vts::memory::run{*p, static_cast<cudaStream_t>(stream)});
}
