// The k best slots of each row on the CPU: every score, or first a shortlist by rounded products. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// A slot's score is z = factor * (x . key) + slot_bias in float32 (float64), where the dot product of a row and a key
// comes out the same wherever they stand. Best first, ties to the lower slot; scores of -inf or NaN are not taken, and
// places left over hold -inf and slot 0.
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

}  // extern "C"
