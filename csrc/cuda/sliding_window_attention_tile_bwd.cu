// Sliding-window attention with any window on tensor cores: the backward pass, in two kernels. The first owns rows: it
// computes delta = rowsum(dout * out) - dlse, leaves it in scratch, and writes dq. The second owns keys: it walks the
// rows that see them, computes the transposes of p and ds, and writes dk and dv. Each output is written once, by its
// owner, in a fixed order of sums. Both compute p from the forward's lse.
#include "sliding_window_attention_tile.h"

namespace vts::sliding_window_attention {
namespace {

constexpr int PART = 32, NARROW_PART = 16;  // keys scored at once; rows, beside twice as many sums

// Keys of a block of the first kernel, rows of a block of the second: fewer where the sums take more registers.
template <int D>
constexpr int STEP = D == 128 ? 32 : 64;
template <int D>
constexpr int RESIDENT = D == 128 ? 2 : 3;

template <typename T, int D>
struct bwd_shared {
    static constexpr int one = 0, other = TILE * D, blocks = 2 * TILE * D, block = 2 * STEP<D> * D;  // elements
    static constexpr int statistics = (blocks + 2 * block) * static_cast<int>(sizeof(T));            // bytes
    static constexpr int bytes = statistics + 2 * 2 * TILE * static_cast<int>(sizeof(float));
};

// What exp2 is given beside a row's scores: the lse in powers of two, or +inf, so that all weights are 0.
__device__ __forceinline__ float subtrahend(float lse) { return lse == -INFINITY ? INFINITY : lse * LOG2_E; }

// The dot products of 16 rows in shared memory with 16 rows in global memory, by one warp, into to[16].
template <typename T, int D>
__device__ __forceinline__ void dot_rows(
    float *to, const T *shared, const T *global, int64_t stride, uint32_t valid, const lane_of_rows<D> &lane) {
#pragma unroll
    for (int r = 0; r < 16; r += lane_of_rows<D>::rows_at_once) {
        float sum = 0.0f;
        if ((valid >> (lane.row + r) & 1) != 0) {
            float x[8], y[8];
            load_8(shared + place<D>(lane.row + r, lane.chunk), x);
            load_8(global + r * stride, y);
#pragma unroll
            for (int e = 0; e < 8; ++e) sum = fmaf(x[e], y[e], sum);
        }
#pragma unroll
        for (int step = 1; step < lane_of_rows<D>::chunks; step *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
        if (lane.chunk == 0) to[lane.row + r] = sum;
    }
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, RESIDENT<D>) sliding_window_attention_tile_bwd_rows_kernel(
    const __grid_constant__ params p, const __grid_constant__ tile_grid grid) {
    using layout = bwd_shared<T, D>;
    constexpr int KEYS = STEP<D>;
    VTS_DYNAMIC_SHARED(T, shared);
    const tile_place at(grid, static_cast<int>(p.H));
    const int frames = static_cast<int>(p.T), left = reach_of(p.left, p.T), right = reach_of(p.right, p.T);
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int row = at.first + warp * 16;
    const uint32_t exist = inside(row, 0, frames);
    const float scale = static_cast<float>(p.scale), factor = scale * LOG2_E;

    T *const queries = shared + layout::one + warp * 16 * D, *const douts = shared + layout::other + warp * 16 * D;
    T *const blocks = shared + layout::blocks;
    float *const deltas = reinterpret_cast<float *>(shared + layout::statistics / sizeof(T)) + warp * 16;
    const lane_of_rows<D> lane;
    lane.load(queries, lane.template address<const T>(p.q, at.b, at.h, row), p.q.stride_t, exist);
    lane.load(douts, lane.template address<const T>(p.dout, at.b, at.h, row), p.dout.stride_t, exist);
    cp_async_commit();
    const tile_walk<KEYS> walk(at.first, left, right, frames);
    tile_keys<KEYS> keys(p, at.b, walk.begin);
    pair_of_rows<T, D, KEYS> pairs(p.k, p.v, at.b, at.h / static_cast<int>(p.H / p.K), walk.begin);
    uint64_t valid = keys.next(), upcoming = 0;
    pairs.load(blocks, valid);
    cp_async_commit();

    cp_async_wait<1>();
    __syncwarp();
    dot_rows<T, D>(deltas, douts, lane.template address<const T>(p.out, at.b, at.h, row), p.out.stride_t, exist, lane);
    __syncwarp();
    const int64_t statistic = (static_cast<int64_t>(at.b) * p.H + at.h) * p.T + row;
    float less[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = g + 8 * half;
        less[half] = INFINITY, delta[half] = deltas[r];
        if ((exist >> r & 1) == 0) continue;
        less[half] = subtrahend(static_cast<const float *>(p.lse)[statistic + r]);
        if (p.dlse != nullptr) delta[half] -= static_cast<const float *>(p.dlse)[statistic + r];
        if (t == 0) static_cast<float *>(p.scratch)[statistic + r] = delta[half];
    }

    float dq[D / 8][4] = {};
    for (int n = 0; n < walk.blocks; ++n, valid = upcoming) {
        cp_async_wait<0>();
        __syncthreads();  // this block has arrived, and nobody reads the one before it any more
        if (n + 1 < walk.blocks) {
            upcoming = keys.next();
            pairs.load(blocks + ((n + 1) & 1) * layout::block, upcoming);
            cp_async_commit();
        }
#pragma unroll 1
        for (int part = 0; part < KEYS; part += PART) {
            const int first = walk.begin + n * KEYS + part;
            const tile_edges<PART> edges{row - left - first, row + right - first};
            if (edges.outside()) continue;
            const T *const part_keys = blocks + (n & 1) * layout::block + part * D;
            const uint32_t seen = static_cast<uint32_t>(valid >> part);

            float s[PART / 8][4], dp[PART / 8][4];
            tile_products<D>(s, queries, part_keys);
            tile_products<D>(dp, douts, part_keys + KEYS * D);
#pragma unroll
            for (int c = 0; c < PART / 8; ++c)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    dp[c][e] = power_of_2(fmaf(s[c][e], factor, -less[e / 2])) * (dp[c][e] - delta[e / 2]);
            if (edges.cut() || seen != ~0u) {
                const sight<uint32_t> visible(seen & edges.window(g), seen & edges.window(g + 8));
#pragma unroll
                for (int c = 0; c < PART / 8; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) dp[c][e] = visible.sees(c, e) ? dp[c][e] : 0.0f;
            }
#pragma unroll
            for (int m = 0; m < PART / 16; ++m) {
                uint32_t ds[4];
                round_to_a<T>(ds, dp, m);
                add_product<D>(dq, ds, part_keys + m * 16 * D);
            }
        }
    }

    put<D>(queries, dq, scale, scale);
    __syncwarp();
    lane.store(lane.template address<T>(p.dq, at.b, at.h, row), queries, p.dq.stride_t, exist);
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, RESIDENT<D>) sliding_window_attention_tile_bwd_keys_kernel(
    const __grid_constant__ params p, const __grid_constant__ tile_grid grid) {
    using layout = bwd_shared<T, D>;
    constexpr int ROWS = STEP<D>;
    VTS_DYNAMIC_SHARED(T, shared);
    const tile_place at(grid, static_cast<int>(p.H));
    const int frames = static_cast<int>(p.T), left = reach_of(p.left, p.T), right = reach_of(p.right, p.T);
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int key = at.first + warp * 16;  // the warp's first
    const uint32_t exist = inside(key, 0, frames);
    const float scale = static_cast<float>(p.scale), factor = scale * LOG2_E;

    uint32_t valid = exist;  // of the warp's keys, those that are not padding
    if (p.mask != nullptr) {
        const int lane = threadIdx.x % 32;
        const bool seen =
            lane < 16 && key + lane < frames && p.mask[at.b * p.mask_stride_b + (key + lane) * p.mask_stride_t] != 0;
        valid = __ballot_sync(0xFFFFFFFFu, seen);
    }
    T *const keys = shared + layout::one + warp * 16 * D, *const values = shared + layout::other + warp * 16 * D;
    T *const blocks = shared + layout::blocks;
    float *const statistics = reinterpret_cast<float *>(shared + layout::statistics / sizeof(T));  // [2][lse, delta]
    const lane_of_rows<D> lane;
    const int key_head = at.h / static_cast<int>(p.H / p.K);
    lane.load(keys, lane.template address<const T>(p.k, at.b, key_head, key), p.k.stride_t, valid);
    lane.load(values, lane.template address<const T>(p.v, at.b, key_head, key), p.v.stride_t, valid);

    const tile_walk<ROWS> walk(at.first, right, left, frames);  // row i sees key j where j - right <= i <= j + left
    pair_of_rows<T, D, ROWS> pairs(p.q, p.dout, at.b, at.h, walk.begin);
    const int64_t line = (static_cast<int64_t>(at.b) * p.H + at.h) * p.T;
    // The statistics of a block of rows, one row a thread: the first ROWS threads bring lse, the next ROWS delta.
    const auto look = [&](int n) {
        const int i = walk.begin + n * ROWS + static_cast<int>(threadIdx.x) % ROWS;
        const bool first = threadIdx.x < ROWS;
        if (threadIdx.x >= 2 * ROWS || i >= frames) return first ? INFINITY : 0.0f;
        const float x = static_cast<const float *>(first ? p.lse : p.scratch)[line + i];
        return first ? subtrahend(x) : x;
    };
    const auto keep = [&](int n, float x) {
        if (threadIdx.x < 2 * ROWS) statistics[(n & 1) * 2 * ROWS + threadIdx.x] = x;
    };
    const auto rows_from = [&](int n) {  // those of a block that there are
        const int rows = frames - (walk.begin + n * ROWS);
        return rows >= 64 ? ~uint64_t{0} : (uint64_t{1} << rows) - 1;
    };
    pairs.load(blocks, rows_from(0));
    cp_async_commit();
    keep(0, look(0));

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int n = 0; n < walk.blocks; ++n) {
        cp_async_wait<0>();
        __syncthreads();  // this block has arrived, and nobody reads the one before it any more
        float upcoming = 0.0f;
        if (n + 1 < walk.blocks) {
            pairs.load(blocks + ((n + 1) & 1) * layout::block, rows_from(n + 1));
            cp_async_commit();
            upcoming = look(n + 1);
        }
#pragma unroll 1
        for (int part = 0; part < ROWS; part += NARROW_PART) {
            const int first = walk.begin + n * ROWS + part;
            const tile_edges<NARROW_PART> edges{key - right - first, key + left - first};
            if (edges.outside()) continue;
            const T *const part_rows = blocks + (n & 1) * layout::block + part * D;
            const T *const part_douts = part_rows + ROWS * D;
            const float *const less = statistics + (n & 1) * 2 * ROWS + part, *const delta = less + ROWS;
            float s[NARROW_PART / 8][4], dp[NARROW_PART / 8][4];  // transposed: [keys, rows]
            tile_products<D>(s, keys, part_rows);
            tile_products<D>(dp, values, part_douts);
#pragma unroll
            for (int c = 0; c < NARROW_PART / 8; ++c) {
                const float2 l = *reinterpret_cast<const float2 *>(less + 8 * c + 2 * t);
                const float2 d = *reinterpret_cast<const float2 *>(delta + 8 * c + 2 * t);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    s[c][e] = power_of_2(fmaf(s[c][e], factor, e % 2 == 0 ? -l.x : -l.y));
                    dp[c][e] = s[c][e] * (dp[c][e] - (e % 2 == 0 ? d.x : d.y));
                }
            }
            if (edges.cut() || valid != 0xFFFFu) {
                const sight<uint32_t> visible(
                    (valid >> g & 1) != 0 ? edges.window(g) : 0, (valid >> (g + 8) & 1) != 0 ? edges.window(g + 8) : 0);
#pragma unroll
                for (int c = 0; c < NARROW_PART / 8; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        s[c][e] = visible.sees(c, e) ? s[c][e] : 0.0f;
                        dp[c][e] = visible.sees(c, e) ? dp[c][e] : 0.0f;
                    }
            }
#pragma unroll
            for (int m = 0; m < NARROW_PART / 16; ++m) {
                uint32_t a[4];
                round_to_a<T>(a, s, m);
                add_product<D>(dv, a, part_douts + m * 16 * D);
                round_to_a<T>(a, dp, m);
                add_product<D>(dk, a, part_rows + m * 16 * D);
            }
        }
        if (n + 1 < walk.blocks) keep(n + 1, upcoming);
    }

