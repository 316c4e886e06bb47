// Sliding-window attention for windows of at most 9 keys, backward, of bfloat16.
#include "ring_bwd.h"

namespace vts::sliding_window_attention::ring {
template int bwd<__nv_bfloat16>(const params &, cudaStream_t);
template int64_t bwd_units<__nv_bfloat16>(const params &);
}  // namespace vts::sliding_window_attention::ring
