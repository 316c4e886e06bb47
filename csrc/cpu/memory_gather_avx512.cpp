// Compiled for AVX-512 (F, BW, DQ, VL).
#include "memory_gather_impl.h"
