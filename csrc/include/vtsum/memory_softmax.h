// The softmax of memory retrieval over the slots: what lies between the two matrix products. Nothing of torch.
#pragma once

#include "common.h"

extern "C" {

// Shapes, all contiguous and of one type (float32, or float64): scores, weights, dweights, dscores [H, N, S];
// factor, lse, dlse, dfactor [H, N]; usage, dusage [H, S]; partial [tasks, S]; slot_mask [S] and query_mask [N]: bytes.
//   weights = softmax over slots of factor * scores, among the slots that slot_mask leaves; 0 in rows query_mask leaves
//   out usage   = sum over rows of weights
struct vts_memory_softmax_params {
    const void *scores, *factor;
    void *weights;  // forward: written; backward: read
    void *lse;      // forward: written
    void *partial;  // forward: written, the usage of each task's rows; tasks of head h are [h, h + 1) * tasks / H
    const void *dweights, *dlse, *dusage;   // backward: each may be null
    void *dscores, *dfactor;                // backward: written
    const uint8_t *slot_mask, *query_mask;  // null: everything is valid
    int64_t H, N, S;
    vts_dtype dtype;
};

// Rows of a task: fixed, so that sums do not depend on the number of threads.
enum : int64_t { VTS_MEMORY_SOFTMAX_ROWS = 64 };

// As for sliding-window attention: run every task in [0, tasks) once.
int64_t vts_memory_softmax_tasks(const vts_memory_softmax_params *p);
void vts_memory_softmax_fwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end);
void vts_memory_softmax_bwd_cpu(const vts_memory_softmax_params *p, int64_t begin, int64_t end);

}  // extern "C"
