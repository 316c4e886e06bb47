// table[s] = sum over (i, j) with index_ij = s of weights_ij rows[i]: what gather's gradient is to its table.
//
// The places are sorted by slot; then each slot is a sum of rows like those of gather, as fast as those. A slot of very
// many places is cut into pieces of MOST places whose sums are added up, in order, by a kernel of their own: no thread
// has more to do than MOST rows, and the sums run in the same order in every run.
#include "memory_sort.h"

namespace vts::memory {
namespace {

constexpr int MOST = 128;

// A piece of a slot that has more than MOST places.
struct alignas(8) slot_piece {
    int32_t slot, piece;  // slot -1: there is none
};

struct scatter_plan {
    const entry *entries;
    const int32_t *starts;
    slot_piece *pieces;  // [heads, pieces_most]
    int32_t *count;      // [heads], of pieces
    float *partial;      // [heads, pieces_most, e]
    int64_t places, pieces_most;
};

// Where the pieces of a slot lie does not change their sums: their place may be whatever comes first.
__global__ void __launch_bounds__(GATHER_BLOCK, 4)
    memory_scatter_cut_kernel(const __grid_constant__ scatter_plan plan, int64_t S) {
    const int64_t head = blockIdx.y, slot = thread_of_head();
    if (slot >= S) return;
    const int32_t *const start = plan.starts + head * (S + 1) + slot;
    const int places = start[1] - start[0], pieces = (places + MOST - 1) / MOST;
    if (places <= MOST) return;
    slot_piece *const to = plan.pieces + head * plan.pieces_most + atomicAdd(plan.count + head, pieces);
    for (int n = 0; n < pieces; ++n) to[n] = {static_cast<int32_t>(slot), n};
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
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan, unsigned columns) {
    const unsigned slot = thread_of_head() / columns, column = thread_of_head() % columns * N;
    if (slot >= p.S) return;
    const head_of_block head(p);
    const int32_t *const start = plan.starts + head.number * (p.S + 1) + slot;
    if (start[1] - start[0] > MOST) return;
    float sum[N] = {};
    add_entries<T, N>(
        sum, plan.entries + head.number * plan.places, start[0], start[1],
        row_of<const T>(p, head.g, head.h, 0) + column, p.rows_stride_n);
    store_piece<T, N>(bank_of<T>(p, head.g, head.h) + slot * p.table_stride_s + column, sum);
}

// A thread owns a column of a piece.
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_pieces_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan, unsigned columns) {
    const unsigned number = thread_of_head() / columns, column = thread_of_head() % columns * N;
    const head_of_block head(p);
    if (number >= static_cast<unsigned>(plan.count[head.number])) return;
    const int64_t at = head.number * plan.pieces_most + number;
    const slot_piece own = plan.pieces[at];
    const int32_t *const start = plan.starts + head.number * (p.S + 1) + own.slot;
    const int begin = start[0] + own.piece * MOST;
    float sum[N] = {};
    add_entries<T, N>(
        sum, plan.entries + head.number * plan.places, begin, min(begin + MOST, start[1]),
        row_of<const T>(p, head.g, head.h, 0) + column, p.rows_stride_n);
#pragma unroll
    for (int e = 0; e < N; ++e) plan.partial[at * p.e + column + e] = sum[e];
}

// A thread owns one element of a slot that was cut: the first piece's threads add up those of all.
template <typename T>
__global__ void __launch_bounds__(GATHER_BLOCK, 4)
    memory_scatter_finish_kernel(const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan) {
    const unsigned width = static_cast<unsigned>(p.e), number = thread_of_head() / width;
    const head_of_block head(p);
    if (number >= static_cast<unsigned>(plan.count[head.number])) return;
    const int64_t at = head.number * plan.pieces_most + number, column = thread_of_head() % width;
    const slot_piece own = plan.pieces[at];
    if (own.piece != 0) return;
    const int32_t *const start = plan.starts + head.number * (p.S + 1) + own.slot;
    const int pieces = (start[1] - start[0] + MOST - 1) / MOST;
    float sum = 0.0f;
#pragma unroll 8
    for (int n = 0; n < pieces; ++n) sum += plan.partial[(at + n) * p.e + column];
    bank_of<T>(p, head.g, head.h)[own.slot * p.table_stride_s + column] = narrow<T>(sum);
}

struct run {
    const gather_params &p;
    const scatter_plan &plan;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        const unsigned columns = static_cast<unsigned>(p.e / N);
        constexpr int shared = RING_BYTES<T, N>;
        int error = launch_by_head(memory_scatter_kernel<T, N>, p, p.S * columns, shared, stream, p, plan, columns);
        if (error != cudaSuccess || plan.pieces_most == 0) return error;
        error = launch_by_head(
            memory_scatter_pieces_kernel<T, N>, p, plan.pieces_most * columns, shared, stream, p, plan, columns);
        if (error != cudaSuccess) return error;
        return launch_by_head(memory_scatter_finish_kernel<T>, p, plan.pieces_most * p.e, 0, stream, p, plan);
    }
};

int64_t rounded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Slots of more than MOST places have, together, at most 2 pieces for each MOST places.
int64_t most_pieces(const gather_params &p) { return p.n * p.k <= MOST ? 0 : 2 * (p.n * p.k / MOST); }

// The parts of scratch, in order: entries, starts, pieces, their count, their sums, what the sort wants.
struct parts {
    int64_t entries, starts, pieces, count, partial, sort, end;

    explicit parts(const gather_params &p) {
        const int64_t heads = p.G * p.H, most = heads * most_pieces(p);
        entries = 0;
        starts = entries + rounded(heads * p.n * p.k * static_cast<int64_t>(sizeof(entry)));
        pieces = starts + rounded(heads * (p.S + 1) * 4);
        count = pieces + rounded(most * static_cast<int64_t>(sizeof(slot_piece)));
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
    if (!mem::fits(*p)) return cudaErrorInvalidValue;
    const int64_t heads = p->G * p->H;
    if (heads * p->S * p->e == 0) return cudaSuccess;
    const mem::parts at(*p);
    const auto part = [&](int64_t offset) {
        return static_cast<void *>(static_cast<unsigned char *>(scratch) + offset);
    };
    const auto entries = static_cast<mem::entry *>(part(at.entries));
    const auto starts = static_cast<int32_t *>(part(at.starts));
    int error = mem::sort_places(*p, entries, starts, part(at.sort), on);
    if (error != cudaSuccess) return error;
    const mem::scatter_plan plan{
        entries,
        starts,
        static_cast<mem::slot_piece *>(part(at.pieces)),
        static_cast<int32_t *>(part(at.count)),
        static_cast<float *>(part(at.partial)),
        p->n * p->k,
        mem::most_pieces(*p)};
    if (plan.pieces_most > 0) {
        error = cudaMemsetAsync(plan.count, 0, static_cast<size_t>(heads) * 4, on);
        if (error != cudaSuccess) return error;
        error = mem::launch_by_head(mem::memory_scatter_cut_kernel, *p, p->S, 0, on, plan, p->S);
        if (error != cudaSuccess) return error;
    }
    return mem::with_pieces(*p, mem::run{*p, plan, on});
}

}  // extern "C"
