// The weights of up to 256 slots in one kernel: product on tensor cores, and in its epilogue the softmax, lse and
// usage.
//
// A block owns 128 rows of a head and all slots, whose scores stay in registers until they are weights: what is moved
// is x once, the keys once a block, from the L2 cache, and the weights. 16,384 frames of width 768 and 256 slots in 16
// bits are 25 + 50 + 8 MB and 6.4 GFLOP-pairs (13 us at the 500 TFLOP/s or so that mma.sync gives on an H200, which
// bounds it; the bytes take less): the product alone would store 17 MB of float32 scores and a softmax read them again.
// Past 256 slots the scores outgrow the registers, the keys are read more often for each product, and two kernels are
// as fast.
#include "../tensor_core_operands.h"
#include "softmax.h"
#include "vtsum/memory_attention.h"

namespace vts::memory {
namespace {

using weights_params = vts_memory_weights_params;

constexpr int ROWS = 128, STEP = 32, STAGES = 4, WARPS = BLOCK / 32;  // STEP: columns of x and keys in a stage

// How the warps of a block share its scores: each has M tiles of 16 rows and N of 8 slots.
template <int SLOTS>
struct shape {
    static constexpr int across = SLOTS == 64 ? 1 : 2, down = WARPS / across, M = ROWS / down / 16,
                         N = SLOTS / across / 8, resident = SLOTS == 256 ? 1 : 2;
    static constexpr int stage = (ROWS + SLOTS) * STEP;  // elements
    static constexpr int bytes = STAGES * stage * 2 + SLOTS * static_cast<int>(sizeof(float));
};

// Copies columns [column, column + STEP) of 64 rows each time: the thread's own 16 bytes of row threadIdx.x / 4.
struct row_copier {
    const int row = static_cast<int>(threadIdx.x) / 4, chunk = static_cast<int>(threadIdx.x) % 4;

    template <int COUNT, typename T>
    __device__ __forceinline__ void copy(T *to, const T *from, int64_t stride, int there, int column, int width) const {
#pragma unroll
        for (int r = 0; r < COUNT; r += BLOCK / 4) {
            const bool wanted = row + r < there && column + chunk * 8 < width;
            const T *const own = from + (row + r) * stride + column + chunk * 8;
            cp_async_16(to + swizzled<STEP>(row + r, chunk), wanted ? own : from, wanted);
        }
    }
};

// Adds up the first 2 HALF numbers of each lane over the 8 lanes with the same lane % 4, from the lanes that differ in
// BIT on: lane l gets HALF / 4 of the sums, from number HALF / 4 * (l / 4) on, in its first places.
template <int HALF, int BIT, int C>
__device__ __forceinline__ void sum_over_rows(float (&x)[C]) {
    const bool upper = (static_cast<int>(threadIdx.x) & BIT) != 0;
#pragma unroll
    for (int c = 0; c < HALF; ++c) {
        const float other = __shfl_xor_sync(ALL, upper ? x[c] : x[c + HALF], BIT);
        x[c] = (upper ? x[c + HALF] : x[c]) + other;
    }
    if constexpr (BIT > 4) sum_over_rows<HALF / 2, BIT / 2>(x);
}

// Rows of weights: two neighbouring columns a lane of each tile, brought together so that what four lanes store is 32
// bytes whole. S is a multiple of 4.
template <typename W, int N>
__device__ __forceinline__ void store_row(W *row, const float (&w)[N][4], int half, int first, int S, bool there) {
    const int t = static_cast<int>(threadIdx.x) % 4;
    if constexpr (sizeof(W) == 4) {
#pragma unroll
        for (int c = 0; c < N; ++c)
            if (const int column = first + c * 8 + 2 * t; there && column < S)
                *reinterpret_cast<float2 *>(row + column) = make_float2(w[c][2 * half], w[c][2 * half + 1]);
    } else {
#pragma unroll
        for (int c = 0; c < N; c += 2) {
            const uint32_t here = pack<W>(w[c][2 * half], w[c][2 * half + 1]);
            const uint32_t next = pack<W>(w[c + 1][2 * half], w[c + 1][2 * half + 1]);
            const bool odd = t % 2 != 0;
            const uint32_t other = __shfl_xor_sync(ALL, odd ? here : next, 1);
            const int column = first + (c + odd) * 8 + 2 * (t - odd);
            if (there && column < S)
                *reinterpret_cast<uint2 *>(row + column) = odd ? make_uint2(other, next) : make_uint2(here, other);
        }
    }
}

template <typename T, typename W, int SLOTS>
__global__ void __launch_bounds__(BLOCK, shape<SLOTS>::resident)
    memory_weights_fwd_kernel(const __grid_constant__ weights_params p) {
    using cut = shape<SLOTS>;
    constexpr int M = cut::M, N = cut::N;
    VTS_DYNAMIC_SHARED(T, shared);
    float *const biases = reinterpret_cast<float *>(shared + STAGES * cut::stage);
    const int64_t head = blockIdx.y, g = head / p.H, h = head % p.H;
    const int first = static_cast<int>(blockIdx.x) * ROWS, frames = static_cast<int>(p.n),
              slots = static_cast<int>(p.S), width = static_cast<int>(p.d);
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int own_row = warp / cut::across * M * 16, own_slot = warp % cut::across * N * 8;  // of the block, the warp's
    const T *const x = static_cast<const T *>(p.x) + g * p.x_stride_g + h * p.x_stride_h + first * p.x_stride_n;
    const T *const keys = static_cast<const T *>(p.keys) + g * p.keys_stride_g + h * p.keys_stride_h;

    const row_copier copier;
    const auto fetch = [&](int step) {
        T *const to = shared + step % STAGES * cut::stage;
        if (step * STEP < width) {
            copier.copy<ROWS>(to, x, p.x_stride_n, frames - first, step * STEP, width);
            copier.copy<SLOTS>(to + ROWS * STEP, keys, p.keys_stride_s, slots, step * STEP, width);
        }
        cp_async_commit();
    };
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) fetch(s);
    for (int s = static_cast<int>(threadIdx.x); s < SLOTS; s += BLOCK) {
        float bias = s < slots ? 0.0f : -INFINITY;
        if (p.slot_bias != nullptr && s < slots)
            bias = p.slot_bias[g * p.bias_stride_g + h * p.bias_stride_h + s] * LOG2_E;
        biases[s] = bias;
    }

