// CUDA's device functions on the CPU: what csrc/cuda/device.h includes where the compiler is not nvcc.
//
// Every thread of a block is a fiber of its own, and blocks run one after another. A fiber runs until it waits for
// others: at a barrier, or in what a warp does together (shuffles, votes, tensor-core products). The last to arrive
// does the work for all. Arriving at different places, or a thread that ends while others wait for it, is an error with
// a message: CUDA would hang or compute nonsense. Shared memory is plain memory, so that AddressSanitizer sees what
// lies outside of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __shared__ static  // one block at a time
#define __constant__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
#define threadIdx ::vts::emulator::thread_index
#define blockIdx ::vts::emulator::block_index
#define blockDim ::vts::emulator::block_size
#define gridDim ::vts::emulator::grid_size

namespace vts::emulator {

extern dim3 thread_index, block_index, block_size, grid_size;  // of the fiber that runs

// The most blocks that device.h lets a grid have; tests lower it, so that blocks take several turns.
extern int64_t most_blocks;
extern int device, asked;

// Runs body once for every thread of every block. cudaGetLastError() says what became of it, cudaGetErrorString() why.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body);

void *dynamic_shared();
int lane();                                // of this thread in its warp
[[noreturn]] void fail(const char *what);  // ends the run

// What some threads do together, and where in the source.
struct meeting {
    const char *what, *file;
    int line;
};

// Waits until every thread of the block, or every lane in mask, is at this meeting; the last to come first calls
// action(arguments, mask), with the arguments of the block's threads or of the warp's lanes (null outside of mask).
using action = void (*)(void *const *arguments, uint32_t mask);
void meet_block(const meeting &at, void *argument, action act);
void meet_warp(const meeting &at, uint32_t mask, void *argument, action act);

template <typename T>
T shuffle(const meeting &at, uint32_t mask, T value, int source) {
    struct call {
        T value;
        int source;
    } mine{value, source};
    meet_warp(at, mask, &mine, [](void *const *calls, uint32_t named) {
        T sent[32];
        for (int l = 0; l < 32; ++l)
            if (named >> l & 1) sent[l] = static_cast<call *>(calls[l])->value;
        for (int l = 0; l < 32; ++l) {
            if (!(named >> l & 1)) continue;
            call *own = static_cast<call *>(calls[l]);
            if (!(named >> own->source & 1)) fail("a shuffle reads a lane that its mask does not name");
            own->value = sent[own->source];
        }
    });
    return mine.value;
}

inline uint32_t ballot(const meeting &at, uint32_t mask, bool mine) {
    struct call {
        bool yes;
        uint32_t all;
    } vote{mine, 0};
    meet_warp(at, mask, &vote, [](void *const *calls, uint32_t named) {
        uint32_t all = 0;
        for (int l = 0; l < 32; ++l)
            if (named >> l & 1) all |= static_cast<uint32_t>(static_cast<call *>(calls[l])->yes) << l;
        for (int l = 0; l < 32; ++l)
            if (named >> l & 1) static_cast<call *>(calls[l])->all = all;
    });
    return vote.all;
}

inline int count_block(const meeting &at, bool mine) {
    struct call {
        bool yes;
        int all;
    } vote{mine, 0};
    meet_block(at, &vote, [](void *const *calls, uint32_t) {
        int all = 0;
        const unsigned threads = block_size.x * block_size.y * block_size.z;
        for (unsigned t = 0; t < threads; ++t) all += static_cast<call *>(calls[t])->yes;
        for (unsigned t = 0; t < threads; ++t) static_cast<call *>(calls[t])->all = all;
    });
    return vote.all;
}

// The layouts are those of the PTX manual; device.h says them.
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float2 (*unpack)(uint32_t)) {
    struct call {
        float *d;
        const uint32_t *a, *b;
        float2 (*unpack)(uint32_t);
    } mine{d, a, b, unpack};
    meet_warp({"mma_m16n8k16", "", 0}, 0xFFFFFFFFu, &mine, [](void *const *calls, uint32_t) {
        float left[16][16], right[16][8];
        for (int l = 0; l < 32; ++l) {
            const call &own = *static_cast<call *>(calls[l]);
            const int g = l / 4, t = l % 4;
            for (int r = 0; r < 4; ++r) {
                const float2 two = own.unpack(own.a[r]);
                float *to = &left[g + r % 2 * 8][2 * t + r / 2 * 8];
                to[0] = two.x, to[1] = two.y;
            }
            for (int r = 0; r < 2; ++r) {
                const float2 two = own.unpack(own.b[r]);
                right[2 * t + r * 8][g] = two.x, right[2 * t + r * 8 + 1][g] = two.y;
            }
        }
        for (int l = 0; l < 32; ++l)
            for (int r = 0; r < 4; ++r) {
                const int row = l / 4 + r / 2 * 8, column = 2 * (l % 4) + r % 2;
                float &to = static_cast<call *>(calls[l])->d[r];
                double sum = to;
                for (int k = 0; k < 16; ++k) sum += static_cast<double>(left[row][k]) * right[k][column];
                to = static_cast<float>(sum);
            }
    });
}

