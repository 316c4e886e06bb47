// The entry points: the widest level that this machine has and that was built.
#include "vtsum/sliding_window_attention.h"

#include "../choose.h"

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
VTS_EACH_LEVEL(VTS_DECLARE)

}  // namespace vts

extern "C" {

int64_t vts_sliding_window_attention_fwd_cpu_tasks(const vts_sliding_window_attention_params *p) {
    return VTS_CHOOSE(tasks(*p, false));
}
int vts_sliding_window_attention_fwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end) {
    return VTS_CHOOSE(forward(*p, begin, end)) ? 0 : 1;
}
int64_t vts_sliding_window_attention_bwd_cpu_tasks(const vts_sliding_window_attention_params *p) {
    return VTS_CHOOSE(tasks(*p, true));
}
int vts_sliding_window_attention_bwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end) {
    return VTS_CHOOSE(backward(*p, begin, end)) ? 0 : 1;
}
int64_t vts_sliding_window_attention_bwd_cpu_scratch(const vts_sliding_window_attention_params *p) {
    return VTS_CHOOSE(scratch(*p));
}
void vts_sliding_window_attention_bwd_cpu_finish(const vts_sliding_window_attention_params *p) {
    VTS_CHOOSE(finish(*p));
}

}  // extern "C"
