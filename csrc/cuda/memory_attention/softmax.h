// Rows of scores over the slots of a bank: what the softmax of memory attention shares forward and backward.
//
// A row is served by 16 or 32 threads, or by a whole block, which hold it in registers: it is read once and written
// once, and a call is bound by those bytes (forward 4 + 4 or 4 + 2 a score, backward 3 tensors of 2 or 4). To come near
// the copy bandwidth every thread has its whole share of the row in flight at once: with the resident blocks that the
// launch bounds ask for, 32 to 64 KiB a multiprocessor. A block walks some rows of one head and adds up their columns
// on the way, in registers, so that usage and the bias's gradient cost no traffic but a row of sums a block.
#pragma once

#include "../device.h"
#include "vtsum/memory_attention.h"

namespace vts::memory {

using softmax_params = vts_memory_softmax_params;

constexpr int BLOCK = 256;
constexpr unsigned ALL = 0xFFFFFFFFu;

// Four neighbouring elements as floats, from and to an address that is a multiple of their size.
template <typename T>
__device__ __forceinline__ void load_4(const T *from, float (&to)[4]) {
    if constexpr (sizeof(T) == 4) {
        const float4 raw = *reinterpret_cast<const float4 *>(from);
        to[0] = raw.x, to[1] = raw.y, to[2] = raw.z, to[3] = raw.w;
    } else {
        const uint2 raw = *reinterpret_cast<const uint2 *>(from);
        const float2 low = unpack<T>(raw.x), high = unpack<T>(raw.y);
        to[0] = low.x, to[1] = low.y, to[2] = high.x, to[3] = high.y;
    }
}

template <typename T>
__device__ __forceinline__ void store_4(T *to, const float (&from)[4]) {
    if constexpr (sizeof(T) == 4)
        *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
    else
        *reinterpret_cast<uint2 *>(to) = make_uint2(pack<T>(from[0], from[1]), pack<T>(from[2], from[3]));
}

// How the rows of every head are cut: `count` blocks a head, each with `rows` rows but the last.
struct row_cut {
    int64_t count, rows;
};

// Which head, and which chunk of its rows, a block serves.
struct head_chunk {
    int64_t head, chunk, g, h;  // head = g * H + h

    __device__ __forceinline__ head_chunk(const softmax_params &p, const row_cut &cut)
        : head(blockIdx.x / cut.count), chunk(blockIdx.x % cut.count), g(head / p.H), h(head % p.H) {}
};

// The columns of a row that thread `thread` of its P holds: V groups of four neighbours, or, where rows are not
// aligned, 4 V single ones.
template <int P, int V, bool ALIGNED>
struct columns {
    const int thread, S;

    __device__ __forceinline__ explicit columns(int64_t slots)
        : thread(static_cast<int>(threadIdx.x) % P), S(static_cast<int>(slots)) {}

    __device__ __forceinline__ int at(int v, int e) const {
        return ALIGNED ? (v * P + thread) * 4 + e : (v * 4 + e) * P + thread;
    }

    template <typename T>
    __device__ __forceinline__ void load_group(const T *row, int v, float (&to)[4]) const {
        to[0] = to[1] = to[2] = to[3] = 0.0f;
        if constexpr (ALIGNED) {
            if (at(v, 0) < S) load_4(row + at(v, 0), to);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (at(v, e) < S) to[e] = widen(row[at(v, e)]);
        }
    }

    // Everything at once, so that all of it is in flight; 0 in columns that are not there.
    template <typename T>
    __device__ __forceinline__ void load(const T *row, float (&to)[V][4]) const {
#pragma unroll
        for (int v = 0; v < V; ++v) load_group(row, v, to[v]);
    }

    template <typename T>
    __device__ __forceinline__ void store(T *row, const float (&from)[V][4]) const {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            if constexpr (ALIGNED) {
                if (at(v, 0) < S) store_4(row + at(v, 0), from[v]);
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (at(v, e) < S) row[at(v, e)] = narrow<T>(from[v][e]);
            }
        }
    }
};

// Over the P threads of a row, P <= 32: all of them get the result.
template <int P>
__device__ __forceinline__ float sum_of_row(float x) {
#pragma unroll
    for (int step = P / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL, x, step);
    return x;
}

template <int P>
__device__ __forceinline__ float max_of_row(float x) {
#pragma unroll
    for (int step = P / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, step));
    return x;
}

// The columns' sums of a block, sums of the rows that each group of P threads walked, to `to` [S].
template <int P, int V, bool ALIGNED>
__device__ __forceinline__ void store_column_sums(
    const columns<P, V, ALIGNED> &own, const float (&sums)[V][4], float *to) {
    if constexpr (P == BLOCK) {
        own.store(to, sums);
    } else {
        constexpr int GROUPS = BLOCK / P;
        __shared__ float of_group[GROUPS][P * V * 4];
#pragma unroll
        for (int v = 0; v < V; ++v)
#pragma unroll
            for (int e = 0; e < 4; ++e) of_group[threadIdx.x / P][own.at(v, e)] = sums[v][e];
        __syncthreads();
        for (int s = static_cast<int>(threadIdx.x); s < own.S; s += BLOCK) {
            float sum = 0.0f;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) sum += of_group[g][s];
            to[s] = sum;
        }
    }
}

// to [heads, S] = the sums of partial [heads, count, S] over `count`, always in the same order.
int add_up_columns(const float *partial, int64_t heads, int64_t count, int64_t S, float *to, cudaStream_t stream);

// Where a row's scores fit into the registers of a block.
constexpr int64_t LONGEST_IN_REGISTERS = BLOCK * 8 * 4;

// The rows that a block walks: enough of them to make its row of sums cheap, as long as there are blocks for every
// multiprocessor.
inline row_cut cut_rows(const softmax_params &p) {
    const int64_t at_once = p.S <= 64 ? BLOCK / 16 : p.S <= 1024 ? BLOCK / 32 : 1;
    int64_t rows = 64;
    const auto blocks = [&] { return p.G * p.H * ((p.n + rows - 1) / rows); };
    while (rows > at_once && blocks() < 512) rows /= 2;
    return {(p.n + rows - 1) / rows, rows};
}

inline bool aligned_16(const void *x) { return reinterpret_cast<uintptr_t>(x) % 16 == 0; }

// Calls launcher.in_registers<P, V, ALIGNED>() or launcher.streamed<ALIGNED>(): whichever kernel suits rows of S
// scores. `aligned`: every row begins at a multiple of four elements.
template <typename Launcher>
int with_form(int64_t S, bool aligned, const Launcher &launcher) {
    if (!aligned) {
        if (S <= 512) return launcher.template in_registers<32, 4, false>();
        if (S <= LONGEST_IN_REGISTERS / 2) return launcher.template in_registers<BLOCK, 4, false>();
        return launcher.template streamed<false>();
    }
    if (S <= 64) return launcher.template in_registers<16, 1, true>();
    if (S <= 256) return launcher.template in_registers<32, 2, true>();
    if (S <= 512) return launcher.template in_registers<32, 4, true>();
    if (S <= 1024) return launcher.template in_registers<32, 8, true>();
    if (S <= LONGEST_IN_REGISTERS / 2) return launcher.template in_registers<BLOCK, 4, true>();
    if (S <= LONGEST_IN_REGISTERS) return launcher.template in_registers<BLOCK, 8, true>();
    return launcher.template streamed<true>();
}

}  // namespace vts::memory
