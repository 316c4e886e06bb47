// What the kernels need from CUDA beyond plain code, so that the same source compiles with nvcc and, for the tests on a
// machine without a GPU, as host C++ on the emulator of a thread block (tests/emulator). Under nvcc all of this is one
// instruction or none. Shuffles, votes and barriers go by their CUDA names.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <type_traits>

#ifdef __CUDACC__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "the kernels need compute capability 8.0 or newer"
#endif
#else
#include "emulator.h"
#endif

// VTS_DYNAMIC_SHARED(float, rows); declares `float *rows`, aligned to 16 bytes: the launch's dynamic shared memory.
// VTS_LAUNCH((kernel<T, 8>), grid, block, shared_bytes, stream, arguments...); gives 0 or a cudaError_t, of which
// vts_cuda_error_text (vtsum/common.h) says the kernel's name, too. The kernel is a constant.
#ifdef __CUDACC__
#define VTS_DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char vts_dynamic_shared[]; \
    type *const name = static_cast<type *>(__builtin_assume_aligned(vts_dynamic_shared, 16))
#else
#define VTS_DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(vts::emulator::dynamic_shared())
#endif
#define VTS_LAUNCH(kernel, ...) ::vts::launch<kernel>(#kernel, __VA_ARGS__)

namespace vts {

// The kernel whose launch failed last on this thread; null where its name was asked for since.
inline thread_local const char *failed_kernel = nullptr;

constexpr int MOST_DEVICES = 64;  // of which something is remembered

// Lets launches of a kernel have this much dynamic shared memory, which beyond 48 KiB must be asked for: once a device
// and kernel, since asking takes the driver's lock and about as long as a launch. Any number of threads may call it.
template <auto KERNEL>
inline int allow_shared(size_t bytes) {
    static std::atomic<size_t> allowed[MOST_DEVICES];
    static std::mutex asking;
    if (bytes <= 48 * 1024) return cudaSuccess;
    int device = 0;
    if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
    const bool remembered = device < MOST_DEVICES;
    if (remembered && bytes <= allowed[device].load(std::memory_order_acquire)) return cudaSuccess;
    const std::lock_guard<std::mutex> alone(asking);  // so that nobody's smaller wish takes back a greater one
    if (remembered && bytes <= allowed[device].load(std::memory_order_relaxed)) return cudaSuccess;
    const int error = cudaFuncSetAttribute(
        reinterpret_cast<const void *>(KERNEL), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error == cudaSuccess && remembered) allowed[device].store(bytes, std::memory_order_release);
    return error;
}

template <auto KERNEL, typename... Arguments>
inline int launch(
    const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, const Arguments &...arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    // What is found below is this launch's: an error that an earlier call left behind was told to that call's caller.
    (void)cudaGetLastError();
    int error = allow_shared<KERNEL>(shared_bytes);
    if (error == cudaSuccess) {
#ifdef __CUDACC__
        KERNEL<<<grid, block, shared_bytes, stream>>>(arguments...);
#else
        (void)stream;
        emulator::run(grid, block, shared_bytes, [&] { KERNEL(arguments...); });
#endif
        error = cudaGetLastError();
    }
    if (error != cudaSuccess) failed_kernel = name;
    return error;
}

// The most blocks of a grid; kernels for which there may be more to do give each block several turns.
inline int64_t most_blocks() {
#ifdef __CUDACC__
    return 0x7FFFFFFF;
#else
    return emulator::most_blocks;
#endif
}

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T narrow(float x) {
    if constexpr (sizeof(T) == 4)
        return x;
    else if constexpr (std::is_same_v<T, __half>)
        return __float2half_rn(x);
    else
        return __float2bfloat16_rn(x);
}

// x, of which the compiler does not know that it had it before: what follows from x it computes again, and keeps no
// register for it until then.
__device__ __forceinline__ int anew(int x) {
#ifdef __CUDACC__
    asm volatile("" : "+r"(x));
#endif
    return x;
}

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

__device__ __forceinline__ float power_of_2(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// Two neighbouring 16-bit numbers in a register, the first in the low half: what the tensor cores take.
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
    if constexpr (std::is_same_v<T, __half>) {
        const __half2 pair = __floats2half2_rn(low, high);
        return reinterpret_cast<const uint32_t &>(pair);
    } else {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return reinterpret_cast<const uint32_t &>(pair);
    }
}

template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t pair) {
    if constexpr (std::is_same_v<T, __half>)
        return __half22float2(reinterpret_cast<const __half2 &>(pair));
    else
        return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162 &>(pair));
}

