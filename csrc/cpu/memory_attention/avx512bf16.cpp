// Compiled for AVX-512 with its bfloat16 dot products: only matrix products have a use for them.
#include "product_impl.h"
