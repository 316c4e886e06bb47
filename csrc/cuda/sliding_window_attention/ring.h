// Sliding-window attention for windows of at most 9 keys, on CUDA cores: what its forward and backward kernels share.
//
// At this size attention is a matter of memory: a token and head of 64 bfloat16 is 512 bytes forward (q, k, v, out) and
// 896 backward (q, k, v, dout, dq, dk, dv). At 4.3 TB/s an H200 moves four tokens, what a warp's instructions serve, in
// 107 and 188 clocks of one of its 132 multiprocessors, in which that issues 4 instructions a clock: 428 and 750 for
// four tokens. Hence this layout:
//
// - A group of LANES threads walks a strip of a sequence; a thread holds 16 bytes of a row, a group a row, a warp
//   32 / LANES strips. Rows go from memory to shared memory by cp.async, 8 rows ahead. A thread copies the very bytes
//   that it reads later: these are queues of its own, without barriers, and registers hold only what is at work.
// - 8 rows make a block. Its dot products are summed over the group by a transposing butterfly: 8 sums cost 7 shuffles,
//   not 24, and end with all scores of row r in lane r, which takes the softmax of its row alone: one exp2 serves 8.
// - The window's rows, unpacked to float, live in registers, row j in slot j % 8: a block of 8 rows leaves the ring as
//   it was, so unrolled code needs no moves. (With 9 keys the newest takes the oldest's slot once that is used.)
// - Keys that are padded or outside the sequence are never read: zeros stand in for them, and their scores are -inf.
//
// A warp's instructions for four tokens (SASS for sm_90, bfloat16, D = 64, no padding in sight), and what share of the
// issue slots they take at 85% of the bandwidth forward and 75% backward:
//
//     keys               3          5          7          9
//     forward     125  25%   174  35%   218  43%   265  53%
//     backward    292  29%   399  40%   526  53%   639  64%
//
// Of a forward with 5 keys 80 multiply and add, 24 unpack, 18 choose and sum in the butterfly, 9 shuffle, 3 load. Rows
// in flight: 24 of 512 bytes a warp forward, 8 to 24 backward; 8 to 16 warps a multiprocessor (registers) forward, 8
// backward (57 KiB of shared memory for two warps: 4 blocks are the whole of an H200's 228).
#pragma once

#include "../device.h"
#include "dropout.h"
#include "ring_plan.h"

namespace vts::sliding_window_attention::ring {

// Where a unit lies. `rows` is 0 for groups past the last unit: they shuffle along with their warp.
struct unit {
    int b, h, phase, first, rows, frames;  // first row, rows and the rows of the whole phase, in steps of the dilation

    __device__ unit(const params &p, const plan &cut, int64_t index) {
        const bool exists = index < cut.units;
        unsigned rest = exists ? static_cast<unsigned>(index) : 0u;
        const unsigned heads = static_cast<unsigned>(p.H), strips = cut.strips, phases = cut.phases;
        unsigned strip;
        if (cut.heads_fastest) h = rest % heads, rest /= heads;
        strip = rest % strips, rest /= strips;
        phase = rest % phases, rest /= phases;
        if (!cut.heads_fastest) h = rest % heads, rest /= heads;
        b = rest;
        const unsigned length = p.T, dilation = p.dilation;  // 64-bit division is a function call
        frames = static_cast<int>((length - phase + dilation - 1) / dilation);
        first = strip * cut.rows;
        rows = exists ? max(0, min(cut.rows, frames - first)) : 0;
    }
    __device__ int64_t statistic(const params &p, int row) const {
        return (static_cast<int64_t>(b) * p.H + h) * p.T + phase + static_cast<int64_t>(row) * p.dilation;
    }
};

// The rows of a tensor that a unit walks, this lane's 16 bytes of them; row 0 is the phase's row `origin`.
struct rows_of {
    char *at;
    int step;  // bytes from row to row

