// How many strips each resident warp serves in turn, where that was measured for a kind of call: more of them are
// shorter, which evens out slow ones and reads more halos. Launches ask on the host; nothing of this is on the device.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "families.h"

namespace vts::sliding_window_attention {

struct measured_strips {
    static constexpr int most = 512;
    std::atomic<uint64_t> entries[most];  // kind of call << 8 | strips in turn, 0 for none
    std::atomic<int> count;
    std::mutex writing;
};
inline measured_strips strips_measured;

// A kind of call: its pass, dtype, D, keys of a window, and B H T up to the next power of two, 2^rows_log2.
inline uint64_t call_key(bool backward, int64_t dtype, int64_t dim, int64_t keys, int64_t rows_log2) {
    const auto part = [](int64_t value, int bits) {
        return static_cast<uint64_t>(value) & ((uint64_t{1} << bits) - 1);
    };
    return part(backward, 1) << 34 | part(dtype, 2) << 32 | part(dim, 10) << 22 | part(keys, 15) << 7 |
           part(rows_log2, 7);
}

// Remembers a choice, or forgets it (0). Returns false where there is no more room.
inline bool choose_strips_per_warp(uint64_t key, int per_warp) {
    const std::lock_guard<std::mutex> lock(strips_measured.writing);
    const uint64_t entry = key << 8 | static_cast<uint64_t>(per_warp & 0xFF);
    const int count = strips_measured.count.load(std::memory_order_relaxed);
    int at = 0, empty = count;
    for (; at < count; ++at) {
        const uint64_t known = strips_measured.entries[at].load(std::memory_order_relaxed);
        if (known >> 8 == key) break;
        if ((known & 0xFF) == 0 && empty == count) empty = at;
    }
    if (at == count) {
        if (per_warp == 0) return true;
        at = empty;  // of a choice that was forgotten, or the next one
    }
    if (at == measured_strips::most) return false;
    strips_measured.entries[at].store(entry, std::memory_order_relaxed);
    if (at == count) strips_measured.count.store(count + 1, std::memory_order_release);
    return true;
}

// The choice for this call, 0 where there is none. The sums of a bias's gradient lie by strips in scratch that is asked
// for ahead of the launch: so that no choice can come in between, those calls have none.
inline int chosen_strips_per_warp(const params &p, bool backward) {
    const int count = strips_measured.count.load(std::memory_order_acquire);
    if (count == 0 || p.dbias != nullptr) return 0;
    int64_t rows = p.B * p.H * p.T - 1, rows_log2 = 1;
    while ((rows >>= 1) > 0) ++rows_log2;
    const uint64_t key = call_key(backward, p.dtype, p.D, p.left + p.right + 1, rows_log2);
    for (int at = 0; at < count; ++at) {
        const uint64_t entry = strips_measured.entries[at].load(std::memory_order_relaxed);
        if (entry >> 8 == key) return static_cast<int>(entry & 0xFF);
    }
    return 0;
}

}  // namespace vts::sliding_window_attention
