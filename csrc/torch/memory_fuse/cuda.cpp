// vtsum_kernels::memory_join_fwd on CUDA: products by torch's BLAS. What memory_fuse reads comes from memory attention.
#include "../memory_attention/cuda_tensors.h"
#include "vtsum/memory_attention.h"

namespace vts::glue {
namespace {

using torch::stable::new_empty;

// weights bank + bias + residual, contiguous.
Tensor start_of(
    const char *op, const Tensor &x, const Tensor &weights, const Tensor &bank, int64_t width,
    const std::optional<Tensor> &bias, const std::optional<Tensor> &residual) {
    const auto type = x.scalar_type();
    const std::initializer_list<int64_t> shape{x.size(0), width};
    STD_TORCH_CHECK(
        (!residual.has_value() || has_shape(*residual, shape)) && (!bias.has_value() || has_shape(*bias, {width})), op,
        ": residual must be [N, O] and bias [O]");
    if (!residual.has_value()) {
        Tensor y = new_empty(x, shape, type);
        if (bias.has_value()) {
            multiply_add(in_dtype(*bias, type), weights, bank, y);  // added as the product is written
        } else {
            const auto batch = [](const Tensor &t) { return torch::stable::unsqueeze(t, 0); };
            multiply_batch(batch(weights), batch(bank), batch(y));
        }
        return y;
    }
    vts_memory_join_params p = {};
    p.N = x.size(0), p.R = bank.size(0), p.O = width;
    p.dtype = dtype_of(x, op);
    if (weights.is_contiguous() && bank.is_contiguous() && p.dtype != VTS_FLOAT32) {
        const Tensor rest = torch::stable::contiguous(in_dtype(*residual, type));
        const std::optional<Tensor> row = bias.has_value() ? contiguous(in_dtype(*bias, type)) : bias;
        p.weights = weights.data_ptr(), p.bank = bank.data_ptr(), p.residual = rest.data_ptr();
        p.bias = row.has_value() ? row->data_ptr() : nullptr;
        Tensor y = new_empty(x, shape, type);
        p.y = y.data_ptr();
        if (vts_memory_join_cuda_takes(&p)) {
            check_launch(op, vts_memory_join_cuda(&p, stream_of(x)));
            return y;
        }
    }
    // A product is added to y where it lies: the residual is laid there first, or what it and the bias add up to, which
    // is a tensor of ours already.
    Tensor y = bias.has_value() ? torch::stable::subtract(*residual, *bias, -1.0) : new_empty(x, shape, type);
    if (bias.has_value()) y = torch::stable::contiguous(in_dtype(y, type));
    multiply_add(bias.has_value() ? y : in_dtype(*residual, type), weights, bank, y);
    return y;
}

// y = x weight^T + weights bank + bias + residual: the second product is added to the first where it lies.
Tensor join_forward(
    Tensor x, Tensor weights, Tensor weight, Tensor bank, std::optional<Tensor> bias, std::optional<Tensor> residual) {
    const char *op = "memory_join_fwd";
    check_devices(
        op, {"x", x},
        {{"weights", weights}, {"weight", weight}, {"bank", bank}, {"bias", bias}, {"residual", residual}});
    const DeviceGuard guard(x.get_device_index());
    const auto type = x.scalar_type();
    STD_TORCH_CHECK(
        x.dim() == 2 && weight.dim() == 2 && weights.dim() == 2 && bank.dim() == 2 && weight.size(1) == x.size(1) &&
            weights.size(0) == x.size(0) && bank.size(0) == weights.size(1) && bank.size(1) == weight.size(0),
        op, ": x must be [N, C], weights [N, R], weight [O, C] and bank [R, O]");
    const Tensor shares = in_dtype(weights, type), to = in_dtype(bank, type);
    Tensor y = start_of(op, x, shares, to, weight.size(0), bias, residual);
    multiply_add(y, x, torch::stable::transpose(in_dtype(weight, type), 0, 1), y);
    return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CUDA, m) { m.impl("memory_join_fwd", TORCH_BOX(&join_forward)); }

}  // namespace vts::glue
