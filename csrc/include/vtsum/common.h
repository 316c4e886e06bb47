// What every op's header needs. Nothing of torch.
#pragma once

#include <cstdint>

extern "C" {

enum vts_dtype : int32_t { VTS_FLOAT32 = 0, VTS_FLOAT16 = 1, VTS_BFLOAT16 = 2, VTS_FLOAT64 = 3 };

// The instruction set the CPU kernels run with: "avx512", "avx2" or "portable". The environment variable
// VTSUM_KERNELS_CPU_LEVEL, read at the first call, lowers it (for tests and for hunting bugs).
const char *vts_cpu_level(void);

// CUDA: what an error that an entry point gave means, and, once, which kernel's launch it was. Of this thread, and good
// until its next call.
const char *vts_cuda_error_text(int error);

}  // extern "C"
