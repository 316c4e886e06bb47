// The sparse half of memory retrieval: the k best slots of each row, and sums over them. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// Rows are numbered as for the softmax: (g * H + h) * n + i. A stands for float, or double where dtype is VTS_FLOAT64.
// The table is a bank [G, H, S, e] and `rows` a tensor [G, n, H, e], both with the last dimension dense: row s of (g,
// h) begins at g * table_stride_g + h * table_stride_h + s * table_stride_s, that of frame i of (g, h) at g *
// rows_stride_g + i * rows_stride_n + h * rows_stride_h, in elements. index [G, H, n, k], int32, contiguous, each in
// [0, S), repeats allowed; weights [G, H, n, k] of A, contiguous. Sums are of A, j from 0 to k - 1 in order.
//   gather      rows[g, i, h] = sum_j weights_j * table[g, h, index_j]                                (rows written)
//   gather_dot  weights_j     = rows[g, i, h] . table[g, h, index_j]                               (weights written)
//   scatter     table[g, h, s] = sum over (i, j) with index_ij = s of weights_ij * rows[g, i, h]     (table written)
// A weight of 0 counts for nothing in gather and scatter, whatever its row holds (NaN too).
// The sums of a scatter run over (i, j) in order: by a counting sort of the index, with `order` and `starts`.
struct vts_memory_gather_params {
    void *weights;
    const int32_t *index;
    void *table;
    int64_t table_stride_g, table_stride_h, table_stride_s;
    void *rows;
    int64_t rows_stride_g, rows_stride_n, rows_stride_h;
    int32_t *order;   // scatter, CPU: [G, H, n * k], the places i * k + j sorted by slot, in order within a slot
    int32_t *starts;  // scatter, CPU: [G, H, S + 1], where each slot's places begin in `order`
    int64_t G, H, n, k, S, e;
    vts_dtype dtype;  // of rows and table; weights are of A
};

// CPU: run every task in [0, tasks) once, on any thread; a task is a block of rows (gather, gather_dot) or slots
// (scatter). The sort fills order and starts and comes before the scatter; its tasks are the G * H heads.
int64_t vts_memory_gather_tasks(const vts_memory_gather_params *p);
void vts_memory_gather_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end);
void vts_memory_gather_dot_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end);
void vts_memory_sort_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end);
int64_t vts_memory_scatter_tasks(const vts_memory_gather_params *p);
void vts_memory_scatter_cpu(const vts_memory_gather_params *p, int64_t begin, int64_t end);

// CUDA, on a stream (cudaStream_t). Return 0 or a cudaError_t. The scatter sorts on its own, in `scratch`: as many
// bytes as _scratch says, aligned to 16. `order` and `starts` are not used.
int vts_memory_gather_cuda(const vts_memory_gather_params *p, void *stream);
int vts_memory_gather_dot_cuda(const vts_memory_gather_params *p, void *stream);
int64_t vts_memory_scatter_cuda_scratch(const vts_memory_gather_params *p);
int vts_memory_scatter_cuda(const vts_memory_gather_params *p, void *scratch, void *stream);

// CUDA; the CPU's search stands in memory_search.h. Merges a block of `slots` scores a row into the row's running k
// best: z_s = factor * scores_s + slot_bias_s, best first, ties to the lower slot. z of -inf or NaN is not taken.
// Blocks come in rising order of `first`. best and index are [rows, k]; with `start` they are written anew, else what
// they hold takes part. Places left over hold -inf and 0.
struct vts_memory_topk_params {
    const void *scores;  // [rows, slots] of A, rows `scores_stride` apart; row r is row row_first + r of [G, H, n]
    int64_t scores_stride;
    const void *factor;     // [G, H, n] of A
    const void *slot_bias;  // as in vts_memory_softmax_params
    int64_t bias_stride_g, bias_stride_h;
    void *best;      // [G * H * n, k] of A
    int32_t *index;  // [G * H * n, k]
    int64_t row_first, rows;
    int64_t first, slots;  // the block's slots are first, ..., first + slots - 1
    int64_t G, H, n, S, k;
    bool start;
    vts_dtype dtype;  // VTS_FLOAT32 or VTS_FLOAT64
};
enum : int64_t { VTS_MEMORY_TOPK_MOST = 1024 };  // the greatest k
int vts_memory_topk_merge_cuda(const vts_memory_topk_params *p, void *stream);

}  // extern "C"
