// Sliding-window attention with at most 33 keys a row on tensor cores: the forward pass.
#include "spoilt.h"
#include "strip.h"

namespace vts::sliding_window_attention {
namespace {

template <typename T, int D, int BLOCKS>
struct fwd_shared {
    static constexpr int slots = BLOCKS + 1, slot = STRIP * D;  // elements
    static constexpr int keys = 0, values = keys + slots * slot, queries = values + slots * slot;
    static constexpr int bytes = (queries + 2 * slot) * static_cast<int>(sizeof(T));
};

template <typename T, int D, int BLOCKS>
__global__ void __launch_bounds__(32, resident<fwd_shared<T, D, BLOCKS>::bytes>)
    sliding_window_attention_strip_fwd_kernel(
        const __grid_constant__ params p, const __grid_constant__ strip_walks walks) {
    using layout = fwd_shared<T, D, BLOCKS>;
    constexpr int SLOTS = layout::slots, SLOT = layout::slot;
    VTS_DYNAMIC_SHARED(T, shared);
    T *const keys = shared + layout::keys, *const values = shared + layout::values;
    T *const queries = shared + layout::queries;
    const strip_walk walk(walks, static_cast<int>(p.H));
    const int frames = static_cast<int>(p.T), left = static_cast<int>(p.left), right = static_cast<int>(p.right);
    const uint64_t window = (uint64_t{1} << (left + right + 1)) - 1;
    const float factor = static_cast<float>(p.scale) * LOG2_E;
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;

    const lane_of_rows<D> lane;
    const int key_head = walk.h / static_cast<int>(p.H / p.K), first_key = walk.begin * STRIP - left;
    const T *q_from = lane.template address<const T>(p.q, walk.b, walk.h, walk.begin * STRIP);
    const T *k_from = lane.template address<const T>(p.k, walk.b, key_head, first_key);
    const T *v_from = lane.template address<const T>(p.v, walk.b, key_head, first_key);
    T *out_to = lane.template address<T>(p.out, walk.b, walk.h, walk.begin * STRIP);
    strip_keys blocks(p, walk.b, first_key, first_key, walk.end * STRIP + right);

    const auto fetch_keys = [&](int slot) {
        const uint32_t bits = blocks.next();
        lane.load(keys + slot * SLOT, k_from, p.k.stride_t, bits);
        lane.load(values + slot * SLOT, v_from, p.v.stride_t, bits);
        k_from += STRIP * p.k.stride_t, v_from += STRIP * p.v.stride_t;
        return static_cast<uint64_t>(bits);
    };
    const auto fetch_queries = [&](int u) {
        lane.load(queries + (u & 1) * SLOT, q_from, p.q.stride_t, inside(u * STRIP, 0, frames));
        q_from += STRIP * p.q.stride_t;
    };

    uint32_t odd = 0;
    fetch_queries(walk.begin);
    uint64_t seen = 0;  // bits of the keys in the ring, the strip's first one lowest
#pragma unroll
    for (int m = 0; m < BLOCKS; ++m) seen |= fetch_keys(m) << m * STRIP;
    cp_async_commit();

    for (int u = walk.begin, slot = 0; u < walk.end; ++u, slot = around<SLOTS>(slot, 1), seen >>= STRIP) {
        if (u + 1 < walk.end) {
            fetch_queries(u + 1);
            seen |= fetch_keys(around<SLOTS>(slot, BLOCKS)) << BLOCKS * STRIP;
        }
        cp_async_commit();
        cp_async_wait<1>();
        __syncwarp();

        T *const rows = queries + (u & 1) * SLOT;
        const uint32_t exist = inside(u * STRIP, 0, frames);
        const sight<uint64_t> visible = strip_sight(seen, exist, window);
        float s[2 * BLOCKS][4], top[2], total[2], out[D / 8][4] = {};
        strip_products<D, BLOCKS>(s, rows, keys, slot);
        strip_softmax(s, visible, factor, top, total);
        if (p.seed != nullptr)
            drop_out(s, kept_elements<2 * BLOCKS>(p, walk.b, walk.h, u * STRIP, u * STRIP - left), p);
#pragma unroll
        for (int m = 0; m < BLOCKS; ++m) {
            uint32_t weights[4];
            round_to_a<T>(weights, s, m);
            add_product<D>(out, weights, values + around<SLOTS>(slot, m) * SLOT);
        }

        const float keep[2] = {join_sink(p, walk.h, top[0], total[0]), join_sink(p, walk.h, top[1], total[1])};
        __syncwarp();  // the queries have been read: their place takes the results
        put<D>(
            rows, out, total[0] == 0.0f ? 0.0f : __fdividef(keep[0], total[0]),
            total[1] == 0.0f ? 0.0f : __fdividef(keep[1], total[1]));
        __syncwarp();
        lane.store(out_to, rows, p.out.stride_t, exist, odd);
        out_to += STRIP * p.out.stride_t;
        if (p.lse != nullptr && t == 0) {
            float *const lse =
                static_cast<float *>(p.lse) + (static_cast<int64_t>(walk.b) * p.H + walk.h) * p.T + u * STRIP + g;
            if (exist >> g & 1) lse[0] = total[0] == 0.0f ? -INFINITY : (top[0] + __log2f(total[0])) * LN_2;
            if (exist >> (g + 8) & 1) lse[8] = total[1] == 0.0f ? -INFINITY : (top[1] + __log2f(total[1])) * LN_2;
        }
        __syncwarp();  // before the next copies overwrite what has been read
    }
    if (any_odd<T>(odd)) one_by_one<T, D, false>(p, walk.b, walk.h).mend_out(walk.begin * STRIP, walk.end * STRIP);
}

template <typename T, int D, int BLOCKS>
int launch_fwd(const params &p, cudaStream_t stream) {
    constexpr int shared = fwd_shared<T, D, BLOCKS>::bytes;
    const strip_walks walks = cut_walks(p, (p.T + STRIP - 1) / STRIP, resident_blocks(shared), BLOCKS);
    return VTS_LAUNCH(
        (sliding_window_attention_strip_fwd_kernel<T, D, BLOCKS>), dim3(static_cast<unsigned>(p.B * p.H * walks.count)),
        dim3(32), shared, stream, p, walks);
}

template <typename T, int D>
int with_window(const params &p, cudaStream_t stream) {
    return p.left + p.right <= STRIP ? launch_fwd<T, D, 2>(p, stream) : launch_fwd<T, D, 3>(p, stream);
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

bool strip_takes(const params &p, bool) {
    return tensor_cores_take(p) && p.left >= 0 && p.right >= 0 && p.left + p.right <= 2 * STRIP;
}

int strip_fwd(const params &p, cudaStream_t stream) {
    if (p.B * p.H * p.T == 0) return cudaSuccess;
    return p.dtype == VTS_FLOAT16 ? with_width<__half>(p, stream) : with_width<__nv_bfloat16>(p, stream);
}

}  // namespace vts::sliding_window_attention
