// Sliding-window attention with at most 33 keys a row on tensor cores: the backward pass, in one kernel.
//
// For each strip of 16 rows a warp computes the softmax anew and from it p and ds, [16, 16 BLOCKS]. A block of keys is
// seen by BLOCKS strips: its dk and dv are written once the last of these is done, from the parts of p and ds that the
// warp has kept in registers and the rows of q and dout that are still in shared memory. Each walk starts BLOCKS - 1
// strips early, for the rows of the walk before that see its first keys; nothing of these strips but dk and dv is used.
// So each output is written once, by its owner, in a fixed order of sums, and neither out nor lse is read.
//
// Rows of 128 numbers take so much shared memory that three walks fit a multiprocessor, too few warps to fill it. There
// two warps share a walk: one computes the scores and dv, the other dp and dk, each of them half of dq, and both the
// softmax, from what they tell each other.
#include "spoilt.h"
#include "strip.h"

namespace vts::sliding_window_attention {
namespace {

template <typename T, int D, int BLOCKS>
struct bwd_shared {
    static constexpr int warps = D == 128 ? 2 : 1;
    static constexpr int slots = BLOCKS + 1, slot = STRIP * D;  // elements
    static constexpr int keys = 0, values = keys + slots * slot, queries = values + slots * slot;
    static constexpr int douts = queries + slots * slot, told = douts + slots * slot;
    // What the warps tell each other: 16 bytes for each tile and lane; later a block of dk.
    static constexpr int telling = warps * 2 * BLOCKS * 32 * 16;
    static constexpr int bytes = told * static_cast<int>(sizeof(T)) + (warps > 1 ? telling : 0);
    static_assert(warps == 1 || telling >= slot * static_cast<int>(sizeof(T)));
};

// The transpose of an 8 x 8 matrix of 16-bit numbers of which each lane holds the pair at row l / 4, column 2 (l % 4).
__device__ __forceinline__ uint32_t transpose(uint32_t x) {
#ifdef __CUDACC__
    uint32_t y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(y) : "r"(x));
    return y;
#else
    const int row = threadIdx.x % 32 / 4, from = threadIdx.x % 4 * 8 + row / 2;
    const uint32_t first = __shfl_sync(0xFFFFFFFFu, x, from), second = __shfl_sync(0xFFFFFFFFu, x, from + 4);
    return (first >> row % 2 * 16 & 0xFFFFu) | (second >> row % 2 * 16) << 16;
#endif
}

// The operand a of a product with the transpose of a 16 x 16 matrix, from the operand a of one with the matrix.
__device__ __forceinline__ void transpose_a(uint32_t (&to)[4], const uint32_t (&a)[4]) {
    to[0] = transpose(a[0]), to[1] = transpose(a[2]), to[2] = transpose(a[1]), to[3] = transpose(a[3]);
}

// The parts of p or ds (transposed, as operands a) that the strips of the last BLOCKS steps left for blocks of keys.
template <int BLOCKS>
struct kept_parts {
    uint32_t part[BLOCKS][BLOCKS][4] = {};  // [steps ago][block of that strip]; wanted where block >= steps ago

    // The transpose of what the strips left for the block that is the latest strip's first, times their rows, of which
    // the latest strip's lie in slot `slot` of a ring; times `factor`, into 16 rows of shared memory.
    template <int D, typename T>
    __device__ __forceinline__ void gather(T *to, const T *rows, int slot, float factor) const {
        constexpr int columns = D < 64 ? D : 64;  // at a time, to do with fewer registers
#pragma unroll
        for (int column = 0; column < D; column += columns) {
            float sum[columns / 8][4] = {};
#pragma unroll
            for (int ago = 0; ago < BLOCKS; ++ago)
                add_product<D>(sum, part[ago][ago], rows + around<BLOCKS + 1>(slot, -ago) * STRIP * D, column);
            put<D>(to, sum, factor, factor, column);
        }
    }

