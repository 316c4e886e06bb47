// vtsum_kernels::memory_softmax_{fwd,bwd} on the CPU.
#include <cstring>
#include <tuple>

#include "common.h"
#include "vtsum/memory_softmax.h"

namespace vts::glue {
namespace {

constexpr const char *fwd_name = "memory_softmax_fwd";
constexpr const char *bwd_name = "memory_softmax_bwd";

vts_memory_softmax_params params_of(
    const char *op, const Tensor &scores, const Tensor &factor, const std::optional<Tensor> &slot_mask,
    const std::optional<Tensor> &query_mask) {
    vts_memory_softmax_params p = {};
    STD_TORCH_CHECK(scores.dim() == 3 && scores.is_contiguous(), op, ": scores must be contiguous [H, N, S]");
    p.dtype = dtype_of(scores, op);
    STD_TORCH_CHECK(p.dtype == VTS_FLOAT32 || p.dtype == VTS_FLOAT64, op, ": scores must be float32 or float64");
    p.H = scores.size(0), p.N = scores.size(1), p.S = scores.size(2);
    STD_TORCH_CHECK(
        factor.dim() == 2 && factor.size(0) == p.H && factor.size(1) == p.N && factor.is_contiguous() &&
            factor.scalar_type() == scores.scalar_type(),
        op, ": factor must be contiguous [H, N] of scores' dtype");
    p.scores = scores.data_ptr(), p.factor = factor.data_ptr();
    if (slot_mask.has_value()) {
        STD_TORCH_CHECK(
            slot_mask->numel() == p.S && slot_mask->is_contiguous() && slot_mask->scalar_type() == ScalarType::Bool, op,
            ": slot_mask must be contiguous bool [S]");
        p.slot_mask = static_cast<const uint8_t *>(slot_mask->data_ptr());
    }
    if (query_mask.has_value()) {
        STD_TORCH_CHECK(
            query_mask->numel() == p.N && query_mask->is_contiguous() && query_mask->scalar_type() == ScalarType::Bool,
            op, ": query_mask must be contiguous bool [N]");
        p.query_mask = static_cast<const uint8_t *>(query_mask->data_ptr());
    }
    return p;
}

template <typename A>
void add_up(const vts_memory_softmax_params &p, int64_t tasks, A *usage) {
    std::memset(usage, 0, sizeof(A) * p.H * p.S);
    const A *partial = static_cast<const A *>(p.partial);
    for (int64_t t = 0; t < tasks; ++t) {
        A *head = usage + t / (tasks / p.H) * p.S;
        for (int64_t s = 0; s < p.S; ++s) head[s] += partial[t * p.S + s];
    }
}

std::tuple<Tensor, Tensor, Tensor> forward(
    Tensor scores, Tensor factor, std::optional<Tensor> slot_mask, std::optional<Tensor> query_mask) {
    auto p = params_of(fwd_name, scores, factor, slot_mask, query_mask);
    const int64_t tasks = vts_memory_softmax_tasks(&p);
    const auto dtype = scores.scalar_type();
    Tensor weights = torch::stable::new_empty(scores, {p.H, p.N, p.S}, dtype);
    Tensor lse = torch::stable::new_empty(scores, {p.H, p.N}, dtype);
    Tensor usage = torch::stable::new_empty(scores, {p.H, p.S}, dtype);
    Tensor partial = torch::stable::new_empty(scores, {tasks, p.S}, dtype);
    p.weights = weights.data_ptr(), p.lse = lse.data_ptr(), p.partial = partial.data_ptr();
    if (tasks > 0)
        torch::stable::parallel_for(0, tasks, 1 + 32768 / (64 * p.S + 1), [&](int64_t begin, int64_t end) {
            vts_memory_softmax_fwd_cpu(&p, begin, end);
        });
    if (usage.numel() > 0) {
        if (p.dtype == VTS_FLOAT64)
            add_up(p, tasks, static_cast<double *>(usage.data_ptr()));
        else
            add_up(p, tasks, static_cast<float *>(usage.data_ptr()));
    }
    return {weights, lse, usage};
}

std::tuple<Tensor, Tensor> backward(
    std::optional<Tensor> dweights, std::optional<Tensor> dlse, std::optional<Tensor> dusage, Tensor weights,
    Tensor scores, Tensor factor, std::optional<Tensor> query_mask) {
    auto p = params_of(bwd_name, scores, factor, std::nullopt, query_mask);
    const auto given = [&](const std::optional<Tensor> &x, const char *name, int64_t numel) -> const void * {
        if (!x.has_value()) return nullptr;
        STD_TORCH_CHECK(
            x->numel() == numel && x->is_contiguous() && x->scalar_type() == scores.scalar_type(), bwd_name, ": ", name,
            " must be contiguous, of its output's shape and scores' dtype");
        return x->data_ptr();
    };
    p.dweights = given(dweights, "dweights", p.H * p.N * p.S);
    p.dlse = given(dlse, "dlse", p.H * p.N);
    p.dusage = given(dusage, "dusage", p.H * p.S);
    p.weights = const_cast<void *>(given(weights, "weights", p.H * p.N * p.S));
    Tensor dscores = torch::stable::new_empty(scores, {p.H, p.N, p.S}, scores.scalar_type());
    Tensor dfactor = torch::stable::new_empty(scores, {p.H, p.N}, scores.scalar_type());
    p.dscores = dscores.data_ptr(), p.dfactor = dfactor.data_ptr();
    const int64_t tasks = vts_memory_softmax_tasks(&p);
    if (tasks > 0)
        torch::stable::parallel_for(0, tasks, 1 + 32768 / (64 * p.S + 1), [&](int64_t begin, int64_t end) {
            vts_memory_softmax_bwd_cpu(&p, begin, end);
        });
    return {dscores, dfactor};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vtsum_kernels, CPU, m) {
    m.impl("memory_softmax_fwd", TORCH_BOX(&forward));
    m.impl("memory_softmax_bwd", TORCH_BOX(&backward));
}

}  // namespace vts::glue
