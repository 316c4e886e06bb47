// Memory attention, and memory_fuse's reads: the parameters and entry points that the kernels and the glue share.
// Nothing of torch. CUDA entry points work on a stream (cudaStream_t) and return 0 or a cudaError_t.
#pragma once

#include "common.h"

extern "C" {

// --- Softmax over the slots: what lies between the two matrix products -----------------------------------------------

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
    const void *x;      // [rows, d] of A, or bfloat16 where that is float32: `x_dtype`; rows x_stride apart
    const void *share;  // [rows] of A
    int64_t x_stride, rows, d;
    vts_dtype dtype, x_dtype;
};
void vts_memory_unproject_cpu(const vts_memory_unproject_params *p, int64_t begin, int64_t end);  // rows

// CUDA. _scratch: bytes that `partial` must have.
int64_t vts_memory_softmax_cuda_scratch(const vts_memory_softmax_params *p);
int vts_memory_softmax_fwd_cuda(const vts_memory_softmax_params *p, void *stream);
int vts_memory_softmax_bwd_cuda(const vts_memory_softmax_params *p, void *stream);

// --- CUDA, beyond the softmax of given scores; statistics are float32 ------------------------------------------------

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

// From u = ds K, the gradient of the scaled scores times the keys, to the gradients of rows and factors:
//   dx = factor u,  dfactor = x . u,  scaled = factor x,  and 0 in rows that query_mask leaves out.
struct vts_memory_factor_bwd_params {
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
int vts_memory_factor_bwd_cuda(const vts_memory_factor_bwd_params *p, void *stream);

// sum += term, `length` numbers.
int vts_memory_add_cuda(float *sum, const float *term, int64_t length, void *stream);

// CUDA. y = weights bank + bias + residual: what memory_fuse adds its other product to. All are contiguous, of one
// 16-bit dtype, their O and R multiples of 8, their addresses of 16; of up to 256 rows of the bank.
struct vts_memory_join_params {
    const void *weights;   // [N, R]
    const void *bank;      // [R, O]
    const void *bias;      // null, or [O]
    const void *residual;  // [N, O]
    void *y;               // [N, O], written
    int64_t N, R, O;
    vts_dtype dtype;
};
bool vts_memory_join_cuda_takes(const vts_memory_join_params *p);
int vts_memory_join_cuda(const vts_memory_join_params *p, void *stream);

// --- The k best slots of each row, and sums over them ----------------------------------------------------------------

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
    int32_t *order;   // scatter, CPU: [G, H, n * k], the positions i * k + j sorted by slot, in order within a slot
    int32_t *starts;  // scatter, CPU: [G, H, S + 1], where each slot's positions begin in `order`
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

// CUDA. The scatter sorts on its own, in `scratch`: as many bytes as _scratch says, aligned to 16. `order` and `starts`
// are not used.
int vts_memory_gather_cuda(const vts_memory_gather_params *p, void *stream);
int vts_memory_gather_dot_cuda(const vts_memory_gather_params *p, void *stream);
int64_t vts_memory_scatter_cuda_scratch(const vts_memory_gather_params *p);
int vts_memory_scatter_cuda(const vts_memory_gather_params *p, void *scratch, void *stream);

// CUDA. Merges a block of `slots` scores a row into the row's running k
// best: z_s = factor * scores_s + slot_bias_s, best first, ties to the lower slot. z of -inf or NaN is not taken.
// Blocks come in rising order of `first`. best and index are [rows, k]; with `start` they are written anew, else what
// they hold takes part. Entries left over hold -inf and 0.
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
// How many scores a block shall have: what the L2 cache of the current device holds of them.
int64_t vts_memory_topk_cuda_block(void);

// --- The search for the k best on the CPU: every score, or first a shortlist by rounded products ---------------------

// A slot's score is z = factor * (x . key) + slot_bias in float32 (float64), where the dot product of a row and a key
// comes out the same wherever they stand. Best first, ties to the lower slot; scores of -inf or NaN are not taken, and
// entries left over hold -inf and slot 0.
struct vts_memory_search_params {
    const void *x;          // [rows, d], rows x_stride apart
    const void *keys;       // [S, d], rows keys_stride apart
    const void *factor;     // [rows]
    const void *slot_bias;  // [S], or null
    void *best;             // [rows, k], written
    int32_t *index;         // [rows, k], written
    int64_t x_stride, keys_stride, rows, S, d, k;
    vts_dtype dtype;  // VTS_FLOAT32 or VTS_FLOAT64
    // Of a shortlist, float32 alone; see vts_memory_shortlist_params.
    const float *floors, *ceilings;
    const int32_t *counts, *kept;
    int64_t capacity;
};

// Every score. Tasks are blocks of rows.
int64_t vts_memory_search_tasks(const vts_memory_search_params *p);
void vts_memory_search_cpu(const vts_memory_search_params *p, int64_t begin, int64_t end);
// The scores of each row's shortlist; rows whose count is -1 are left alone. begin and end are rows.
void vts_memory_rescore_cpu(const vts_memory_search_params *p, int64_t begin, int64_t end);

// Rows rounded to bfloat16, with the norm of the rounded row and that of what rounding took away, both rounded up.
struct vts_memory_round_params {
    const float *rows;       // [n, d], rows `stride` apart
    uint16_t *rounded;       // [n, d]
    float *norm, *residual;  // [n]
    int64_t stride, n, d;
};
void vts_memory_round_cpu(const vts_memory_round_params *p, int64_t begin, int64_t end);

// Goes through a block of products of rounded rows and keys, and keeps each slot that may be among the row's k best.
struct vts_memory_shortlist_params {
    const uint16_t *scores;                      // [rows, slots], bfloat16, contiguous
    const float *row_norm, *row_residual;        // [rows]
    const float *slot_norm, *slot_residual;      // [slots]
    const float *factor;                         // [rows]
    const float *slot_bias;                      // [slots], or null
    int64_t rows, slots, d, first, k, capacity;  // the block's first slot is slot `first`
    float *floors;    // [rows, k]: the k largest lower bounds so far, a heap with the least in front; -inf to begin
    int32_t *counts;  // [rows]: how many slots are kept, 0 to begin; -1: more than there is room for
    int32_t *kept;    // [rows, capacity]
    float *ceilings;  // [rows, capacity]: their upper bounds
};
void vts_memory_shortlist_cpu(const vts_memory_shortlist_params *p, int64_t begin, int64_t end);  // rows

// --- Matrix products into float32 on the CPU, for processors whose AVX-512 the BLAS leaves unused --------------------

// c [m, n] = a [m, k] b [k, n] + bias, or c += a b with `add`; with `rounded` the result goes there, and c is what is
// added to and holds sums on their way. Strides in elements; c's rows are dense, and one of a's strides and one of b's
// is 1. Each element is summed over k in order, by one task: results do not depend on the threads.
struct vts_memory_product_params {
    const void *a, *b;  // float32, or both bfloat16: `dtype`
    float *c;
    vts_dtype dtype;
    int64_t a_stride_m, a_stride_k, b_stride_k, b_stride_n, c_stride_m;
    int64_t m, n, k;
    void *packed;  // as many words of 4 bytes as _packed says, at a multiple of 4 bytes
    bool add;
    const float *bias;  // [n] or null; not with `add`
    uint16_t *rounded;  // [m, n] or null: bfloat16, as a and b are
    int64_t rounded_stride_m;
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
