// Sliding-window attention with any window on tensor cores: the backward pass, in two kernels. The first owns rows: it
// computes delta = rowsum(dout * out) - dlse, leaves it in scratch, and writes dq. The second owns keys: it walks the
// rows that see them, computes the transposes of p and ds, and writes dk and dv. Each output is written once, by its
// owner, in a fixed order of sums. Both compute p from the forward's lse.
#include "spoilt.h"
#include "tile.h"

namespace vts::sliding_window_attention {
namespace {

constexpr int PART = 32, NARROW_PART = 16;  // keys scored at once; rows, beside twice as many sums

template <typename T, int D>
struct bwd_shared {
    static constexpr int one = 0, other = TILE * D, blocks = 2 * TILE * D, block = 2 * STEP<D> * D;  // elements
    static constexpr int statistics = (blocks + RING * block) * static_cast<int>(sizeof(T));         // bytes
    static constexpr int bytes = statistics + RING * 2 * STEP<D> * static_cast<int>(sizeof(float));
};

// What exp2 is given beside a row's scores: the lse in powers of two, or +inf, so that all weights are 0.
__device__ __forceinline__ float subtrahend(float lse) { return lse == -INFINITY ? INFINITY : lse * LOG2_E; }

// The dot products of 16 rows of out, read from global memory, with those of dout in shared memory, by one warp.
template <typename T, int D>
struct row_dots {
    static constexpr int rows = lane_of_rows<D>::rows_at_once;
    const lane_of_rows<D> lane;
    uint4 out[16 / rows];

    __device__ __forceinline__ void read(const T *from, int64_t stride, uint32_t valid) {
#pragma unroll
        for (int r = 0; r < 16; r += rows) {
            out[r / rows] = make_uint4(0, 0, 0, 0);
            if ((valid >> (lane.row + r) & 1) != 0) out[r / rows] = load_16(from + r * stride);
        }
    }

    __device__ __forceinline__ void finish(float (&to)[16], const T *douts) const {
#pragma unroll
        for (int r = 0; r < 16; r += rows) {
            const uint4 x = out[r / rows], y = load_16(douts + swizzled<D>(lane.row + r, lane.chunk));
            const uint32_t pairs[2][4] = {{x.x, x.y, x.z, x.w}, {y.x, y.y, y.z, y.w}};
            float sum = 0.0f;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float2 one = unpack<T>(pairs[0][e]), other = unpack<T>(pairs[1][e]);
                sum = fmaf(one.x, other.x, fmaf(one.y, other.y, sum));
            }
#pragma unroll
            for (int step = 1; step < lane_of_rows<D>::chunks; step *= 2)
                sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
            if (lane.chunk == 0) to[lane.row + r] = sum;
        }
    }
};

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
    __shared__ float deltas[TILE_WARPS][16];
    const lane_of_rows<D> lane;
    lane.load(queries, lane.template address<const T>(p.q, at.b, at.h, row), p.q.stride_t, exist);
    lane.load(douts, lane.template address<const T>(p.dout, at.b, at.h, row), p.dout.stride_t, exist);
    cp_async_commit();
    const tile_walk<KEYS> walk(at.first, left, right, frames);
    tile_keys<KEYS> keys(p, at.b, walk.begin, walk.end);
    pair_of_rows<T, D, KEYS> pairs(p.k, p.v, at.b, at.h / static_cast<int>(p.H / p.K), walk.begin);
    uint64_t valid[RING] = {};  // of this block and the next two
    const auto fetch = [&](int n) {
        uint64_t bits = 0;
        if (n < walk.blocks) {
            bits = keys.next();
            pairs.load(blocks + n % RING * layout::block, bits);
        }
        cp_async_commit();
        return bits;
    };
    valid[0] = fetch(0), valid[1] = fetch(1);

