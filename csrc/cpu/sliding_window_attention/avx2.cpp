// Compiled for AVX2, FMA and F16C.
#include "impl.h"
