// Compiled for the architecture's baseline.
#include "memory_softmax_impl.h"
