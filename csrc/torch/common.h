// What the glue of every op needs: the LibTorch stable ABI and the checks in C++.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "vtsum/common.h"

// Where the ops are registered: under the package's name, unless the build says otherwise. Builds for the Hugging Face
// kernels hub do: a process may hold several of them, beside this one.
#ifndef VTS_NAMESPACE
#define VTS_NAMESPACE vtsum_kernels
#endif

namespace vts::glue {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline vts_dtype dtype_of(const Tensor &x, const char *op) {
    switch (x.scalar_type()) {
        case ScalarType::Float: return VTS_FLOAT32;
        case ScalarType::Half: return VTS_FLOAT16;
        case ScalarType::BFloat16: return VTS_BFLOAT16;
        case ScalarType::Double: return VTS_FLOAT64;
        default: STD_TORCH_CHECK(false, op, ": the input must be float32, float16, bfloat16 or float64");
    }
    return VTS_FLOAT32;
}

inline bool same_shape(const Tensor &a, const Tensor &b) {
    if (a.dim() != b.dim()) return false;
    for (int64_t d = 0; d < a.dim(); ++d)
        if (a.size(d) != b.size(d)) return false;
    return true;
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor> &x) {
    return x.has_value() ? std::optional<Tensor>(torch::stable::contiguous(*x)) : x;
}

// Memory for a kernel to work in; where it needs none, nothing is asked of torch.
struct workspace {
    std::optional<Tensor> memory;

    workspace(const Tensor &like, int64_t bytes) {
        if (bytes > 0) memory = torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
    }
    void *data() const { return memory.has_value() ? memory->data_ptr() : nullptr; }
};

}  // namespace vts::glue
