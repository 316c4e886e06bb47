// Rows of 16-bit numbers in shared memory as operands of mma.m16n8k16, and what is done to its results.
//
// Rows of D numbers lie one after the other in shared memory, in chunks of 8 numbers (16 bytes). The chunks of a row
// are exchanged with an exclusive or by the row's number, so that the 8 rows which one phase of ldmatrix reads, and the
// rows which one 16-byte store of a warp writes, lie in different banks.
#pragma once

#include "device.h"

namespace vts {

// Where chunk `chunk` of row `row` starts, in elements.
template <int D>
__device__ __forceinline__ int swizzled(int row, int chunk) {
    constexpr int chunks = D / 8, shift = chunks >= 8 ? 0 : chunks == 4 ? 1 : 2;
    return row * D + (chunk ^ ((row >> shift) & (chunks < 8 ? chunks - 1 : 7))) * 8;
}

// The operand a of a product, [16, 16]: rows from 0 of `rows`, columns from 16 k. Going 2 k chunks further along a row
// is an exclusive or with the place, too: one instruction an address.
template <int D, typename T>
__device__ __forceinline__ void read_a(uint32_t (&a)[4], const T *rows, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix_x4(a, rows + (swizzled<D>(lane % 16, lane / 16) ^ 16 * k));
}

// The operand b, [16, 16] as two of [16, 8], of a product with the transpose of `rows`: its columns are rows 0 to 15,
// its rows the columns from 16 k.
template <int D, typename T>
__device__ __forceinline__ void read_b_transposed(uint32_t (&first)[2], uint32_t (&second)[2], const T *rows, int k) {
    const int lane = threadIdx.x % 32;
    uint32_t b[4];
    ldmatrix_x4(b, rows + (swizzled<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2) ^ 16 * k));
    first[0] = b[0], first[1] = b[1], second[0] = b[2], second[1] = b[3];
}

// The operand b, [16, 16] as two of [16, 8], of a product with `rows`: rows 0 to 15, columns from 16 n.
template <int D, typename T>
__device__ __forceinline__ void read_b(uint32_t (&first)[2], uint32_t (&second)[2], const T *rows, int n) {
    const int lane = threadIdx.x % 32;
    uint32_t b[4];
    ldmatrix_x4_trans(b, rows + (swizzled<D>(lane % 16, lane / 16) ^ 16 * n));
    first[0] = b[0], first[1] = b[1], second[0] = b[2], second[1] = b[3];
}

// The sum or the greatest over the four lanes that hold a row of a product.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

}  // namespace vts
