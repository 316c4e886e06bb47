// The entry points: the widest level that this machine has and that was built. Matrix products have a kernel where they
// pay, which is at one level alone.
#include "vtsum/memory_attention.h"

#include "../choose.h"
#include "product.h"

namespace vts {

#define VTS_DECLARE(level)                                                                        \
    namespace level {                                                                             \
    int64_t memory_gather_tasks(const vts_memory_gather_params &p);                               \
    int64_t memory_scatter_tasks(const vts_memory_gather_params &p);                              \
    void memory_gather(const vts_memory_gather_params &p, int64_t begin, int64_t end);            \
    void memory_gather_dot(const vts_memory_gather_params &p, int64_t begin, int64_t end);        \
    void memory_sort(const vts_memory_gather_params &p, int64_t begin, int64_t end);              \
    void memory_scatter(const vts_memory_gather_params &p, int64_t begin, int64_t end);           \
    int64_t memory_search_tasks(const vts_memory_search_params &p);                               \
    void memory_search(const vts_memory_search_params &p, int64_t begin, int64_t end);            \
    void memory_rescore(const vts_memory_search_params &p, int64_t begin, int64_t end);           \
    void memory_round(const vts_memory_round_params &p, int64_t begin, int64_t end);              \
    void memory_shortlist(const vts_memory_shortlist_params &p, int64_t begin, int64_t end);      \
    void memory_softmax_forward(const vts_memory_softmax_params &p, int64_t begin, int64_t end);  \
    void memory_softmax_backward(const vts_memory_softmax_params &p, int64_t begin, int64_t end); \
    void memory_unproject(const vts_memory_unproject_params &p, int64_t begin, int64_t end);      \
    void memory_softmax_sums(const vts_memory_softmax_params &p, void *sums);                     \
    }
VTS_EACH_LEVEL(VTS_DECLARE)

#if defined(VTS_X86_LEVELS)
#define VTS_DECLARE_PRODUCT(level, function)                                                       \
    namespace level {                                                                              \
    void memory_product_##function(                                                                \
        const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end); \
    }
VTS_DECLARE_PRODUCT(avx512, pack)
VTS_DECLARE_PRODUCT(avx512, run)
VTS_DECLARE_PRODUCT(avx512bf16, pack)
VTS_DECLARE_PRODUCT(avx512bf16, run)
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

int64_t vts_memory_softmax_tasks(const vts_memory_softmax_params *p) {
    return p->G * p->H * ((p->n + VTS_MEMORY_SOFTMAX_ROWS - 1) / VTS_MEMORY_SOFTMAX_ROWS);
}
void vts_memory_softmax_fwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_softmax_forward(*p, begin, end));
}
void vts_memory_softmax_bwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_softmax_backward(*p, begin, end));
}
void vts_memory_unproject_cpu(const vts_memory_unproject_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_unproject(*p, begin, end));
}
void vts_memory_softmax_sums_cpu(const vts_memory_softmax_params *p, void *sums) {
    VTS_CHOOSE(memory_softmax_sums(*p, sums));
}

int64_t vts_memory_gather_tasks(const vts_memory_gather_params *p) { return VTS_CHOOSE(memory_gather_tasks(*p)); }
int64_t vts_memory_scatter_tasks(const vts_memory_gather_params *p) { return VTS_CHOOSE(memory_scatter_tasks(*p)); }
int64_t vts_memory_search_tasks(const vts_memory_search_params *p) { return VTS_CHOOSE(memory_search_tasks(*p)); }

void vts_memory_gather_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_gather(*p, begin, end));
}
void vts_memory_gather_dot_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_gather_dot(*p, begin, end));
}
void vts_memory_sort_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_sort(*p, begin, end));
}
void vts_memory_scatter_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_scatter(*p, begin, end));
}
void vts_memory_search_cpu(const vts_memory_search_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_search(*p, begin, end));
}
void vts_memory_rescore_cpu(const vts_memory_search_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_rescore(*p, begin, end));
}
void vts_memory_round_cpu(const vts_memory_round_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_round(*p, begin, end));
}
void vts_memory_shortlist_cpu(const vts_memory_shortlist_params *p, int64_t begin, int64_t end) {
    VTS_CHOOSE(memory_shortlist(*p, begin, end));
}

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
