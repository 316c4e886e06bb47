// Sliding-window attention for windows of at most 9 keys, backward in one pass. The layout is explained in the header.
//
// The strip's owner computes dq of its rows and dk, dv of its keys, and writes each once: no atomics. It walks the rows
// that see its keys, right before the strip to left after it, and the keys that those see. A block of 8 rows:
//   scores:  q (rows of the block) with k (the block's keys: 8 and W - 1 more)
//   dp:      dout with v, the same
//   softmax: lane r turns the scores and dp of row r into weights p and ds
//   dq:      rows of the block, from ds and k
//   dk, dv:  the block's first 8 keys, which no later row sees, from ds and q, p and dout of this block and the last
// Each of these holds only one window of rows in registers; but that of v stays from block to block. q, dout and k stay
// in shared memory for two blocks, and a slot is filled anew when it has been read for the last time.
#pragma once

#include "ring.h"

namespace vts::sliding_window_attention {
namespace ring {
namespace {

constexpr int Q = 0, DOUT = 2 * R, K = 4 * R, V = 6 * R, SLOTS = 7 * R;  // slots of 32 times 16 bytes
constexpr size_t SHARED = WARPS * SLOTS * 32 * 16;

template <int N>
__device__ __forceinline__ bool any_of(const uint32_t (&x)[N]) {
    uint32_t any = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) any |= x[i];
    return any != 0;
}

// Those of a block's rows, a bit for each, whose dout is 0; their queries become 0, too.
template <typename T, int LANES>
__device__ __forceinline__ uint32_t
quiet_rows(const group<LANES> &g, uint32_t rows, const uint4 *douts, uint4 *queries) {
    constexpr uint32_t sign = sizeof(T) == 4 ? 0x80000000u : 0x80008000u, lanes = LANES == 32 ? ALL : (1u << LANES) - 1;
#pragma unroll 1
    for (int r = 0; r < R; ++r) {
        const uint4 x = douts[r * 32];
        const uint32_t some = __ballot_sync(ALL, ((x.x | x.y | x.z | x.w) & ~sign) != 0) >> g.start & lanes;
        if (some != 0) rows &= ~(1u << r);
        if ((rows >> r & 1) != 0) queries[r * 32] = make_uint4(0, 0, 0, 0);
    }
    return rows;
}

constexpr int BWD_RESIDENTS = 4;  // blocks on a multiprocessor: what shared memory allows

template <typename T, int LANES, int W, bool CAREFUL>
__global__ void __launch_bounds__(WARPS * 32, BWD_RESIDENTS)
    sliding_window_attention_ring_bwd_kernel(const __grid_constant__ params p, const __grid_constant__ plan cut) {
    constexpr int HALO = W - 1, OF_LANE = group<LANES>::OF_LANE;
    VTS_DYNAMIC_SHARED(uint4, shared);
    uint4 *const slots = shared + threadIdx.x / 32 * (SLOTS * 32) + threadIdx.x % 32;
    const group<LANES> g;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * (WARPS * 32 / LANES) + threadIdx.x / LANES;
    const unit u(p, cut, index);
    const int right = static_cast<int>(p.right), keys = CAREFUL ? static_cast<int>(p.left) + right + 1 : W;
    const int key_head = u.h / (static_cast<int>(p.H) / static_cast<int>(p.K));
    const int origin = u.first - right, key_origin = origin - static_cast<int>(p.left);
    const float scale = static_cast<float>(p.scale);
    const int64_t statistics = u.statistic(p, origin);  // where those of the first row are

    // Rows count from `origin`, keys from `key_origin`; those of block n are 8 n, ..., 8 n + 7.
    const int wanted = u.rows == 0 ? 0 : u.rows + keys - 1;
    const int row_low = max(0, -origin), row_end = min(wanted, u.frames - origin);
    key_bits<LANES> seen(p, u, g, key_origin, u.rows == 0 ? 0 : u.rows + 2 * (keys - 1));
    rows_of q = rows_of::make<T>(p.q, p, u, u.h, origin - HALO, g.lane);  // the next row to ask for
    rows_of dout = rows_of::make<T>(p.dout, p, u, u.h, origin - HALO, g.lane);
    rows_of k = rows_of::make<T>(p.k, p, u, key_head, key_origin, g.lane);
    rows_of v = rows_of::make<T>(p.v, p, u, key_head, key_origin + HALO, g.lane);
    rows_of dq = rows_of::make<T>(p.dq, p, u, u.h, origin, g.lane);
    rows_of dk = rows_of::make<T>(p.dk, p, u, u.h, key_origin, g.lane);
    rows_of dv = rows_of::make<T>(p.dv, p, u, u.h, key_origin, g.lane);

    // Row (or key) c of this block, -8 <= c < 16, of q, dout or k is in half (n + c / 8) % 2 of its slots.
    uint4 *now = slots, *other = slots + R * 32;
    const auto slot = [&](int tensor, int c) {
        return c >= 0 && c < R ? now + (tensor + c) * 32 : other + (tensor + (c < 0 ? c + R : c - R)) * 32;
    };
    const auto v_slot = [&](int r) { return slots + (V + r) * 32; };
    // Asks for four of the rows 16 - HALO + m, m < 8, of this block: those that go where rows m - HALO have been.
    const auto ask_row = [&](const rows_of &x, int tensor, int m, int first_row, bool whole) {
        ask(
            x, m, whole, [&](int i) { return slot(tensor, i - HALO); },
            [&](int i) { return first_row + i >= row_low && first_row + i < row_end; });
    };

    // Before the first block, groups of copies in the order in which a block commits them.
    ask_row(q, Q, 0, -HALO, false), ask_row(q, Q, HALF, -HALO, false), q.advance();
#pragma unroll
    for (int c = 0; c < R; c += HALF)
        ask(k, c, false, [&](int i) { return slot(K, i); }, [&](int i) { return seen[i]; });
    k.advance();
    cp_async_commit();
    ask_row(dout, DOUT, 0, -HALO, false), ask_row(dout, DOUT, HALF, -HALO, false), dout.advance();
    cp_async_commit();
#pragma unroll
    for (int r = 0; r < R; r += HALF) ask(v, r, false, v_slot, [&](int i) { return seen[HALO + i]; });
    cp_async_commit();
#pragma unroll
    for (int c = 0; c < R; c += HALF)
        ask(k, c, false, [&](int i) { return slot(K, R + i); }, [&](int i) { return seen[R + i]; });
    k.advance();
    cp_async_commit();
    now = slots + R * 32, other = slots;  // as in block -1
    ask_row(q, Q, 0, R - HALO, false), ask_row(q, Q, HALF, R - HALO, false), q.advance();
    cp_async_commit();
    ask_row(dout, DOUT, 0, R - HALO, false), ask_row(dout, DOUT, HALF, R - HALO, false), dout.advance();
    cp_async_commit();
    now = slots, other = slots + R * 32;

    chunk<T> value[R];
#pragma unroll
    for (int c = 0; c < HALO; ++c) value[c].set(seen[c] ? load_16(v.row(c - HALO)) : make_uint4(0, 0, 0, 0));
    v.advance();
    float ds_before[OF_LANE][W] = {}, weight_before[OF_LANE][W] = {};  // of the block before this

    for (int n = 0; n < cut.blocks; ++n) {
        const int row = n * R;
        seen.read(g, (n + 3) * R);
        const int next_row = row + 2 * R - HALO;
        const bool whole_rows = __all_sync(ALL, next_row >= row_low && next_row + R <= row_end);
        const bool whole_keys = __all_sync(ALL, seen.all(2 * R));
        const bool whole_values = __all_sync(ALL, seen.all(R + HALO));

        butterfly<LANES, W> scores, dscores;
        {
            cp_async_wait<(HALO < R ? 5 : 1)>();
            chunk<T> key[R];
#pragma unroll
            for (int c = 0; c < HALO; ++c) key[c].set(*slot(K, c));
#pragma unroll
            for (int r = 0; r < R; ++r) {
                if (r == R - HALO) cp_async_wait<1>();
                chunk<T> query;
                query.set(*slot(Q, r));
                scores.add(g, r, 0, query.dot(key[r]));
                key[(r + HALO) % R].set(*slot(K, r + HALO));
#pragma unroll
                for (int o = 1; o < W; ++o) scores.add(g, r, o, query.dot(key[(r + o) % R]));
            }
        }
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (r == R - HALO) cp_async_wait<0>();
            chunk<T> grad;
            grad.set(*slot(DOUT, r));
            dscores.add(g, r, 0, grad.dot(value[r]));
            value[(r + HALO) % R].set(*v_slot(r));
#pragma unroll
            for (int o = 1; o < W; ++o) dscores.add(g, r, o, grad.dot(value[(r + o) % R]));
            if (r % HALF == HALF - 1)
                ask(v, r - r % HALF, whole_values, v_slot, [&](int i) { return seen[R + HALO + i]; });
        }
        v.advance();
        cp_async_commit();

        // From here on `scores` are the weights and `dscores` are scale * ds.
        uint32_t odd[OF_LANE];
#pragma unroll
        for (int i = 0; i < OF_LANE; ++i) {
            uint32_t window = seen.bits >> g.row(i) & ((1u << keys) - 1);
            if (CAREFUL && p.cu_seqlens != nullptr) window &= own_keys(p, origin + row + g.row(i), u.frames);
            softmax<W>(scores.scores[i], window, scale * LOG2_E, p, u.h, keys);
            const int own = row + g.row(i);
            uint32_t kept = 0;
            if (p.seed != nullptr) {
                kept = kept_keys(p, u, origin + own, keys);
                drop_out(dscores.scores[i], kept, p);
            }
            const int64_t statistic = statistics + own * p.dilation;
            const float down = p.dlse != nullptr && own >= row_low && own < row_end
                                   ? static_cast<const float *>(p.dlse)[statistic]
                                   : 0.0f;
            float delta = -down, mass = 0.0f;
#pragma unroll
            for (int o = 0; o < W; ++o) {
                if ((window >> o & 1) == 0) dscores.scores[i][o] = 0.0f;  // NaN may be there, and in delta
                delta = fmaf(scores.scores[i][o], dscores.scores[i][o], delta);
                mass += scores.scores[i][o];
            }
            if (p.delta != nullptr && (LANES <= R || g.lane < R) &&
                static_cast<unsigned>(own - right) < static_cast<unsigned>(u.rows))
                static_cast<float *>(p.delta)[statistic] = delta;
            odd[i] = window != 0 && down == 0.0f && !(fmaf(delta, 0.0f, mass) > 0.0f);  // NaN, or scores of -inf
#pragma unroll
            for (int o = 0; o < W; ++o) {
                const float ds = scores.scores[i][o] * (dscores.scores[i][o] - delta);
                dscores.scores[i][o] = (window >> o & 1) == 0 ? 0.0f : ds;
            }
            if (p.seed != nullptr) drop_out(scores.scores[i], kept, p);
        }
        if (__any_sync(ALL, any_of(odd))) {
            // A row without a gradient is as one of zeros, whatever it and its keys hold.
            const uint32_t quiet = quiet_rows<T>(g, g.vote(odd), now + DOUT * 32, now + Q * 32);
#pragma unroll
            for (int i = 0; i < OF_LANE; ++i)
#pragma unroll
                for (int o = 0; o < W; ++o)
                    if ((quiet >> g.row(i) & 1) != 0) scores.scores[i][o] = dscores.scores[i][o] = 0.0f;
        }
        if (p.dbias != nullptr) {
            // Each row of a block adds up the bias's gradient for itself, in memory: registers are dear, and this is
            // rare.
            const int64_t number = static_cast<int64_t>(blockIdx.x) * (WARPS * 32 / LANES) + threadIdx.x / LANES;
#pragma unroll
            for (int i = 0; i < OF_LANE; ++i) {
                const int r = g.row(i);
                if (number >= cut.units || (LANES > R && g.lane >= R)) continue;
                float *const sums = static_cast<float *>(p.scratch) + (number * R + r) * keys;
                const bool own = static_cast<unsigned>(row + r - right) < static_cast<unsigned>(u.rows);
#pragma unroll
                for (int o = 0; o < W; ++o)
                    if (o < keys) sums[o] = (n == 0 ? 0.0f : sums[o]) + (own ? dscores.scores[i][o] : 0.0f);
            }
        }
#pragma unroll
        for (int i = 0; i < OF_LANE; ++i)
#pragma unroll
            for (int o = 0; o < W; ++o) dscores.scores[i][o] *= scale;

        {
            chunk<T> key[R];
            const auto ask_key = [&](int c) {
                ask(k, c, whole_keys, [&](int i) { return slot(K, i); }, [&](int i) { return seen[2 * R + i]; });
            };
#pragma unroll
            for (int c = 0; c < HALO; ++c) {
                key[c].set(*slot(K, c));
                if (c % HALF == HALF - 1) ask_key(c - c % HALF);
            }
#pragma unroll
            for (int r = 0; r < R; ++r) {
                chunk<T> sum;
                sum.template add<CAREFUL>(g.of_row(dscores.scores, r, 0), key[r]);
                const int c = r + HALO;
                key[c % R].set(*slot(K, c));
                if (c < R && c % HALF == HALF - 1) ask_key(c - c % HALF);
#pragma unroll
                for (int o = 1; o < W; ++o) sum.template add<CAREFUL>(g.of_row(dscores.scores, r, o), key[(r + o) % R]);
                if (static_cast<unsigned>(row + r - right) < static_cast<unsigned>(u.rows))
                    store_16(dq.row(r), sum.get());
            }
            k.advance(), dq.advance();
            cp_async_commit();
        }

        // Key c of the block is column m of row c - m, which for c < m is of the block before: `before` takes, for each
        // m, from the lanes of rows 0, ..., 7 - m what is of this block.
        const auto gather = [&](rows_of &from, int tensor, float (&table)[OF_LANE][W], float (&before)[OF_LANE][W],
                                rows_of &to) {
            chunk<T> entry[R];
#pragma unroll
            for (int i = 0; i < OF_LANE; ++i)
#pragma unroll
                for (int m = 0; m < W; ++m)
                    if (g.last_row(i) < R - m || g.row(i) < R - m) before[i][m] = table[i][m];
#pragma unroll
            for (int c = 0; c < HALO; ++c) {
                entry[c - HALO + R].set(*slot(tensor, c - HALO));
                if (c % HALF == HALF - 1) ask_row(from, tensor, c - c % HALF, next_row, whole_rows);
            }
#pragma unroll
            for (int c = 0; c < R; ++c) {
                chunk<T> sum;
                sum.template add<CAREFUL>(g.of_row(before, (c + R - HALO) % R, HALO), entry[(c + R - HALO) % R]);
                entry[c].set(*slot(tensor, c));
                const int freed = c + HALO;
                if (freed < R && freed % HALF == HALF - 1)
                    ask_row(from, tensor, freed - freed % HALF, next_row, whole_rows);
#pragma unroll
                for (int m = HALO - 1; m >= 0; --m)
                    sum.template add<CAREFUL>(g.of_row(before, (c + R - m) % R, m), entry[(c + R - m) % R]);
                // A hidden key's is 0, whatever the rows around it hold: 0 times NaN is NaN.
                if (static_cast<unsigned>(row + c - (keys - 1)) < static_cast<unsigned>(u.rows))
                    store_16(to.row(c), seen[c] ? sum.get() : make_uint4(0, 0, 0, 0));
            }
            from.advance(), to.advance();
            cp_async_commit();
#pragma unroll
            for (int i = 0; i < OF_LANE; ++i)
#pragma unroll
                for (int m = 0; m < W; ++m) before[i][m] = table[i][m];
        };
        gather(q, Q, dscores.scores, ds_before, dk);
        gather(dout, DOUT, scores.scores, weight_before, dv);

        seen.advance(g);
        uint4 *const swap = now;
        now = other, other = swap;
    }
}

template <typename T, int LANES, int W, bool CAREFUL>
plan bwd_cut(const params &p) {
    constexpr auto kernel = sliding_window_attention_ring_bwd_kernel<T, LANES, W, CAREFUL>;
    return cut(p, LANES, static_cast<int>(p.left + p.right), known_resident_warps<kernel>(SHARED));
}

}  // namespace

template <typename T>
int bwd(const params &p, cudaStream_t stream) {
    return for_kernel<T>(p, [&](auto lanes, auto keys, auto careful) {
        constexpr auto ring_bwd_kernel =
            sliding_window_attention_ring_bwd_kernel<T, lanes.value, keys.value, careful.value>;
        const plan made = bwd_cut<T, lanes.value, keys.value, careful.value>(p);
        const int error =
            VTS_LAUNCH(ring_bwd_kernel, dim3(blocks_for(made, lanes.value)), dim3(WARPS * 32), SHARED, stream, p, made);
        return error != cudaSuccess || p.dbias == nullptr ? error : dbias_of_units(p, made, stream);
    });
}

template <typename T>
int64_t bwd_units(const params &p) {
    int64_t units = 0;
    for_kernel<T>(p, [&](auto lanes, auto keys, auto careful) {
        units = bwd_cut<T, lanes.value, keys.value, careful.value>(p).units;
        return 0;
    });
    return units;
}

}  // namespace ring
}  // namespace vts::sliding_window_attention
