// Matrix products for AVX-512. Panels of b are packed once for all rows; rows of a are read in place where they are
// dense along k. A tile of 12 rows by 32 columns stays in 24 registers. What a product multiplies at a step of k is a
// word of 32 bits: a float32, or two neighbours along k in bfloat16, multiplied and added in float32.
#pragma once

#include "../tail.h"
#include "product.h"
#include "product_element.h"

namespace vts::VTS_LEVEL {
namespace {

constexpr int rows_of_tile = product_rows, columns_of_tile = product_columns;
static_assert(columns_of_tile == 2 * VL<float>, "a tile is two vectors wide");

// Where the sums of a tile go, rows `stride` apart: to c or, where there is one, rounded. What is at `start`, rows
// `start_stride` apart, is added where it is not null.
struct target {
    const float *start;
    int64_t start_stride;
    float *c;
    uint16_t *rounded;
    int64_t stride;
};

// a b over `words` of k: a is packed [word][12], or 12 rows `stride` elements apart; b is packed [word][32].
template <typename E, bool packed>
VTS_INLINE void tile(
    const void *a_from, int64_t stride, const typename E::word *b, int64_t words, const target &to, int rows,
    int columns) {
    constexpr int L = VL<float>;
    vec<float> acc[rows_of_tile][2];
    repeat<rows_of_tile>([&](auto i) VTS_LAMBDA_INLINE { acc[i.value][0] = acc[i.value][1] = vec<float>{}; });
    const typename E::word *a = (const typename E::word *)a_from;
    const typename E::storage *row = (const typename E::storage *)a_from;
    const typename E::storage *quarter[3] = {row, row + 4 * stride, row + 8 * stride};
    for (int64_t w = 0; w < words; ++w) {
        const auto left = E::load_words(b), right = E::load_words(b + L);
        b += columns_of_tile;
        repeat<rows_of_tile>([&](auto i) VTS_LAMBDA_INLINE {
            constexpr int q = i.value / 4, r = i.value % 4;
            const typename E::word x = packed ? a[i.value] : E::dense_word(quarter[q] + r * stride);
            acc[i.value][0] = E::add_products(acc[i.value][0], left, x);
            acc[i.value][1] = E::add_products(acc[i.value][1], right, x);
        });
        if (packed)
            a += rows_of_tile;
        else
            quarter[0] += E::each, quarter[1] += E::each, quarter[2] += E::each;
    }
    repeat<rows_of_tile>([&](auto i) VTS_LAMBDA_INLINE {
        if (i.value < rows) {
            const float *start = to.start == nullptr ? nullptr : to.start + i.value * to.start_stride;
            repeat<2>([&](auto v) VTS_LAMBDA_INLINE {
                const int count = columns - v.value * L < L ? columns - v.value * L : L;
                const int64_t at = i.value * to.stride + v.value * L;
                if (count <= 0) return;
                vec<float> sum = acc[i.value][v.value];
                if (start != nullptr)
                    sum += count == L ? load(start + v.value * L) : load_part(start + v.value * L, count);
                if (to.rounded != nullptr)
                    E::store_rounded(to.rounded + at, sum, count);
                else if (count == L)
                    store(to.c + at, sum);
                else
                    store_part(to.c + at, sum, count);
            });
        }
    });
}

// Panels [begin, end) of 32 columns of b, each [word][32], zero beyond n and k.
template <typename E>
VTS_INLINE void pack_panels(const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end) {
    constexpr int L = VL<float>;
    const int64_t first = part.first, depth = part.depth, words = (depth + E::each - 1) / E::each;
    for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t n = panel * columns_of_tile;
        const int count = (int)(p.n - n < columns_of_tile ? p.n - n : columns_of_tile);
        const typename E::storage *from = (const typename E::storage *)p.b + first * p.b_stride_k + n * p.b_stride_n;
        typename E::word *to = (typename E::word *)p.packed + panel * columns_of_tile * words;
        if (p.b_stride_n == 1 && count == columns_of_tile) {
            for (int64_t w = 0; w < words; ++w)
                for (int half = 0; half < columns_of_tile; half += L)
                    E::pack_across(
                        from + w * E::each * p.b_stride_k + half, p.b_stride_k, depth - w * E::each,
                        to + w * columns_of_tile + half);
        } else {
            // Sixteen words at a time, so that what is written stays in the cache until its line is full.
            for (int64_t w0 = 0; w0 < words; w0 += 16) {
                const int64_t w1 = w0 + 16 < words ? w0 + 16 : words;
                for (int j = 0; j < columns_of_tile; ++j)
                    for (int64_t w = w0; w < w1; ++w)
                        to[w * columns_of_tile + j] = j < count
                                                          ? E::word_at(
                                                                from + w * E::each * p.b_stride_k + j * p.b_stride_n,
                                                                p.b_stride_k, depth - w * E::each)
                                                          : typename E::word{};
            }
        }
    }
}

// Blocks [begin, end) of rows of c.
template <typename E>
VTS_INLINE void run_blocks(const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end) {
    alignas(64) typename E::word mine[product_block / rows_of_tile][product_depth * rows_of_tile];
    const int64_t first = part.first, depth = part.depth, words = (depth + E::each - 1) / E::each;
    const bool add = p.add || first > 0, in_place = p.a_stride_k == 1 && depth % E::each == 0;
    const bool rounds = p.rounded != nullptr && first + depth >= p.k;
    for (int64_t block = begin; block < end; ++block) {
        const int64_t top = block * part.rows, bottom = top + part.rows < p.m ? top + part.rows : p.m;
        bool packed[product_block / rows_of_tile];
        for (int64_t m = top; m < bottom; m += rows_of_tile) {
            const int64_t panel = (m - top) / rows_of_tile, rows = bottom - m;
            packed[panel] = !in_place || rows < rows_of_tile;
            if (!packed[panel]) continue;
            const typename E::storage *from =
                (const typename E::storage *)p.a + m * p.a_stride_m + first * p.a_stride_k;
            for (int64_t w = 0; w < words; ++w)
                for (int i = 0; i < rows_of_tile; ++i)
                    mine[panel][w * rows_of_tile + i] = i < rows
                                                            ? E::word_at(
                                                                  from + i * p.a_stride_m + w * E::each * p.a_stride_k,
                                                                  p.a_stride_k, depth - w * E::each)
                                                            : typename E::word{};
        }
        for (int64_t n = 0; n < p.n; n += columns_of_tile) {
            const typename E::word *b = (const typename E::word *)p.packed + n * words;
            const int columns = (int)(p.n - n < columns_of_tile ? p.n - n : columns_of_tile);
            for (int64_t m = top; m < bottom; m += rows_of_tile) {
                const int64_t panel = (m - top) / rows_of_tile;
                const int rows = (int)(bottom - m < rows_of_tile ? bottom - m : rows_of_tile);
                float *c = p.c + m * p.c_stride_m + n;
                const target to = {
                    add                 ? c
                    : p.bias != nullptr ? p.bias + n
                                        : nullptr,
                    add ? p.c_stride_m : 0, c, rounds ? p.rounded + m * p.rounded_stride_m + n : nullptr,
                    rounds ? p.rounded_stride_m : p.c_stride_m};
                const typename E::storage *a = (const typename E::storage *)p.a + m * p.a_stride_m + first;
                if (packed[panel])
                    tile<E, true>(mine[panel], 1, b, words, to, rows, columns);
                else
                    tile<E, false>(a, p.a_stride_m, b, words, to, rows, columns);
            }
        }
    }
}

}  // namespace

void memory_product_pack(const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end) {
    pack_panels<product_element>(p, part, begin, end);
}
void memory_product_run(const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end) {
    run_blocks<product_element>(p, part, begin, end);
}

}  // namespace vts::VTS_LEVEL
