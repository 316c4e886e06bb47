// Compiled for AVX-512 (F, BW, DQ, VL).
#include "gather_impl.h"
#include "product_impl.h"
#include "search_impl.h"
#include "softmax_impl.h"
