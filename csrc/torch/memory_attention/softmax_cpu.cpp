// vtsum_kernels::memory_rows_{softmax,slopes}_ on the CPU: the softmax of rows of scores, and its gradient, in place.
#include <tuple>

#include "tensors.h"
#include "vtsum/memory_attention.h"

namespace vts::glue {
namespace {

vts_memory_softmax_params params_of(const char *op, const Tensor &rows, const std::optional<Tensor> &query_mask) {
    vts_memory_softmax_params p = {};
    STD_TORCH_CHECK(rows.dim() == 4 && rows.is_contiguous(), op, ": rows must be contiguous [G, H, n, S]");
    p.dtype = p.weights_dtype = p.dweights_dtype = p.dscores_dtype = wide_dtype_of(rows, op);
    p.G = rows.size(0), p.H = rows.size(1), p.n = rows.size(2), p.S = rows.size(3);
    if (query_mask.has_value())
        p.query_mask = static_cast<const uint8_t *>(dense(op, "query_mask", *query_mask, {p.G, p.n}, ScalarType::Bool));
    return p;
}

// Runs the tasks, and adds up their column sums where they are wanted: [G, H, S], else [0].
template <typename F>
Tensor run(vts_memory_softmax_params &p, const Tensor &rows, bool want_sums, const F &kernel) {
    const auto dtype = rows.scalar_type();
    const int64_t tasks = vts_memory_softmax_tasks(&p);
    Tensor partial = torch::stable::new_empty(rows, {want_sums ? tasks : 0, p.S}, dtype);
    if (want_sums) p.partial = partial.data_ptr();
    in_parallel(tasks, 64 * p.S, [&](int64_t begin, int64_t end) { kernel(&p, begin, end); });
    if (!want_sums) return torch::stable::new_empty(rows, {0}, dtype);
    Tensor sums = torch::stable::new_empty(rows, {p.G, p.H, p.S}, dtype);
    if (sums.numel() > 0) vts_memory_softmax_sums_cpu(&p, sums.data_ptr());
    return sums;
}

std::tuple<Tensor, Tensor> softmax(
    Tensor scores, Tensor factor, std::optional<Tensor> slot_bias, std::optional<Tensor> query_mask, bool need_usage) {
    constexpr const char *op = "memory_rows_softmax_";
    auto p = params_of(op, scores, query_mask);
    const auto dtype = scores.scalar_type();
    p.scores = p.weights = scores.data_ptr();
    p.factor = dense(op, "factor", factor, {p.G, p.H, p.n}, dtype);
    if (slot_bias.has_value()) {
        const Tensor &bias = *slot_bias;
        STD_TORCH_CHECK(
            bias.dim() == 3 && (bias.size(0) == 1 || bias.size(0) == p.G) &&
                (bias.size(1) == 1 || bias.size(1) == p.H) && bias.size(2) == p.S && bias.is_contiguous() &&
                bias.scalar_type() == dtype,
            op, ": slot_bias must be contiguous [G or 1, H or 1, S] of the scores' dtype");
        p.slot_bias = bias.data_ptr();
        p.bias_stride_g = bias.size(0) == 1 ? 0 : bias.size(1) * p.S;
        p.bias_stride_h = bias.size(1) == 1 ? 0 : p.S;
    }
    Tensor lse = torch::stable::new_empty(scores, {p.G, p.H, p.n}, dtype);
    p.lse = lse.data_ptr();
    return {lse, run(p, scores, need_usage, vts_memory_softmax_fwd_cpu)};
}

Tensor softmax_backward(
    Tensor dweights, std::optional<Tensor> dlse, std::optional<Tensor> dusage, Tensor weights,
    std::optional<Tensor> factor, std::optional<Tensor> query_mask, bool need_bias) {
    constexpr const char *op = "memory_rows_slopes_";
    auto p = params_of(op, dweights, query_mask);
    const auto dtype = dweights.scalar_type();
    p.dscores = dweights.data_ptr(), p.dweights = dweights.data_ptr();
    p.weights = const_cast<void *>(dense(op, "weights", weights, {p.G, p.H, p.n, p.S}, dtype));
    if (dlse.has_value()) p.dlse = dense(op, "dlse", *dlse, {p.G, p.H, p.n}, dtype);
    if (dusage.has_value()) p.dusage = dense(op, "dusage", *dusage, {p.G, p.H, p.S}, dtype);
    p.scaled = factor.has_value();
    if (p.scaled) p.factor = dense(op, "factor", *factor, {p.G, p.H, p.n}, dtype);
    return run(p, dweights, need_bias, vts_memory_softmax_bwd_cpu);
}

void unproject(Tensor u, Tensor x, Tensor share) {
    constexpr const char *op = "memory_unproject_";
    vts_memory_unproject_params p = {};
    STD_TORCH_CHECK(x.dim() == 2 && (x.stride(1) == 1 || x.size(1) <= 1), op, ": x must be [rows, d] with dense rows");
    p.dtype = wide_dtype_of(u, op), p.x_dtype = dtype_of(x, op);
    STD_TORCH_CHECK(
        p.x_dtype == p.dtype || (p.x_dtype == VTS_BFLOAT16 && p.dtype == VTS_FLOAT32), op,
        ": x must be of u's dtype, or bfloat16 beside float32");
    p.rows = x.size(0), p.d = x.size(1), p.x_stride = x.stride(0), p.x = x.data_ptr();
    p.u = dense(op, "u", u, {p.rows, p.d}, u.scalar_type());
    p.share = dense(op, "share", share, {p.rows}, u.scalar_type());
    in_parallel(p.rows, p.d, [&](int64_t begin, int64_t end) { vts_memory_unproject_cpu(&p, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CPU, m) {
    m.impl("memory_rows_softmax_", TORCH_BOX(&softmax));
    m.impl("memory_rows_slopes_", TORCH_BOX(&softmax_backward));
    m.impl("memory_unproject_", TORCH_BOX(&unproject));
}

}  // namespace vts::glue
