// Dropout: which weights are kept. See vtsum/sliding_window_attention.h for the rule.
#pragma once

#include "../device.h"

namespace vts {

// Word 0 of Philox4x32-10 (Salmon et al. 2011) at counter (c0, c1, c2, 0).
__device__ __forceinline__ uint32_t philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2) {
    uint32_t c3 = 0;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint32_t high0 = __umulhi(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
        const uint32_t high1 = __umulhi(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
        c0 = high1 ^ c1 ^ key0, c1 = low1, c2 = high0 ^ c3 ^ key1, c3 = low0;
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return c0;
}

// A head's dropout. The seed lies in the device's memory: read once a thread.
struct dropout {
    uint32_t key0 = 0, key1 = 0;
    const uint32_t below, offset, head;  // set whatever the seed: a kernel's arguments take no registers

    __device__ dropout(const int64_t *seed, uint32_t drop_below, int64_t head_of_all, uint32_t row_offset)
        : below(drop_below), offset(row_offset), head(static_cast<uint32_t>(head_of_all)) {
        if (seed == nullptr) return;
        const uint64_t key = static_cast<uint64_t>(*seed);
        key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
    }
    __device__ bool keeps(int row, int key) const {
        return philox(key0, key1, offset + static_cast<uint32_t>(row), offset + static_cast<uint32_t>(key), head) >=
               below;
    }
};

}  // namespace vts
