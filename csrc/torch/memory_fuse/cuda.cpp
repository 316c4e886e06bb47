// vtsum_kernels::memory_join_fwd on CUDA: products by torch's BLAS. What memory_fuse reads comes from memory attention.
#include "../memory_attention/cuda_tensors.h"

namespace vts::glue {
namespace {

using torch::stable::new_empty;

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
    const bool both = residual.has_value() && bias.has_value();
    // What both add up to is a tensor of ours already: y, which the products are added to where it lies. One of them
    // alone is handed to the product, which lays the residual into y itself, and adds the bias as it writes.
    Tensor y = both ? torch::stable::contiguous(in_dtype(torch::stable::subtract(*residual, *bias, -1.0), type))
                    : new_empty(x, {x.size(0), weight.size(0)}, type);
    STD_TORCH_CHECK(has_shape(y, {x.size(0), weight.size(0)}), op, ": the residual must be [N, O], the bias [O]");
    if (both) {
        multiply_add(y, shares, to, y);
    } else if (residual.has_value() || bias.has_value()) {
        multiply_add(in_dtype(residual.has_value() ? *residual : *bias, type), shares, to, y);
    } else {
        const auto batch = [](const Tensor &t) { return torch::stable::unsqueeze(t, 0); };
        multiply_batch(batch(shares), batch(to), batch(y));
    }
    multiply_add(y, x, torch::stable::transpose(in_dtype(weight, type), 0, 1), y);
    return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CUDA, m) { m.impl("memory_join_fwd", TORCH_BOX(&join_forward)); }

}  // namespace vts::glue