    put<D>(keys, dk, scale, scale);
    put<D>(values, dv, 1.0f, 1.0f);
    __syncwarp();
    lane.store(lane.template address<T>(p.dk, at.b, at.h, key), keys, p.dk.stride_t, exist);
    lane.store(lane.template address<T>(p.dv, at.b, at.h, key), values, p.dv.stride_t, exist);
}

template <typename T, int D>
int launch_bwd(const params &p, cudaStream_t stream) {
    constexpr int shared = bwd_shared<T, D>::bytes;
    const tile_grid rows = tiles_of(p, p.left < 0), keys = tiles_of(p, p.right < 0);
    const int error = VTS_LAUNCH(
        (sliding_window_attention_tile_bwd_rows_kernel<T, D>), grid_of(p, rows), dim3(TILE_THREADS), shared, stream, p,
        rows);
    if (error != cudaSuccess) return error;
    return VTS_LAUNCH(
        (sliding_window_attention_tile_bwd_keys_kernel<T, D>), grid_of(p, keys), dim3(TILE_THREADS), shared, stream, p,
        keys);
}

template <typename T>
int with_width(const params &p, cudaStream_t stream) {
    switch (p.D) {
        case 32: return launch_bwd<T, 32>(p, stream);
        case 64: return launch_bwd<T, 64>(p, stream);
        case 128: return launch_bwd<T, 128>(p, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace

int tile_bwd(const params &p, cudaStream_t stream) {
    if (p.B * p.H * p.T == 0) return cudaSuccess;
    return p.dtype == VTS_FLOAT16 ? with_width<__half>(p, stream) : with_width<__nv_bfloat16>(p, stream);
}

int64_t tile_bwd_scratch(const params &p) { return p.B * p.H * p.T * static_cast<int64_t>(sizeof(float)); }

}  // namespace vts::sliding_window_attention
