// Where products are cut, and whether they pay.
#include "memory_product.h"

#include "level.h"

namespace vts {
#if defined(VTS_X86_LEVELS)
#define VTS_DECLARE(level, function)                                                               \
    namespace level {                                                                              \
    void memory_product_##function(                                                                \
        const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end); \
    }
VTS_DECLARE(avx512, pack)
VTS_DECLARE(avx512, run)
VTS_DECLARE(avx512bf16, pack)
VTS_DECLARE(avx512bf16, run)
#endif
namespace {

int64_t up(int64_t x, int64_t by) { return (x + by - 1) / by; }

// k in blocks of one size, whole lines of the cache.
int64_t depth_of(const vts_memory_product_params &p) {
    const int64_t most = product_depth * (p.dtype == VTS_BFLOAT16 ? 2 : 1);
    return up(up(p.k, up(p.k, most)), 32) * 32;
}

// Rows of a task: fewer where there would be too few tasks to share evenly.
int64_t rows_of(const vts_memory_product_params &p) {
    const int64_t rows = up(up(p.m, 8), product_rows) * product_rows;
    return rows < product_block ? rows : product_block;
}

}  // namespace
}  // namespace vts

extern "C" {

bool vts_memory_product_pays(vts_dtype dtype) {
#if defined(VTS_X86_LEVELS)
    __builtin_cpu_init();
    if (vts::cpu_level() != vts::level::avx512 || !__builtin_cpu_is("amd")) return false;
    return dtype == VTS_FLOAT32 || (dtype == VTS_BFLOAT16 && __builtin_cpu_supports("avx512bf16"));
#else
    (void)dtype;
    return false;
#endif
}

int64_t vts_memory_product_blocks(const vts_memory_product_params *p) { return vts::up(p->k, vts::depth_of(*p)); }
int64_t vts_memory_product_pack_tasks(const vts_memory_product_params *p) {
    return vts::up(p->n, vts::product_columns);
}
int64_t vts_memory_product_run_tasks(const vts_memory_product_params *p) { return vts::up(p->m, vts::rows_of(*p)); }
int64_t vts_memory_product_packed(const vts_memory_product_params *p) {
    const int64_t words = vts::depth_of(*p) / (p->dtype == VTS_BFLOAT16 ? 2 : 1);
    return vts_memory_product_pack_tasks(p) * vts::product_columns * words;
}

#if defined(VTS_X86_LEVELS)
#define VTS_BLOCK(function)                                                                                    \
    void vts_memory_product_##function##_cpu(                                                                  \
        const vts_memory_product_params *p, int64_t block, int64_t begin, int64_t end) {                       \
        const int64_t depth = vts::depth_of(*p), first = block * depth;                                        \
        const auto kernel = p->dtype == VTS_BFLOAT16 ? vts::avx512bf16::memory_product_##function              \
                                                     : vts::avx512::memory_product_##function;                 \
        const vts::product_part part = {first, p->k - first < depth ? p->k - first : depth, vts::rows_of(*p)}; \
        kernel(*p, part, begin, end);                                                                          \
    }
#else
#define VTS_BLOCK(function) \
    void vts_memory_product_##function##_cpu(const vts_memory_product_params *, int64_t, int64_t, int64_t) {}
#endif
VTS_BLOCK(pack)
VTS_BLOCK(run)

}  // extern "C"
