// Takes the place of csrc/torch/cuda.h where the CUDA glue is compiled for tensors on the CPU and emulated kernels:
// products are the CPU's, and blocks of rows are small, so that small tensors have several.
#define VTS_TORCH_CUDA_H

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <algorithm>
#include <array>

#include "cuda_checks.h"

namespace vts::glue {

constexpr int64_t BLOCK_PRODUCTS = 512, BLOCK_ROWS = 8;

struct DeviceGuard {
    explicit DeviceGuard(int64_t) {}
};

inline void *stream_of(const Tensor &) { return nullptr; }

inline void multiply_batch(const Tensor &x, const Tensor &y, const Tensor &out) {
    using torch::stable::detail::from;
    if (out.scalar_type() != x.scalar_type())
        return multiply_batch(torch::stable::to(x, out.scalar_type()), torch::stable::to(y, out.scalar_type()), out);
    std::array<StableIValue, 3> stack{from(x), from(y), from(out)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
    (void)torch::stable::detail::to<Tensor>(stack[0]);
}

inline void multiply_add(const Tensor &c, const Tensor &x, const Tensor &y, const Tensor &out) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(out.get(), c.get(), x.get(), y.get(), 1.0, 1.0));
}

}  // namespace vts::glue

// Where the ops are registered, after torch's headers, which have these words, too: for tensors of every kind, so that
// one on another device gets as far as it does on CUDA.
#define CUDA CompositeExplicitAutograd
