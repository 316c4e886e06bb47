// Sliding-window attention on CUDA cores, backward, for any window and option.
//
// The first kernel gives each row its lse, its delta and dq; in the second each key gathers dk and dv from the rows
// that see it; in a third, each entry of the bias gathers its gradient from a chunk of rows, and a last one adds up the
// chunks. Every output is written once, by its owner, in a fixed order: no atomics, and the same bits each time.
#include <algorithm>

#include "general.h"

namespace vts::sliding_window_attention {
namespace {

constexpr int U = 2;  // pairs at a time: their loads are under way together

// CAPPED: scores are, which takes registers that other calls have a use for.
template <typename T, int LANES, bool WHOLE, bool CAPPED>
__global__ void __launch_bounds__(THREADS, CAPPED ? 4 : 1)
    sliding_window_attention_bwd_rows_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const int64_t index = g.index(), rows = p.B * p.H * p.T;
    const spot at = g.at_index(index < rows ? index : 0);
    const float scale = static_cast<float>(p.scale), keep_scale = static_cast<float>(p.keep_scale);
    const float *bias = g.bias_of(at.h);
    const dropout drop(p.seed, p.drop_below, at.b * p.H + at.h, p.row_offset);
    float q[E], dout[E], dq[E] = {};
    g.read(g.row(p.q, at.b, at.h) + at.t * p.q.stride_t, q);
    g.read(g.row(p.dout, at.b, at.h) + at.t * p.dout.stride_t, dout);
    const reach keys = keys_of_row(p, at.t);
    const int dilation = dilation_of(p), steps = longest(keys.count);
    const T *k_row = g.row(p.k, at.b, g.key_head(at.h)), *v_row = g.row(p.v, at.b, g.key_head(at.h));
    uint32_t kept = ~0u;
    float lse, delta;
    // What both passes need of the pairs o to o + U - 1: scores s, keep * dout . v as `dp`, and the keys.
    float k[U][E], s[U], dp[U], slope[U];
    bool live[U];
    const auto pairs = [&](int o) {
        float v[U][E];
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const int j = o + u < keys.count ? keys.first + (o + u) * dilation : at.t;
            live[u] = o + u < keys.count && !g.padded(at.b, j);
            g.read(k_row + j * p.k.stride_t, k[u]);
            g.read(v_row + j * p.v.stride_t, v[u]);
        }
        if (p.seed != nullptr && o % LANES == 0)
            kept =
                g.kept(drop, o, [&](const dropout &d, int n) { return d.keeps(at.t, frame(keys.first, n, dilation)); });
#pragma unroll
        for (int u = 0; u < U; ++u) s[u] = g.dot(q, k[u]) * scale, dp[u] = g.dot(dout, v[u]);
#pragma unroll
        for (int u = 0; u < U; ++u) {
            if constexpr (CAPPED) s[u] = g.capped(s[u]), slope[u] = g.slope(s[u]);
            if (bias != nullptr && live[u]) s[u] += bias[keys.entry + o + u];
            if (p.seed != nullptr) dp[u] = kept >> ((o + u) % LANES) & 1 ? dp[u] * keep_scale : 0.0f;
        }
    };
    if (p.lse != nullptr && p.out.data != nullptr) {
        float out[E];
        g.read(g.row(p.out, at.b, at.h) + at.t * p.out.stride_t, out);
        lse = static_cast<const float *>(p.lse)[g.statistic(at, at.t)];
        delta = g.dot(dout, out);
        if (lse == -INFINITY) lse = INFINITY, delta = 0.0f;
    } else {
        float top = g.first_top(at.h), total = g.first_total();
        delta = 0.0f;
        for (int o = 0; o < steps; o += U) {
            pairs(o);
            float higher = top;
#pragma unroll
            for (int u = 0; u < U; ++u)
                if (live[u] && s[u] > higher) higher = s[u];
            const float base = higher == -INFINITY ? 0.0f : higher, factor = expf(top - base);
            top = higher, total *= factor, delta *= factor;
#pragma unroll
            for (int u = 0; u < U; ++u) {
                const float weight = live[u] ? expf(s[u] - base) : 0.0f;
                total += weight;
                if (live[u]) delta = fmaf(weight, dp[u], delta);
            }
        }
        const bool sees = total != 0.0f;
        lse = sees ? top + logf(total) : INFINITY;
        delta = sees ? delta / total : 0.0f;
    }
    const float down = p.dlse == nullptr ? 0.0f : static_cast<const float *>(p.dlse)[g.statistic(at, at.t)];
    // A row without a gradient is as one that sees nothing, whatever it and its keys hold.
    if (!g.any(dout) && down == 0.0f) lse = INFINITY, delta = 0.0f;
    if (lse != INFINITY) delta -= down;
    for (int o = 0; o < steps; o += U) {
        pairs(o);
#pragma unroll
        for (int u = 0; u < U; ++u) {
            if (!live[u] || lse == INFINITY) continue;
            float ds = expf(s[u] - lse) * (dp[u] - delta) * scale;
            if constexpr (CAPPED) ds *= slope[u];
#pragma unroll
            for (int e = 0; e < E; ++e) dq[e] = fmaf(ds, k[u][e], dq[e]);
        }
    }
    if (index >= rows) return;
    g.write(p.dq, at, dq);
    if (g.lane == 0) {
        const scratch_of scratch(p);
        scratch.lse[g.statistic(at, at.t)] = lse, scratch.delta[g.statistic(at, at.t)] = delta;
        if (p.delta != nullptr) static_cast<float *>(p.delta)[g.statistic(at, at.t)] = delta;
    }
}

