// Sliding-window attention for windows of at most 9 keys, forward. The layout is explained in the header.
//
// A block of 8 rows in two passes. First, row by row: q of the row and the key that enters the window are unpacked and
// the row's dot products with the window go into the butterfly. Then lane r takes the softmax of row r, and, row by
// row, the value that enters the window is unpacked, the row's weights are fetched from lane r and out is summed and
// stored. Rows of the next block are asked for as soon as their slots have been read.
#pragma once

#include "ring.h"

namespace vts::sliding_window_attention {
namespace ring {
namespace {

constexpr int Q = 0, K = R, V = 2 * R, SLOTS = 3 * R;  // slots of 32 times 16 bytes
constexpr size_t SHARED = WARPS * SLOTS * 32 * 16;

// As many blocks on a multiprocessor as the registers of the rings allow.
template <typename T, int W, bool CAREFUL>
constexpr int fwd_residents = sizeof(T) == 4 ? (W == 9 ? 6 : 8) : (W == 3 ? 8 : (W == 5 ? 6 : 4));

template <typename T, int LANES, int W, bool CAREFUL>
__global__ void __launch_bounds__(WARPS * 32, (fwd_residents<T, W, CAREFUL>))
    sliding_window_attention_ring_fwd_kernel(const __grid_constant__ params p, const __grid_constant__ plan cut) {
    constexpr int HALO = W - 1;
    VTS_DYNAMIC_SHARED(uint4, shared);
    uint4 *const slots = shared + threadIdx.x / 32 * (SLOTS * 32) + threadIdx.x % 32;
    const group<LANES> g;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * (WARPS * 32 / LANES) + threadIdx.x / LANES;
    const unit u(p, cut, index);
    const int keys = CAREFUL ? static_cast<int>(p.left + p.right + 1) : W;
    const int key_head = u.h / (static_cast<int>(p.H) / static_cast<int>(p.K));
    const int key_origin = u.first - static_cast<int>(p.left);
    const float scale_log2 = static_cast<float>(p.scale) * LOG2_E;

    rows_of q = rows_of::make<T>(p.q, p, u, u.h, u.first, g.lane);
    rows_of out = rows_of::make<T>(p.out, p, u, u.h, u.first, g.lane);
    rows_of k = rows_of::make<T>(p.k, p, u, key_head, key_origin + HALO, g.lane);
    rows_of v = rows_of::make<T>(p.v, p, u, key_head, key_origin + HALO, g.lane);
    float *const lse = p.lse == nullptr || (LANES > R && g.lane >= R)
                           ? nullptr
                           : static_cast<float *>(p.lse) + u.statistic(p, u.first);
    key_bits<LANES> seen(p, u, g, key_origin, u.rows == 0 ? 0 : u.rows + keys - 1);

    const auto q_slot = [&](int r) { return slots + (Q + r) * 32; };
    const auto k_slot = [&](int r) { return slots + (K + r) * 32; };
    const auto v_slot = [&](int r) { return slots + (V + r) * 32; };
    // The first block is asked for, in the four groups in which every block is waited for.
#pragma unroll
    for (int r = 0; r < R; r += HALF) {
        ask(q, r, false, q_slot, [&](int i) { return i < u.rows; });
        ask(k, r, false, k_slot, [&](int i) { return seen[HALO + i]; });
        cp_async_commit();
    }
#pragma unroll
    for (int r = 0; r < R; r += HALF) {
        ask(v, r, false, v_slot, [&](int i) { return seen[HALO + i]; });
        cp_async_commit();
    }
    chunk<T> key[R], value[R];
#pragma unroll
    for (int c = 0; c < HALO; ++c) {
        const uint4 nothing = make_uint4(0, 0, 0, 0);
        key[c].set(seen[c] ? load_16(k.row(c - HALO)) : nothing);
        value[c].set(seen[c] ? load_16(v.row(c - HALO)) : nothing);
    }

    for (int n = 0; n < cut.blocks; ++n) {
        const int left_over = u.rows - n * R;  // rows of this block and all after it
        seen.read(g, (n + 3) * R);
        q.advance(), k.advance(), v.advance();
        const bool whole = __all_sync(ALL, 2 * R <= left_over && seen.all(HALO + R));
        butterfly<LANES, W> sums;
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (r % HALF == 0) cp_async_wait<3>();
            chunk<T> query;
            query.set(*q_slot(r));
            const uint4 raw = *k_slot(r);
            sums.add(g, r, 0, query.dot(key[r]));
            key[(r + HALO) % R].set(raw);
#pragma unroll
            for (int o = 1; o < W; ++o) sums.add(g, r, o, query.dot(key[(r + o) % R]));
            if (r % HALF == HALF - 1) {
                ask(q, r - r % HALF, whole, q_slot, [&](int i) { return R + i < left_over; });
                ask(k, r - r % HALF, whole, k_slot, [&](int i) { return seen[HALO + R + i]; });
                cp_async_commit();
            }
        }

#pragma unroll
        for (int i = 0; i < g.OF_LANE; ++i) {
            const int row = g.row(i);
            uint32_t window = seen.bits >> row & ((1u << keys) - 1);
            if (CAREFUL && p.cu_seqlens != nullptr) window &= own_keys(p, u.first + n * R + row, u.frames);
            const float statistic = softmax<W>(sums.scores[i], window, scale_log2, p, u.h, keys);
            if (lse != nullptr && row < left_over) lse[(n * R + row) * p.dilation] = statistic;
            if (p.seed != nullptr) drop_out(sums.scores[i], kept_keys(p, u, u.first + n * R + row, keys), p);
        }

#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (r % HALF == 0) cp_async_wait<3>();
            const uint4 raw = *v_slot(r);
            chunk<T> sum;
            sum.template add<CAREFUL>(g.of_row(sums.scores, r, 0), value[r]);
            value[(r + HALO) % R].set(raw);
#pragma unroll
            for (int o = 1; o < W; ++o) sum.template add<CAREFUL>(g.of_row(sums.scores, r, o), value[(r + o) % R]);
            if (r < left_over) store_16(out.row(r), sum.get());
            if (r % HALF == HALF - 1) {
                ask(v, r - r % HALF, whole, v_slot, [&](int i) { return seen[HALO + R + i]; });
                cp_async_commit();
            }
        }
        out.advance();
        seen.advance(g);
    }
}

}  // namespace

template <typename T>
int fwd(const params &p, cudaStream_t stream) {
    return for_kernel<T>(p, [&](auto lanes, auto keys, auto careful) {
        constexpr auto ring_fwd_kernel =
            sliding_window_attention_ring_fwd_kernel<T, lanes.value, keys.value, careful.value>;
        const plan made = cut(p, lanes.value, 0, known_resident_warps<ring_fwd_kernel>(SHARED));
        return VTS_LAUNCH(
            ring_fwd_kernel, dim3(blocks_for(made, lanes.value)), dim3(WARPS * 32), SHARED, stream, p, made);
    });
}

}  // namespace ring
}  // namespace vts::sliding_window_attention
