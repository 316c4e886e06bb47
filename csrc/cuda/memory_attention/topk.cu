// The k best slots of each row, from blocks of scores: exact, ties to the lower slot, the same bits in every run.
//
// A block of threads serves a row. It keeps the row's k best so far, sorted, and goes through the scores with the k-th
// of them as a threshold: what is above goes into a buffer by way of a ballot, and the two are sorted together when the
// buffer has filled up. Scores drawn alike pass the threshold k ln(S / k) times or so, some 240 times for the 32 best
// of 65,536, so that nearly all a score costs is its read: 4 bytes from the L2 cache, where the product has just left
// it. The buffer always has room for a whole tile that passes, as where scores rise from slot to slot.
#include "../device.h"
#include "vtsum/memory_attention.h"

namespace vts::memory {
namespace {

using topk_params = vts_memory_topk_params;

constexpr unsigned ALL = 0xFFFFFFFFu;

// A candidate as one number: greater is better, and of two equal scores the lower slot is. 0: none.
__device__ __forceinline__ uint64_t candidate(float z, int64_t slot) {
    const uint32_t bits = __float_as_uint(z), rising = bits ^ ((bits >> 31) != 0 ? 0xFFFFFFFFu : 0x80000000u);
    return static_cast<uint64_t>(rising) << 32 | ~static_cast<uint32_t>(slot);
}
__device__ __forceinline__ float score_of(uint64_t one) {
    if (one == 0) return -INFINITY;
    const uint32_t rising = static_cast<uint32_t>(one >> 32);
    return __uint_as_float(rising ^ ((rising >> 31) != 0 ? 0x80000000u : 0xFFFFFFFFu));
}
__device__ __forceinline__ int32_t slot_of(uint64_t one) {
    return one == 0 ? 0 : static_cast<int32_t>(~static_cast<uint32_t>(one));
}

// Sorts pool [size], a power of two, falling: a bitonic sort by the whole block.
template <int THREADS>
__device__ __forceinline__ void sort_falling(uint64_t *pool, int size) {
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int pair = static_cast<int>(threadIdx.x); pair < size / 2; pair += THREADS) {
                const int low = 2 * pair - (pair & (step - 1)), high = low + step;
                const uint64_t a = pool[low], b = pool[high];
                if ((a < b) == ((low & run) == 0)) pool[low] = b, pool[high] = a;
            }
        }
    }
    __syncthreads();
}

// Four neighbouring scores of a row; those that are not there are -inf.
__device__ __forceinline__ float4 load_scores(const float *row, int64_t at, int64_t slots, bool aligned, bool wanted) {
    float4 x = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
    if (!wanted || at >= slots) return x;
    if (aligned && at + 4 <= slots) return *reinterpret_cast<const float4 *>(row + at);
    x.x = row[at];
    if (at + 1 < slots) x.y = row[at + 1];
    if (at + 2 < slots) x.z = row[at + 2];
    if (at + 3 < slots) x.w = row[at + 3];
    return x;
}

