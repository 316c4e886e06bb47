// Sliding-window attention: the parameters and entry points that the kernels and the glue share. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// A [B, H, T, D] tensor: strides in elements, that of D is 1.
struct vts_bhtd {
    void *data;
    int64_t stride_b, stride_h, stride_t;
};

// Shapes: q, k, v, out, dout, dq, dk, dv [B, H, T, D]; lse, dlse [B, H, T], contiguous, float32 (float64 for float64);
// mask [B, T], bytes, 0 = padded. A window holds the keys i + o * dilation, -left <= o <= right, that lie in the
// sequence.
struct vts_sliding_window_attention_params {
    vts_bhtd q, k, v;
    vts_bhtd out;         // forward: written
    vts_bhtd dout;        // backward: read
    vts_bhtd dq, dk, dv;  // backward: written
    void *lse;            // forward: written unless null
    void *row_stats;      // backward on CUDA: float32 scratch [2, B, H, T], lse and delta of each row
    const void *dlse;     // backward: read unless null
    const uint8_t *mask;  // null: nothing is padded
    int64_t mask_stride_b, mask_stride_t;
    int64_t B, H, T, D;
    int64_t left, right, dilation;
    double scale;
    vts_dtype dtype;
};

// CPU. The work is cut into independent tasks, so that the caller's thread pool serves them: run every task in
// [0, tasks) once, in any order and on any thread. Each output element is written by one task, always in the same order
// of sums: results do not depend on the number of threads. Return 0, or 1 when there is no memory for scratch.
int64_t vts_sliding_window_attention_fwd_cpu_tasks(const vts_sliding_window_attention_params *p);
int vts_sliding_window_attention_fwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end);
int64_t vts_sliding_window_attention_bwd_cpu_tasks(const vts_sliding_window_attention_params *p);
int vts_sliding_window_attention_bwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end);

// CUDA, on a stream (cudaStream_t). Return 0 or a cudaError_t.
int vts_sliding_window_attention_fwd_cuda(const vts_sliding_window_attention_params *p, void *stream);
int vts_sliding_window_attention_bwd_cuda(const vts_sliding_window_attention_params *p, void *stream);

}  // extern "C"
