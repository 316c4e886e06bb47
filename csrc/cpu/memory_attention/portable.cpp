// Compiled for the architecture's baseline.
#include "gather_impl.h"
#include "search_impl.h"
#include "softmax_impl.h"