template <bool TRANSPOSED>
void ldmatrix(uint32_t (&to)[4], const void *row) {
    struct call {
        uint32_t *to;
        const void *row;
    } mine{to, row};
    meet_warp(
        {TRANSPOSED ? "ldmatrix_trans" : "ldmatrix", "", 4}, 0xFFFFFFFFu, &mine, [](void *const *calls, uint32_t) {
            for (int m = 0; m < 4; ++m) {
                uint16_t matrix[8][8];
                for (int r = 0; r < 8; ++r) {
                    const void *from = static_cast<call *>(calls[m * 8 + r])->row;
                    if (reinterpret_cast<uintptr_t>(from) % 16 != 0)
                        fail("ldmatrix at an address that is no multiple of 16");
                    std::memcpy(matrix[r], from, 16);
                }
                for (int l = 0; l < 32; ++l) {
                    const int r = l / 4, c = 2 * (l % 4);
                    const uint32_t low = TRANSPOSED ? matrix[c][r] : matrix[r][c];
                    const uint32_t high = TRANSPOSED ? matrix[c + 1][r] : matrix[r][c + 1];
                    static_cast<call *>(calls[l])->to[m] = low | high << 16;
                }
            }
        });
}

// Until the wait, the destination holds NaN: whoever reads too early is found out.
void cp_async(void *shared, const void *global, bool predicate);
void cp_async_commit();
void cp_async_wait(int groups);

}  // namespace vts::emulator

// The caller's place in the source, for messages and for telling two barriers apart.
#define VTS_HERE(name) \
    vts::emulator::meeting { name, file, line }
#define VTS_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(VTS_PLACE) { vts::emulator::meet_block(VTS_HERE("__syncthreads"), nullptr, nullptr); }
inline int __syncthreads_count(int yes, VTS_PLACE) {
    return vts::emulator::count_block(VTS_HERE("__syncthreads_count"), yes != 0);
}
inline int __syncthreads_or(int yes, VTS_PLACE) {
    return vts::emulator::count_block(VTS_HERE("__syncthreads_or"), yes != 0) != 0;
}
inline int __syncthreads_and(int yes, VTS_PLACE) {
    return vts::emulator::count_block(VTS_HERE("__syncthreads_and"), yes == 0) == 0;
}
inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu, VTS_PLACE) {
    vts::emulator::meet_warp(VTS_HERE("__syncwarp"), mask, nullptr, nullptr);
}
inline uint32_t __ballot_sync(uint32_t mask, int yes, VTS_PLACE) {
    return vts::emulator::ballot(VTS_HERE("__ballot_sync"), mask, yes != 0);
}
inline int __any_sync(uint32_t mask, int yes, VTS_PLACE) {
    return vts::emulator::ballot(VTS_HERE("__any_sync"), mask, yes != 0) != 0;
}
inline int __all_sync(uint32_t mask, int yes, VTS_PLACE) {
    return vts::emulator::ballot(VTS_HERE("__all_sync"), mask, yes == 0) == 0;
}

// Lanes shuffle within segments of `width`; where there is no lane to read, a lane gets its own value.
template <typename T>
T __shfl_sync(uint32_t mask, T x, int source, int width = 32, VTS_PLACE) {
    const int start = vts::emulator::lane() & ~(width - 1);
    return vts::emulator::shuffle(VTS_HERE("__shfl_sync"), mask, x, start + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T x, int lanes, int width = 32, VTS_PLACE) {
    const int own = vts::emulator::lane(), end = (own & ~(width - 1)) + width, from = own ^ lanes;
    return vts::emulator::shuffle(VTS_HERE("__shfl_xor_sync"), mask, x, from < end ? from : own);
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T x, unsigned steps, int width = 32, VTS_PLACE) {
    const int own = vts::emulator::lane(), start = own & ~(width - 1), from = own - static_cast<int>(steps);
    return vts::emulator::shuffle(VTS_HERE("__shfl_up_sync"), mask, x, from >= start ? from : own);
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T x, unsigned steps, int width = 32, VTS_PLACE) {
    const int own = vts::emulator::lane(), end = (own & ~(width - 1)) + width, from = own + static_cast<int>(steps);
    return vts::emulator::shuffle(VTS_HERE("__shfl_down_sync"), mask, x, from < end ? from : own);
}

#undef VTS_HERE
#undef VTS_PLACE

using std::max;
using std::min;

template <typename T>
T __ldg(const T *from) {
    return *from;
}
// No thread is interrupted.
template <typename T>
T atomicAdd(T *to, T what) {
    const T before = *to;
    *to += what;
    return before;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline uint32_t __umulhi(uint32_t x, uint32_t y) { return static_cast<uint32_t>(static_cast<uint64_t>(x) * y >> 32); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

extern "C" {
unsigned vts_emulator_blocks();  // of the last launch, along x
// Threads run in rising order, or, where not 0, in falling order: a kernel without races gives the same bits in both.
void vts_emulator_reverse(int reverse);
void vts_emulator_most_blocks(int64_t most);
void vts_emulator_device(int device);  // the one that cudaGetDevice names
int vts_emulator_asked();              // how often a kernel's attribute was set
void vts_emulator_leave_error();       // as an earlier call does that failed, and whose caller did not clear its error
}
