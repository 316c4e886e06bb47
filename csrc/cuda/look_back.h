// Sums over the tiles before one, while those are at work: "decoupled look-back" (Merrill and Garland 2016).
#pragma once

#include "device.h"

namespace vts {

// What a tile has said of a count, in one word, which is written and read whole: nothing yet (0); its own; that of it
// and all tiles before it.
using said = unsigned long long;
constexpr said OWN = 1ull << 32, ALL_SO_FAR = 2ull << 32, KIND = OWN | ALL_SO_FAR;

__device__ __forceinline__ void say(said *to, said kind, int count) {
    *static_cast<volatile said *>(to) = kind | static_cast<unsigned>(count);
}

// The sum of the counts of all tiles before `tile`; words lie `stride` apart from tile to tile. Tiles must begin in
// order, so that each waits for such as run already.
__device__ __forceinline__ int before_tile(const said *words, int64_t stride, int64_t tile) {
    int sum = 0;
    for (int64_t at = tile - 1; at >= 0; --at) {
        said word;
        do word = *static_cast<const volatile said *>(words + at * stride);
        while ((word & KIND) == 0);
        sum += static_cast<int>(static_cast<unsigned>(word));
        if ((word & KIND) == ALL_SO_FAR) break;
    }
    return sum;
}

}  // namespace vts
