// vtsum_kernels::sliding_window_attention_{fwd,bwd} on CUDA.
#include <string>

#include "../cuda.h"
#include "params.h"

namespace vts::glue {
namespace {

constexpr const char *fwd_name = "sliding_window_attention_fwd";
constexpr const char *bwd_name = "sliding_window_attention_bwd";

vts_sliding_window_attention_params checked(
    const char *op, const Tensor &q, const Tensor &k, const Tensor &v, const options &o) {
    auto p = params_of(op, q, k, v, o);
    STD_TORCH_CHECK(p.dtype != VTS_FLOAT64, op, ": q must be float32, float16 or bfloat16 on CUDA");
    STD_TORCH_CHECK(p.D <= 256, op, ": D must be at most 256 on CUDA, got ", p.D);
    return p;
}

// The sequence of each frame, where they are packed. The kernels are queued behind its own, and the memory is not given
// to others on this stream before they are done.
workspace bounds_of(const char *op, const Tensor &q, vts_sliding_window_attention_params &p) {
    workspace bounds(q, p.cu_seqlens == nullptr ? 0 : 2 * p.T * static_cast<int64_t>(sizeof(int32_t)));
    if (p.cu_seqlens == nullptr) return bounds;
    int32_t *to = static_cast<int32_t *>(bounds.data());
    check_launch(op, vts_sequence_bounds_cuda(p.cu_seqlens, p.sequences, p.T, to, stream_of(q)));
    p.bounds = to;
    return bounds;
}

std::tuple<Tensor, Tensor> forward(
    Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> cu_seqlens,
    std::optional<Tensor> bias, std::optional<Tensor> seed, int64_t left, int64_t right, int64_t dilation, bool shift,
    double scale, double dropout_p, int64_t row_offset, bool need_lse, std::optional<Tensor> sinks, double softcap) {
    check_devices(
        fwd_name, {"q", q},
        {{"k", k},
         {"v", v},
         {"key_mask", mask},
         {"cu_seqlens", cu_seqlens},
         {"bias", bias},
         {"seed", seed},
         {"sinks", sinks}});
    const DeviceGuard guard(q.get_device_index());
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v);
    cu_seqlens = contiguous(cu_seqlens), bias = contiguous(bias), sinks = contiguous(sinks);
    auto p = checked(
        fwd_name, q, k, v,
        {mask, cu_seqlens, bias, seed, left, right, dilation, shift, scale, dropout_p, row_offset, sinks, softcap});
    const workspace bounds = bounds_of(fwd_name, q, p);
    Tensor out = torch::stable::empty_like(q);
    Tensor lse = empty_statistics(q, need_lse);
    p.out = bhtd(out);
    p.lse = need_lse ? lse.data_ptr() : nullptr;
    check_launch(fwd_name, vts_sliding_window_attention_fwd_cuda(&p, stream_of(q)));
    return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    Tensor dout, Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> cu_seqlens,
    std::optional<Tensor> bias, std::optional<Tensor> seed, std::optional<Tensor> dlse, std::optional<Tensor> out,
    std::optional<Tensor> lse, int64_t left, int64_t right, int64_t dilation, bool shift, double scale,
    double dropout_p, int64_t row_offset, std::optional<Tensor> sinks, double softcap) {
    check_devices(
        bwd_name, {"q", q},
        {{"dout", dout},
         {"k", k},
         {"v", v},
         {"key_mask", mask},
         {"cu_seqlens", cu_seqlens},
         {"bias", bias},
         {"seed", seed},
         {"sinks", sinks},
         {"dlse", dlse},
         {"out", out},
         {"lse", lse}});
    const DeviceGuard guard(q.get_device_index());
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v), dout = with_dense_rows(dout);
    cu_seqlens = contiguous(cu_seqlens), bias = contiguous(bias), sinks = contiguous(sinks), dlse = contiguous(dlse),
    lse = contiguous(lse);
    auto p = checked(
        bwd_name, q, k, v,
        {mask, cu_seqlens, bias, seed, left, right, dilation, shift, scale, dropout_p, row_offset, sinks, softcap});
    STD_TORCH_CHECK(
        same_shape(dout, q) && dout.scalar_type() == q.scalar_type(), bwd_name,
        ": dout must be of q's shape and dtype");
    if (dlse.has_value()) {
        check_dlse(bwd_name, *dlse, q);
        p.dlse = dlse->data_ptr();
    }
    if (out.has_value() && lse.has_value()) {
        STD_TORCH_CHECK(
            same_shape(*out, q) && out->scalar_type() == q.scalar_type(), bwd_name,
            ": out must be of q's shape and dtype");
        check_dlse(bwd_name, *lse, q);
        out = with_dense_rows(*out);
        p.out = bhtd(*out), p.lse = lse->data_ptr();
    }
    const workspace bounds = bounds_of(bwd_name, q, p);
    Tensor dq = torch::stable::empty_like(q), dk = empty_key_gradient(q, k), dv = empty_key_gradient(q, v);
    Tensor dbias =
        bias.has_value() ? torch::stable::empty_like(*bias) : torch::stable::new_empty(q, {0}, ScalarType::Float);
    Tensor delta = empty_statistics(q, sinks.has_value());
    p.dout = bhtd(dout), p.dq = bhtd(dq), p.dk = bhtd(dk), p.dv = bhtd(dv);
    p.delta = sinks.has_value() ? delta.data_ptr() : nullptr;
    p.dbias = bias.has_value() ? dbias.data_ptr() : nullptr;
    const workspace scratch(q, vts_sliding_window_attention_bwd_cuda_scratch(&p));
    p.scratch = scratch.data();
    check_launch(bwd_name, vts_sliding_window_attention_bwd_cuda(&p, stream_of(q)));
    return {dq, dk, dv, dbias, delta};
}

// Which kernels serve a call forward and backward, in words.
std::string form(
    Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> cu_seqlens,
    std::optional<Tensor> bias, std::optional<Tensor> seed, int64_t left, int64_t right, int64_t dilation, bool shift,
    double scale, double dropout_p, int64_t row_offset, bool need_lse, std::optional<Tensor> sinks, double softcap) {
    constexpr const char *op = "sliding_window_attention_form";
    const DeviceGuard guard(q.get_device_index());
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v);
    cu_seqlens = contiguous(cu_seqlens), bias = contiguous(bias), sinks = contiguous(sinks);
    auto p = checked(
        op, q, k, v,
        {mask, cu_seqlens, bias, seed, left, right, dilation, shift, scale, dropout_p, row_offset, sinks, softcap});
    const Tensor out = torch::stable::empty_like(q), lse = empty_statistics(q, need_lse);
    const Tensor dk = empty_key_gradient(q, k), dv = empty_key_gradient(q, v);
    p.bounds = p.cu_seqlens;  // there as the bounds will be
    p.out = bhtd(out);
    const std::string forward = vts_sliding_window_attention_form_cuda(&p, false);
    p.dout = p.dq = p.out, p.dk = bhtd(dk), p.dv = bhtd(dv);
    p.dbias = const_cast<void *>(p.bias);
    p.lse = need_lse ? lse.data_ptr() : nullptr;
    return forward + " kernels forward, " + vts_sliding_window_attention_form_cuda(&p, true) + " kernels backward";
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CUDA, m) {
    m.impl("sliding_window_attention_fwd", TORCH_BOX(&forward));
    m.impl("sliding_window_attention_bwd", TORCH_BOX(&backward));
    m.impl("sliding_window_attention_form", TORCH_BOX(&form));
}

}  // namespace vts::glue
