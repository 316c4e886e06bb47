// rows[i] = sum_j weights_ij table[index_ij]: a weighted sum of chosen slots for every frame.
#include "memory_gather.h"

namespace vts::memory {
namespace {

// A thread owns one piece of one row of the result: any width is served without threads to spare, and no sum is passed
// from thread to thread. The index and weights of a row are read by all its threads at once, from the L1 cache.
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_BLOCK, 4)
    memory_gather_kernel(const __grid_constant__ gather_params p, unsigned pieces, unsigned threads) {
    const unsigned thread = thread_of_head();
    if (thread >= threads) return;
    const head_of_block head(p);
    const int64_t i = thread / pieces, column = thread % pieces * N, r = head.number * p.n + i;
    const T *const bank = bank_of<const T>(p, head.g, head.h) + column;
    const int32_t *const index = p.index + r * p.k;
    const float *const weights = static_cast<const float *>(p.weights) + r * p.k;
    float sum[N] = {};
    add_rows<T, N>(
        sum, static_cast<int>(p.S > 0 ? p.k : 0), [&](int j) { return bank + index[j] * p.table_stride_s; },
        [&](int j) { return weights[j]; });
    store_piece<T, N>(row_of<T>(p, head.g, head.h, i) + column, sum);
}

struct run {
    const gather_params &p;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        const int64_t pieces = p.e / N, threads = p.n * pieces;
        return launch_by_head(
            memory_gather_kernel<T, N>, p, threads, RING_BYTES<T, N>, stream, p, static_cast<unsigned>(pieces),
            static_cast<unsigned>(threads));
    }
};

}  // namespace
}  // namespace vts::memory

extern "C" int vts_memory_gather_cuda(const vts::memory::gather_params *p, void *stream) {
    if (!vts::memory::fits(*p)) return cudaErrorInvalidValue;
    if (p->G * p->H * p->n * p->e == 0) return cudaSuccess;
    return vts::memory::with_pieces(*p, vts::memory::run{*p, static_cast<cudaStream_t>(stream)});
}
