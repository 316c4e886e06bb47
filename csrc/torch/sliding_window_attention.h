// The glue of sliding-window attention that the CPU and the CUDA library share: from tensors to the params struct.
#pragma once

#include <tuple>

#include "common.h"
#include "vtsum/sliding_window_attention.h"

namespace vts::glue {

// The kernels read rows: the last dimension must be dense.
inline Tensor with_dense_rows(const Tensor &x) {
    return x.dim() != 4 || x.stride(3) == 1 || x.size(3) <= 1 ? x : torch::stable::contiguous(x);
}

inline vts_bhtd bhtd(const Tensor &x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

struct window {
    int64_t left, right, dilation;
    double scale;
};

inline vts_sliding_window_attention_params params_of(
    const char *op, const Tensor &q, const Tensor &k, const Tensor &v, const std::optional<Tensor> &mask,
    const window &w) {
    STD_TORCH_CHECK(q.dim() == 4, op, ": q must be of shape [B, H, T, D]");
    STD_TORCH_CHECK(same_shape(q, k) && same_shape(q, v), op, ": k and v must be of q's shape");
    STD_TORCH_CHECK(
        k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(), op, ": k and v must be of q's dtype");
    STD_TORCH_CHECK(q.size(3) >= 1, op, ": D must be at least 1");
    STD_TORCH_CHECK(w.left >= -1 && w.right >= -1 && w.dilation >= 1, op, ": window or dilation out of range");
    vts_sliding_window_attention_params p = {};
    p.q = bhtd(q), p.k = bhtd(k), p.v = bhtd(v);
    p.B = q.size(0), p.H = q.size(1), p.T = q.size(2), p.D = q.size(3);
    p.left = w.left, p.right = w.right, p.dilation = w.dilation, p.scale = w.scale;
    p.dtype = dtype_of(q, op);
    if (mask.has_value()) {
        STD_TORCH_CHECK(
            mask->dim() == 2 && mask->size(0) == p.B && mask->size(1) == p.T && mask->scalar_type() == ScalarType::Bool,
            op, ": key_padding_mask must be bool [B, T]");
        p.mask = static_cast<const uint8_t *>(mask->data_ptr());
        p.mask_stride_b = mask->stride(0), p.mask_stride_t = mask->stride(1);
    }
    return p;
}

// Contiguous [B, H, T] in the statistics' dtype, or [0] where they were not asked for.
inline Tensor empty_lse(const Tensor &q, bool wanted) {
    const auto dtype = q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    if (wanted) return torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2)}, dtype);
    return torch::stable::new_empty(q, {0}, dtype);
}

inline void check_dlse(const char *op, const Tensor &dlse, const Tensor &q) {
    const auto dtype = q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    STD_TORCH_CHECK(
        dlse.dim() == 3 && dlse.size(0) == q.size(0) && dlse.size(1) == q.size(1) && dlse.size(2) == q.size(2) &&
            dlse.scalar_type() == dtype && dlse.is_contiguous(),
        op, ": dlse must be contiguous [B, H, T] in the dtype of lse");
}

}  // namespace vts::glue
