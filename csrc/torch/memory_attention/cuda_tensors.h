// The glue on CUDA that memory attention's dense and sparse ops and memory_fuse share.
#pragma once

#include "../cuda.h"
#include "tensors.h"

namespace vts::glue {

// out[g, h] = x[g, h] y[g, h] for tensors [G, H, ., .], any of which may be a view: one call where there is one group
// or one head, else one for each of whichever are fewer.
inline void multiply(const Tensor &x, const Tensor &y, const Tensor &out) {
    const int64_t dim = out.size(1) <= out.size(0) ? 1 : 0;
    for (int64_t n = 0; n < out.size(dim); ++n)
        multiply_batch(
            torch::stable::select(x, dim, n), torch::stable::select(y, dim, n), torch::stable::select(out, dim, n));
}

inline Tensor transposed(const Tensor &x) { return torch::stable::transpose(x, 2, 3); }

// [G, n, H, d] as [G, H, n, d], a view.
inline Tensor by_head(const Tensor &x) { return torch::stable::transpose(x, 1, 2); }

inline Tensor in_dtype(const Tensor &x, ScalarType dtype) {
    return x.scalar_type() == dtype ? x : torch::stable::to(x, dtype);
}

inline Tensor new_float(const Tensor &like, std::initializer_list<int64_t> shape) {
    return torch::stable::new_empty(like, shape, ScalarType::Float);
}

inline Tensor part_of(Tensor x, int64_t dim, int64_t first, int64_t length) {
    return torch::stable::narrow(x, dim, first, length);
}

inline void copy_to(Tensor to, const Tensor &from) { (void)torch::stable::copy_(to, from); }

// A bias [G or 1, H or 1, S] as contiguous float32, and how far apart its groups and heads are: 0 where they share.
struct bias_of_slots {
    Tensor keep;
    const float *data = nullptr;
    int64_t stride_g = 0, stride_h = 0;

    bias_of_slots(const char *op, const std::optional<Tensor> &bias, int64_t G, int64_t H, int64_t S) {
        if (!bias.has_value()) return;
        STD_TORCH_CHECK(
            bias->dim() == 3 && (bias->size(0) == G || bias->size(0) == 1) &&
                (bias->size(1) == H || bias->size(1) == 1) && bias->size(2) == S,
            op, ": slot_bias must be of shape [G or 1, H or 1, S]");
        keep = torch::stable::contiguous(in_dtype(*bias, ScalarType::Float));
        data = static_cast<const float *>(keep.data_ptr());
        stride_h = bias->size(1) == 1 ? 0 : S;
        stride_g = bias->size(0) == 1 ? 0 : bias->size(1) * S;
    }
};

}  // namespace vts::glue