// POOL holds the k best and the buffer: k + 4 THREADS at least.
template <int THREADS, int POOL>
__global__ void __launch_bounds__(THREADS)
    memory_topk_merge_kernel(const __grid_constant__ topk_params p, bool aligned) {
    constexpr int TILE = 4 * THREADS;
    __shared__ uint64_t pool[POOL];
    __shared__ int buffered;
    const int64_t row = p.row_first + blockIdx.x, head = row / p.n;
    const float *const scores = static_cast<const float *>(p.scores) + blockIdx.x * p.scores_stride;
    const float *const bias = p.slot_bias == nullptr
                                  ? nullptr
                                  : static_cast<const float *>(p.slot_bias) + head / p.H * p.bias_stride_g +
                                        head % p.H * p.bias_stride_h + p.first;
    const float factor = static_cast<const float *>(p.factor)[row];
    float *const best = static_cast<float *>(p.best) + row * p.k;
    int32_t *const index = p.index + row * p.k;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, k = static_cast<int>(p.k);
    const int enough = max(k, THREADS / 2);  // in the buffer: a sort pays, for it raises the threshold

    for (int j = thread; j < k; j += THREADS) {
        const float z = p.start ? -INFINITY : best[j];
        pool[j] = z == -INFINITY ? 0 : candidate(z, index[j]);
    }
    if (thread == 0) buffered = 0;
    __syncthreads();
    float threshold = score_of(pool[k - 1]);

    // The first tile of all is a quarter of the others: it only finds a threshold.
    int64_t at = 0;
    int size = p.start ? THREADS : TILE;
    float4 x = load_scores(scores, thread * 4, p.slots, aligned, thread * 4 < size);
    while (at < p.slots) {
        const int64_t own = at + thread * 4;
        const float4 next = load_scores(scores, own + size, p.slots, aligned, true);
        float z[4] = {x.x, x.y, x.z, x.w};
        bool any = false;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            // Adding 0 takes the sign from a zero. What is not there, or not in this tile, has factor * -inf or NaN.
            const bool there = thread * 4 < size && own + e < p.slots;
            z[e] = there ? fmaf(z[e], factor, bias == nullptr ? 0.0f : bias[own + e]) + 0.0f : -INFINITY;
            any = any || z[e] > threshold;
        }
        if (__any_sync(ALL, any)) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool passes = z[e] > threshold;
                const unsigned voters = __ballot_sync(ALL, passes);
                int position = 0;
                if (lane == 0 && voters != 0) position = atomicAdd(&buffered, __popc(voters));
                position = k + __shfl_sync(ALL, position, 0) + __popc(voters & ((1u << lane) - 1));
                if (passes) pool[position] = candidate(z[e], p.first + own + e);
            }
        }
        at += size, size = TILE, x = next;
        __syncthreads();
        const int count = buffered;
        if (count > 0 && (count >= enough || count > POOL - k - TILE || at >= p.slots || threshold == -INFINITY)) {
            int all = 2;
            while (all < k + count) all *= 2;
            for (int j = k + count + thread; j < all; j += THREADS) pool[j] = 0;
            sort_falling<THREADS>(pool, all);
            threshold = score_of(pool[k - 1]);
            if (thread == 0) buffered = 0;
        }
        __syncthreads();  // `buffered` is read by all before it grows again
    }
    for (int j = thread; j < k; j += THREADS) best[j] = score_of(pool[j]), index[j] = slot_of(pool[j]);
}

template <int THREADS, int POOL>
int launch(const topk_params &p, cudaStream_t stream) {
    const bool aligned = reinterpret_cast<uintptr_t>(p.scores) % 16 == 0 && p.scores_stride % 4 == 0;
    return VTS_LAUNCH(
        (memory_topk_merge_kernel<THREADS, POOL>), dim3(static_cast<unsigned>(p.rows)), dim3(THREADS), 0, stream, p,
        aligned);
}

}  // namespace
}  // namespace vts::memory

extern "C" int64_t vts_memory_topk_cuda_block(void) {
#ifdef __CUDACC__
    int device = 0, bytes = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device);
    const int64_t held = int64_t{bytes} / 8 * 5 / int64_t{sizeof(float)};  // the rest is for rows and keys on their way
    return held < 1 << 21 ? 1 << 21 : held > 1 << 24 ? 1 << 24 : held;
#else
    return 512;  // small tensors have several blocks
#endif
}

extern "C" int vts_memory_topk_merge_cuda(const vts_memory_topk_params *p, void *stream) {
    if (p->dtype != VTS_FLOAT32 || p->k > VTS_MEMORY_TOPK_MOST || p->rows > 0x7FFFFFFF || p->S > 0x7FFFFFFF)
        return cudaErrorInvalidValue;
    if (p->rows * p->k == 0) return cudaSuccess;
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (p->slots <= 2048 && p->k <= 256) return vts::memory::launch<128, 1024>(*p, on);
    return vts::memory::launch<512, 4096>(*p, on);
}
