// Which keys a row sees, and which rows see a key. vtsum/sliding_window_attention.h defines the windows.
#pragma once

#include "../device.h"
#include "vtsum/sliding_window_attention.h"

namespace vts::sliding_window_attention {

// Frames first, first + dilation, ... that a frame is paired with, and the bias entry of the first pair: from a row to
// its keys, the entry rises by one a step; from a key to its rows, it falls.
struct reach {
    int first, count, entry;
};

struct sequence {
    int first, end;
};

__device__ __forceinline__ sequence sequence_of(const vts_sliding_window_attention_params &p, int t) {
    if (p.bounds == nullptr) return {0, static_cast<int>(p.T)};
    return {p.bounds[t], p.bounds[p.T + t]};
}

__device__ __forceinline__ int steps_in(int frames, int dilation) { return dilation == 1 ? frames : frames / dilation; }

// At most `back` steps before t and `ahead` after it (-1: no limit), inside the sequence.
__device__ __forceinline__ reach cut_off(const sequence &s, int t, int64_t back, int64_t ahead, int dilation) {
    if (t < s.first || t >= s.end) return {t, 0, 0};
    int before = steps_in(t - s.first, dilation), after = steps_in(s.end - 1 - t, dilation);
    if (back >= 0 && back < before) before = static_cast<int>(back);
    if (ahead >= 0 && ahead < after) after = static_cast<int>(ahead);
    return {t - before * dilation, before + after + 1, before};
}

// Dilation is at most T - 1 here: where no other frame can be reached it makes no difference, and a step fits an int.
__device__ __forceinline__ int dilation_of(const vts_sliding_window_attention_params &p) {
    return p.dilation < p.T ? static_cast<int>(p.dilation) : static_cast<int>(p.T);
}

// Frame first + n * dilation; unsigned, for where n is past the end and the frame is not used.
__device__ __forceinline__ int frame(int first, int n, int dilation) {
    return static_cast<int>(static_cast<uint32_t>(first) + static_cast<uint32_t>(n) * static_cast<uint32_t>(dilation));
}

__device__ __forceinline__ reach keys_of_row(const vts_sliding_window_attention_params &p, int t) {
    const sequence s = sequence_of(p, t);
    const int dilation = dilation_of(p);
    if (p.border == VTS_TRUNCATE) {
        reach r = cut_off(s, t, p.left, p.right, dilation);
        r.entry = static_cast<int>(p.left) - r.entry;
        return r;
    }
    if (t < s.first || t >= s.end) return {t, 0, 0};
    // The frames of t's phase are numbered from 0 to `frames` - 1; t is number `own`.
    const int own = steps_in(t - s.first, dilation), frames = own + steps_in(s.end - 1 - t, dilation) + 1;
    const int64_t width = p.left + p.right + 1, last = frames > width ? frames - width : 0;
    int64_t begin = own - p.left;
    begin = begin < 0 ? 0 : begin < last ? begin : last;
    const int from = static_cast<int>(begin), count = frames < width ? frames : static_cast<int>(width);
    return {t + (from - own) * dilation, count, static_cast<int>(from - own + p.left + p.right)};
}

__device__ __forceinline__ reach rows_of_key(const vts_sliding_window_attention_params &p, int t) {
    const sequence s = sequence_of(p, t);
    const int dilation = dilation_of(p);
    if (p.border == VTS_TRUNCATE) {
        reach r = cut_off(s, t, p.right, p.left, dilation);
        r.entry = static_cast<int>(p.left) + r.entry;
        return r;
    }
    if (t < s.first || t >= s.end) return {t, 0, 0};
    const int own = steps_in(t - s.first, dilation), frames = own + steps_in(s.end - 1 - t, dilation) + 1;
    const int64_t width = p.left + p.right + 1;
    // The first windows all begin at 0 and the last ones all end at the end.
    const int64_t from = own < width ? 0 : own - p.right;
    const int64_t to = own >= frames - width ? frames - 1 : own + p.left;
    const int first = static_cast<int>(from), count = static_cast<int>(to - from) + 1;
    return {t + (first - own) * dilation, count, static_cast<int>(own - first + p.left + p.right)};
}

}  // namespace vts::sliding_window_attention
