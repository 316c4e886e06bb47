// Compiled for the architecture's baseline.
#include "memory_search_impl.h"
