// The entry points: the widest level that this machine has and that was built.
#include "vtsum/memory_softmax.h"

#include "level.h"

namespace vts {

#define VTS_DECLARE(level)                                                                        \
    namespace level {                                                                             \
    void memory_softmax_forward(const vts_memory_softmax_params &p, int64_t begin, int64_t end);  \
    void memory_softmax_backward(const vts_memory_softmax_params &p, int64_t begin, int64_t end); \
    }
VTS_DECLARE(portable)
#if defined(VTS_X86_LEVELS)
VTS_DECLARE(avx2)
VTS_DECLARE(avx512)
#endif

}  // namespace vts

extern "C" {

int64_t vts_memory_softmax_tasks(const vts_memory_softmax_params *p) {
    return p->H * ((p->N + VTS_MEMORY_SOFTMAX_ROWS - 1) / VTS_MEMORY_SOFTMAX_ROWS);
}

void vts_memory_softmax_fwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end) {
#if defined(VTS_X86_LEVELS)
    if (vts::cpu_level() == vts::level::avx512) return vts::avx512::memory_softmax_forward(*p, begin, end);
    if (vts::cpu_level() == vts::level::avx2) return vts::avx2::memory_softmax_forward(*p, begin, end);
#endif
    vts::portable::memory_softmax_forward(*p, begin, end);
}

void vts_memory_softmax_bwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end) {
#if defined(VTS_X86_LEVELS)
    if (vts::cpu_level() == vts::level::avx512) return vts::avx512::memory_softmax_backward(*p, begin, end);
    if (vts::cpu_level() == vts::level::avx2) return vts::avx2::memory_softmax_backward(*p, begin, end);
#endif
    vts::portable::memory_softmax_backward(*p, begin, end);
}

}  // extern "C"
