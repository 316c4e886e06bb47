// Dropout: which weights are kept. See vtsum/sliding_window_attention.h for the rule.
#pragma once

#include "../vec.h"

namespace vts::VTS_LEVEL {

// Word 0 of Philox4x32-10 (Salmon et al. 2011) at counter (c0, c1, c2, 0).
VTS_INLINE uint32_t philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32), c3 = 0;
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = (uint64_t)c0 * 0xD2511F53u, b = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ key0, c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ key1, c3 = (uint32_t)a;
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return c0;
}

struct dropout {
    uint64_t seed;
    uint32_t below;
    double factor;
    uint32_t offset;  // the number of frame 0

    // table[o][r] times 0 or the factor, where row r is frame row + r * step, its key o frame key + (r + o) * step.
    template <typename A>
    void apply(int64_t row, int64_t key, int64_t step, uint32_t head, int64_t count, int64_t n, A *table) const {
        for (int64_t o = 0; o < n; ++o) {
            for (int64_t r = 0; r < count; ++r) {
                const uint32_t i = offset + (uint32_t)(row + r * step), j = offset + (uint32_t)(key + (r + o) * step);
                table[o * count + r] *= philox(seed, i, j, head) < below ? (A)0 : (A)factor;
            }
        }
    }
};

}  // namespace vts::VTS_LEVEL
