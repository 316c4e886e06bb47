// The chosen slots of all rows, sorted by slot and in order within a slot: what scatter walks.
#pragma once

#include "gather.h"

namespace vts::memory {

// A position (i, j) of the index: its frame i and its weight.
struct alignas(8) entry {
    int32_t frame;
    float weight;
};

// Where the next part of scratch may begin.
inline int64_t rounded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Bytes that sort_positions wants: scratch, and counters, which are to be 0 as it begins.
int64_t sort_scratch(const gather_params &p);
int64_t sort_counters(const gather_params &p);

// Sorts the n * k positions of every head, one head after another: by slot, those of weight 0 behind all slots, as of
// slot S. Writes their entries [heads, n * k], and to *slots where the slots lie that they belong to, in scratch.
int sort_positions(
    const gather_params &p, entry *entries, const int32_t **slots, void *scratch, void *counters, cudaStream_t stream);

}  // namespace vts::memory
