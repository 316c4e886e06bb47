// Sliding-window attention on CUDA cores, forward, for any window and option: one pass over the window's keys with a
// running maximum.
#include "general.h"

namespace vts::sliding_window_attention {
namespace {

constexpr int U = 4;  // keys at a time: their loads are under way together

template <typename T, int LANES, bool WHOLE>
__global__ void __launch_bounds__(THREADS) sliding_window_attention_fwd_kernel(const __grid_constant__ params p) {
    const group<T, LANES, WHOLE> g(p);
    const int64_t index = g.index(), rows = p.B * p.H * p.T;
    const spot at = g.at_index(index < rows ? index : 0);  // a group without a row still takes part in the shuffles
    const float scale = static_cast<float>(p.scale), keep_scale = static_cast<float>(p.keep_scale);
    const float *bias = g.bias_of(at.h);
    const dropout drop(p.seed, p.drop_below, at.b * p.H + at.h, p.row_offset);
    float q[E], out[E] = {};
    g.read(g.row(p.q, at.b, at.h) + at.t * p.q.stride_t, q);
    const reach keys = keys_of_row(p, at.t);
    const int dilation = dilation_of(p), steps = longest(keys.count);
    const T *k_row = g.row(p.k, at.b, g.key_head(at.h)), *v_row = g.row(p.v, at.b, g.key_head(at.h));
    float top = g.first_top(at.h), total = g.first_total();
    uint32_t kept = ~0u;
    for (int o = 0; o < steps; o += U) {
        float k[U][E], v[U][E], s[U];
        bool live[U];
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
        for (int u = 0; u < U; ++u) s[u] = g.capped(g.dot(q, k[u]) * scale);
        float higher = top;
#pragma unroll
        for (int u = 0; u < U; ++u) {
            if (!live[u]) continue;
            if (bias != nullptr) s[u] += bias[keys.entry + o + u];
            if (s[u] > higher) higher = s[u];  // NaN in s reaches the result through the weight
        }
        const float base = higher == -INFINITY ? 0.0f : higher, factor = expf(top - base);
        top = higher, total *= factor;
#pragma unroll
        for (int e = 0; e < E; ++e) out[e] *= factor;
#pragma unroll
        for (int u = 0; u < U; ++u) {
            if (!live[u]) continue;
            float weight = expf(s[u] - base);
            total += weight;
            if (p.seed != nullptr) weight = kept >> ((o + u) % LANES) & 1 ? weight * keep_scale : 0.0f;
#pragma unroll
            for (int e = 0; e < E; ++e) out[e] = fmaf(weight, v[u][e], out[e]);
        }
    }
    if (index >= rows) return;
    const bool sees = total != 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) out[e] *= sees ? 1.0f / total : 0.0f;
    g.write(p.out, at, out);
    if (p.lse != nullptr && g.lane == 0)
        static_cast<float *>(p.lse)[g.statistic(at, at.t)] = sees ? top + logf(total) : -INFINITY;
}

template <typename T, int LANES, bool WHOLE>
struct forward {
    static int run(const params &p, cudaStream_t stream) {
        const int64_t rows = p.B * p.H * p.T, blocks = (rows * LANES + THREADS - 1) / THREADS;
        if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
        return VTS_LAUNCH(
            (sliding_window_attention_fwd_kernel<T, LANES, WHOLE>), dim3(static_cast<unsigned>(blocks)), THREADS, 0,
            stream, p);
    }
};

}  // namespace

bool general_takes(const params &p, bool) {
    constexpr int64_t rows = THREADS / 32, most = rows * 0x7FFFFFFF;  // of a block, at least; of a grid
    return p.D >= 1 && p.D <= 256 && p.T <= 0x3FFFFFFF && p.B * p.H * p.T <= most && p.dtype != VTS_FLOAT64;
}

int general_fwd(const params &p, cudaStream_t stream) { return for_dtype<forward>(p, stream); }

}  // namespace vts::sliding_window_attention
