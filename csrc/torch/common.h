// What the glue of every op needs: the LibTorch stable ABI and the checks in C++.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "vtsum/sliding_window_attention.h"

namespace vts::glue {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline vts_dtype dtype_of(const Tensor &x, const char *op) {
    switch (x.scalar_type()) {
        case ScalarType::Float: return VTS_FLOAT32;
        case ScalarType::Half: return VTS_FLOAT16;
        case ScalarType::BFloat16: return VTS_BFLOAT16;
        case ScalarType::Double: return VTS_FLOAT64;
        default: STD_TORCH_CHECK(false, op, ": q must be float32, float16, bfloat16 or float64");
    }
    return VTS_FLOAT32;
}

inline bool same_shape(const Tensor &a, const Tensor &b) {
    if (a.dim() != b.dim()) return false;
    for (int64_t d = 0; d < a.dim(); ++d)
        if (a.size(d) != b.size(d)) return false;
    return true;
}

// The kernels read rows: the last dimension must be dense.
inline Tensor with_dense_rows(const Tensor &x) {
    return x.stride(3) == 1 || x.size(3) <= 1 ? x : torch::stable::contiguous(x);
}

inline vts_bhtd bhtd(const Tensor &x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

}  // namespace vts::glue