// 0 x + odd, for both numbers of a pair: `odd` becomes NaN where x is not finite, and stays so.
template <typename T>
__device__ __forceinline__ uint32_t watch(uint32_t x, uint32_t odd) {
#ifdef __CUDACC__
    if constexpr (std::is_same_v<T, __half>)
        asm("fma.rn.f16x2 %0, %1, %2, %0;\n" : "+r"(odd) : "r"(x), "r"(0));
    else
        asm("fma.rn.bf16x2 %0, %1, %2, %0;\n" : "+r"(odd) : "r"(x), "r"(0));
    return odd;
#else
    const float2 one = unpack<T>(x), other = unpack<T>(odd);
    return pack<T>(one.x * 0.0f + other.x, one.y * 0.0f + other.y);
#endif
}

// 16 bytes in one instruction; the address must be a multiple of 16.
__device__ __forceinline__ uint4 load_16(const void *from) { return *static_cast<const uint4 *>(from); }
__device__ __forceinline__ void store_16(void *to, const uint4 &x) { *static_cast<uint4 *>(to) = x; }

// 8 neighbouring elements as floats, from and to an address that is a multiple of 16.
template <typename T>
__device__ __forceinline__ void load_8(const T *from, float (&to)[8]) {
    if constexpr (sizeof(T) == 4) {
        const float4 low = reinterpret_cast<const float4 *>(from)[0], high = reinterpret_cast<const float4 *>(from)[1];
        to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
        to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
    } else {
        const uint4 raw = load_16(from);
        const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float2 two = unpack<T>(pairs[e]);
            to[2 * e] = two.x, to[2 * e + 1] = two.y;
        }
    }
}

template <typename T>
__device__ __forceinline__ void store_8(T *to, const float (&from)[8]) {
    if constexpr (sizeof(T) == 4) {
        reinterpret_cast<float4 *>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
        reinterpret_cast<float4 *>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
    } else {
        store_16(
            to, make_uint4(
                    pack<T>(from[0], from[1]), pack<T>(from[2], from[3]), pack<T>(from[4], from[5]),
                    pack<T>(from[6], from[7])));
    }
}

// d += a b, a [16, 16] and b [16, 8] of T (__half or __nv_bfloat16), d [16, 8] of float, by a whole warp. Lane l holds,
// with g = l / 4 and t = l % 4: of a the pairs at (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); of b those at
// rows 2t and 2t + 8 (and the row after) of column g; of d (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
    if constexpr (std::is_same_v<T, __half>)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emulator::mma_m16n8k16(d, a, b, unpack<T>);
#endif
}

// Loads 8 x 8 matrices of 16-bit numbers from shared memory, by a whole warp. Lane l gives the address of row l % 8 of
// matrix l / 8 (a multiple of 16) and gets into to[m] the pair at row l / 4, column 2 (l % 4) of matrix m, or of its
// transpose.
#ifdef __CUDACC__
__device__ __forceinline__ uint32_t shared_address(const void *shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#endif

template <bool TRANSPOSED>
__device__ __forceinline__ void ldmatrix(uint32_t (&to)[4], const void *row) {
#ifdef __CUDACC__
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(shared_address(row))
                     : "memory");
#else
    emulator::ldmatrix<TRANSPOSED>(to, row);
#endif
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&to)[4], const void *row) { ldmatrix<false>(to, row); }
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&to)[4], const void *row) { ldmatrix<true>(to, row); }

// Copies 16 bytes to shared memory behind the thread's back; where `predicate` is false, writes zeros and reads
// nothing. Both addresses are multiples of 16. Copies belong to the thread's next cp_async_commit(); cp_async_wait<N>()
// waits until at most the N latest groups are still under way. What other threads copied is seen after a barrier, too.
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool predicate) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(predicate ? 16 : 0)
                 : "memory");
#else
    emulator::cp_async(shared, global, predicate);
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
    emulator::cp_async_commit();
#endif
}

template <int N>
__device__ __forceinline__ void cp_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#else
    emulator::cp_async_wait(N);
#endif
}

}  // namespace vts
