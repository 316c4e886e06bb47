// vtsum_kernels::memory_{gather,gather_dot,scatter} on the CPU, and the steps of its search for the k best slots.
#include <tuple>

#include "tensors.h"
#include "vtsum/memory_attention.h"

namespace vts::glue {
namespace {

ScalarType statistics_of(const Tensor &x) {
    return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The sizes and the index; `like` is the tensor whose dtype the table and the rows have.
vts_memory_gather_params params_of(const char *op, const Tensor &index, const Tensor &like) {
    vts_memory_gather_params p = {};
    STD_TORCH_CHECK(
        index.dim() == 4 && index.is_contiguous() && index.scalar_type() == ScalarType::Int, op,
        ": index must be int32 [G, H, n, k]");
    p.G = index.size(0), p.H = index.size(1), p.n = index.size(2), p.k = index.size(3);
    p.index = static_cast<const int32_t *>(index.data_ptr());
    p.dtype = dtype_of(like, op);
    return p;
}

void set_table(vts_memory_gather_params &p, const char *op, const Tensor &table) {
    STD_TORCH_CHECK(
        table.dim() == 4 && table.size(0) == p.G && table.size(1) == p.H && has_dense_last(table), op,
        ": table must be [G, H, S, e] with dense rows");
    p.S = table.size(2), p.e = table.size(3), p.table = table.data_ptr();
    p.table_stride_g = table.stride(0), p.table_stride_h = table.stride(1), p.table_stride_s = table.stride(2);
}

void set_rows(vts_memory_gather_params &p, const char *op, const Tensor &rows) {
    STD_TORCH_CHECK(
        rows.dim() == 4 && rows.size(0) == p.G && rows.size(1) == p.n && rows.size(2) == p.H && has_dense_last(rows),
        op, ": rows must be [G, n, H, e] with dense rows");
    p.e = rows.size(3), p.rows = rows.data_ptr();
    p.rows_stride_g = rows.stride(0), p.rows_stride_n = rows.stride(1), p.rows_stride_h = rows.stride(2);
}

void check_index(const vts_memory_gather_params &p, const char *op) {
    const int64_t positions = p.G * p.H * p.n * p.k;
    int32_t low = 0, high = -1;
    for (int64_t t = 0; t < positions; ++t) {
        low = p.index[t] < low ? p.index[t] : low;
        high = p.index[t] > high ? p.index[t] : high;
    }
    STD_TORCH_CHECK(low >= 0 && high < p.S, op, ": index must be of slots 0 to ", p.S - 1);
}

Tensor gather(Tensor weights, Tensor index, Tensor table) {
    constexpr const char *op = "memory_gather";
    weights = torch::stable::contiguous(weights), index = torch::stable::contiguous(index);
    table = with_dense_last(table);
    auto p = params_of(op, index, table);
    set_table(p, op, table);
    p.weights = dense(op, "weights", weights, {p.G, p.H, p.n, p.k}, statistics_of(table));
    check_index(p, op);
    Tensor rows = torch::stable::new_empty(table, {p.G, p.n, p.H, p.e}, table.scalar_type());
    set_rows(p, op, rows);
    in_parallel(vts_memory_gather_tasks(&p), 16 * p.k * p.e, [&](int64_t begin, int64_t end) {
        vts_memory_gather_cpu(&p, begin, end);
    });
    return rows;
}

Tensor gather_dot(Tensor rows, Tensor index, Tensor table) {
    constexpr const char *op = "memory_gather_dot";
    rows = with_dense_last(rows), index = torch::stable::contiguous(index), table = with_dense_last(table);
    auto p = params_of(op, index, table);
    set_table(p, op, table);
    const int64_t e = p.e;
    set_rows(p, op, rows);
    STD_TORCH_CHECK(
        p.e == e && rows.scalar_type() == table.scalar_type(), op, ": rows and table must agree in e and dtype");
    check_index(p, op);
    Tensor weights = torch::stable::new_empty(table, {p.G, p.H, p.n, p.k}, statistics_of(table));
    p.weights = weights.data_ptr();
    in_parallel(vts_memory_gather_tasks(&p), 16 * p.k * p.e, [&](int64_t begin, int64_t end) {
        vts_memory_gather_dot_cpu(&p, begin, end);
    });
    return weights;
}

Tensor scatter(Tensor weights, Tensor index, Tensor rows, int64_t slots) {
    constexpr const char *op = "memory_scatter";
    weights = torch::stable::contiguous(weights), index = torch::stable::contiguous(index);
    rows = with_dense_last(rows);
    auto p = params_of(op, index, rows);
    set_rows(p, op, rows);
    STD_TORCH_CHECK(p.n * p.k <= INT32_MAX && slots >= 0, op, ": n * k must be less than 2^31, and slots at least 0");
    p.S = slots;
    p.weights = dense(op, "weights", weights, {p.G, p.H, p.n, p.k}, statistics_of(rows));
    check_index(p, op);
    Tensor table = torch::stable::new_empty(rows, {p.G, p.H, slots, p.e}, rows.scalar_type());
    set_table(p, op, table);
    Tensor order = torch::stable::new_empty(index, {p.G, p.H, p.n * p.k}, ScalarType::Int);
    Tensor starts = torch::stable::new_empty(index, {p.G, p.H, slots + 1}, ScalarType::Int);
    p.order = static_cast<int32_t *>(order.data_ptr()), p.starts = static_cast<int32_t *>(starts.data_ptr());
    in_parallel(p.G * p.H, p.n * p.k, [&](int64_t begin, int64_t end) { vts_memory_sort_cpu(&p, begin, end); });
    const int64_t tasks = vts_memory_scatter_tasks(&p);
    in_parallel(tasks, p.G * p.H * p.n * p.k * p.e / (tasks + 1), [&](int64_t begin, int64_t end) {
        vts_memory_scatter_cpu(&p, begin, end);
    });
    return table;
}

// x [rows, d], keys [S, d], factor [rows], slot_bias [S]; best and index [rows, k] are written.
vts_memory_search_params search_params(
    const char *op, const Tensor &x, const Tensor &keys, const Tensor &factor, const std::optional<Tensor> &slot_bias,
    const Tensor &best, const Tensor &index) {
    vts_memory_search_params p = {};
    p.dtype = wide_dtype_of(x, op);
    STD_TORCH_CHECK(
        x.dim() == 2 && keys.dim() == 2 && x.size(1) == keys.size(1) && x.scalar_type() == keys.scalar_type() &&
            has_dense_last(x) && has_dense_last(keys),
        op, ": x [rows, d] and keys [S, d] must have dense rows of one size and dtype");
    p.rows = x.size(0), p.d = x.size(1), p.S = keys.size(0);
    STD_TORCH_CHECK(best.dim() == 2 && p.S < INT32_MAX, op, ": best must be [rows, k], and S less than 2^31");
    p.k = best.size(1);
    STD_TORCH_CHECK(p.k >= 1, op, ": k must be at least 1");
    p.x = x.data_ptr(), p.x_stride = x.stride(0), p.keys = keys.data_ptr(), p.keys_stride = keys.stride(0);
    p.factor = dense(op, "factor", factor, {p.rows}, x.scalar_type());
    if (slot_bias.has_value()) p.slot_bias = dense(op, "slot_bias", *slot_bias, {p.S}, x.scalar_type());
    p.best = dense(op, "best", best, {p.rows, p.k}, x.scalar_type());
    p.index = static_cast<int32_t *>(dense(op, "index", index, {p.rows, p.k}, ScalarType::Int));
    return p;
}

void search(Tensor x, Tensor keys, Tensor factor, std::optional<Tensor> slot_bias, Tensor best, Tensor index) {
    auto p = search_params("memory_search_", x, keys, factor, slot_bias, best, index);
    in_parallel(vts_memory_search_tasks(&p), 64 * p.S * p.d, [&](int64_t begin, int64_t end) {
        vts_memory_search_cpu(&p, begin, end);
    });
}

void rescore(
    Tensor x, Tensor keys, Tensor factor, std::optional<Tensor> slot_bias, Tensor floors, Tensor counts, Tensor kept,
    Tensor ceilings, Tensor best, Tensor index) {
    constexpr const char *op = "memory_rescore_";
    auto p = search_params(op, x, keys, factor, slot_bias, best, index);
    STD_TORCH_CHECK(p.dtype == VTS_FLOAT32 && kept.dim() == 2, op, ": x must be float32 and kept [rows, capacity]");
    p.capacity = kept.size(1);
    p.floors = static_cast<float *>(dense(op, "floors", floors, {p.rows, p.k}, ScalarType::Float));
    p.counts = static_cast<int32_t *>(dense(op, "counts", counts, {p.rows}, ScalarType::Int));
    p.kept = static_cast<int32_t *>(dense(op, "kept", kept, {p.rows, p.capacity}, ScalarType::Int));
    p.ceilings = static_cast<float *>(dense(op, "ceilings", ceilings, {p.rows, p.capacity}, ScalarType::Float));
    in_parallel(p.rows, p.k * p.d, [&](int64_t begin, int64_t end) { vts_memory_rescore_cpu(&p, begin, end); });
}

std::tuple<Tensor, Tensor, Tensor> round_rows(Tensor rows) {
    constexpr const char *op = "memory_round";
    STD_TORCH_CHECK(
        rows.dim() == 2 && rows.scalar_type() == ScalarType::Float && (rows.stride(1) == 1 || rows.size(1) <= 1), op,
        ": rows must be float32 [n, d] with dense rows");
    vts_memory_round_params p = {};
    p.n = rows.size(0), p.d = rows.size(1), p.stride = rows.stride(0);
    Tensor rounded = torch::stable::new_empty(rows, {p.n, p.d}, ScalarType::BFloat16);
    Tensor norm = torch::stable::new_empty(rows, {p.n}, ScalarType::Float);
    Tensor residual = torch::stable::new_empty(rows, {p.n}, ScalarType::Float);
    p.rows = static_cast<const float *>(rows.data_ptr()), p.rounded = static_cast<uint16_t *>(rounded.data_ptr());
    p.norm = static_cast<float *>(norm.data_ptr()), p.residual = static_cast<float *>(residual.data_ptr());
    in_parallel(p.n, 8 * p.d, [&](int64_t begin, int64_t end) { vts_memory_round_cpu(&p, begin, end); });
    return {rounded, norm, residual};
}

void shortlist(
    Tensor scores, Tensor row_norm, Tensor row_residual, Tensor slot_norm, Tensor slot_residual, Tensor factor,
    std::optional<Tensor> slot_bias, int64_t first, int64_t d, Tensor floors, Tensor counts, Tensor kept,
    Tensor ceilings) {
    constexpr const char *op = "memory_shortlist_";
    STD_TORCH_CHECK(scores.dim() == 2 && floors.dim() == 2 && kept.dim() == 2, op, ": tensors must be matrices");
    vts_memory_shortlist_params p = {};
    p.rows = scores.size(0), p.slots = scores.size(1), p.d = d, p.first = first;
    p.k = floors.size(1), p.capacity = kept.size(1);
    const auto f = ScalarType::Float;
    p.scores = static_cast<uint16_t *>(dense(op, "scores", scores, {p.rows, p.slots}, ScalarType::BFloat16));
    p.row_norm = static_cast<float *>(dense(op, "row_norm", row_norm, {p.rows}, f));
    p.row_residual = static_cast<float *>(dense(op, "row_residual", row_residual, {p.rows}, f));
    p.slot_norm = static_cast<float *>(dense(op, "slot_norm", slot_norm, {p.slots}, f));
    p.slot_residual = static_cast<float *>(dense(op, "slot_residual", slot_residual, {p.slots}, f));
    p.factor = static_cast<float *>(dense(op, "factor", factor, {p.rows}, f));
    if (slot_bias.has_value()) p.slot_bias = static_cast<float *>(dense(op, "slot_bias", *slot_bias, {p.slots}, f));
    p.floors = static_cast<float *>(dense(op, "floors", floors, {p.rows, p.k}, f));
    p.counts = static_cast<int32_t *>(dense(op, "counts", counts, {p.rows}, ScalarType::Int));
    p.kept = static_cast<int32_t *>(dense(op, "kept", kept, {p.rows, p.capacity}, ScalarType::Int));
    p.ceilings = static_cast<float *>(dense(op, "ceilings", ceilings, {p.rows, p.capacity}, f));
    in_parallel(p.rows, p.slots, [&](int64_t begin, int64_t end) { vts_memory_shortlist_cpu(&p, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CPU, m) {
    m.impl("memory_gather", TORCH_BOX(&gather));
    m.impl("memory_gather_dot", TORCH_BOX(&gather_dot));
    m.impl("memory_scatter", TORCH_BOX(&scatter));
    m.impl("memory_search_", TORCH_BOX(&search));
    m.impl("memory_rescore_", TORCH_BOX(&rescore));
    m.impl("memory_round", TORCH_BOX(&round_rows));
    m.impl("memory_shortlist_", TORCH_BOX(&shortlist));
}

}  // namespace vts::glue
