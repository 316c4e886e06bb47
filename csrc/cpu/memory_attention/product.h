// The sizes of matrix products' tiles and blocks.
#pragma once

#include "vtsum/memory_attention.h"

namespace vts {

// A tile; the most rows of a task's block, whose part of a fills an eighth of the second cache; the most of k in a
// block.
constexpr int product_rows = 12, product_columns = 32, product_block = 96, product_depth = 512;

// One block of k, [first, first + depth), and the rows of a task in it.
struct product_part {
    int64_t first, depth, rows;
};

}  // namespace vts
