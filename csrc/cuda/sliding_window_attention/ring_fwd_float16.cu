// Sliding-window attention for windows of at most 9 keys, forward, of float16.
#include "ring_fwd.h"

namespace vts::sliding_window_attention::ring {
template int fwd<__half>(const params &, cudaStream_t);
}  // namespace vts::sliding_window_attention::ring
