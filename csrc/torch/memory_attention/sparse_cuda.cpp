// vtsum_kernels::memory_topk, memory_gather, memory_gather_dot and memory_scatter on CUDA.
#include <tuple>

#include "cuda_tensors.h"
#include "vtsum/memory_attention.h"

namespace vts::glue {
namespace {

using torch::stable::new_empty;

// Rows and slots of a block of some `most` scores: all slots where as many rows fit as a GPU merges at once, else slots
// in blocks of much the same size, so that the scores stay in the L2 cache until they are merged.
struct topk_block {
    int64_t heads, rows, slots;

    topk_block(int64_t most, int64_t H, int64_t n, int64_t S) {
        const int64_t together = std::max(most / std::max<int64_t>(S, 1), 2 * BLOCK_ROWS);
        heads = H * n <= together ? H : 1;  // all heads of a group where they fit, else each by itself
        rows = std::min(n, std::max<int64_t>(together / heads, 1));
        const int64_t blocks = std::max<int64_t>((heads * rows * S + most - 1) / most, 1);
        const int64_t each = (S + blocks - 1) / blocks;
        slots = (each + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
    }
};

// The k best of each row, by blocks of scores: those of one block are all that is ever stored. 16-bit products are
// summed in float32; those of float32 are as exact as torch's (allow TF32 there, and they are rounded to it).
std::tuple<Tensor, Tensor> topk(Tensor x, Tensor keys, Tensor factor, std::optional<Tensor> slot_bias, int64_t k) {
    const char *op = "memory_topk";
    check_devices(op, {"x", x}, {{"keys", keys}, {"factor", factor}, {"slot_bias", slot_bias}});
    const DeviceGuard guard(x.get_device_index());
    STD_TORCH_CHECK(
        x.dim() == 4 && keys.dim() == 4 && has_shape(keys, {x.size(0), x.size(2), keys.size(2), x.size(3)}), op,
        ": x must be [G, n, H, d] and keys [G, H, S, d]");
    STD_TORCH_CHECK(
        dtype_of(x, op) != VTS_FLOAT64 && keys.scalar_type() == x.scalar_type(), op,
        ": x and keys must be both float32, float16 or bfloat16 on CUDA");
    STD_TORCH_CHECK(k >= 0 && k <= VTS_MEMORY_TOPK_MOST, op, ": k must be at most 1024 on CUDA, got ", k);
    factor = torch::stable::contiguous(factor);
    const int64_t G = x.size(0), n = x.size(1), H = x.size(2), S = keys.size(2);
    const bias_of_slots bias(op, slot_bias, G, H, S);
    Tensor best = new_float(x, {G, H, n, k});
    Tensor index = new_empty(x, {G, H, n, k}, ScalarType::Int);
    vts_memory_topk_params p = {};
    p.factor = dense(op, "factor", factor, {G, H, n}, ScalarType::Float);
    p.slot_bias = bias.data, p.bias_stride_g = bias.stride_g, p.bias_stride_h = bias.stride_h;
    p.best = best.data_ptr(), p.index = static_cast<int32_t *>(index.data_ptr());
    p.G = G, p.H = H, p.n = n, p.S = S, p.k = k, p.dtype = VTS_FLOAT32;
    if (best.numel() == 0) return {best, index};
    const topk_block block(vts_memory_topk_cuda_block(), H, n, S);
    p.scores_stride = block.slots;  // rows of scores begin at multiples of 16 bytes
    const Tensor all = by_head(x), columns = transposed(keys);
    const Tensor scores = new_float(x, {block.heads, block.rows, block.slots});
    p.scores = scores.data_ptr();
    for (int64_t g = 0; g < G; ++g)
        for (int64_t h = 0; h < H; h += block.heads) {
            const Tensor bank = part_of(torch::stable::select(columns, 0, g), 0, h, block.heads);
            const Tensor frames = part_of(torch::stable::select(all, 0, g), 0, h, block.heads);
            for (int64_t first = 0; first < n; first += block.rows) {
                const int64_t rows = std::min(block.rows, n - first);
                const Tensor own = part_of(frames, 1, first, rows), own_scores = part_of(scores, 1, 0, rows);
                p.row_first = (g * H + h) * n + first, p.rows = block.heads * rows, p.first = 0;
                do {  // of no slots once, too, for what is found then
                    p.slots = std::min(block.slots, S - p.first), p.start = p.first == 0;
                    if (p.slots > 0)
                        multiply_batch(own, part_of(bank, 2, p.first, p.slots), part_of(own_scores, 2, 0, p.slots));
                    check_launch(op, vts_memory_topk_merge_cuda(&p, stream_of(x)));
                    p.first += block.slots;
                } while (p.first < S);
            }
        }
    return {best, index};
}

// index [G, H, n, k], table [G, H, S, e], rows [G, n, H, e].
vts_memory_gather_params params_of(
    const char *op, const Tensor &weights, const Tensor &index, const Tensor &table, const Tensor &rows) {
    STD_TORCH_CHECK(index.dim() == 4, op, ": index must be of shape [G, H, n, k]");
    vts_memory_gather_params p = {};
    p.G = index.size(0), p.H = index.size(1), p.n = index.size(2), p.k = index.size(3);
    STD_TORCH_CHECK(
        table.dim() == 4 && table.size(0) == p.G && table.size(1) == p.H, op, ": the table must be [G, H, S, e]");
    p.S = table.size(2), p.e = table.size(3), p.dtype = dtype_of(table, op);
    STD_TORCH_CHECK(
        has_shape(rows, {p.G, p.n, p.H, p.e}) && rows.scalar_type() == table.scalar_type(), op,
        ": the rows must be [G, n, H, e] of the table's dtype");
    STD_TORCH_CHECK(p.dtype != VTS_FLOAT64, op, ": the rows must be float32, float16 or bfloat16 on CUDA");
    p.index = static_cast<const int32_t *>(dense(op, "index", index, {p.G, p.H, p.n, p.k}, ScalarType::Int));
    p.weights = dense(op, "weights", weights, {p.G, p.H, p.n, p.k}, ScalarType::Float);
    p.table = table.data_ptr(), p.rows = rows.data_ptr();
    p.table_stride_g = table.stride(0), p.table_stride_h = table.stride(1), p.table_stride_s = table.stride(2);
    p.rows_stride_g = rows.stride(0), p.rows_stride_n = rows.stride(1), p.rows_stride_h = rows.stride(2);
    return p;
}

Tensor gather(Tensor weights, Tensor index, Tensor table) {
    const char *op = "memory_gather";
    check_devices(op, {"table", table}, {{"weights", weights}, {"index", index}});
    const DeviceGuard guard(table.get_device_index());
    STD_TORCH_CHECK(index.dim() == 4 && table.dim() == 4, op, ": index must be [G, H, n, k], the table [G, H, S, e]");
    table = with_dense_last(table), index = torch::stable::contiguous(index);
    weights = torch::stable::contiguous(weights);
    Tensor rows = new_empty(table, {index.size(0), index.size(2), index.size(1), table.size(3)}, table.scalar_type());
    const auto p = params_of(op, weights, index, table, rows);
    check_launch(op, vts_memory_gather_cuda(&p, stream_of(table)));
    return rows;
}

Tensor gather_dot(Tensor rows, Tensor index, Tensor table) {
    const char *op = "memory_gather_dot";
    check_devices(op, {"table", table}, {{"rows", rows}, {"index", index}});
    const DeviceGuard guard(table.get_device_index());
    STD_TORCH_CHECK(index.dim() == 4, op, ": index must be of shape [G, H, n, k]");
    rows = with_dense_last(rows), table = with_dense_last(table), index = torch::stable::contiguous(index);
    Tensor weights = new_float(table, {index.size(0), index.size(1), index.size(2), index.size(3)});
    const auto p = params_of(op, weights, index, table, rows);
    check_launch(op, vts_memory_gather_dot_cuda(&p, stream_of(table)));
    return weights;
}

Tensor scatter(Tensor weights, Tensor index, Tensor rows, int64_t slots) {
    const char *op = "memory_scatter";
    check_devices(op, {"rows", rows}, {{"weights", weights}, {"index", index}});
    const DeviceGuard guard(rows.get_device_index());
    STD_TORCH_CHECK(rows.dim() == 4 && slots >= 0, op, ": the rows must be [G, n, H, e], slots at least 0");
    rows = with_dense_last(rows), index = torch::stable::contiguous(index);
    weights = torch::stable::contiguous(weights);
    STD_TORCH_CHECK(
        index.dim() != 4 || index.size(2) * index.size(3) <= INT32_MAX, op, ": n * k must be less than 2^31, got ",
        index.size(2) * index.size(3));
    Tensor table = new_empty(rows, {rows.size(0), rows.size(2), slots, rows.size(3)}, rows.scalar_type());
    const auto p = params_of(op, weights, index, table, rows);
    const workspace scratch(rows, vts_memory_scatter_cuda_scratch(&p));
    check_launch(op, vts_memory_scatter_cuda(&p, scratch.data(), stream_of(rows)));
    return table;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CUDA, m) {
    m.impl("memory_topk", TORCH_BOX(&topk));
    m.impl("memory_gather", TORCH_BOX(&gather));
    m.impl("memory_gather_dot", TORCH_BOX(&gather_dot));
    m.impl("memory_scatter", TORCH_BOX(&scatter));
}

}  // namespace vts::glue
