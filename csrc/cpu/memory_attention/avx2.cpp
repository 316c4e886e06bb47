// Compiled for AVX2, FMA and F16C.
#include "gather_impl.h"
#include "search_impl.h"
#include "softmax_impl.h"