template <typename T, int LANES, bool WHOLE>
__global__ void __launch_bounds__(THREADS) sliding_window_attention_bwd_keys_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const int64_t index = g.index(), all = p.B * p.H * p.T;
    const spot at = g.at_index(index < all ? index : 0);
    const float scale = static_cast<float>(p.scale), keep_scale = static_cast<float>(p.keep_scale);
    const float *bias = g.bias_of(at.h);
    const dropout drop(p.seed, p.drop_below, at.b * p.H + at.h, p.row_offset);
    const scratch_of scratch(p);
    float k[E], v[E], dk[E] = {}, dv[E] = {};
    g.read(g.row(p.k, at.b, g.key_head(at.h)) + at.t * p.k.stride_t, k);
    g.read(g.row(p.v, at.b, g.key_head(at.h)) + at.t * p.v.stride_t, v);
    const reach rows = rows_of_key(p, at.t);
    const int count = g.padded(at.b, at.t) ? 0 : rows.count;
    const int dilation = dilation_of(p), steps = longest(count);
    const T *q_row = g.row(p.q, at.b, at.h), *dout_row = g.row(p.dout, at.b, at.h);
    uint32_t kept = ~0u;
    for (int o = 0; o < steps; o += U) {
        float q[U][E], dout[U][E], lse[U], delta[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const int i = o + u < count ? rows.first + (o + u) * dilation : at.t;
            g.read(q_row + i * p.q.stride_t, q[u]);
            g.read(dout_row + i * p.dout.stride_t, dout[u]);
            lse[u] = scratch.lse[g.statistic(at, i)], delta[u] = scratch.delta[g.statistic(at, i)];
        }
        if (p.seed != nullptr && o % LANES == 0)
            kept =
                g.kept(drop, o, [&](const dropout &d, int n) { return d.keeps(frame(rows.first, n, dilation), at.t); });
        float s[U], dp[U];
#pragma unroll
        for (int u = 0; u < U; ++u) s[u] = g.capped(g.dot(q[u], k) * scale), dp[u] = g.dot(dout[u], v);
#pragma unroll
        for (int u = 0; u < U; ++u) {
            if (o + u >= count || lse[u] == INFINITY) continue;
            const float slope = g.slope(s[u]);
            if (bias != nullptr) s[u] += bias[rows.entry - (o + u)];
            const float weight = expf(s[u] - lse[u]);
            float given = weight;
            if (p.seed != nullptr) {
                const float keep = kept >> ((o + u) % LANES) & 1 ? keep_scale : 0.0f;
                given *= keep, dp[u] *= keep;
            }
            const float ds = weight * (dp[u] - delta[u]) * slope * scale;
#pragma unroll
            for (int e = 0; e < E; ++e) {
                dk[e] = fmaf(ds, q[u][e], dk[e]);
                dv[e] = fmaf(given, dout[u][e], dv[e]);
            }
        }
    }
    if (index >= all) return;
    g.write(p.dk, at, dk);
    g.write(p.dv, at, dv);
}

