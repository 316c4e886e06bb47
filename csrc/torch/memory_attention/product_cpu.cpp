// vtsum_kernels::memory_product_ on the CPU.
#include "tensors.h"
#include "vtsum/memory_attention.h"

namespace vts::glue {
namespace {

bool pays(ScalarType dtype) {
    if (dtype == ScalarType::BFloat16) return vts_memory_product_pays(VTS_BFLOAT16);
    return dtype == ScalarType::Float && vts_memory_product_pays(VTS_FLOAT32);
}

void product(Tensor out, Tensor a, Tensor b, bool add, std::optional<Tensor> bias, std::optional<Tensor> rounded) {
    constexpr const char *op = "memory_product_";
    const auto dtype = a.scalar_type();
    STD_TORCH_CHECK(pays(dtype), op, ": this processor has no kernel of ours for a's dtype that is the better one");
    const auto is_matrix = [](const Tensor &x, ScalarType type) { return x.dim() == 2 && x.scalar_type() == type; };
    STD_TORCH_CHECK(
        is_matrix(out, ScalarType::Float) && is_matrix(a, dtype) && is_matrix(b, dtype) && a.size(0) == out.size(0) &&
            b.size(1) == out.size(1) && a.size(1) == b.size(0) && (out.stride(1) == 1 || out.size(1) <= 1),
        op, ": out [m, n] must have dense rows, with a [m, k] and b [k, n], float32; a and b may both be bfloat16");
    STD_TORCH_CHECK(
        !bias.has_value() || (!add && bias->scalar_type() == ScalarType::Float && bias->is_contiguous() &&
                              has_shape(*bias, {out.size(1)})),
        op, ": bias must be contiguous [n], float32, and not be given with add");
    STD_TORCH_CHECK(
        !rounded.has_value() || (dtype == ScalarType::BFloat16 && rounded->scalar_type() == dtype &&
                                 has_dense_last(*rounded) && has_shape(*rounded, {out.size(0), out.size(1)})),
        op, ": rounded must be [m, n] of dense rows, bfloat16 as a and b are");
    vts_memory_product_params p = {};
    p.dtype = dtype == ScalarType::BFloat16 ? VTS_BFLOAT16 : VTS_FLOAT32;
    p.a = a.data_ptr(), p.b = b.data_ptr();
    p.c = static_cast<float *>(out.data_ptr());
    p.a_stride_m = a.stride(0), p.a_stride_k = a.stride(1), p.b_stride_k = b.stride(0), p.b_stride_n = b.stride(1);
    p.c_stride_m = out.stride(0), p.m = out.size(0), p.n = out.size(1), p.k = a.size(1), p.add = add;
    if (bias.has_value()) p.bias = static_cast<const float *>(bias->data_ptr());
    if (rounded.has_value())
        p.rounded = static_cast<uint16_t *>(rounded->data_ptr()), p.rounded_stride_m = rounded->stride(0);
    if (p.m == 0 || p.n == 0) return;
    STD_TORCH_CHECK(p.k > 0, op, ": k must be at least 1");
    Tensor packed = torch::stable::new_empty(out, {vts_memory_product_packed(&p)}, ScalarType::Float);
    p.packed = packed.data_ptr();
    for (int64_t block = 0; block < vts_memory_product_blocks(&p); ++block) {
        torch::stable::parallel_for(0, vts_memory_product_pack_tasks(&p), 4, [&](int64_t begin, int64_t end) {
            vts_memory_product_pack_cpu(&p, block, begin, end);
        });
        torch::stable::parallel_for(0, vts_memory_product_run_tasks(&p), 1, [&](int64_t begin, int64_t end) {
            vts_memory_product_run_cpu(&p, block, begin, end);
        });
    }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CPU, m) { m.impl("memory_product_", TORCH_BOX(&product)); }
STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CompositeExplicitAutograd, m) {
    m.impl("memory_product_pays", TORCH_BOX(&pays));
}

}  // namespace vts::glue
