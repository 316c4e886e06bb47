// The glue of sliding-window attention that the CPU and the CUDA library share: from tensors to the params struct.
#pragma once

#include <tuple>

#include "../common.h"
#include "vtsum/sliding_window_attention.h"

namespace vts::glue {

// The kernels read rows: the last dimension must be dense.
inline Tensor with_dense_rows(const Tensor &x) {
    return x.dim() != 4 || x.stride(3) == 1 || x.size(3) <= 1 ? x : torch::stable::contiguous(x);
}

inline vts_bhtd bhtd(const Tensor &x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

// What the op's arguments say beyond the tensors of rows.
struct options {
    const std::optional<Tensor> &mask, &cu_seqlens, &bias, &seed;
    int64_t left, right, dilation;
    bool shift;
    double scale, dropout_p;
    int64_t row_offset;
    const std::optional<Tensor> &sinks;
    double softcap;
};

inline ScalarType statistics_of(const Tensor &q) {
    return q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline int64_t bias_length(const options &o) { return (o.shift ? 2 : 1) * (o.left + o.right) + 1; }

inline vts_sliding_window_attention_params params_of(
    const char *op, const Tensor &q, const Tensor &k, const Tensor &v, const options &o) {
    STD_TORCH_CHECK(q.dim() == 4, op, ": q must be of shape [B, H, T, D]");
    STD_TORCH_CHECK(k.dim() == 4 && same_shape(k, v), op, ": k and v must be of one shape [B, K, T, D]");
    STD_TORCH_CHECK(
        k.size(0) == q.size(0) && k.size(2) == q.size(2) && k.size(3) == q.size(3), op,
        ": k and v must be of q's B, T and D");
    STD_TORCH_CHECK(
        k.size(1) > 0 ? q.size(1) % k.size(1) == 0 : q.size(1) == 0, op, ": the number of k's heads must divide q's");
    STD_TORCH_CHECK(
        k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(), op, ": k and v must be of q's dtype");
    STD_TORCH_CHECK(q.size(3) >= 1, op, ": D must be at least 1");
    STD_TORCH_CHECK(o.left >= -1 && o.right >= -1 && o.dilation >= 1, op, ": window or dilation out of range");
    STD_TORCH_CHECK(
        (!o.shift && !o.bias.has_value()) || (o.left >= 0 && o.right >= 0), op,
        ": shifted windows and a bias want a finite window");
    STD_TORCH_CHECK(o.dropout_p >= 0 && o.dropout_p < 1, op, ": dropout_p must be at least 0 and less than 1");
    vts_sliding_window_attention_params p = {};
    p.q = bhtd(q), p.k = bhtd(k), p.v = bhtd(v);
    p.B = q.size(0), p.H = q.size(1), p.K = k.size(1), p.T = q.size(2), p.D = q.size(3);
    p.left = o.left, p.right = o.right, p.dilation = o.dilation, p.scale = o.scale;
    // No two frames are T apart: sums and products of what is left over stay small.
    const int64_t most = p.T > 0 ? p.T : 1;
    if (p.dilation > most) p.dilation = most;
    if (!o.bias.has_value()) {
        if (p.left > most) p.left = most;
        if (p.right > most) p.right = most;
    }
    p.border = o.shift ? VTS_SHIFT : VTS_TRUNCATE;
    p.dtype = dtype_of(q, op);
    if (o.mask.has_value()) {
        const Tensor &mask = *o.mask;
        STD_TORCH_CHECK(
            mask.dim() == 2 && mask.size(0) == p.B && mask.size(1) == p.T && mask.scalar_type() == ScalarType::Bool, op,
            ": key_mask must be bool [B, T]");
        p.mask = static_cast<const uint8_t *>(mask.data_ptr());
        p.mask_stride_b = mask.stride(0), p.mask_stride_t = mask.stride(1);
    }
    if (o.cu_seqlens.has_value()) {
        const Tensor &cu = *o.cu_seqlens;
        STD_TORCH_CHECK(
            p.B == 1 && cu.dim() == 1 && cu.size(0) >= 1 && cu.scalar_type() == ScalarType::Int && cu.is_contiguous(),
            op, ": cu_seqlens must be int32 [N + 1], and B 1");
        p.cu_seqlens = static_cast<const int32_t *>(cu.data_ptr());
        p.sequences = cu.size(0) - 1;
    }
    if (o.bias.has_value()) {
        const Tensor &bias = *o.bias;
        STD_TORCH_CHECK(
            bias.dim() == 2 && bias.size(0) == p.H && o.left < bias.size(1) && o.right < bias.size(1) &&
                bias.size(1) == bias_length(o) && bias.is_contiguous() && bias.scalar_type() == statistics_of(q),
            op, ": bias must be [H, ", bias_length(o), "] in the dtype of lse");
        p.bias = bias.data_ptr();
    }
    if (o.sinks.has_value()) {
        const Tensor &sinks = *o.sinks;
        STD_TORCH_CHECK(
            sinks.dim() == 1 && sinks.size(0) == p.H && sinks.is_contiguous() &&
                sinks.scalar_type() == statistics_of(q),
            op, ": sinks must be [H] in the dtype of lse");
        p.sinks = sinks.data_ptr();
    }
    STD_TORCH_CHECK(
        o.softcap == 0 || (o.softcap >= 1e-30 && o.softcap <= 1e30), op, ": softcap must be 0 or from 1e-30 to 1e30");
    p.softcap = o.softcap;
    if (o.dropout_p > 0) {
        STD_TORCH_CHECK(
            o.seed.has_value() && o.seed->numel() == 1 && o.seed->scalar_type() == ScalarType::Long, op,
            ": seed must be one int64 where there is dropout");
        p.seed = static_cast<const int64_t *>(o.seed->data_ptr());
        const double below = o.dropout_p * 4294967296.0;
        p.drop_below = below >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(below);
        p.keep_scale = 1.0 / (1.0 - o.dropout_p);
        p.row_offset = static_cast<uint32_t>(o.row_offset);
    }
    return p;
}

// Contiguous [B, H, T] in the statistics' dtype, or [0] where they were not asked for.
inline Tensor empty_statistics(const Tensor &q, bool wanted) {
    if (wanted) return torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2)}, statistics_of(q));
    return torch::stable::new_empty(q, {0}, statistics_of(q));
}

inline void check_dlse(const char *op, const Tensor &dlse, const Tensor &q) {
    STD_TORCH_CHECK(
        dlse.dim() == 3 && dlse.size(0) == q.size(0) && dlse.size(1) == q.size(1) && dlse.size(2) == q.size(2) &&
            dlse.scalar_type() == statistics_of(q) && dlse.is_contiguous(),
        op, ": dlse must be [B, H, T] in the dtype of lse");
}

// An empty dk or dv, laid out as x, or as q where several query heads share a head of x.
inline Tensor empty_key_gradient(const Tensor &q, const Tensor &x) {
    return torch::stable::empty_like(same_shape(q, x) ? x : q);
}

}  // namespace vts::glue