    template <typename T>
    __device__ static rows_of make(const vts_bhtd &x, const params &p, const unit &u, int head, int origin, int part) {
        rows_of y;
        const int64_t row = u.phase + origin * p.dilation;
        T *data = static_cast<T *>(x.data) + u.b * x.stride_b + head * x.stride_h + row * x.stride_t;
        y.at = reinterpret_cast<char *>(data) + part * 16;
        y.step = static_cast<int>(x.stride_t * p.dilation * static_cast<int64_t>(sizeof(T)));
        return y;
    }
    __device__ __forceinline__ char *row(int r) const { return at + static_cast<int64_t>(step) * r; }
    __device__ __forceinline__ void advance() { at += static_cast<int64_t>(step) * R; }
};

// Asks for rows first, ..., first + HALF - 1 of x; slot(i) is where row i goes. `whole`, the same in all of the warp:
// they all exist, and nobody needs to look at which.
template <typename Slot, typename Exists>
__device__ __forceinline__ void ask(const rows_of &x, int first, bool whole, Slot slot, Exists exists) {
    if (whole) {
#pragma unroll
        for (int i = first; i < first + HALF; ++i) cp_async_16(slot(i), x.row(i), true);
    } else {
#pragma unroll
        for (int i = first; i < first + HALF; ++i) cp_async_16(slot(i), x.row(i), exists(i));
    }
}

// Which lane of its group a thread is, and what a group does together.
template <int LANES>
struct group {
    static constexpr int OF_LANE = LANES < R ? R / LANES : 1;  // rows of a block whose scores a lane holds
    int lane, start;                                           // in the group; the group's first lane in the warp

    __device__ group() : lane(threadIdx.x % LANES), start(threadIdx.x % 32 / LANES * LANES) {}

    // The row that held slot i is for. Lanes past the eighth repeat the first eight.
    __device__ __forceinline__ int row(int i) const { return LANES < R ? i * LANES + lane : lane % R; }

    // The last of the rows that slot i is for in any lane.
    static constexpr __device__ int last_row(int i) { return LANES < R ? i * LANES + LANES - 1 : R - 1; }

    // Bit r of the result: the bit of row r.
    __device__ __forceinline__ uint32_t vote(const uint32_t (&mine)[OF_LANE]) const {
        uint32_t bits = 0;
#pragma unroll
        for (int i = 0; i < OF_LANE; ++i) {
            const uint32_t all = __ballot_sync(ALL, mine[i] != 0) >> start;
            bits |= (all & ((1u << (LANES < R ? LANES : R)) - 1)) << (i * LANES);
        }
        return bits;
    }

    // What the lane that holds row r has.
    template <int W>
    __device__ __forceinline__ float of_row(const float (&table)[OF_LANE][W], int r, int o) const {
        return __shfl_sync(ALL, table[LANES < R ? r / LANES : 0][o], r % LANES, LANES);
    }

    // One step of the butterfly: of two sums over lanes, one goes on in the lanes whose `bit` is 0, one in the others.
    template <int BIT>
    __device__ __forceinline__ float halve(float low, float high) const {
        const bool upper = (lane & BIT) != 0;
        const float keep = upper ? high : low, give = upper ? low : high;
        return keep + __shfl_xor_sync(ALL, give, BIT);
    }
};

// Sums the partial dot products of 8 rows with the keys of their windows; add() is called with r = 0, ..., 7 in turn.
template <int LANES, int W>
struct butterfly {
    float one[W] = {}, two[W] = {}, four[W] = {}, scores[group<LANES>::OF_LANE][W] = {};

    __device__ __forceinline__ void add(const group<LANES> &g, int r, int o, float sum) {
        if (r % 2 == 0) {
            one[o] = sum;
            return;
        }
        sum = g.template halve<1>(one[o], sum);
        if (r % 4 == 1) {
            two[o] = sum;
            return;
        }
        sum = g.template halve<2>(two[o], sum);
        if constexpr (LANES < 8) {
            scores[r / LANES][o] = sum;
        } else {
            if (r == 3) {
                four[o] = sum;
                return;
            }
            sum = g.template halve<4>(four[o], sum);
            if constexpr (LANES > 8) sum += __shfl_xor_sync(ALL, sum, 8);
            if constexpr (LANES > 16) sum += __shfl_xor_sync(ALL, sum, 16);
            scores[0][o] = sum;
        }
    }
};

// 16 bytes as floats.
template <typename T>
struct chunk {
    static constexpr int E = 16 / sizeof(T);
    float x[E] = {};

