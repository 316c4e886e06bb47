// vtsum_kernels::sliding_window_attention_{fwd,bwd} on CUDA.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "sliding_window_attention.h"

namespace vts::glue {
namespace {

constexpr const char *fwd_name = "sliding_window_attention_fwd";
constexpr const char *bwd_name = "sliding_window_attention_bwd";

void *stream_of(const Tensor &x) {
    void *stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    return stream;
}

vts_sliding_window_attention_params checked(
    const char *op, const Tensor &q, const Tensor &k, const Tensor &v, const std::optional<Tensor> &mask,
    const window &w) {
    auto p = params_of(op, q, k, v, mask, w);
    STD_TORCH_CHECK(p.dtype != VTS_FLOAT64, op, ": q must be float32, float16 or bfloat16 on CUDA");
    STD_TORCH_CHECK(p.D <= 256, op, ": D must be at most 256 on CUDA, got ", p.D);
    const auto device = q.get_device_index();
    STD_TORCH_CHECK(
        k.get_device_index() == device && v.get_device_index() == device &&
            (!mask.has_value() || (mask->is_cuda() && mask->get_device_index() == device)),
        op, ": all tensors must be on the device of q");
    return p;
}

std::tuple<Tensor, Tensor> forward(
    Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, int64_t left, int64_t right, int64_t dilation,
    double scale, bool need_lse) {
    const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v);
    auto p = checked(fwd_name, q, k, v, mask, {left, right, dilation, scale});
    Tensor out = torch::stable::empty_like(q);
    Tensor lse = empty_lse(q, need_lse);
    p.out = bhtd(out);
    p.lse = need_lse ? lse.data_ptr() : nullptr;
    const int error = vts_sliding_window_attention_fwd_cuda(&p, stream_of(q));
    STD_TORCH_CHECK(error == 0, fwd_name, ": the CUDA launch failed with error ", error);
    return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> backward(
    Tensor dout, Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::optional<Tensor> dlse, int64_t left,
    int64_t right, int64_t dilation, double scale) {
    const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
    q = with_dense_rows(q), k = with_dense_rows(k), v = with_dense_rows(v), dout = with_dense_rows(dout);
    auto p = checked(bwd_name, q, k, v, mask, {left, right, dilation, scale});
    STD_TORCH_CHECK(
        same_shape(dout, q) && dout.scalar_type() == q.scalar_type(), bwd_name,
        ": dout must be of q's shape and dtype");
    Tensor dq = torch::stable::empty_like(q), dk = torch::stable::empty_like(k), dv = torch::stable::empty_like(v);
    Tensor stats = torch::stable::new_empty(q, {2, p.B, p.H, p.T}, ScalarType::Float);
    p.dout = bhtd(dout), p.dq = bhtd(dq), p.dk = bhtd(dk), p.dv = bhtd(dv);
    p.row_stats = stats.data_ptr();
    if (dlse.has_value()) {
        check_dlse(bwd_name, *dlse, q);
        p.dlse = dlse->data_ptr();
    }
    const int error = vts_sliding_window_attention_bwd_cuda(&p, stream_of(q));
    STD_TORCH_CHECK(error == 0, bwd_name, ": the CUDA launch failed with error ", error);
    return {dq, dk, dv};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vtsum_kernels, CUDA, m) {
    m.impl("sliding_window_attention_fwd", TORCH_BOX(&forward));
    m.impl("sliding_window_attention_bwd", TORCH_BOX(&backward));
}

}  // namespace vts::glue
