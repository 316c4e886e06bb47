// Where products are cut, and whether they pay.
#include "memory_product.h"

#include "level.h"

namespace vts {
#if defined(VTS_X86_LEVELS)
namespace avx512 {
void memory_product_pack(const vts_memory_product_params &p, int64_t first, int64_t depth, int64_t begin, int64_t end);
void memory_product_run(const vts_memory_product_params &p, int64_t first, int64_t depth, int64_t begin, int64_t end);
}  // namespace avx512
#endif
namespace {

int64_t up(int64_t x, int64_t by) { return (x + by - 1) / by; }

// k in blocks of one size, whole lines of the cache.
int64_t depth_of(const vts_memory_product_params &p) { return up(up(p.k, up(p.k, product_depth)), 16) * 16; }

}  // namespace
}  // namespace vts

extern "C" {

bool vts_memory_product_pays(void) {
#if defined(VTS_X86_LEVELS)
    __builtin_cpu_init();
    return vts::cpu_level() == vts::level::avx512 && __builtin_cpu_is("amd");
#else
    return false;
#endif
}

int64_t vts_memory_product_blocks(const vts_memory_product_params *p) { return vts::up(p->k, vts::depth_of(*p)); }
int64_t vts_memory_product_pack_tasks(const vts_memory_product_params *p) {
    return vts::up(p->n, vts::product_columns);
}
int64_t vts_memory_product_run_tasks(const vts_memory_product_params *p) { return vts::up(p->m, vts::product_block); }
int64_t vts_memory_product_packed(const vts_memory_product_params *p) {
    return vts_memory_product_pack_tasks(p) * vts::product_columns * vts::depth_of(*p);
}

#if defined(VTS_X86_LEVELS)
#define VTS_BLOCK(function)                                                                                         \
    void vts_memory_product_##function##_cpu(                                                                       \
        const vts_memory_product_params *p, int64_t block, int64_t begin, int64_t end) {                            \
        const int64_t depth = vts::depth_of(*p), first = block * depth;                                             \
        vts::avx512::memory_product_##function(*p, first, p->k - first < depth ? p->k - first : depth, begin, end); \
    }
#else
#define VTS_BLOCK(function) \
    void vts_memory_product_##function##_cpu(const vts_memory_product_params *, int64_t, int64_t, int64_t) {}
#endif
VTS_BLOCK(pack)
VTS_BLOCK(run)

}  // extern "C"
