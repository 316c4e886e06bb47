// The entry points of the sparse read: the widest level that this machine has and that was built.
#include "vtsum/memory_sparse.h"

#include "choose.h"
#include "vtsum/memory_search.h"

namespace vts {

#define VTS_DECLARE(level)                                                                   \
    namespace level {                                                                        \
    int64_t memory_gather_tasks(const vts_memory_gather_params &p);                          \
    int64_t memory_scatter_tasks(const vts_memory_gather_params &p);                         \
    void memory_gather(const vts_memory_gather_params &p, int64_t begin, int64_t end);       \
    void memory_gather_dot(const vts_memory_gather_params &p, int64_t begin, int64_t end);   \
    void memory_sort(const vts_memory_gather_params &p, int64_t begin, int64_t end);         \
    void memory_scatter(const vts_memory_gather_params &p, int64_t begin, int64_t end);      \
    int64_t memory_search_tasks(const vts_memory_search_params &p);                          \
    void memory_search(const vts_memory_search_params &p, int64_t begin, int64_t end);       \
    void memory_rescore(const vts_memory_search_params &p, int64_t begin, int64_t end);      \
    void memory_round(const vts_memory_round_params &p, int64_t begin, int64_t end);         \
    void memory_shortlist(const vts_memory_shortlist_params &p, int64_t begin, int64_t end); \
    }
VTS_EACH_LEVEL(VTS_DECLARE)

}  // namespace vts

extern "C" {

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

}  // extern "C"
