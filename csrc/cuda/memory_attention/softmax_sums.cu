// Sums of columns over many rows, in a fixed order: the second half of usage and of the bias's gradient.
#include "softmax.h"

namespace vts::memory {
namespace {

constexpr int COLUMNS = 32, PARTS = 16;

// A block serves 32 columns of a head with 16 warps, each of which adds up every 16th row; the first then adds up the
// warps' sums. The rows are few (a block of the softmax each) and lie in the L2 cache.
__global__ void __launch_bounds__(COLUMNS *PARTS)
    add_up_columns_kernel(const float *partial, int64_t count, int64_t S, float *to) {
    __shared__ float of_part[PARTS][COLUMNS];
    const int lane = static_cast<int>(threadIdx.x) % COLUMNS, part = static_cast<int>(threadIdx.x) / COLUMNS;
    const int64_t blocks = (S + COLUMNS - 1) / COLUMNS, head = blockIdx.x / blocks;
    const int64_t s = blockIdx.x % blocks * COLUMNS + lane;
    float sum = 0.0f;
    if (s < S) {
        const float *from = partial + head * count * S + s;
#pragma unroll 8
        for (int64_t r = part; r < count; r += PARTS) sum += from[r * S];
    }
    of_part[part][lane] = sum;
    __syncthreads();
    if (part > 0 || s >= S) return;
#pragma unroll
    for (int q = 1; q < PARTS; ++q) sum += of_part[q][lane];
    to[head * S + s] = sum;
}

}  // namespace

int add_up_columns(const float *partial, int64_t heads, int64_t count, int64_t S, float *to, cudaStream_t stream) {
    const int64_t blocks = heads * ((S + COLUMNS - 1) / COLUMNS);
    if (blocks > 0x7FFFFFFF) return cudaErrorInvalidValue;
    return VTS_LAUNCH(
        add_up_columns_kernel, dim3(static_cast<unsigned>(blocks)), dim3(COLUMNS * PARTS), 0, stream, partial, count, S,
        to);
}

}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" int64_t vts_memory_softmax_cuda_scratch(const mem::softmax_params *p) {
    const int64_t count = mem::cut_rows(*p).count;
    return count <= 1 ? 0 : p->G * p->H * count * p->S * static_cast<int64_t>(sizeof(float));
}
