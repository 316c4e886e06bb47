// Rows of any width in vectors that one instruction moves: 16 bytes where rows allow it.
#pragma once

#include <initializer_list>

#include "../device.h"
#include "vtsum/common.h"

namespace vts::memory {

// N neighbouring elements as they lie in memory, moved by one instruction.
template <typename T, int N>
struct alignas(N * sizeof(T)) vector {
    T x[N];
};

template <typename T, int N>
__device__ __forceinline__ vector<T, N> load_vector(const T *from) {
    vector<T, N> to;
    if constexpr (sizeof(to) == 16)
        reinterpret_cast<uint4 &>(to) = *reinterpret_cast<const uint4 *>(from);
    else if constexpr (sizeof(to) == 4)
        reinterpret_cast<uint32_t &>(to) = *reinterpret_cast<const uint32_t *>(from);
    else
        to.x[0] = from[0];
    return to;
}

template <typename T, int N>
__device__ __forceinline__ void store_vector(T *to, const float (&x)[N]) {
    vector<T, N> all;
#pragma unroll
    for (int e = 0; e < N; ++e) all.x[e] = narrow<T>(x[e]);
    if constexpr (sizeof(all) == 16)
        *reinterpret_cast<uint4 *>(to) = reinterpret_cast<const uint4 &>(all);
    else if constexpr (sizeof(all) == 4)
        *reinterpret_cast<uint32_t *>(to) = reinterpret_cast<const uint32_t &>(all);
    else
        to[0] = all.x[0];
}

// Calls run.template with<T, N>() for a type and the greatest N by which rows of it can be moved: their length and all
// steps from row to row, or-ed into `steps`, are multiples of N, and so are the places where the tensors begin.
template <typename Run>
int with_vectors(vts_dtype dtype, int64_t steps, std::initializer_list<const void *> tensors, const Run &run) {
    const int64_t bytes = dtype == VTS_FLOAT32 ? 4 : 2;
    for (const void *x : tensors) steps |= static_cast<int64_t>(reinterpret_cast<uintptr_t>(x)) / bytes;
    const int64_t at_once = steps & -steps;  // the greatest power of two that divides all of them
    const bool whole = at_once == 0 || at_once * bytes >= 16;
    switch (dtype) {
        case VTS_FLOAT32: return whole ? run.template with<float, 4>() : run.template with<float, 1>();
        case VTS_FLOAT16:
            return whole          ? run.template with<__half, 8>()
                   : at_once >= 2 ? run.template with<__half, 2>()
                                  : run.template with<__half, 1>();
        case VTS_BFLOAT16:
            return whole          ? run.template with<__nv_bfloat16, 8>()
                   : at_once >= 2 ? run.template with<__nv_bfloat16, 2>()
                                  : run.template with<__nv_bfloat16, 1>();
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace vts::memory
