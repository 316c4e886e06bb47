// Sliding-window attention with any window on tensor cores: the forward pass, with a running maximum.
#include <cfloat>

#include "spoilt.h"
#include "tile.h"

namespace vts::sliding_window_attention {
namespace {

constexpr int PART = 32;  // keys scored at once

template <typename T, int D>
struct fwd_shared {
    static constexpr int queries = 0, blocks = TILE * D,
                         block = 2 * STEP<D> * D;  // elements; keys and values of a block
    static constexpr int bytes = (blocks + RING * block) * static_cast<int>(sizeof(T));
};

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, RESIDENT<D>)
    sliding_window_attention_tile_fwd_kernel(const __grid_constant__ params p, const __grid_constant__ tile_grid grid) {
    constexpr int KEYS = STEP<D>;
    using layout = fwd_shared<T, D>;
    VTS_DYNAMIC_SHARED(T, shared);
    const tile_place at(grid, static_cast<int>(p.H));
    const int frames = static_cast<int>(p.T), left = reach_of(p.left, p.T), right = reach_of(p.right, p.T);
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int row = at.first + warp * 16;  // the warp's first
    const uint32_t exist = inside(row, 0, frames);

    T *const rows = shared + layout::queries + warp * 16 * D;  // the warp's own: its queries, then its results
    T *const blocks = shared + layout::blocks;
    const lane_of_rows<D> lane;
    lane.load(rows, lane.template address<const T>(p.q, at.b, at.h, row), p.q.stride_t, exist);
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

    // A negative scale is taken into the queries' signs: the greatest score is then that of the greatest product. Not
    // 0, so that -inf times it is -inf.
    const float factor = fmaxf(fabsf(static_cast<float>(p.scale)) * LOG2_E, FLT_MIN);
    if (p.scale < 0) {
        cp_async_wait<1>();  // each lane changes what it has copied itself
        lane.flip_signs(rows);
    }

    float out[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
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

            float s[PART / 8][4];
            tile_products<D>(s, rows, part_keys);
            if (edges.cut() || seen != ~0u) {
                const sight<uint32_t> visible(seen & edges.window(g), seen & edges.window(g + 8));
#pragma unroll
                for (int c = 0; c < PART / 8; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) s[c][e] = visible.sees(c, e) ? s[c][e] : -INFINITY;
            }

            float base[2], keep[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float higher = top[half];
#pragma unroll
                for (int c = 0; c < PART / 8; ++c) higher = fmaxf(higher, fmaxf(s[c][2 * half], s[c][2 * half + 1]));
                higher = row_max(higher);
                base[half] = higher == -INFINITY ? 0.0f : higher * factor;
                keep[half] = power_of_2(fmaf(top[half], factor, -base[half]));
                top[half] = higher;
                total[half] *= keep[half];
            }
#pragma unroll
            for (int c = 0; c < PART / 8; ++c)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    s[c][e] = power_of_2(fmaf(s[c][e], factor, -base[e / 2]));
                    total[e / 2] += s[c][e];
                }
            if (p.seed != nullptr) drop_out(s, kept_elements<PART / 8>(p, at.b, at.h, row, first), p);
#pragma unroll
            for (int c = 0; c < D / 8; ++c)
#pragma unroll
                for (int e = 0; e < 4; ++e) out[c][e] *= keep[e / 2];
#pragma unroll
            for (int m = 0; m < PART / 16; ++m) {
                uint32_t weights[4];
                round_to_a<T>(weights, s, m);
                add_product<D>(out, weights, part_keys + (KEYS + m * 16) * D);
            }
        }
    }

    uint32_t odd = 0;
    total[0] = row_sum(total[0]), total[1] = row_sum(total[1]);
    top[0] *= factor, top[1] *= factor;  // in powers of 2, as the sink
    const float share[2] = {join_sink(p, at.h, top[0], total[0]), join_sink(p, at.h, top[1], total[1])};
    put<D>(
        rows, out, total[0] == 0.0f ? 0.0f : __fdividef(share[0], total[0]),
        total[1] == 0.0f ? 0.0f : __fdividef(share[1], total[1]));
    __syncwarp();
    lane.store(lane.template address<T>(p.out, at.b, at.h, row), rows, p.out.stride_t, exist, odd);
    if (p.lse != nullptr && t == 0) {
        float *const lse = static_cast<float *>(p.lse) + (static_cast<int64_t>(at.b) * p.H + at.h) * p.T + row + g;
        if (exist >> g & 1) lse[0] = total[0] == 0.0f ? -INFINITY : (top[0] + __log2f(total[0])) * LN_2;
        if (exist >> (g + 8) & 1) lse[8] = total[1] == 0.0f ? -INFINITY : (top[1] + __log2f(total[1])) * LN_2;
    }
    __syncwarp();  // what its other lanes have written is read
    if (any_odd<T>(odd)) one_by_one<T, D, false>(p, at.b, at.h).mend_out(row, row + 16);
}

template <typename T, int D>
int launch_fwd(const params &p, cudaStream_t stream) {
    const tile_grid tiles = tiles_of(p, p.left < 0);
    return VTS_LAUNCH(
        (sliding_window_attention_tile_fwd_kernel<T, D>), grid_of(p, tiles), dim3(TILE_THREADS),
        fwd_shared<T, D>::bytes, stream, p, tiles);
}

template <typename T>
int with_width(const params &p, cudaStream_t stream) {
    switch (p.D) {
        case 32: return launch_fwd<T, 32>(p, stream);
        case 64: return launch_fwd<T, 64>(p, stream);
        case 128: return launch_fwd<T, 128>(p, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace

bool tile_takes(const params &p, bool backward) {
    return tensor_cores_take(p) && p.left >= -1 && p.right >= -1 &&
           (!backward || (p.out.data != nullptr && p.lse != nullptr));
}

int tile_fwd(const params &p, cudaStream_t stream) {
    if (p.B * p.H * p.T == 0) return cudaSuccess;
    return p.dtype == VTS_FLOAT16 ? with_width<__half>(p, stream) : with_width<__nv_bfloat16>(p, stream);
}

}  // namespace vts::sliding_window_attention
