// Compiled for AVX-512 (F, BW, DQ, VL).
#include "memory_search_impl.h"