    __device__ __forceinline__ void set(const uint4 &raw) {
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (sizeof(T) == 4) {
                x[i] = __uint_as_float(words[i]);
            } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
                x[2 * i] = __uint_as_float(words[i] << 16);  // one instruction each, where CUDA's own take two
                x[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
            } else {
                const float2 pair = unpack<T>(words[i]);
                x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
            }
        }
    }
    __device__ __forceinline__ uint4 get() const {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (sizeof(T) == 4)
                words[i] = __float_as_uint(x[i]);
            else
                words[i] = pack<T>(x[2 * i], x[2 * i + 1]);
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
    __device__ __forceinline__ float dot(const chunk &y) const {
        float sum = x[0] * y.x[0];
#pragma unroll
        for (int e = 1; e < E; ++e) sum = fmaf(x[e], y.x[e], sum);
        return sum;
    }
    // CAREFUL: where a is 0, y is not looked at, for it may hold another sequence's NaN. (In assembly, since compilers
    // turn such a condition into branches.)
    template <bool CAREFUL>
    __device__ __forceinline__ void add(float a, const chunk &y) {
        if constexpr (!CAREFUL) {
#pragma unroll
            for (int e = 0; e < E; ++e) x[e] = fmaf(a, y.x[e], x[e]);
            return;
        }
#ifdef __CUDACC__
        if constexpr (CAREFUL && E == 8)
            asm("{.reg .pred p;\n"
                "setp.neu.f32 p, %8, 0f00000000;\n"
                "@p fma.rn.f32 %0, %8, %9, %0;\n"
                "@p fma.rn.f32 %1, %8, %10, %1;\n"
                "@p fma.rn.f32 %2, %8, %11, %2;\n"
                "@p fma.rn.f32 %3, %8, %12, %3;\n"
                "@p fma.rn.f32 %4, %8, %13, %4;\n"
                "@p fma.rn.f32 %5, %8, %14, %5;\n"
                "@p fma.rn.f32 %6, %8, %15, %6;\n"
                "@p fma.rn.f32 %7, %8, %16, %7;}\n"
                : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4 % E]), "+f"(x[5 % E]), "+f"(x[6 % E]),
                  "+f"(x[7 % E])
                : "f"(a), "f"(y.x[0]), "f"(y.x[1]), "f"(y.x[2]), "f"(y.x[3]), "f"(y.x[4 % E]), "f"(y.x[5 % E]),
                  "f"(y.x[6 % E]), "f"(y.x[7 % E]));
        else if constexpr (CAREFUL)
            asm("{.reg .pred p;\n"
                "setp.neu.f32 p, %4, 0f00000000;\n"
                "@p fma.rn.f32 %0, %4, %5, %0;\n"
                "@p fma.rn.f32 %1, %4, %6, %1;\n"
                "@p fma.rn.f32 %2, %4, %7, %2;\n"
                "@p fma.rn.f32 %3, %4, %8, %3;}\n"
                : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
                : "f"(a), "f"(y.x[0]), "f"(y.x[1]), "f"(y.x[2]), "f"(y.x[3]));
#else
        for (int e = 0; e < E && a != 0.0f; ++e) x[e] = fmaf(a, y.x[e], x[e]);
#endif
    }
};

// Which keys a unit may read. Keys count from the first that its first row may see. Bit c of `bits` is for key 8 n + c
// in block n, c < 24; the mask is read a block before it is needed.
template <int LANES>
struct key_bits {
    const uint8_t *mask;  // of key 0, null: none
    int64_t step;
    int low, count;  // keys low <= c < count are in the sequence and wanted
    uint32_t ahead[group<LANES>::OF_LANE], bits;

    __device__ key_bits(const params &p, const unit &u, const group<LANES> &g, int origin, int wanted) {
        step = p.mask_stride_t * p.dilation;
        mask = p.mask == nullptr ? nullptr
                                 : p.mask + u.b * p.mask_stride_b + (u.phase + origin * p.dilation) * p.mask_stride_t;
        low = -origin;
        count = min(wanted, u.frames - origin);
        uint32_t all[3];
#pragma unroll
        for (int part = 0; part < 3; ++part) {
            read(g, part * R);
            all[part] = g.vote(ahead);
        }
        bits = all[0] | all[1] << 8 | all[2] << 16;
    }
    __device__ __forceinline__ void read(const group<LANES> &g, int from) {
#pragma unroll
        for (int i = 0; i < group<LANES>::OF_LANE; ++i) {
            const int c = from + g.row(i);
            ahead[i] = c >= low && c < count ? (mask == nullptr ? 1u : mask[c * step]) : 0u;
        }
    }
    __device__ __forceinline__ void advance(const group<LANES> &g) { bits = bits >> 8 | g.vote(ahead) << 16; }
    __device__ __forceinline__ bool all(int c) const { return (bits >> c & 0xFFu) == 0xFFu; }  // c, ..., c + 7
    __device__ __forceinline__ bool operator[](int c) const { return (bits >> c & 1) != 0; }
};

