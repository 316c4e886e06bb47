// table[s] = sum over (i, j) with index_ij = s of weights_ij rows[i]: what gather's gradient is to its table.
//
// The positions are sorted by slot; then each slot is a sum of rows like those of gather, as fast as those. A slot of
// very many positions is cut into chunks of MOST positions whose sums are added up, in order, by a kernel of their own:
// no thread has more to do than MOST rows, and the sums run in the same order in every run.
#include "sort.h"

namespace vts::memory {
namespace {

constexpr int MOST = 128;

// A chunk of a slot that has more than MOST positions.
struct alignas(8) slot_chunk {
    int32_t slot, chunk;  // slot -1: there is none
};

struct scatter_plan {
    const entry *entries;
    const int32_t *starts;
    slot_chunk *chunks;  // [heads, chunks_most]
    int32_t *count;      // [heads], of chunks
    float *partial;      // [heads, chunks_most, e]
    int64_t positions, chunks_most;
};

// Where the chunks of a slot lie does not change their sums: they may come in any order.
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_cut_kernel(
    const __grid_constant__ scatter_plan plan, const __grid_constant__ head_grid grid, int64_t S) {
    grid.each([&](int64_t head, int64_t slot) {
        if (slot >= S) return;
        const int32_t *const start = plan.starts + head * (S + 1) + slot;
        const int positions = start[1] - start[0], chunks = (positions + MOST - 1) / MOST;
        if (positions <= MOST) return;
        slot_chunk *const to = plan.chunks + head * plan.chunks_most + atomicAdd(plan.count + head, chunks);
        for (int n = 0; n < chunks; ++n) to[n] = {static_cast<int32_t>(slot), n};
    });
}

// sum += the weighted rows of entries [begin, end), each from `rows` on
template <typename T, int N>
__device__ __forceinline__ void add_entries(
    float (&sum)[N], const entry *entries, int begin, int end, const T *rows, int64_t stride) {
    entries += begin;
    add_rows<T, N>(
        sum, end - begin, [&](int j) { return rows + entries[j].frame * stride; },
        [&](int j) { return entries[j].weight; });
}

// A thread owns a column of a slot, N elements wide.
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan,
    const __grid_constant__ head_grid grid) {
    const int64_t columns = p.e / N;
    grid.each([&](int64_t head, int64_t thread) {
        const int64_t slot = thread / columns, column = thread % columns * N;
        if (slot >= p.S) return;
        const int32_t *const start = plan.starts + head * (p.S + 1) + slot;
        if (start[1] - start[0] > MOST) return;
        float sum[N] = {};
        add_entries<T, N>(
            sum, plan.entries + head * plan.positions, start[0], start[1], row_of<const T>(p, head, 0) + column,
            p.rows_stride_n);
        store_vector<T, N>(bank_of<T>(p, head) + slot * p.table_stride_s + column, sum);
    });
}

// A thread owns a column of a chunk.
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_chunks_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan,
    const __grid_constant__ head_grid grid) {
    const int64_t columns = p.e / N;
    grid.each([&](int64_t head, int64_t thread) {
        const int64_t number = thread / columns, column = thread % columns * N;
        if (number >= plan.count[head]) return;
        const int64_t at = head * plan.chunks_most + number;
        const slot_chunk own = plan.chunks[at];
        const int32_t *const start = plan.starts + head * (p.S + 1) + own.slot;
        const int begin = start[0] + own.chunk * MOST;
        float sum[N] = {};
        add_entries<T, N>(
            sum, plan.entries + head * plan.positions, begin, min(begin + MOST, start[1]),
            row_of<const T>(p, head, 0) + column, p.rows_stride_n);
#pragma unroll
        for (int e = 0; e < N; ++e) plan.partial[at * p.e + column + e] = sum[e];
    });
}

