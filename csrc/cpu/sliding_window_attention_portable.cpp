// Compiled for the architecture's baseline.
#include "sliding_window_attention_impl.h"
