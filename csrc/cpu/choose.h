// Calls a kernel at the widest level that this machine has and that was built.
#pragma once

#include "level.h"

#if defined(VTS_X86_LEVELS)
#define VTS_EACH_LEVEL(declare) declare(portable) declare(avx2) declare(avx512)
#define VTS_CHOOSE(call)                                        \
    (vts::cpu_level() == vts::level::avx512 ? vts::avx512::call \
     : vts::cpu_level() == vts::level::avx2 ? vts::avx2::call   \
                                            : vts::portable::call)
#else
#define VTS_EACH_LEVEL(declare) declare(portable)
#define VTS_CHOOSE(call) vts::portable::call
#endif
