// The entry points: the widest level that this machine has and that was built.
#include "vtsum/sliding_window_attention.h"

#include <cstdlib>
#include <cstring>

namespace vts {

using params = vts_sliding_window_attention_params;

#define VTS_DECLARE(level)                                             \
    namespace level {                                                  \
    bool forward(const params &p, int64_t begin, int64_t end);         \
    bool backward(const params &p, int64_t begin, int64_t end);        \
    int64_t tasks(const params &p, bool backward);                     \
    }
VTS_DECLARE(portable)
#if defined(VTS_X86_LEVELS)
VTS_DECLARE(avx2)
VTS_DECLARE(avx512)
#endif

namespace {

struct level {
    const char *name;
    bool (*forward)(const params &, int64_t, int64_t);
    bool (*backward)(const params &, int64_t, int64_t);
    int64_t (*tasks)(const params &, bool);
};

level pick() {
    const level portable_level = {"portable", portable::forward, portable::backward, portable::tasks};
#if defined(VTS_X86_LEVELS)
    const char *cap = std::getenv("VTSUM_KERNELS_CPU_LEVEL");
    const bool portable_only = cap && !std::strcmp(cap, "portable");
    const bool at_most_avx2 = cap && !std::strcmp(cap, "avx2");
    __builtin_cpu_init();
    if (portable_only) return portable_level;
    if (!at_most_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return {"avx512", avx512::forward, avx512::backward, avx512::tasks};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return {"avx2", avx2::forward, avx2::backward, avx2::tasks};
#endif
    return portable_level;
}

const level &chosen() {
    static const level one = pick();
    return one;
}

}  // namespace
}  // namespace vts

extern "C" {

const char *vts_cpu_level(void) { return vts::chosen().name; }

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

}  // extern "C"
