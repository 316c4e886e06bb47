// Kernels that put the emulator itself to the test; test_emulator.py says what each must give.
#include "device.h"
#include "look_back.h"

namespace {

__global__ void sum_kernel(const float *x, float *to) {
    float sum = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, step);
    __shared__ float of_warp[32];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0.0f;
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
        if (threadIdx.x == 0) to[blockIdx.x] = sum;
    }
}

// Reads what the neighbour wrote, after a barrier or, wrongly, without one.
__global__ void exchange_kernel(int *to, bool barrier) {
    VTS_DYNAMIC_SHARED(int, shared);
    shared[threadIdx.x] = static_cast<int>(threadIdx.x) * 3 + static_cast<int>(blockIdx.x);
    if (barrier) __syncthreads();
    to[blockIdx.x * blockDim.x + threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

__global__ void lanes_kernel(int64_t *to) {
    const int lane = threadIdx.x;
    const uint32_t half = lane < 16 ? 0x0000FFFFu : 0xFFFF0000u;
    int64_t *own = to + lane * 8;
    own[0] = __shfl_sync(0xFFFFFFFFu, static_cast<int64_t>(lane) << 40, lane + 3, 8);
    own[1] = __shfl_xor_sync(half, lane, 5);
    own[2] = __shfl_up_sync(0xFFFFFFFFu, lane, 3u, 16);
    own[3] = __shfl_down_sync(0xFFFFFFFFu, lane, 3u, 16);
    own[4] = __ballot_sync(half, lane % 3 == 0);
    own[5] = __any_sync(0xFFFFFFFFu, lane == 7) * 2 + __any_sync(0xFFFFFFFFu, lane > 31);
    own[6] = __all_sync(0xFFFFFFFFu, lane != 7) * 2 + __all_sync(0xFFFFFFFFu, lane < 32);
    own[7] = __syncthreads_count(lane % 2 == 0);
}

// to [16, 8] = a [16, 16] b [16, 8], through cp.async and ldmatrix, with zeros where b's rows are left out.
template <typename T>
__global__ void product_kernel(const T *a, const T *b, float *to, int rows_of_b) {
    VTS_DYNAMIC_SHARED(T, left);
    T *right = left + 16 * 16;
    const int lane = threadIdx.x;
    vts::cp_async_16(left + lane * 8, a + lane * 8, true);
    vts::cp_async_commit();
    if (lane < 16) vts::cp_async_16(right + lane * 8, b + lane * 8, lane < rows_of_b);
    vts::cp_async_commit();
    vts::cp_async_wait<0>();
    __syncwarp();
    uint32_t x[4], both[4];
    float d[4] = {};
    vts::ldmatrix_x4(x, left + lane % 16 * 16 + lane / 16 * 8);
    vts::ldmatrix_x4_trans(both, right + lane % 16 * 8);
    const uint32_t y[2] = {both[0], both[1]};
    vts::mma_m16n8k16<T>(d, x, y);
    for (int r = 0; r < 4; ++r) to[(lane / 4 + r / 2 * 8) * 8 + 2 * (lane % 4) + r % 2] = d[r];
}

// Reads shared memory that cp.async has not surely written yet: the latest group is still under way.
__global__ void early_kernel(const float *x, float *to) {
    VTS_DYNAMIC_SHARED(float, shared);
    vts::cp_async_16(shared, x, true);
    vts::cp_async_commit();
    vts::cp_async_16(shared + 4, x + 4, true);
    vts::cp_async_commit();
    vts::cp_async_wait<1>();
    for (int e = 0; e < 8; ++e) to[e] = shared[e];
}

enum wrong : int {
    BARRIER_IN_BRANCH,
    TWO_BARRIERS,
    LANE_LEFT,
    UNNAMED,
    OTHER_MASK,
    ABSENT_LANE,
    PAST_SHARED,
    PAST_GLOBAL
};

__global__ void wrong_kernel(wrong what, float *global) {
    VTS_DYNAMIC_SHARED(float, shared);
    const int t = threadIdx.x;
    if (what == BARRIER_IN_BRANCH && t < 32) __syncthreads();
    if (what == TWO_BARRIERS) {
        if (t < 32)
            __syncthreads();
        else
            __syncthreads();
    }
    if (what == LANE_LEFT && t == 5) return;
    if (what == LANE_LEFT) __shfl_xor_sync(0xFFFFFFFFu, t, 1);
    if (what == UNNAMED && t < 2) __shfl_sync(0x3u, t, 2);
    if (what == OTHER_MASK && t < 2) __ballot_sync(t == 0 ? 0x3u : 0x7u, 1);
    if (what == ABSENT_LANE && t >= 32) __syncwarp();
    if (what == PAST_SHARED) shared[t + 1] = 0.0f;
    if (what == PAST_GLOBAL) global[t + 1] = 0.0f;
}

// What stands before each tile, where some have said their own count alone: one block after another says more than
// that.
__global__ void look_back_kernel(const int *counts, const int *all_so_far, int *to) {
    using namespace vts;
    __shared__ said words[64];
    if (threadIdx.x == 0) {
        int sum = 0;
        for (unsigned tile = 0; tile < blockDim.x; ++tile) {
            sum += counts[tile];
            say(words + tile, all_so_far[tile] ? ALL_SO_FAR : OWN, all_so_far[tile] ? sum : counts[tile]);
        }
    }
    __syncthreads();
    to[threadIdx.x] = before_tile(words, 1, threadIdx.x);
}

// Two that are told apart by their number alone.
template <int NUMBER>
__global__ void roomy_kernel(int *to) {
    *to = NUMBER;
}

}  // namespace

extern "C" {

int selftest_sum(const float *x, float *to, int blocks, int threads) {
    return VTS_LAUNCH(sum_kernel, blocks, threads, 0, nullptr, x, to);
}
int selftest_exchange(int *to, int blocks, int threads, int barrier) {
    return VTS_LAUNCH(exchange_kernel, blocks, threads, threads * sizeof(int), nullptr, to, barrier != 0);
}
int selftest_lanes(int64_t *to) { return VTS_LAUNCH(lanes_kernel, 1, 32, 0, nullptr, to); }
int selftest_product(const void *a, const void *b, float *to, int rows_of_b, int bfloat16) {
    constexpr size_t bytes = (16 * 16 + 16 * 8) * 2;
    if (bfloat16)
        return VTS_LAUNCH(
            product_kernel<__nv_bfloat16>, 1, 32, bytes, nullptr, static_cast<const __nv_bfloat16 *>(a),
            static_cast<const __nv_bfloat16 *>(b), to, rows_of_b);
    return VTS_LAUNCH(
        product_kernel<__half>, 1, 32, bytes, nullptr, static_cast<const __half *>(a), static_cast<const __half *>(b),
        to, rows_of_b);
}
int selftest_early(const float *x, float *to) { return VTS_LAUNCH(early_kernel, 1, 1, 32, nullptr, x, to); }
// global: 40 floats, one for a thread.
int selftest_wrong(int what, float *global) {
    return VTS_LAUNCH(wrong_kernel, 1, 40, 40 * sizeof(float), nullptr, static_cast<wrong>(what), global);
}
int selftest_look_back(const int *counts, const int *all_so_far, int *to, int tiles) {
    return VTS_LAUNCH(look_back_kernel, 1, tiles, 0, nullptr, counts, all_so_far, to);
}
int selftest_roomy(int number, int bytes, int *to) {
    return number == 0 ? VTS_LAUNCH(roomy_kernel<0>, 1, 1, static_cast<size_t>(bytes), nullptr, to)
                       : VTS_LAUNCH(roomy_kernel<1>, 1, 1, static_cast<size_t>(bytes), nullptr, to);
}
int selftest_allow(int bytes) { return vts::allow_shared<roomy_kernel<0>>(static_cast<size_t>(bytes)); }
}
