// What CUDA kernels of memory retrieval do beyond the softmax of given scores. Nothing of torch. On a stream
// (cudaStream_t); they return 0 or a cudaError_t. Statistics are float32.
#pragma once

#include "common.h"

extern "C" {

// The weights of few slots without their scores ever being stored: product, softmax, lse and usage in one kernel.
//   weights = softmax over the slots of factor * (x . key_s) + slot_bias_s,  as vts_memory_softmax_params has it
// x [G, n, H, d] and keys [G, H, S, d], the last dimension dense, strides in elements.
struct vts_memory_weights_params {
    const void *x;
    int64_t x_stride_g, x_stride_n, x_stride_h;
    const void *keys;
    int64_t keys_stride_g, keys_stride_h, keys_stride_s;
    const float *factor;     // [G, H, n]
    const float *slot_bias;  // null, or entry s of (g, h) at g * bias_stride_g + h * bias_stride_h + s
    int64_t bias_stride_g, bias_stride_h;
    const uint8_t *query_mask;  // null, or [G, n], 0: left out
    void *weights;              // [G, H, n, S], written
    float *lse;                 // [G, H, n], written
    float *usage;               // [G, H, S], written
    float *partial;             // scratch of as many bytes as _scratch says
    int64_t G, H, n, S, d;
    vts_dtype dtype, weights_dtype;  // of x and keys: VTS_FLOAT16 or VTS_BFLOAT16; of weights: the same, or VTS_FLOAT32
};
bool vts_memory_weights_cuda_takes(const vts_memory_weights_params *p);
int64_t vts_memory_weights_cuda_scratch(const vts_memory_weights_params *p);
int vts_memory_weights_fwd_cuda(const vts_memory_weights_params *p, void *stream);

// From u = ds K, the slopes of the scaled scores times the keys, to the gradients of rows and factors:
//   dx = factor u,  dfactor = x . u,  scaled = factor x,  and 0 in rows that query_mask leaves out.
struct vts_memory_slopes_params {
    const void *x;  // [G, n, H, d], the last dimension dense
    int64_t x_stride_g, x_stride_n, x_stride_h;
    void *u;                    // [G, n, H, d], contiguous: u is read, dx is written
    void *scaled;               // [G, n, H, d], contiguous, written
    const float *factor;        // [G, H, n]
    float *dfactor;             // [G, H, n], written
    const uint8_t *query_mask;  // null, or [G, n], 0: left out
    int64_t G, H, n, d;
    vts_dtype dtype;  // of x, u and scaled: not VTS_FLOAT64
};
int vts_memory_slopes_cuda(const vts_memory_slopes_params *p, void *stream);

// sum += term, `length` numbers.
int vts_memory_add_cuda(float *sum, const float *term, int64_t length, void *stream);

}  // extern "C"
