// Compiled for AVX-512 (F, BW, DQ, VL).
#include "impl.h"
