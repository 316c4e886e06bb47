// Each family of kernels by its name, also where the dispatcher would choose another.
#include <cstring>

#include "sliding_window_attention/families.h"

namespace swa = vts::sliding_window_attention;

namespace {

struct family {
    const char *name;
    decltype(&swa::general_takes) takes;
    decltype(&swa::general_fwd) fwd;
    decltype(&swa::general_bwd) bwd;
    decltype(&swa::general_bwd_scratch) scratch;
};

#define F(name) {#name, swa::name##_takes, swa::name##_fwd, swa::name##_bwd, swa::name##_bwd_scratch},
constexpr family families[] = {F(ring) F(strip) F(tile) F(general)};
#undef F

const family *find(const char *name) {
    for (const family &f : families)
        if (std::strcmp(f.name, name) == 0) return &f;
    return nullptr;
}

}  // namespace

extern "C" {

int64_t emulator_params_size() { return sizeof(swa::params); }
int emulator_takes(const char *name, const swa::params *p, int backward) {
    const family *f = find(name);
    return f == nullptr ? -1 : f->takes(*p, backward != 0);
}
int emulator_fwd(const char *name, const swa::params *p) { return find(name)->fwd(*p, nullptr); }
int emulator_bwd(const char *name, const swa::params *p) { return find(name)->bwd(*p, nullptr); }
int64_t emulator_bwd_scratch(const char *name, const swa::params *p) { return find(name)->scratch(*p); }
}
