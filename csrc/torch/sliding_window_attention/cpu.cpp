// vtsum_kernels::sliding_window_attention_{fwd,bwd} on the CPU.
#include <atomic>
#include <string>

#include "params.h"

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

// The kernels trust the sequences' ends: they must be looked at before any row is.
void check_sequences(const char *op, const vts_sliding_window_attention_params &p) {
    if (!p.cu_seqlens) return;
    bool rising = p.cu_seqlens[0] == 0 && p.cu_seqlens[p.sequences] == p.T;
    for (int64_t n = 0; n < p.sequences && rising; ++n) rising = p.cu_seqlens[n] <= p.cu_seqlens[n + 1];
    STD_TORCH_CHECK(rising, op, ": cu_seqlens must rise from 0 to the total of ", p.T, " frames and never fall");
}

std::tuple<Tensor, Tensor> forward(
    Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> cu_seqlens,
    std::optional<Tensor> bias, std::optional<Tensor> seed, int64_t left, int64_t right, int64_t dilation, bool shift,
    double scale, double dropout_p, int64_t row_offset, bool need_lse, std::optional<Tensor> sinks, double softcap) {
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v);
    cu_seqlens = contiguous(cu_seqlens), bias = contiguous(bias), sinks = contiguous(sinks);
    auto p = params_of(
        fwd_name, q, k, v,
        {mask, cu_seqlens, bias, seed, left, right, dilation, shift, scale, dropout_p, row_offset, sinks, softcap});
    check_sequences(fwd_name, p);
    Tensor out = torch::stable::empty_like(q);
    Tensor lse = empty_statistics(q, need_lse);
    p.out = bhtd(out);
    p.lse = need_lse ? lse.data_ptr() : nullptr;
    if (out.numel() > 0)
        run(p, fwd_name, vts_sliding_window_attention_fwd_cpu_tasks(&p), vts_sliding_window_attention_fwd_cpu);
    return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    Tensor dout, Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> cu_seqlens,
    std::optional<Tensor> bias, std::optional<Tensor> seed, std::optional<Tensor> dlse, std::optional<Tensor>,
    std::optional<Tensor>, int64_t left, int64_t right, int64_t dilation, bool shift, double scale, double dropout_p,
    int64_t row_offset, std::optional<Tensor> sinks, double softcap) {
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v), dout = with_dense_rows(dout);
    cu_seqlens = contiguous(cu_seqlens), bias = contiguous(bias), sinks = contiguous(sinks), dlse = contiguous(dlse);
    auto p = params_of(
        bwd_name, q, k, v,
        {mask, cu_seqlens, bias, seed, left, right, dilation, shift, scale, dropout_p, row_offset, sinks, softcap});
    check_sequences(bwd_name, p);
    STD_TORCH_CHECK(
        same_shape(dout, q) && dout.scalar_type() == q.scalar_type(), bwd_name,
        ": dout must be of q's shape and dtype");
    Tensor dq = torch::stable::empty_like(q), dk = empty_key_gradient(q, k), dv = empty_key_gradient(q, v);
    Tensor dbias =
        bias.has_value() ? torch::stable::empty_like(*bias) : torch::stable::new_empty(q, {0}, statistics_of(q));
    Tensor delta = empty_statistics(q, sinks.has_value());
    p.dout = bhtd(dout), p.dq = bhtd(dq), p.dk = bhtd(dk), p.dv = bhtd(dv);
    p.delta = sinks.has_value() ? delta.data_ptr() : nullptr;
    if (dlse.has_value()) {
        check_dlse(bwd_name, *dlse, q);
        p.dlse = dlse->data_ptr();
    }
    if (dq.numel() == 0) {
        if (bias.has_value()) torch::stable::zero_(dbias);
        return {dq, dk, dv, dbias, delta};
    }
    Tensor scratch = torch::stable::new_empty(q, {vts_sliding_window_attention_bwd_cpu_scratch(&p)}, ScalarType::Byte);
    if (bias.has_value()) p.dbias = dbias.data_ptr(), p.scratch = scratch.data_ptr();
    run(p, bwd_name, vts_sliding_window_attention_bwd_cpu_tasks(&p), vts_sliding_window_attention_bwd_cpu);
    if (bias.has_value()) vts_sliding_window_attention_bwd_cpu_finish(&p);
    return {dq, dk, dv, dbias, delta};
}

std::string cpu_level() { return vts_cpu_level(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CPU, m) {
    m.impl("sliding_window_attention_fwd", TORCH_BOX(&forward));
    m.impl("sliding_window_attention_bwd", TORCH_BOX(&backward));
}

// An op without tensors has no device to be chosen by.
STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CompositeExplicitAutograd, m) { m.impl("cpu_level", TORCH_BOX(&cpu_level)); }

}  // namespace vts::glue
