// What memory_fuse adds its first product to: y = weights bank + bias + residual, in one pass over y.
//
// A matter of memory: of a few slots the product is little work, and what moves is the residual and y, 2 O numbers a
// row. torch's BLAS would have them moved four times, since it has no sum of three. A block of four warps owns 64 rows
// and 64 columns and walks the slots by 64, two blocks of weights and bank in shared memory in turn; the residual is
// asked for before all of that. Sums are rounded once.
#include "../tensor_core_operands.h"
#include "vtsum/memory_attention.h"

namespace vts::memory {
namespace {

using join_params = vts_memory_join_params;

constexpr int SIDE = 64, WARPS_OF_JOIN = 4, THREADS_OF_JOIN = 32 * WARPS_OF_JOIN;
constexpr int TILE_OF_JOIN = SIDE * SIDE;                        // elements of weights, and of the bank
constexpr int STAGE = SIDE + 4;                                  // floats from row to row of the sums in shared memory
constexpr int JOIN_BYTES = 2 * 2 * TILE_OF_JOIN * 2;             // of two of both, 16-bit
static_assert(SIDE * STAGE * int{sizeof(float)} <= JOIN_BYTES);  // the sums take the place of what they are made of

// Copies rows [64, 64] to shared memory; those from `rows` on, and columns from `columns` on, become zeros.
template <typename T>
__device__ __forceinline__ void copy_tile(T *to, const T *from, int64_t stride, int64_t rows, int64_t columns) {
#pragma unroll
    for (int n = 0; n < TILE_OF_JOIN / 8 / THREADS_OF_JOIN; ++n) {
        const int i = n * THREADS_OF_JOIN + threadIdx.x, row = i / (SIDE / 8), chunk = i % (SIDE / 8);
        const bool exists = row < rows && chunk * 8 < columns;
        cp_async_16(to + swizzled<SIDE>(row, chunk), exists ? from + row * stride + chunk * 8 : from, exists);
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS_OF_JOIN) memory_join_kernel(const __grid_constant__ join_params p) {
    VTS_DYNAMIC_SHARED(T, shared);
    const int64_t across = (p.O + SIDE - 1) / SIDE;
    const int64_t row = blockIdx.x / across * SIDE, column = blockIdx.x % across * SIDE;
    const T *const weights = static_cast<const T *>(p.weights) + row * p.R;
    const T *const bank = static_cast<const T *>(p.bank) + column;
    const int64_t rows = p.N - row, columns = p.O - column;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

    // This lane's 16 bytes of rows of y, the first one and every fourth after it of the warp's own.
    const int own = warp * 16 + threadIdx.x % 32 / 8, chunk = threadIdx.x % 8;
    const bool inside = chunk * 8 < columns;
    const int64_t place = (row + own) * p.O + column + chunk * 8;
    uint4 residual[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
        residual[i] = inside && own + 4 * i < rows ? load_16(static_cast<const T *>(p.residual) + place + 4 * i * p.O)
                                                   : make_uint4(0, 0, 0, 0);

    const auto fetch = [&](int64_t first) {
        T *const to = shared + first / SIDE % 2 * 2 * TILE_OF_JOIN;
        if (first < p.R) {
            copy_tile(to, weights + first, p.R, rows, p.R - first);
            copy_tile(to + TILE_OF_JOIN, bank + first * p.O, p.O, p.R - first, columns);
        }
        cp_async_commit();
    };
    fetch(0);
    float sum[SIDE / 8][4] = {};
    for (int64_t first = 0; first < p.R; first += SIDE) {
        fetch(first + SIDE);
        cp_async_wait<1>();
        __syncthreads();
        const T *const tile = shared + first / SIDE % 2 * 2 * TILE_OF_JOIN;
#pragma unroll
        for (int k = 0; k < SIDE / 16; ++k) {
            uint32_t a[4];
            read_a<SIDE>(a, tile + warp * 16 * SIDE, k);
#pragma unroll
            for (int n = 0; n < SIDE / 16; ++n) {
                uint32_t one[2], other[2];
                read_b<SIDE>(one, other, tile + TILE_OF_JOIN + k * 16 * SIDE, n);
                mma_m16n8k16<T>(sum[2 * n], a, one);
                mma_m16n8k16<T>(sum[2 * n + 1], a, other);
            }
        }
        __syncthreads();  // before the next copies overwrite what has been read
    }

    float *const sums = reinterpret_cast<float *>(shared) + warp * 16 * STAGE;  // the warp's own
#pragma unroll
    for (int n = 0; n < SIDE / 8; ++n) {
        float *const to = sums + g * STAGE + 8 * n + 2 * t;
        *reinterpret_cast<float2 *>(to) = make_float2(sum[n][0], sum[n][1]);
        *reinterpret_cast<float2 *>(to + 8 * STAGE) = make_float2(sum[n][2], sum[n][3]);
    }
    __syncwarp();
    if (!inside) return;
    float bias[8] = {};
    if (p.bias != nullptr) load_8(static_cast<const T *>(p.bias) + column + chunk * 8, bias);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (own + 4 * i >= rows) break;
        const uint32_t pairs[4] = {residual[i].x, residual[i].y, residual[i].z, residual[i].w};
        float y[8];
        load_8(sums + (threadIdx.x % 32 / 8 + 4 * i) * STAGE + chunk * 8, y);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float2 pair = unpack<T>(pairs[e]);
            y[2 * e] += bias[2 * e] + pair.x, y[2 * e + 1] += bias[2 * e + 1] + pair.y;
        }
        store_8(static_cast<T *>(p.y) + place + 4 * i * p.O, y);
    }
}

int64_t blocks_of(const join_params &p) { return (p.N + SIDE - 1) / SIDE * ((p.O + SIDE - 1) / SIDE); }

template <typename T>
int launch_join(const join_params &p, cudaStream_t stream) {
    return VTS_LAUNCH(
        memory_join_kernel<T>, dim3(static_cast<unsigned>(blocks_of(p))), dim3(THREADS_OF_JOIN), JOIN_BYTES, stream, p);
}

}  // namespace
}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" {

bool vts_memory_join_cuda_takes(const vts_memory_join_params *p) {
    constexpr int64_t most_slots = 256;  // of more, a BLAS's product gains what its passes over y lose
    if (p->dtype != VTS_FLOAT16 && p->dtype != VTS_BFLOAT16) return false;
    if (p->R < 1 || p->R > most_slots || p->R % 8 != 0 || p->O % 8 != 0) return false;
    if (p->N > (int64_t{1} << 40) || p->O > (int64_t{1} << 20) || mem::blocks_of(*p) > 0x7FFFFFFF) return false;
    uintptr_t bits = 0;
    for (const void *x : {p->weights, p->bank, p->bias, p->residual, static_cast<const void *>(p->y)})
        bits |= reinterpret_cast<uintptr_t>(x);
    return bits % 16 == 0;
}

int vts_memory_join_cuda(const vts_memory_join_params *p, void *stream) {
    if (!vts_memory_join_cuda_takes(p)) return cudaErrorInvalidValue;
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    return p->dtype == VTS_FLOAT16 ? mem::launch_join<__half>(*p, on) : mem::launch_join<__nv_bfloat16>(*p, on);
}

}  // extern "C"
