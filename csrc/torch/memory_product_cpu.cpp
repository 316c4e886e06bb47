// vtsum_kernels::memory_product_ on the CPU.
#include "memory.h"
#include "vtsum/memory_product.h"

namespace vts::glue {
namespace {

bool pays() { return vts_memory_product_pays(); }

void product(Tensor out, Tensor a, Tensor b, bool add) {
    constexpr const char *op = "memory_product_";
    STD_TORCH_CHECK(pays(), op, ": this processor's BLAS is the better one");
    const auto is_matrix = [](const Tensor &x) { return x.dim() == 2 && x.scalar_type() == ScalarType::Float; };
    STD_TORCH_CHECK(
        is_matrix(out) && is_matrix(a) && is_matrix(b) && a.size(0) == out.size(0) && b.size(1) == out.size(1) &&
            a.size(1) == b.size(0) && (out.stride(1) == 1 || out.size(1) <= 1),
        op, ": out [m, n] must have dense rows, with a [m, k] and b [k, n], all float32");
    vts_memory_product_params p = {};
    p.a = static_cast<const float *>(a.data_ptr()), p.b = static_cast<const float *>(b.data_ptr());
    p.c = static_cast<float *>(out.data_ptr());
    p.a_stride_m = a.stride(0), p.a_stride_k = a.stride(1), p.b_stride_k = b.stride(0), p.b_stride_n = b.stride(1);
    p.c_stride_m = out.stride(0), p.m = out.size(0), p.n = out.size(1), p.k = a.size(1), p.add = add;
    if (p.m == 0 || p.n == 0) return;
    STD_TORCH_CHECK(p.k > 0, op, ": k must be at least 1");
    Tensor packed = torch::stable::new_empty(out, {vts_memory_product_packed(&p)}, ScalarType::Float);
    p.packed = static_cast<float *>(packed.data_ptr());
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

STABLE_TORCH_LIBRARY_IMPL(vtsum_kernels, CPU, m) { m.impl("memory_product_", TORCH_BOX(&product)); }
STABLE_TORCH_LIBRARY_IMPL(vtsum_kernels, CompositeExplicitAutograd, m) {
    m.impl("memory_product_pays", TORCH_BOX(&pays));
}

}  // namespace vts::glue
