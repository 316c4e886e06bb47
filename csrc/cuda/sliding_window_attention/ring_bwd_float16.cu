// Sliding-window attention for windows of at most 9 keys, backward, of float16.
#include "ring_bwd.h"

namespace vts::sliding_window_attention::ring {
template int bwd<__half>(const params &, cudaStream_t);
template int64_t bwd_units<__half>(const params &);
}  // namespace vts::sliding_window_attention::ring
