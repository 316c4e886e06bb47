// Compiled for AVX-512 (F, BW, DQ, VL).
#include "sliding_window_attention_impl.h"
