// Compiled for the architecture's baseline.
#include "memory_gather_impl.h"