    float z[M][N][4] = {};
    for (int step = 0; step * STEP < width; ++step) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // this stage has arrived, and nobody reads the one before it any more
        fetch(step + STAGES - 1);
        const T *const rows = shared + step % STAGES * cut::stage + own_row * STEP;
        const T *const bank = shared + step % STAGES * cut::stage + (ROWS + own_slot) * STEP;
#pragma unroll
        for (int k = 0; k < STEP / 16; ++k) {
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) read_a<STEP>(a[m], rows + m * 16 * STEP, k);
#pragma unroll
            for (int c = 0; c < N; c += 2) {
                uint32_t left[2], right[2];
                read_b_transposed<STEP>(left, right, bank + c * 8 * STEP, k);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_m16n8k16<T>(z[m][c], a[m], left);
                    mma_m16n8k16<T>(z[m][c + 1], a[m], right);
                }
            }
        }
    }
    __syncthreads();  // from here on the stages' memory holds what warps tell each other

    // Softmax of each row: first within the warp, then with what the warp beside it has found.
    struct of_row {
        float top, total;
    };
    of_row(*const found)[ROWS] = reinterpret_cast<of_row(*)[ROWS]>(shared);  // [across][ROWS]
    const int group = lane / 4, t = lane % 4;
    const float *const bias = biases + own_slot + 2 * t;
    float top[M][2], total[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int r = own_row + m * 16 + half * 8 + group;
            const int i = first + r;
            const bool seen = i < frames && (p.query_mask == nullptr || p.query_mask[g * p.n + i] != 0);
            const float factor = seen ? p.factor[head * p.n + i] * LOG2_E : 0.0f;
            float highest = -INFINITY, sum = 0.0f;
#pragma unroll
            for (int c = 0; c < N; ++c)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    z[m][c][e] = seen ? fmaf(z[m][c][e], factor, bias[c * 8 + e % 2]) : -INFINITY;
                    highest = fmaxf(highest, z[m][c][e]);
                }
            highest = row_max(highest);
            const float base = highest == -INFINITY ? 0.0f : highest;
#pragma unroll
            for (int c = 0; c < N; ++c)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    z[m][c][e] = power_of_2(z[m][c][e] - base);
                    sum += z[m][c][e];
                }
            top[m][half] = highest, total[m][half] = row_sum(sum);
            if (cut::across > 1 && t == 0) found[warp % cut::across][r] = {highest, total[m][half]};
        }
    if constexpr (cut::across > 1) __syncthreads();
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int r = own_row + m * 16 + half * 8 + group;
            float share = 1.0f, highest = top[m][half], sum = total[m][half];
            if constexpr (cut::across > 1) {
                const of_row left = found[0][r], right = found[1][r];  // in the same order in both warps
                highest = fmaxf(left.top, right.top);
                const float base = highest == -INFINITY ? 0.0f : highest;
                sum = left.total * power_of_2(left.top - base) + right.total * power_of_2(right.top - base);
                share = power_of_2(top[m][half] - base);  // 0 where the warp has found nothing
            }
            share = sum == 0.0f ? 0.0f : share / sum;  // NaN stays NaN
