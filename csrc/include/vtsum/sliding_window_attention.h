// Sliding-window attention: the parameters and entry points that the kernels and the glue share. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// A [B, H, T, D] tensor: strides in elements, that of D is 1.
struct vts_bhtd {
    void *data;
    int64_t stride_b, stride_h, stride_t;
};

enum vts_border : int32_t {
    VTS_TRUNCATE = 0,  // the window is cut off where the sequence ends
    VTS_SHIFT = 1      // the window is moved inside the sequence: every row keeps left + right + 1 keys, if there are
};

// Shapes: q, out, dout, dq, dk, dv [B, H, T, D]; k, v [B, K, T, D], where query head h reads key head h / (H / K): dk
// and dv are the share of each query head, and the caller adds those of a group. lse, dlse [B, H, T], contiguous, in
// the statistics' type: float32, float64 for float64. bias, dbias [H, N] in that type, N = left + right + 1 for
// truncated windows, where entry o is for key i + (o - left) * dilation; N = 2 (left + right) + 1 for shifted ones,
// where entry o is for key i + (o - left - right) * dilation. mask [B, T], bytes, 0 = padded.
//
// A sequence is a batch entry's T frames, or, with cu_seqlens (B = 1), frames cu_seqlens[n] to cu_seqlens[n + 1] - 1.
// A truncated window holds the keys i + o * dilation, -left <= o <= right, that lie in the sequence of row i. A shifted
// one is that of the nearest row whose window lies in the sequence whole; where the sequence is too short for any, it
// holds every dilation-th frame of the sequence that can be reached from i.
//
// A score is scale q_i . k_j; with softcap > 0, softcap tanh(scale q_i . k_j / softcap); the bias is added to that.
// With sinks, exp(sinks[h]) is added to the sum over a row's keys by which its weights are divided, and lse counts it:
// out and lse handed on to the backward pass do. The gradient of sinks is the caller's, who makes it of lse and delta.
// A row without a gradient may have any delta.
//
// Dropout: the weight of key j in row i is kept where word 0 of Philox4x32-10, key = the two halves of *seed (low half
// first), counter = (row_offset + i, row_offset + j, b * H + h, 0), is at least drop_below; what is kept is multiplied
// by keep_scale. row_offset is the number of frame 0 in a sequence of which these frames are a part.
struct vts_sliding_window_attention_params {
    vts_bhtd q, k, v;
    vts_bhtd out;         // forward: written; backward: read by kernels that need it, else null
    vts_bhtd dout;        // backward: read
    vts_bhtd dq, dk, dv;  // backward: written
    void *lse;            // forward: written unless null; backward: read by kernels that need it, else null
    const void *dlse;     // backward: read unless null
    const void *bias;     // null: none
    void *dbias;          // backward: written unless null
    void *scratch;        // backward: what the _scratch function asks for, uninitialised
    const uint8_t *mask;  // null: nothing is padded
    int64_t mask_stride_b, mask_stride_t;
    const int32_t *cu_seqlens;  // null: a batch entry is a sequence. [sequences + 1], rising from 0 to T
    int64_t sequences;
    const int32_t *bounds;  // CUDA, with cu_seqlens: [2, T], first frame of each frame's sequence and one past its last
    const int64_t *seed;    // null: no dropout
    uint32_t drop_below;
    double keep_scale;
    int64_t B, H, K, T, D;
    int64_t left, right;  // -1: unbounded (never with bias or shifted windows)
    int64_t dilation;
    vts_border border;
    double scale;
    vts_dtype dtype;
    uint32_t row_offset;
    const void *sinks;  // [H], in the statistics' type; null: none
    double softcap;     // 0: none
    void *delta;        // backward: written unless null. [B, H, T], in the statistics' type: sum_j p_j dp_j - dlse
};

// CPU. The work is cut into independent tasks, so that the caller's thread pool serves them: run every task in
// [0, tasks) once, in any order and on any thread. Each output element is written by one task, always in the same order
// of sums: results do not depend on the number of threads. Return 0, or 1 when there is no memory for scratch. With
// dbias, p->scratch holds a row of N sums for each task, and the finish call adds them up once every task is done.
int64_t vts_sliding_window_attention_fwd_cpu_tasks(const vts_sliding_window_attention_params *p);
int vts_sliding_window_attention_fwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end);
int64_t vts_sliding_window_attention_bwd_cpu_tasks(const vts_sliding_window_attention_params *p);
int64_t vts_sliding_window_attention_bwd_cpu_scratch(const vts_sliding_window_attention_params *p);  // bytes
int vts_sliding_window_attention_bwd_cpu(const vts_sliding_window_attention_params *p, int64_t begin, int64_t end);
void vts_sliding_window_attention_bwd_cpu_finish(const vts_sliding_window_attention_params *p);

// CUDA, on a stream (cudaStream_t). Return 0 or a cudaError_t. bounds is [2, T] int32, written from cu_seqlens.
int vts_sequence_bounds_cuda(const int32_t *cu_seqlens, int64_t sequences, int64_t T, int32_t *bounds, void *stream);
// The name of the family of kernels that serves a call; tensors are looked at for their layout alone.
const char *vts_sliding_window_attention_form_cuda(const vts_sliding_window_attention_params *p, bool backward);
int vts_sliding_window_attention_fwd_cuda(const vts_sliding_window_attention_params *p, void *stream);
int64_t vts_sliding_window_attention_bwd_cuda_scratch(const vts_sliding_window_attention_params *p);  // bytes
int vts_sliding_window_attention_bwd_cuda(const vts_sliding_window_attention_params *p, void *stream);

}  // extern "C"
