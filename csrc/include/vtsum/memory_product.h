// Matrix products into float32 for processors whose AVX-512 the BLAS leaves unused. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// c [m, n] = a [m, k] b [k, n], or c += a b with `add`. Strides in elements; c's rows are dense, and one of a's strides
// and one of b's is 1. Each element of c is summed over k in order, by one task: results do not depend on the threads.
struct vts_memory_product_params {
    const void *a, *b;  // float32, or both bfloat16: `dtype`
    float *c;
    vts_dtype dtype;
    int64_t a_stride_m, a_stride_k, b_stride_k, b_stride_n, c_stride_m;
    int64_t m, n, k;
    void *packed;  // as many words of 4 bytes as _packed says, at a multiple of 4 bytes
    bool add;
};

// Whether these products are worth it here: AVX-512 on a processor for which MKL, the usual BLAS, chooses AVX2; for
// bfloat16 its dot products too: nobody else keeps their sums in float32.
bool vts_memory_product_pays(vts_dtype dtype);
int64_t vts_memory_product_packed(const vts_memory_product_params *p);
// For each block of k, [0, blocks): run every task of pack, then every task of run, each on any thread.
int64_t vts_memory_product_blocks(const vts_memory_product_params *p);
int64_t vts_memory_product_pack_tasks(const vts_memory_product_params *p);
int64_t vts_memory_product_run_tasks(const vts_memory_product_params *p);
void vts_memory_product_pack_cpu(const vts_memory_product_params *p, int64_t block, int64_t begin, int64_t end);
void vts_memory_product_run_cpu(const vts_memory_product_params *p, int64_t block, int64_t begin, int64_t end);

}  // extern "C"
