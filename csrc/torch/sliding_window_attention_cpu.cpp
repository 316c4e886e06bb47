// vtsum_kernels::sliding_window_attention_{fwd,bwd} on the CPU.
#include <atomic>
#include <string>

#include "sliding_window_attention.h"

namespace vts::glue {
namespace {

constexpr const char *fwd_name = "sliding_window_attention_fwd";
constexpr const char *bwd_name = "sliding_window_attention_bwd";

// Tasks for one thread at least: below some 100,000 multiplications a thread costs more than it brings.
int64_t grain(const vts_sliding_window_attention_params &p, int64_t tasks) {
    const double keys = p.left < 0 || p.right < 0 ? p.T : p.left + p.right + 1;
    const double work = static_cast<double>(p.B * p.H * p.T) * keys * p.D;
    const double share = work / static_cast<double>(tasks > 0 ? tasks : 1);
    const double few = 1e5 / (share > 1 ? share : 1);
    return few < 1 ? 1 : static_cast<int64_t>(few) + 1;
}

template <typename Run>
void run(const vts_sliding_window_attention_params &p, const char *op, int64_t tasks, const Run &task_range) {
    if (tasks == 0) return;
    std::atomic<bool> failed{false};
    torch::stable::parallel_for(0, tasks, grain(p, tasks), [&](int64_t begin, int64_t end) {
        if (task_range(&p, begin, end) != 0) failed = true;
    });
    STD_TORCH_CHECK(!failed, op, ": out of memory for scratch space; a narrower window needs less");
}

std::tuple<Tensor, Tensor> forward(
    Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, int64_t left, int64_t right, int64_t dilation,
    double scale, bool need_lse) {
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v);
    auto p = params_of(fwd_name, q, k, v, mask, {left, right, dilation, scale});
    Tensor out = torch::stable::empty_like(q);
    Tensor lse = empty_lse(q, need_lse);
    p.out = bhtd(out);
    p.lse = need_lse ? lse.data_ptr() : nullptr;
    if (out.numel() > 0)
        run(p, fwd_name, vts_sliding_window_attention_fwd_cpu_tasks(&p), vts_sliding_window_attention_fwd_cpu);
    return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> backward(
    Tensor dout, Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> dlse, int64_t left,
    int64_t right, int64_t dilation, double scale) {
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v), dout = with_dense_rows(dout);
    auto p = params_of(bwd_name, q, k, v, mask, {left, right, dilation, scale});
    STD_TORCH_CHECK(
        same_shape(dout, q) && dout.scalar_type() == q.scalar_type(), bwd_name,
        ": dout must be of q's shape and dtype");
    Tensor dq = torch::stable::empty_like(q), dk = torch::stable::empty_like(k), dv = torch::stable::empty_like(v);
    p.dout = bhtd(dout), p.dq = bhtd(dq), p.dk = bhtd(dk), p.dv = bhtd(dv);
    if (dlse.has_value()) {
        check_dlse(bwd_name, *dlse, q);
        p.dlse = dlse->data_ptr();
    }
    if (dq.numel() > 0)
        run(p, bwd_name, vts_sliding_window_attention_bwd_cpu_tasks(&p), vts_sliding_window_attention_bwd_cpu);
    return {dq, dk, dv};
}

std::string cpu_level() { return vts_cpu_level(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vtsum_kernels, CPU, m) {
    m.impl("sliding_window_attention_fwd", TORCH_BOX(&forward));
    m.impl("sliding_window_attention_bwd", TORCH_BOX(&backward));
}

// An op without tensors has no device to be chosen by.
STABLE_TORCH_LIBRARY_IMPL(vtsum_kernels, CompositeExplicitAutograd, m) { m.impl("cpu_level", TORCH_BOX(&cpu_level)); }

}  // namespace vts::glue
