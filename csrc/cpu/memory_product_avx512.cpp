// Matrix products, compiled for AVX-512 alone. Panels of b are packed once for all rows; rows of a are read in place
// where they are dense along k. A tile of 12 rows by 32 columns stays in 24 registers.
#include "memory_product.h"

#include "tail.h"

namespace vts::VTS_LEVEL {

typedef vts_memory_product_params product_params;

namespace {

constexpr int rows_of_tile = product_rows, columns_of_tile = product_columns, L = VL<float>;
static_assert(columns_of_tile == 2 * L, "a tile is two vectors wide");

// c (+)= a b over `depth` of k: a is packed [k][12], or 12 rows `stride` apart; b is packed [k][32].
template <bool packed>
VTS_INLINE void tile(
    const float *a, int64_t stride, const float *b, int64_t depth, float *c, int64_t c_stride, int rows, int columns,
    bool add) {
    vec<float> acc[rows_of_tile][2];
    repeat<rows_of_tile>([&](auto i) VTS_LAMBDA_INLINE { acc[i.value][0] = acc[i.value][1] = vec<float>{}; });
    const float *quarter[3] = {a, a + 4 * stride, a + 8 * stride};
    for (int64_t k = 0; k < depth; ++k) {
        const vec<float> left = load(b), right = load(b + L);
        b += columns_of_tile;
        repeat<rows_of_tile>([&](auto i) VTS_LAMBDA_INLINE {
            constexpr int q = i.value / 4, r = i.value % 4;
            const float x = packed ? a[i.value] : quarter[q][r * stride];
            acc[i.value][0] += left * x;
            acc[i.value][1] += right * x;
        });
        if (packed)
            a += rows_of_tile;
        else
            ++quarter[0], ++quarter[1], ++quarter[2];
    }
    repeat<rows_of_tile>([&](auto i) VTS_LAMBDA_INLINE {
        if (i.value < rows) {
            float *to = c + i.value * c_stride;
            if (columns == columns_of_tile) {
                store(to, add ? load(to) + acc[i.value][0] : acc[i.value][0]);
                store(to + L, add ? load(to + L) + acc[i.value][1] : acc[i.value][1]);
            } else {
                repeat<2>([&](auto v) VTS_LAMBDA_INLINE {
                    const int count = columns - v.value * L < L ? columns - v.value * L : L;
                    float *part = to + v.value * L;
                    if (count == L)
                        store(part, add ? load(part) + acc[i.value][v.value] : acc[i.value][v.value]);
                    else if (count > 0)
                        store_part(
                            part, add ? load_part(part, count) + acc[i.value][v.value] : acc[i.value][v.value], count);
                });
            }
        }
    });
}

}  // namespace

// Panels [begin, end) of 32 columns of b, each [depth][32], zero beyond n.
void memory_product_pack(const product_params &p, int64_t first, int64_t depth, int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t n = panel * columns_of_tile;
        const int count = (int)(p.n - n < columns_of_tile ? p.n - n : columns_of_tile);
        const float *from = p.b + first * p.b_stride_k + n * p.b_stride_n;
        float *to = p.packed + panel * columns_of_tile * depth;
        if (p.b_stride_n == 1 && count == columns_of_tile) {
            for (int64_t k = 0; k < depth; ++k) {
                store(to + k * columns_of_tile, load(from + k * p.b_stride_k));
                store(to + k * columns_of_tile + L, load(from + k * p.b_stride_k + L));
            }
        } else {
            // Sixteen of k at a time, so that what is written stays in the cache until its line is full.
            for (int64_t k0 = 0; k0 < depth; k0 += 16) {
                const int64_t k1 = k0 + 16 < depth ? k0 + 16 : depth;
                for (int j = 0; j < columns_of_tile; ++j)
                    for (int64_t k = k0; k < k1; ++k)
                        to[k * columns_of_tile + j] = j < count ? from[k * p.b_stride_k + j * p.b_stride_n] : 0.0f;
            }
        }
    }
}

// Blocks [begin, end) of rows of c.
void memory_product_run(const product_params &p, int64_t first, int64_t depth, int64_t begin, int64_t end) {
    alignas(64) float mine[product_block / rows_of_tile][product_depth * rows_of_tile];
    const bool add = p.add || first > 0;
    for (int64_t block = begin; block < end; ++block) {
        const int64_t top = block * product_block, bottom = top + product_block < p.m ? top + product_block : p.m;
        bool packed[product_block / rows_of_tile];
        for (int64_t m = top; m < bottom; m += rows_of_tile) {
            const int64_t panel = (m - top) / rows_of_tile, rows = bottom - m;
            packed[panel] = p.a_stride_k != 1 || rows < rows_of_tile;
            if (!packed[panel]) continue;
            const float *from = p.a + m * p.a_stride_m + first * p.a_stride_k;
            for (int64_t k = 0; k < depth; ++k)
                for (int i = 0; i < rows_of_tile; ++i)
                    mine[panel][k * rows_of_tile + i] = i < rows ? from[i * p.a_stride_m + k * p.a_stride_k] : 0.0f;
        }
        for (int64_t n = 0; n < p.n; n += columns_of_tile) {
            const float *b = p.packed + n * depth;
            const int columns = (int)(p.n - n < columns_of_tile ? p.n - n : columns_of_tile);
            for (int64_t m = top; m < bottom; m += rows_of_tile) {
                const int64_t panel = (m - top) / rows_of_tile;
                const int rows = (int)(bottom - m < rows_of_tile ? bottom - m : rows_of_tile);
                float *c = p.c + m * p.c_stride_m + n;
                if (packed[panel])
                    tile<true>(mine[panel], 1, b, depth, c, p.c_stride_m, rows, columns, add);
                else
                    tile<false>(
                        p.a + m * p.a_stride_m + first, p.a_stride_m, b, depth, c, p.c_stride_m, rows, columns, add);
            }
        }
    }
}

}  // namespace vts::VTS_LEVEL
