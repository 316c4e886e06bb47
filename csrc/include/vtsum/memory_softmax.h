// The softmax of memory retrieval over the slots: what lies between the two matrix products. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// A row is one frame of one head of one group (a batch entry with its own bank; 1 group where all share one):
// row (g * H + h) * n + i. Every tensor is contiguous. A stands for float, or double where dtype is VTS_FLOAT64.
//
// Forward:   z_s = factor * scores_s + slot_bias_s,  weights = softmax of z over the slots,  lse = log sum exp z,
//            usage_s = sum over the rows of (g, h) of weights_s (before weights are rounded to weights_dtype).
//            Rows that query_mask leaves out, and rows whose every z is -inf: weights 0, lse -inf, usage nothing.
// Backward:  gradient_s = dweights_s + dusage_s
//            ds_s = weights_s (gradient_s - sum_r weights_r gradient_r + dlse),  dslot_bias_s = sum over rows of ds_s
//            dscores = ds, or factor * ds with `scaled`. Rows that query_mask leaves out: 0.
struct vts_memory_softmax_params {
    const void *scores;         // forward: [G, H, n, S] of A, products before the factor. May be `weights` itself where
                                // that is of A: then the softmax overwrites them
    void *weights;              // [G, H, n, S] of weights_dtype. Forward: written; backward: read
    const void *factor;         // [G, H, n] of A. Backward: read with `scaled` alone
    const void *slot_bias;      // null, or of A: entry s of (g, h) at g * bias_stride_g + h * bias_stride_h + s.
    int64_t bias_stride_g;      // 0: shared by the groups
    int64_t bias_stride_h;      // 0: shared by the heads. -inf leaves a slot out; NaN is not defined
    const uint8_t *query_mask;  // null, or [G, n], 0: left out
    void *lse;                  // forward: [G, H, n] of A, written
    void *usage;                // forward: [G, H, S] of A, written; null: not wanted
    const void *dweights;       // backward: [G, H, n, S] of dweights_dtype, null: 0
    const void *dlse;           // backward: [G, H, n] of A, null: 0
    const void *dusage;         // backward: [G, H, S] of A, null: 0
    void *dscores;              // backward: [G, H, n, S] of dscores_dtype, written. May be `dweights` itself where the
                                // two are of one type
    void *dslot_bias;           // backward: [G, H, S] of A, written; null: not wanted
    void *partial;              // CPU: [tasks, S] of A, the column sums of each task's rows, where usage or dslot_bias
                                // are wanted, else null. CUDA: whatever its launcher's scratch function asks for
    bool scaled;
    int64_t G, H, n, S;
    vts_dtype dtype;                                         // VTS_FLOAT32 or VTS_FLOAT64
    vts_dtype weights_dtype, dweights_dtype, dscores_dtype;  // that of A, or for float VTS_FLOAT16 and VTS_BFLOAT16
};

// Rows of a task: fixed, so that sums do not depend on the number of threads.
enum : int64_t { VTS_MEMORY_SOFTMAX_ROWS = 64 };

// CPU. As for sliding-window attention: run every task in [0, tasks) once, on any thread, then the finish call, which
// adds up the tasks' column sums in order. Tasks of (g, h) follow one another: ceil(n / 64) of them.
// On the CPU all four types are that of A: 16-bit tensors are widened outside.
int64_t vts_memory_softmax_tasks(const vts_memory_softmax_params *p);
void vts_memory_softmax_fwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end);
void vts_memory_softmax_bwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end);
void vts_memory_softmax_sums_cpu(const vts_memory_softmax_params *p, void *sums);  // into usage or dslot_bias

// CPU. What the norm of a cosine passes back: row r of u loses (x_r . u_r) share_r^2 x_r, where share is 1 / |x|, or 0.
struct vts_memory_unproject_params {
    void *u;            // [rows, d] of A, contiguous; read and written
    const void *x;      // [rows, d] of A, rows x_stride apart
    const void *share;  // [rows] of A
    int64_t x_stride, rows, d;
    vts_dtype dtype;
};
void vts_memory_unproject_cpu(const vts_memory_unproject_params *p, int64_t begin, int64_t end);  // rows

// CUDA, on a stream (cudaStream_t). Return 0 or a cudaError_t. _scratch: bytes that `partial` must have.
int64_t vts_memory_softmax_cuda_scratch(const vts_memory_softmax_params *p);
int vts_memory_softmax_fwd_cuda(const vts_memory_softmax_params *p, void *stream);
int vts_memory_softmax_bwd_cuda(const vts_memory_softmax_params *p, void *stream);

}  // extern "C"