    __device__ __forceinline__ void grow_older() {
#pragma unroll
        for (int ago = BLOCKS - 1; ago > 0; --ago)
#pragma unroll
            for (int m = ago; m < BLOCKS; ++m)
#pragma unroll
                for (int e = 0; e < 4; ++e) part[ago][m][e] = part[ago - 1][m][e];
    }
};

template <typename T, int D, int BLOCKS>
__global__ void __launch_bounds__(32 * bwd_shared<T, D, BLOCKS>::warps, resident<bwd_shared<T, D, BLOCKS>::bytes>)
    sliding_window_attention_strip_bwd_kernel(
        const __grid_constant__ params p, const __grid_constant__ strip_walks walks) {
    using layout = bwd_shared<T, D, BLOCKS>;
    constexpr int WARPS = layout::warps, COLUMNS = D < 64 ? D : 64;  // of dq at a time: half of a row's of two warps
    constexpr int SLOTS = layout::slots, SLOT = layout::slot;
    VTS_DYNAMIC_SHARED(T, shared);
    T *const keys = shared + layout::keys, *const values = shared + layout::values;
    T *const queries = shared + layout::queries, *const douts = shared + layout::douts;
    const strip_walk walk(walks, static_cast<int>(p.H));
    const int frames = static_cast<int>(p.T), left = static_cast<int>(p.left), right = static_cast<int>(p.right);
    const uint64_t window = (uint64_t{1} << (left + right + 1)) - 1;
    const float scale = static_cast<float>(p.scale);
    const int g = threadIdx.x % 32 / 4;
    // Who computes scores and dv (first), and who dp and dk (second): one warp both.
    const bool first_warp = WARPS == 1 || threadIdx.x < 32, second_warp = WARPS == 1 || !first_warp;
    const auto wait_for_all = [] {
        if constexpr (WARPS == 1)
            __syncwarp();
        else
            __syncthreads();
    };

    // Unit u: rows 16 u to 16 u + 15 and keys 16 u - left to 16 u - left + 15. Rows before `first_row` see no key of
    // ours.
    const int first = walk.begin - (BLOCKS - 1), first_key = first * STRIP - left;
    const int first_row = walk.begin * STRIP - left - right > 0 ? walk.begin * STRIP - left - right : 0;
    const lane_of_rows<D> lane;
    const int key_head = walk.h / static_cast<int>(p.H / p.K);
    const T *q_from = lane.template address<const T>(p.q, walk.b, walk.h, first * STRIP);
    const T *dout_from = lane.template address<const T>(p.dout, walk.b, walk.h, first * STRIP);
    const T *k_from = lane.template address<const T>(p.k, walk.b, key_head, first_key);
    const T *v_from = lane.template address<const T>(p.v, walk.b, key_head, first_key);
    T *dq_to = lane.template address<T>(p.dq, walk.b, walk.h, walk.begin * STRIP);
    T *dk_to = lane.template address<T>(p.dk, walk.b, walk.h, walk.begin * STRIP - left);
    T *dv_to = lane.template address<T>(p.dv, walk.b, walk.h, walk.begin * STRIP - left);
    const float *const dlse =
        p.dlse == nullptr ? nullptr
                          : static_cast<const float *>(p.dlse) + (static_cast<int64_t>(walk.b) * p.H + walk.h) * p.T;
    strip_keys blocks(p, walk.b, first_key, first_row - left, walk.end * STRIP + right);

    const auto fetch_keys = [&](int slot) {  // a warp what its own product reads
        const uint32_t bits = blocks.next();
        if (first_warp) lane.load(keys + slot * SLOT, k_from, p.k.stride_t, bits);
        if (second_warp) lane.load(values + slot * SLOT, v_from, p.v.stride_t, bits);
        k_from += STRIP * p.k.stride_t, v_from += STRIP * p.v.stride_t;
        return static_cast<uint64_t>(bits);
    };
    const auto fetch_rows = [&](int u, int slot) {
        const uint32_t bits = inside(u * STRIP, first_row, frames);
        if (first_warp) lane.load(queries + slot * SLOT, q_from, p.q.stride_t, bits);
        if (second_warp) lane.load(douts + slot * SLOT, dout_from, p.dout.stride_t, bits);
        q_from += STRIP * p.q.stride_t, dout_from += STRIP * p.dout.stride_t;
    };

    fetch_rows(first, 0);
    uint64_t seen = 0;  // bits of the keys in the ring, the strip's first one lowest
#pragma unroll
    for (int m = 0; m < BLOCKS; ++m) seen |= fetch_keys(m) << m * STRIP;
    cp_async_commit();

    uint32_t odd = 0;
    kept_parts<BLOCKS> weights, others;
    kept_parts<BLOCKS> &dscores = WARPS == 1 ? others : weights;  // of two warps each keeps what it needs
    for (int u = first, slot = 0; u < walk.end; ++u, slot = around<SLOTS>(slot, 1), seen >>= STRIP) {
        if (u + 1 < walk.end) {
            fetch_rows(u + 1, around<SLOTS>(slot, 1));
            seen |= fetch_keys(around<SLOTS>(slot, BLOCKS)) << BLOCKS * STRIP;
        }
        cp_async_commit();
        const uint32_t exist = inside(u * STRIP, first_row, frames);
        float delta[2] = {0.0f, 0.0f};  // - dlse for now, and a quarter of it: the sum over a row's lanes follows
        if (dlse != nullptr) {
            if (exist >> g & 1) delta[0] = -0.25f * dlse[u * STRIP + g];
            if (exist >> (g + 8) & 1) delta[1] = -0.25f * dlse[u * STRIP + g + 8];
        }
        cp_async_wait<1>();
        __syncwarp();

        const sight<uint64_t> visible = strip_sight(seen, exist, window);
        float s[2 * BLOCKS][4], dp[2 * BLOCKS][4], top[2], total[2];
        if constexpr (WARPS == 1) {
            strip_products<D, BLOCKS>(s, queries + slot * SLOT, keys, slot);
            strip_softmax(s, visible, scale * LOG2_E, top, total);
            strip_products<D, BLOCKS>(dp, douts + slot * SLOT, values, slot);
        } else {
            float4 *const told = reinterpret_cast<float4 *>(shared + layout::told) + threadIdx.x % 32;
            strip_products<D, BLOCKS>(
                s, (first_warp ? queries : douts) + slot * SLOT, first_warp ? keys : values, slot);
#pragma unroll
            for (int n = 0; n < 2 * BLOCKS; ++n)
                told[(first_warp ? n : 2 * BLOCKS + n) * 32] = make_float4(s[n][0], s[n][1], s[n][2], s[n][3]);
            __syncthreads();  // from here on both see what the other one has brought, too
#pragma unroll
            for (int n = 0; n < 2 * BLOCKS; ++n) {
                const float4 score = told[n * 32], gradient = told[(2 * BLOCKS + n) * 32];
                s[n][0] = score.x, s[n][1] = score.y, s[n][2] = score.z, s[n][3] = score.w;
                dp[n][0] = gradient.x, dp[n][1] = gradient.y, dp[n][2] = gradient.z, dp[n][3] = gradient.w;
            }
            strip_softmax(s, visible, scale * LOG2_E, top, total);
        }
        uint32_t kept = 0;
        if (p.seed != nullptr) {
            kept = kept_elements<2 * BLOCKS>(p, walk.b, walk.h, u * STRIP, u * STRIP - left);
            drop_out(dp, kept, p);
        }
        const float keep[2] = {join_sink(p, walk.h, top[0], total[0]), join_sink(p, walk.h, top[1], total[1])};
        const float share[2] = {
            total[0] == 0.0f ? 0.0f : __fdividef(keep[0], total[0]),
            total[1] == 0.0f ? 0.0f : __fdividef(keep[1], total[1])};
#pragma unroll
        for (int n = 0; n < 2 * BLOCKS; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[n][e] *= share[e / 2];
                if (visible.sees(n, e)) delta[e / 2] = fmaf(s[n][e], dp[n][e], delta[e / 2]);
            }
        delta[0] = row_sum(delta[0]), delta[1] = row_sum(delta[1]);
        if (p.delta != nullptr && u >= walk.begin && first_warp && threadIdx.x % 4 == 0) {
            float *const to = static_cast<float *>(p.delta) + (static_cast<int64_t>(walk.b) * p.H + walk.h) * p.T;
            if (exist >> g & 1) to[u * STRIP + g] = delta[0];
            if (exist >> (g + 8) & 1) to[u * STRIP + g + 8] = delta[1];
        }
#pragma unroll
        for (int n = 0; n < 2 * BLOCKS; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e)  // dp of a key that is not seen may be NaN
                dp[n][e] = visible.sees(n, e) ? s[n][e] * (dp[n][e] - delta[e / 2]) : 0.0f;
        if (p.seed != nullptr) drop_out(s, kept, p);

        uint32_t ds[BLOCKS][4];
#pragma unroll
        for (int m = 0; m < BLOCKS; ++m) round_to_a<T>(ds[m], dp, m);
        weights.grow_older();
        if constexpr (WARPS == 1) dscores.grow_older();
#pragma unroll
        for (int m = 0; m < BLOCKS; ++m) {
            if (first_warp) {
                uint32_t a[4];
                round_to_a<T>(a, s, m);
                transpose_a(weights.part[0][m], a);
            }
            if (second_warp) transpose_a(dscores.part[0][m], ds[m]);
        }

        if (u >= walk.begin) {
            T *const spare_keys = keys + slot * SLOT, *const spare_values = values + slot * SLOT;
            T *const for_dk = WARPS == 1 ? spare_values : shared + layout::told;
            const uint32_t own = inside(u * STRIP - left, 0, frames);
            const int half = WARPS == 1 || first_warp ? 0 : COLUMNS;
            __syncwarp();  // the step's first block of values is done with: it takes results
#pragma unroll
            for (int column = 0; column < D; column += COLUMNS * WARPS) {
                float dq[COLUMNS / 8][4] = {};
#pragma unroll
                for (int m = 0; m < BLOCKS; ++m)
                    add_product<D>(dq, ds[m], keys + around<SLOTS>(slot, m) * SLOT, column + half);
                put<D>(spare_values, dq, scale, scale, column + half);
            }
            wait_for_all();  // now the first block of keys, too, and what was told
            const uint32_t rows = WARPS == 1 ? exist : exist & (first_warp ? 0x00FFu : 0xFF00u);
            lane.store(dq_to, spare_values, p.dq.stride_t, rows, odd);
            if (first_warp) {
                weights.template gather<D>(spare_keys, douts, slot, 1.0f);
                __syncwarp();
                lane.store(dv_to, spare_keys, p.dv.stride_t, own, odd);
            }
            if (second_warp) {
                dscores.template gather<D>(for_dk, queries, slot, scale);
                __syncwarp();
                lane.store(dk_to, for_dk, p.dk.stride_t, own, odd);
            }
            dq_to += STRIP * p.dq.stride_t, dk_to += STRIP * p.dk.stride_t, dv_to += STRIP * p.dv.stride_t;
        }
        wait_for_all();  // before the next copies overwrite what has been read
    }
    bool mend = any_odd<T>(odd);
    if constexpr (WARPS > 1) mend = __syncthreads_or(mend) != 0 && first_warp;  // all is written: one warp will do
    if (mend) {
        using single = one_by_one<T, D, false>;
        static_assert(sizeof(typename single::statistics) * single::CACHED <= SLOT * sizeof(T));
        const single rows(p, walk.b, walk.h);
        rows.mend_dq(walk.begin * STRIP, walk.end * STRIP);
        rows.mend_dk_dv(
            walk.begin * STRIP - left, walk.end * STRIP - left,
            reinterpret_cast<typename single::statistics *>(shared + layout::keys));
    }
}

template <typename T, int D, int BLOCKS>
int launch_bwd(const params &p, cudaStream_t stream) {
    constexpr int shared = bwd_shared<T, D, BLOCKS>::bytes;
    const strip_walks walks = cut_walks(p, (p.T + p.left + STRIP - 1) / STRIP, resident_blocks(shared), 2 * BLOCKS - 1);
    return VTS_LAUNCH(
        (sliding_window_attention_strip_bwd_kernel<T, D, BLOCKS>), dim3(static_cast<unsigned>(p.B * p.H * walks.count)),
        dim3(32 * bwd_shared<T, D, BLOCKS>::warps), shared, stream, p, walks);
}

template <typename T, int D>
int with_window(const params &p, cudaStream_t stream) {
    return p.left + p.right <= STRIP ? launch_bwd<T, D, 2>(p, stream) : launch_bwd<T, D, 3>(p, stream);
}

template <typename T>
int with_width(const params &p, cudaStream_t stream) {
    switch (p.D) {
        case 32: return with_window<T, 32>(p, stream);
        case 64: return with_window<T, 64>(p, stream);
        case 128: return with_window<T, 128>(p, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace

int strip_bwd(const params &p, cudaStream_t stream) {
    if (p.B * p.H * p.T == 0) return cudaSuccess;
    return p.dtype == VTS_FLOAT16 ? with_width<__half>(p, stream) : with_width<__nv_bfloat16>(p, stream);
}

int64_t strip_bwd_scratch(const params &) { return 0; }

}  // namespace vts::sliding_window_attention
