// Compiled for the architecture's baseline.
#include "impl.h"
