// Compiled for AVX2, FMA and F16C.
#include "memory_gather_impl.h"