// A thread owns one element of a slot that was cut: the first chunk's threads add up those of all.
template <typename T>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_finish_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan,
    const __grid_constant__ head_grid grid) {
    grid.each([&](int64_t head, int64_t thread) {
        const int64_t number = thread / p.e, column = thread % p.e;
        if (number >= plan.count[head]) return;
        const int64_t at = head * plan.chunks_most + number;
        const slot_chunk own = plan.chunks[at];
        if (own.chunk != 0) return;
        const int32_t *const start = plan.starts + head * (p.S + 1) + own.slot;
        const int chunks = (start[1] - start[0] + MOST - 1) / MOST;
        float sum = 0.0f;
#pragma unroll 8
        for (int n = 0; n < chunks; ++n) sum += plan.partial[(at + n) * p.e + column];
        bank_of<T>(p, head)[own.slot * p.table_stride_s + column] = narrow<T>(sum);
    });
}

struct run {
    const gather_params &p;
    const scatter_plan &plan;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        const int64_t columns = p.e / N;
        constexpr int shared = RING_BYTES<T, N>;
        const dim3 block(GATHER_BLOCK);
        const head_grid slots(p, p.S * columns), chunks(p, plan.chunks_most * columns), sums(p, plan.chunks_most * p.e);
        int error = VTS_LAUNCH((memory_scatter_kernel<T, N>), slots.size(), block, shared, stream, p, plan, slots);
        if (error != cudaSuccess) return error;
        error = VTS_LAUNCH((memory_scatter_chunks_kernel<T, N>), chunks.size(), block, shared, stream, p, plan, chunks);
        if (error != cudaSuccess) return error;
        return VTS_LAUNCH(memory_scatter_finish_kernel<T>, sums.size(), block, 0, stream, p, plan, sums);
    }
};

int64_t rounded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Slots of more than MOST positions have, together, at most 2 chunks for each MOST positions.
int64_t most_chunks(const gather_params &p) { return p.n * p.k <= MOST ? 0 : 2 * (p.n * p.k / MOST); }

// The parts of scratch, in order: entries, starts, chunks, their count, their sums, what the sort wants.
struct parts {
    int64_t entries, starts, chunks, count, partial, sort, end;

    explicit parts(const gather_params &p) {
        const int64_t heads = p.G * p.H, most = heads * most_chunks(p);
        entries = 0;
        starts = entries + rounded(heads * p.n * p.k * static_cast<int64_t>(sizeof(entry)));
        chunks = starts + rounded(heads * (p.S + 1) * 4);
        count = chunks + rounded(most * static_cast<int64_t>(sizeof(slot_chunk)));
        partial = count + rounded(heads * 4);
        sort = partial + rounded(most * p.e * 4);
        end = sort + sort_scratch(p);
    }
};

}  // namespace
}  // namespace vts::memory

namespace mem = vts::memory;

extern "C" {

int64_t vts_memory_scatter_cuda_scratch(const mem::gather_params *p) { return mem::parts(*p).end; }

int vts_memory_scatter_cuda(const mem::gather_params *p, void *scratch, void *stream) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (!mem::fits(*p) || p->n * p->k > 0x7FFFFFFF) return cudaErrorInvalidValue;
    const int64_t heads = p->G * p->H;
    if (heads * p->S * p->e == 0) return cudaSuccess;
    const mem::parts at(*p);
    const auto part = [&](int64_t offset) {
        return static_cast<void *>(static_cast<unsigned char *>(scratch) + offset);
    };
    const auto entries = static_cast<mem::entry *>(part(at.entries));
    const auto starts = static_cast<int32_t *>(part(at.starts));
    int error = mem::sort_positions(*p, entries, starts, part(at.sort), on);
    if (error != cudaSuccess) return error;
    const mem::scatter_plan plan{
        entries,
        starts,
        static_cast<mem::slot_chunk *>(part(at.chunks)),
        static_cast<int32_t *>(part(at.count)),
        static_cast<float *>(part(at.partial)),
        p->n * p->k,
        mem::most_chunks(*p)};
    if (plan.chunks_most > 0) {
        error = cudaMemsetAsync(plan.count, 0, static_cast<size_t>(heads) * 4, on);
        if (error != cudaSuccess) return error;
        const mem::head_grid slots(*p, p->S);
        error =
            VTS_LAUNCH(mem::memory_scatter_cut_kernel, slots.size(), dim3(mem::GATHER_BLOCK), 0, on, plan, slots, p->S);
        if (error != cudaSuccess) return error;
    }
    return mem::with_vectors(*p, mem::run{*p, plan, on});
}

}  // extern "C"
