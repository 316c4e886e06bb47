// The entry points: the widest level that this machine has and that was built.
#include "vtsum/memory_softmax.h"

#include "choose.h"

namespace vts {

#define VTS_DECLARE(level)                                                                        \
    namespace level {                                                                             \
    void memory_softmax_forward(const vts_memory_softmax_params &p, int64_t begin, int64_t end);  \
    void memory_softmax_backward(const vts_memory_softmax_params &p, int64_t begin, int64_t end); \
    void memory_unproject(const vts_memory_unproject_params &p, int64_t begin, int64_t end);      \
    void memory_softmax_sums(const vts_memory_softmax_params &p, void *sums);                     \
    }
VTS_EACH_LEVEL(VTS_DECLARE)

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

}  // extern "C"
