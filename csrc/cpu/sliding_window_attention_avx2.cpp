// Compiled for AVX2, FMA and F16C.
#include "sliding_window_attention_impl.h"
