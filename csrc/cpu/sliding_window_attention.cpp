// The entry points: the widest level that this machine has and that was built.
#include "vtsum/sliding_window_attention.h"

#include "level.h"

namespace vts {

using params = vts_sliding_window_attention_params;

#define VTS_DECLARE(level)                                      \
    namespace level {                                           \
    bool forward(const params &p, int64_t begin, int64_t end);  \
    bool backward(const params &p, int64_t begin, int64_t end); \
    void finish(const params &p);                               \
    int64_t scratch(const params &p);                           \
    int64_t tasks(const params &p, bool backward);              \
    }
VTS_DECLARE(portable)
#if defined(VTS_X86_LEVELS)
VTS_DECLARE(avx2)
VTS_DECLARE(avx512)
#endif

namespace {

struct kernels {
    bool (*forward)(const params &, int64_t, int64_t);
    bool (*backward)(const params &, int64_t, int64_t);
    void (*finish)(const params &);
    int64_t (*scratch)(const params &);
    int64_t (*tasks)(const params &, bool);
};

#define VTS_KERNELS(level) \
    kernels { level::forward, level::backward, level::finish, level::scratch, level::tasks }

const kernels &chosen() {
    static const kernels one = [] {
#if defined(VTS_X86_LEVELS)
        if (cpu_level() == level::avx512) return VTS_KERNELS(avx512);
        if (cpu_level() == level::avx2) return VTS_KERNELS(avx2);
#endif
        return VTS_KERNELS(portable);
    }();
    return one;
}

}  // namespace
}  // namespace vts

extern "C" {

int64_t vts_sliding_window_attention_fwd_cpu_tasks(const vts_sliding_window_attention_params *p) {
    return vts::chosen().tasks(*p, false);
}
int vts_sliding_window_attention_fwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end) {
    return vts::chosen().forward(*p, begin, end) ? 0 : 1;
}
int64_t vts_sliding_window_attention_bwd_cpu_tasks(const vts_sliding_window_attention_params *p) {
    return vts::chosen().tasks(*p, true);
}
int vts_sliding_window_attention_bwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end) {
    return vts::chosen().backward(*p, begin, end) ? 0 : 1;
}
int64_t vts_sliding_window_attention_bwd_cpu_scratch(const vts_sliding_window_attention_params *p) {
    return vts::chosen().scratch(*p);
}
void vts_sliding_window_attention_bwd_cpu_finish(const vts_sliding_window_attention_params *p) {
    vts::chosen().finish(*p);
}

}  // extern "C"
