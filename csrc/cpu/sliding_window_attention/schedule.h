// How the work is cut: a task is a strip of rows of one phase of one sequence of one head.
//
// Dilation: frames i, i + dilation, ... of a sequence form a sequence of their own with a plain window, so the kernel
// walks `dilation` interleaved sequences (phases) and knows nothing more of it.
#pragma once

#include "../vec.h"
#include "vtsum/sliding_window_attention.h"

namespace vts::VTS_LEVEL {

typedef vts_sliding_window_attention_params params;

VTS_INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
VTS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
VTS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
VTS_INLINE int64_t ceil_div(int64_t x, int64_t by) { return (x + by - 1) / by; }

// The sizes of a strip. Every level uses the same ones, so the task counts agree.
struct cut {
    int64_t left, right, keys;  // a window's keys = left + right + 1
    int64_t reach;              // how far from its row a shifted window's key can lie, on either side
    int64_t rows;               // rows of a strip whose results it owns, and keys: dq, dk and dv
    int64_t scored;             // rows whose scores it computes: backward needs those of its neighbours too
    int64_t tasks;

    cut(const params &p, bool backward) {
        int64_t longest = p.T;
        if (p.cu_seqlens) {
            longest = 0;
            for (int64_t n = 0; n < p.sequences; ++n)
                longest = larger(longest, (int64_t)p.cu_seqlens[n + 1] - p.cu_seqlens[n]);
        }
        const int64_t length = ceil_div(longest, p.dilation), most = larger(length - 1, 0);
        left = p.left < 0 ? most : smaller(p.left, most), right = p.right < 0 ? most : smaller(p.right, most);
        keys = left + right + 1, reach = left + right;
        // Whole vectors of rows at every level; no more of them than the sequence has.
        if (backward) {
            scored =
                smaller(round_up(larger(80, keys <= 128 ? 6 * keys : 3 * keys), 16), round_up(length + keys - 1, 16));
            rows = scored - (keys - 1);
        } else {
            scored = rows = smaller(keys <= 64 ? 64 : 128, round_up(length, 16));
        }
        if (rows < 16) rows = 16, scored = round_up(16 + keys - 1, 16);
        tasks = 0;
        if (p.cu_seqlens) {
            for (int64_t n = 0; n < p.sequences; ++n) tasks += tasks_of(p, p.cu_seqlens[n + 1] - p.cu_seqlens[n]);
        } else {
            tasks = p.B * tasks_of(p, p.T);
        }
    }

    int64_t strips(const params &p, int64_t frames) const { return ceil_div(ceil_div(frames, p.dilation), rows); }
    // Phases of a sequence that have a frame.
    static int64_t phases(const params &p, int64_t frames) { return smaller(p.dilation, frames); }
    int64_t tasks_of(const params &p, int64_t frames) const { return p.H * phases(p, frames) * strips(p, frames); }

    // Rows scored in a strip whose band is wider than the window, as at the ends of a sequence with shifted windows.
    int64_t scored_wide(bool backward) const { return round_up(rows + (backward ? 2 * reach : 0), 16); }
};

struct strip {
    int64_t b, h, key_head;
    int64_t first, frames;  // of the sequence
    int64_t phase, length;  // of the phase: its frames are first + phase + t * dilation, 0 <= t < length
    int64_t start;          // the strip's first row, in the phase

    // A task's number in statistics [B, H, T], in units of frames.
    int64_t frame(const params &p, int64_t t) const { return first + phase + t * p.dilation; }
};

// Finds the strip of a task. Tasks asked for must not fall.
class schedule {
  public:
    schedule(const params &p, const cut &c) : p(p), c(c) {}

    strip find(int64_t task) {
        strip at;
        at.first = 0, at.frames = p.T;
        if (p.cu_seqlens) {
            for (;;) {
                at.first = p.cu_seqlens[sequence], at.frames = p.cu_seqlens[sequence + 1] - at.first;
                const int64_t here = c.tasks_of(p, at.frames);
                if (task < before + here || sequence + 1 >= p.sequences) break;
                before += here, ++sequence;
            }
            task -= before;
        }
        const int64_t strips = c.strips(p, at.frames);
        // Heads run fastest where they lie closest in memory ([B, T, H, D] seen as [B, H, T, D]).
        if (p.q.stride_h < p.q.stride_t) {
            at.h = task % p.H, task /= p.H;
            at.start = task % strips * c.rows, task /= strips;
        } else {
            at.start = task % strips * c.rows, task /= strips;
            at.h = task % p.H, task /= p.H;
        }
        at.key_head = at.h / (p.H / p.K);
        const int64_t phases = larger(c.phases(p, at.frames), 1);
        at.phase = task % phases, at.b = task / phases;
        at.length = at.frames > at.phase ? ceil_div(at.frames - at.phase, p.dilation) : 0;
        return at;
    }

  private:
    const params &p;
    const cut &c;
    int64_t sequence = 0, before = 0;  // where packed sequences stand, and the tasks before this one's
};

}  // namespace vts::VTS_LEVEL