// A group serves one entry of a head's bias, and a chunk of the B * T rows. There may be more of them than a grid has
// blocks for: a block takes several turns.
template <typename T, int LANES, bool WHOLE>
__global__ void __launch_bounds__(THREADS) sliding_window_attention_bwd_bias_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const scratch_of scratch(p);
    const int64_t entries = bias_entries(p), all = p.H * scratch.chunks * entries;
    const float scale = static_cast<float>(p.scale), keep_scale = static_cast<float>(p.keep_scale);
    const int dilation = dilation_of(p);
    for (int64_t index = g.index(); __any_sync(WARP, index < all); index += gridDim.x * int64_t{THREADS / LANES}) {
        int64_t rest = index < all ? index : 0;
        const int64_t h_and_chunk = divided(rest, entries);
        const int entry = static_cast<int>(rest);
        rest = h_and_chunk;
        const int h = static_cast<int>(divided(rest, scratch.chunks)), key_head = g.key_head(h);
        const int64_t first = rest * scratch.rows, behind = p.B * p.T - first;
        const int rows = static_cast<int>(scratch.rows), own = behind < rows ? static_cast<int>(behind) : rows;
        const float bias = g.bias_of(h)[entry];
        float sum = 0.0f;
        spot at;
        int64_t frame_of = first;
        at.b = divided(frame_of, p.T), at.h = h, at.t = static_cast<int>(frame_of);
        // Less than 2^27 rows: counted in 64 bits, they take a register that sm_100 has only by a spill.
        for (int r = 0; r < rows; ++r) {
            const reach keys = keys_of_row(p, at.t);
            const int step = entry - keys.entry;
            bool live = r < own && step >= 0 && step < keys.count;
            const int j = live ? keys.first + step * dilation : at.t;
            live = live && !g.padded(at.b, j);
            if (__any_sync(WARP, live)) {
                float q[E], k[E], dout[E], v[E];
                g.read(g.row(p.q, at.b, h) + at.t * p.q.stride_t, q);
                g.read(g.row(p.k, at.b, key_head) + j * p.k.stride_t, k);
                g.read(g.row(p.dout, at.b, h) + at.t * p.dout.stride_t, dout);
                g.read(g.row(p.v, at.b, key_head) + j * p.v.stride_t, v);
                const float s = g.capped(g.dot(q, k) * scale) + bias;
                float dp = g.dot(dout, v);
                if (p.seed != nullptr) {
                    const dropout drop(p.seed, p.drop_below, at.b * p.H + h, p.row_offset);
                    dp = drop.keeps(at.t, j) ? dp * keep_scale : 0.0f;
                }
                const int64_t row = g.statistic(at, at.t);
                if (live && scratch.lse[row] != INFINITY) sum += expf(s - scratch.lse[row]) * (dp - scratch.delta[row]);
            }
            if (r + 1 < own && ++at.t == p.T) at.t = 0, ++at.b;
        }
        if (index < all && g.lane == 0) scratch.partial[index] = sum;
    }
}

__global__ void __launch_bounds__(THREADS) sliding_window_attention_bwd_bias_sum_kernel(
    const float *partial, float *dbias, int64_t heads, int64_t chunks, int64_t entries) {
    int64_t index = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    for (; index < heads * entries; index += static_cast<int64_t>(gridDim.x) * THREADS) {
        const float *from = partial + index / entries * chunks * entries + index % entries;
        float sum = 0.0f;
        for (int64_t c = 0; c < chunks; ++c) sum += from[c * entries];
        dbias[index] = sum;
    }
}

inline dim3 bias_grid(int64_t threads) {
    return dim3(static_cast<unsigned>(std::min((threads + THREADS - 1) / THREADS, most_blocks())));
}

template <typename T, int LANES, bool WHOLE>
struct backward {
    static int run(const params &p, cudaStream_t stream) {
        const int64_t rows = p.B * p.H * p.T, blocks = (rows * LANES + THREADS - 1) / THREADS;
        if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
        const dim3 grid(static_cast<unsigned>(blocks));
        const int of_rows =
            p.softcap > 0
                ? VTS_LAUNCH(
                      (sliding_window_attention_bwd_rows_kernel<T, LANES, WHOLE, true>), grid, THREADS, 0, stream, p)
                : VTS_LAUNCH(
                      (sliding_window_attention_bwd_rows_kernel<T, LANES, WHOLE, false>), grid, THREADS, 0, stream, p);
        if (of_rows != cudaSuccess) return of_rows;
        if (const int error =
                VTS_LAUNCH((sliding_window_attention_bwd_keys_kernel<T, LANES, WHOLE>), grid, THREADS, 0, stream, p))
            return error;
        if (p.dbias == nullptr) return 0;
        const scratch_of scratch(p);
        const int64_t entries = bias_entries(p);
        if (const int error = VTS_LAUNCH(
                (sliding_window_attention_bwd_bias_kernel<T, LANES, WHOLE>),
                bias_grid(p.H * scratch.chunks * entries * LANES), THREADS, 0, stream, p))
            return error;
        return VTS_LAUNCH(
            sliding_window_attention_bwd_bias_sum_kernel, bias_grid(p.H * entries), THREADS, 0, stream, scratch.partial,
            static_cast<float *>(p.dbias), p.H, scratch.chunks, entries);
    }
};

}  // namespace

int general_bwd(const params &p, cudaStream_t stream) { return for_dtype<backward>(p, stream); }

int64_t general_bwd_scratch(const params &p) {
    const int64_t partial = p.dbias == nullptr ? 0 : p.H * scratch_of(p).chunks * bias_entries(p);
    return (2 * p.B * p.H * p.T + partial) * static_cast<int64_t>(sizeof(float));
}

}  // namespace vts::sliding_window_attention
