#include "level.h"

#include <cstdlib>
#include <cstring>

#include "vtsum/common.h"

namespace vts {
namespace {

level pick() {
#if defined(VTS_X86_LEVELS)
    const char *cap = std::getenv("VTSUM_KERNELS_CPU_LEVEL");
    if (cap && !std::strcmp(cap, "portable")) return level::portable;
    const bool at_most_avx2 = cap && !std::strcmp(cap, "avx2");
    __builtin_cpu_init();
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (has_avx512 && !at_most_avx2) return level::avx512;
    if (has_avx2) return level::avx2;
#endif
    return level::portable;
}

}  // namespace

level cpu_level() {
    static const level one = pick();
    return one;
}

}  // namespace vts

extern "C" const char *vts_cpu_level(void) {
    switch (vts::cpu_level()) {
        case vts::level::avx512: return "avx512";
        case vts::level::avx2: return "avx2";
        default: return "portable";
    }
}