// Packed sequences: the keys of a row's window that are of its own sequence, as bits.
__device__ __forceinline__ uint32_t own_keys(const params &p, int row, int frames) {
    if (row < 0 || row >= frames) return 0;
    const int window = row - static_cast<int>(p.left);  // where it begins
    const int first = max(p.bounds[row] - window, 0);
    const int end = min(max(p.bounds[p.T + row] - window, 0), MOST_KEYS);
    return ((1u << end) - 1) & ~((1u << first) - 1);
}

// The softmax of a row of head h whose scores are q . k: weights in place, 0 for what is not seen. Returns the
// log-sum-exp.
template <int W>
__device__ __forceinline__ float softmax(
    float (&s)[W], uint32_t seen, float scale_log2, const params &p, int h, int keys) {
    float top = -INFINITY, total = 0.0f;
#pragma unroll
    for (int o = 0; o < W; ++o) s[o] *= scale_log2;
    if (p.bias != nullptr) {
        // (a 32-bit offset in bytes, so that no register is kept for it)
        const unsigned offset = static_cast<unsigned>(h * keys) * static_cast<unsigned>(sizeof(float));
        const float *const bias = reinterpret_cast<const float *>(static_cast<const char *>(p.bias) + offset);
#pragma unroll
        for (int o = 0; o < W; ++o)
            if (o < keys) s[o] = fmaf(bias[o], LOG2_E, s[o]);
    }
#pragma unroll
    for (int o = 0; o < W; ++o) {
        s[o] = seen >> o & 1 ? s[o] : -INFINITY;
        top = fmaxf(top, s[o]);
    }
    const float base = top == -INFINITY ? 0.0f : top;
#pragma unroll
    for (int o = 0; o < W; ++o) {
        s[o] = exp2f(s[o] - base);
        total += s[o];
    }
    float statistic = base;
    const float keep = join_sink(p, h, statistic, total), share = total == 0.0f ? 0.0f : __fdividef(keep, total);
#pragma unroll
    for (int o = 0; o < W; ++o) s[o] = seen >> o & 1 ? s[o] * share : 0.0f;  // share may be NaN
    return total == 0.0f ? -INFINITY : fmaf(log2f(total), LN_2, statistic * LN_2);
}

// Dropout: a bit for each key of a row's window that is kept. Beside the rings there are few registers: one word at a
// time is drawn, and `kept` is all that stays.
__device__ __forceinline__ uint32_t kept_keys(const params &p, const unit &u, int row, int keys) {
    const dropout drop(p.seed, p.drop_below, static_cast<int64_t>(u.b) * p.H + u.h, p.row_offset);
    const unsigned dilation = static_cast<unsigned>(p.dilation);  // what lies outside of the sequence may wrap round
    const unsigned frame = u.phase + static_cast<unsigned>(row) * dilation;
    unsigned key = frame - static_cast<unsigned>(p.left) * dilation;
    uint32_t kept = 0;
#pragma unroll 1
    for (int o = 0; o < keys; ++o, key += dilation)
        kept |= drop.keeps(static_cast<int>(frame), static_cast<int>(key)) ? 1u << o : 0u;
    return kept;
}

// What dropout makes of the weights of a row, or of the gradients with respect to them.
template <int W>
__device__ __forceinline__ void drop_out(float (&s)[W], uint32_t kept, const params &p) {
    const float keep_scale = static_cast<float>(p.keep_scale);
#pragma unroll
    for (int o = 0; o < W; ++o) s[o] = kept >> o & 1 ? s[o] * keep_scale : 0.0f;
}

}  // namespace vts::sliding_window_attention::ring