    const int64_t statistic = (static_cast<int64_t>(at.b) * p.H + at.h) * p.T + row;
    float less[2] = {INFINITY, INFINITY}, delta[2] = {0.0f, 0.0f};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = g + 8 * half;
        if ((exist >> r & 1) == 0) continue;
        less[half] = subtrahend(static_cast<const float *>(p.lse)[statistic + r]);
        if (p.dlse != nullptr) delta[half] = -static_cast<const float *>(p.dlse)[statistic + r];
    }
    row_dots<T, D> dots;
    dots.read(lane.template address<const T>(p.out, at.b, at.h, row), p.out.stride_t, exist);
    cp_async_wait<2>();
    __syncwarp();
    dots.finish(deltas[warp], douts);
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = g + 8 * half;
        delta[half] += deltas[warp][r];
        if (t == 0 && (exist >> r & 1) != 0) {
            static_cast<float *>(p.scratch)[statistic + r] = delta[half];
            if (p.delta != nullptr) static_cast<float *>(p.delta)[statistic + r] = delta[half];
        }
    }

    float dq[D / 8][4] = {};
    for (int n = 0; n < walk.blocks; ++n, valid[0] = valid[1], valid[1] = valid[2]) {
        cp_async_wait<1>();
        __syncthreads();  // this block has arrived, and nobody reads the one before it any more
        valid[2] = fetch(n + 2);
#pragma unroll 1
        for (int part = 0; part < KEYS; part += PART) {
            const int first = walk.begin + n * KEYS + part;
            const tile_edges<PART> edges{row - left - first, row + right - first};
            if (edges.outside()) continue;
            const T *const part_keys = blocks + n % RING * layout::block + part * D;
            const uint32_t seen = static_cast<uint32_t>(valid[0] >> part);

            float s[PART / 8][4], dp[PART / 8][4];
            tile_products<D>(s, queries, part_keys);
            tile_products<D>(dp, douts, part_keys + KEYS * D);
            if (p.seed != nullptr) {
                const tile_place here(grid, static_cast<int>(p.H), anew(static_cast<int>(blockIdx.x)));
                drop_out(dp, kept_elements<PART / 8>(p, here.b, here.h, row, first), p);
            }
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

    // Where the results go is found anew: so the loop has its registers to itself.
    const tile_place to(grid, static_cast<int>(p.H), anew(static_cast<int>(blockIdx.x)));
    const int own = to.first + warp * 16;
    uint32_t odd = 0;
    put<D>(queries, dq, scale, scale);
    __syncwarp();
    lane.store(lane.template address<T>(p.dq, to.b, to.h, own), queries, p.dq.stride_t, inside(own, 0, frames), odd);
    __syncwarp();  // what its other lanes have written is read
    if (any_odd<T>(odd)) one_by_one<T, D, true>(p, to.b, to.h).mend_dq(own, own + 16);
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
        if (threadIdx.x >= 2 * ROWS || i >= walk.end) return first ? INFINITY : 0.0f;
        const float x = static_cast<const float *>(first ? p.lse : p.scratch)[line + i];
        return first ? subtrahend(x) : x;
    };
    const auto keep = [&](int n, float x) {
        if (threadIdx.x < 2 * ROWS) statistics[n % RING * 2 * ROWS + threadIdx.x] = x;
    };
    const auto fetch = [&](int n) {
        const int rows = walk.end - (walk.begin + n * ROWS);
        if (rows > 0)
            pairs.load(blocks + n % RING * layout::block, rows < 64 ? (uint64_t{1} << rows) - 1 : ~uint64_t{0});
        cp_async_commit();
    };
    fetch(0), fetch(1);
    keep(0, look(0)), keep(1, look(1));

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int n = 0; n < walk.blocks; ++n) {
        cp_async_wait<1>();
        __syncthreads();  // this block has arrived, and nobody reads the one before it any more
        fetch(n + 2);
        const float statistic = look(n + 2);
#pragma unroll 1
        for (int part = 0; part < ROWS; part += NARROW_PART) {
            const int first = walk.begin + n * ROWS + part;
            const tile_edges<NARROW_PART> edges{key - right - first, key + left - first};
            if (edges.outside()) continue;
            const T *const part_rows = blocks + n % RING * layout::block + part * D;
            const T *const part_douts = part_rows + ROWS * D;
            const float *const less = statistics + n % RING * 2 * ROWS + part, *const delta = less + ROWS;
            float s[NARROW_PART / 8][4], dp[NARROW_PART / 8][4];  // transposed: [keys, rows]
            tile_products<D>(s, keys, part_rows);
            tile_products<D>(dp, values, part_douts);
            uint32_t kept = 0;
            if (p.seed != nullptr) {
                kept = kept_elements<NARROW_PART / 8, true>(p, at.b, at.h, first, key);
                drop_out(dp, kept, p);
            }
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
            if (p.seed != nullptr) drop_out(s, kept, p);
#pragma unroll
            for (int m = 0; m < NARROW_PART / 16; ++m) {
                uint32_t a[4];
                round_to_a<T>(a, s, m);
                add_product<D>(dv, a, part_douts + m * 16 * D);
                round_to_a<T>(a, dp, m);
                add_product<D>(dk, a, part_rows + m * 16 * D);
            }
        }
        keep(n + 2, statistic);
    }

    // Where the results go is found anew: so the loop has its registers to itself.
    const tile_place to(grid, static_cast<int>(p.H), anew(static_cast<int>(blockIdx.x)));
    const int own = to.first + warp * 16;
    const uint32_t there = inside(own, 0, frames);
    uint32_t odd = 0;
    put<D>(keys, dk, scale, scale);
    put<D>(values, dv, 1.0f, 1.0f);
    __syncwarp();
    lane.store(lane.template address<T>(p.dk, to.b, to.h, own), keys, p.dk.stride_t, there, odd);
    lane.store(lane.template address<T>(p.dv, to.b, to.h, own), values, p.dv.stride_t, there, odd);
    __syncwarp();  // what its other lanes have written is read
    if (any_odd<T>(odd)) one_by_one<T, D, true>(p, to.b, to.h).mend_dk_dv(own, own + 16);
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
