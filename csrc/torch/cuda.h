// What the glue of every CUDA op needs beyond common.h: streams, and products by torch's BLAS.
// A guard by name and no #pragma: tests/emulator/glue.h takes this file's place where the glue runs without a GPU.
#ifndef VTS_TORCH_CUDA_H
#define VTS_TORCH_CUDA_H

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>

#include <array>

#include "cuda_checks.h"

namespace vts::glue {

using torch::stable::accelerator::DeviceGuard;

// Products of a block of rows that an op holds at once, and rows that a block has at least. 64 MB in float32: more than
// the L2 cache of most GPUs holds, but of smaller blocks the calls, some 20 for each, would take longer than the
// kernels.
constexpr int64_t BLOCK_PRODUCTS = int64_t{1} << 24, BLOCK_ROWS = 256;

inline void *stream_of(const Tensor &x) {
    void *stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    return stream;
}

// out[b] = x[b] y[b], of three-dimensional tensors or views. out may be float32 where x and y have 16 bits.
inline void multiply_batch(const Tensor &x, const Tensor &y, const Tensor &out) {
    using torch::stable::detail::from;
    if (out.scalar_type() == x.scalar_type()) {
        std::array<StableIValue, 3> stack{from(x), from(y), from(out)};
        TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
        (void)torch::stable::detail::to<Tensor>(stack[0]);
    } else {
        std::array<StableIValue, 4> stack{from(x), from(y), from(out.scalar_type()), from(out)};
        TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::bmm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
        (void)torch::stable::detail::to<Tensor>(stack[0]);
    }
}

// out = c + x y, of two-dimensional tensors; c may be out itself.
inline void multiply_add(const Tensor &c, const Tensor &x, const Tensor &y, const Tensor &out) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_addmm_out(out.get(), c.get(), x.get(), y.get(), 1.0, 1.0));
}

}  // namespace vts::glue

#endif
