// The chosen slots of all rows, sorted by slot and in order within a slot: what scatter walks.
#pragma once

#include "gather.h"

namespace vts::memory {

// A position (i, j) of the index: its frame i and its weight.
struct alignas(8) entry {
    int32_t frame;
    float weight;
};

// Sorts the positions of every head, those of weight 0 left out of every slot. All three hold one part for each head:
// entries [positions], starts [S + 1], the first entry of each slot, scratch whatever sort_scratch() asks for, in
// bytes.
int64_t sort_scratch(const gather_params &p);
int sort_positions(const gather_params &p, entry *entries, int32_t *starts, void *scratch, cudaStream_t stream);

}  // namespace vts::memory
