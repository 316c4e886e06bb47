// What the glue of memory attention shares: checks of dense tensors, and tasks on torch's threads.
#pragma once

#include "../common.h"

namespace vts::glue {

inline vts_dtype wide_dtype_of(const Tensor &x, const char *op) {
    const vts_dtype dtype = dtype_of(x, op);
    STD_TORCH_CHECK(dtype == VTS_FLOAT32 || dtype == VTS_FLOAT64, op, ": the rows must be float32 or float64");
    return dtype;
}

// Whether the last dimension is dense, as rows must be that kernels read.
inline bool has_dense_last(const Tensor &x) {
    const int64_t last = x.dim() - 1;
    return last < 0 || x.stride(last) == 1 || x.size(last) <= 1 || x.numel() == 0;
}

inline Tensor with_dense_last(const Tensor &x) { return has_dense_last(x) ? x : torch::stable::contiguous(x); }

inline bool has_shape(const Tensor &x, std::initializer_list<int64_t> shape) {
    if (x.dim() != static_cast<int64_t>(shape.size())) return false;
    int64_t d = 0;
    for (const int64_t size : shape)
        if (x.size(d++) != size) return false;
    return true;
}

// The memory of a contiguous tensor of a given shape and dtype.
inline void *dense(
    const char *op, const char *name, const Tensor &x, std::initializer_list<int64_t> shape, ScalarType dtype) {
    STD_TORCH_CHECK(
        has_shape(x, shape) && x.is_contiguous() && x.scalar_type() == dtype, op, ": ", name,
        " must be contiguous, of the shape and dtype that the op's other tensors ask for");
    return x.data_ptr();
}

// f(begin, end) over [0, tasks), each of about `cost` elements.
template <typename F>
void in_parallel(int64_t tasks, int64_t cost, const F &f) {
    if (tasks > 0) torch::stable::parallel_for(0, tasks, 1 + 32768 / (cost + 1), f);
}

}  // namespace vts::glue