#pragma unroll
            for (int c = 0; c < N; ++c) z[m][c][2 * half] *= share, z[m][c][2 * half + 1] *= share;
            if (t == 0 && warp % cut::across == 0 && first + r < frames)
                p.lse[head * p.n + first + r] = sum == 0.0f ? -INFINITY : (highest + __log2f(sum)) * LN_2;
        }

#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int i = first + own_row + m * 16 + half * 8 + group;
            store_row(static_cast<W *>(p.weights) + (head * p.n + i) * p.S, z[m], half, own_slot, slots, i < frames);
        }

    // Usage: over the lane's rows, over the warp's, over the block's.
    float sums[2 * N];
#pragma unroll
    for (int c = 0; c < N; ++c)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            sums[2 * c + e] = z[0][c][e] + z[0][c][e + 2];
            if constexpr (M > 1) sums[2 * c + e] += z[1][c][e] + z[1][c][e + 2];
        }
    sum_over_rows<N, 16>(sums);
    float (*const of_warp)[SLOTS] = reinterpret_cast<float (*)[SLOTS]>(shared + cut::stage);  // [down][SLOTS]
#pragma unroll
    for (int c = 0; c < N / 4; ++c) {
        const int number = N / 4 * group + c;
        of_warp[warp / cut::across][own_slot + number / 2 * 8 + 2 * t + number % 2] = sums[c];
    }
    __syncthreads();
    float *const usage = gridDim.x == 1 ? p.usage : p.partial;
    for (int s = static_cast<int>(threadIdx.x); s < slots; s += BLOCK) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < cut::down; ++w) sum += of_warp[w][s];
        usage[(head * gridDim.x + blockIdx.x) * p.S + s] = sum;
    }
}

int64_t blocks_of(const weights_params &p) { return (p.n + ROWS - 1) / ROWS; }

template <typename T, typename W, int SLOTS>
int launch(const weights_params &p, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(blocks_of(p)), static_cast<unsigned>(p.G * p.H));
    return VTS_LAUNCH((memory_weights_fwd_kernel<T, W, SLOTS>), grid, dim3(BLOCK), shape<SLOTS>::bytes, stream, p);
}

template <typename T, typename W>
int of_types(const weights_params &p, cudaStream_t stream) {
    if (p.S <= 64) return launch<T, W, 64>(p, stream);
    if (p.S <= 128) return launch<T, W, 128>(p, stream);
    return launch<T, W, 256>(p, stream);
}

template <typename T>
int of_type(const weights_params &p, cudaStream_t stream) {
    return p.weights_dtype == VTS_FLOAT32 ? of_types<T, float>(p, stream) : of_types<T, T>(p, stream);
}

}  // namespace
}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" {

bool vts_memory_weights_cuda_takes(const vts_memory_weights_params *p) {
    if (p->dtype != VTS_FLOAT16 && p->dtype != VTS_BFLOAT16) return false;
    if (p->weights_dtype != VTS_FLOAT32 && p->weights_dtype != p->dtype) return false;
    if (p->S < 4 || p->S > 256 || p->S % 4 != 0 || p->n == 0 || p->G * p->H == 0 || p->G * p->H > 65535) return false;
    if (p->n > (int64_t{1} << 30) || p->d > (int64_t{1} << 30)) return false;
    const int64_t steps =
        p->d | p->x_stride_g | p->x_stride_n | p->x_stride_h | p->keys_stride_g | p->keys_stride_h | p->keys_stride_s;
    return steps % 8 == 0 && mem::aligned_16(p->x) && mem::aligned_16(p->keys) && mem::aligned_16(p->weights);
}

int64_t vts_memory_weights_cuda_scratch(const vts_memory_weights_params *p) {
    const int64_t blocks = mem::blocks_of(*p);
    return blocks <= 1 ? 0 : p->G * p->H * blocks * p->S * static_cast<int64_t>(sizeof(float));
}

int vts_memory_weights_fwd_cuda(const vts_memory_weights_params *p, void *stream) {
    if (!vts_memory_weights_cuda_takes(p)) return cudaErrorInvalidValue;
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    const int error = p->dtype == VTS_FLOAT16 ? mem::of_type<__half>(*p, on) : mem::of_type<__nv_bfloat16>(*p, on);
    const int64_t blocks = mem::blocks_of(*p);
    if (error != cudaSuccess || blocks == 1) return error;
    return mem::add_up_columns(p->partial, p->G * p->H, blocks, p->S, p->usage, on);
}

}  // extern "C"
