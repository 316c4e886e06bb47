// table[s] = sum over (i, j) with index_ij = s of weights_ij rows[i]: what gather's gradient is to its table.
//
// The positions are sorted by slot; then each slot is a sum of rows like those of gather, as fast as those. A slot of
// very many positions is cut into chunks of MOST positions whose sums are added up, in order, by a kernel of their own:
// no thread has more to do than MOST rows, and the sums run in the same order in every run.
//
// Launches: the counters' zeros, the sort's counts and its passes (two below 262,144 slots), the starts, the sums, the
// chunks' sums.
#include "sort.h"

namespace vts::memory {
namespace {

constexpr int MOST = 128;
constexpr int64_t FINISHING = 128 * GATHER_BLOCK;  // threads of a head

// A chunk of a slot that has more than MOST positions.
struct alignas(8) slot_chunk {
    int32_t slot, chunk;  // slot -1: there is none
};

struct scatter_plan {
    const entry *entries;
    const int32_t *slots;  // of the entries
    int32_t *starts;       // [heads, S + 1]: the first entry of each slot
    slot_chunk *chunks;    // [heads, chunks_most]
    int32_t *count;        // [heads], of chunks
    float *partial;        // [heads, chunks_most, e]
    int64_t positions, chunks_most;
};

// The entries of a head before those of a slot, of which there are at least `low`.
__device__ __forceinline__ int before_slot(const int32_t *slots, int64_t positions, int low, int64_t slot) {
    int high = static_cast<int>(positions);
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (slots[middle] < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// A thread finds where its slot's entries begin and end, and cuts them into chunks if there are many. Where the chunks
// of a slot lie does not change their sums: they may come in any order.
__global__ void __launch_bounds__(GATHER_BLOCK) memory_scatter_starts_kernel(
    const __grid_constant__ scatter_plan plan, const __grid_constant__ head_grid grid, int64_t S) {
    grid.each([&](int64_t head, int64_t slot) {
        if (slot > S) return;
        const int32_t *const slots = plan.slots + head * plan.positions;
        const int start = before_slot(slots, plan.positions, 0, slot);
        plan.starts[head * (S + 1) + slot] = start;
        if (slot == S || plan.chunks_most == 0) return;
        const int positions = before_slot(slots, plan.positions, start, slot + 1) - start;
        if (positions <= MOST) return;
        const int chunks = (positions + MOST - 1) / MOST;
        slot_chunk *const to = plan.chunks + head * plan.chunks_most + atomicAdd(plan.count + head, chunks);
        for (int n = 0; n < chunks; ++n) to[n] = {static_cast<int32_t>(slot), n};
    });
}

// A thread owns a column, N elements wide, of a slot or, in the blocks behind those of all slots, of a chunk.
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan,
    const __grid_constant__ head_grid slots, const __grid_constant__ head_grid chunks) {
    const int64_t columns = p.e / N;
    const auto add = [&](int64_t head, int64_t thread, bool whole) {
        const int64_t number = thread / columns, column = thread % columns * N;
        if (number >= (whole ? p.S : plan.count[head])) return;
        const int64_t at = head * plan.chunks_most + number;
        const int64_t slot = whole ? number : plan.chunks[at].slot;
        const int32_t *const start = plan.starts + head * (p.S + 1) + slot;
        int begin = start[0], end = start[1];
        if (whole) {
            if (end - begin > MOST) return;
        } else {
            begin += plan.chunks[at].chunk * MOST;
            end = min(begin + MOST, end);
        }
        const entry *const entries = plan.entries + head * plan.positions + begin;
        const T *const rows = row_of<const T>(p, head, 0) + column;
        float sum[N] = {};
        add_rows<T, N>(
            sum, end - begin, [&](int j) { return rows + entries[j].frame * p.rows_stride_n; },
            [&](int j) { return entries[j].weight; });
        if (whole) {
            store_vector<T, N>(bank_of<T>(p, head) + slot * p.table_stride_s + column, sum);
        } else {
#pragma unroll
            for (int e = 0; e < N; ++e) plan.partial[at * p.e + column + e] = sum[e];
        }
    };
    for (int64_t block = blockIdx.x; block < slots.blocks + chunks.blocks; block += gridDim.x) {
        const bool whole = block < slots.blocks;
        const int64_t of_head = whole ? slots.of_head : chunks.of_head, own = whole ? block : block - slots.blocks;
        add(own / of_head, own % of_head * GATHER_BLOCK + threadIdx.x, whole);
    }
}

// A thread owns elements of slots that were cut: the first chunk's threads add up those of all. There are threads for
// few chunks only, as there mostly are; they take several in turn where there are more.
template <typename T>
__global__ void __launch_bounds__(GATHER_BLOCK, 4) memory_scatter_finish_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ scatter_plan plan,
    const __grid_constant__ head_grid grid) {
    grid.each([&](int64_t head, int64_t thread) {
        for (int64_t own = thread; own < plan.count[head] * p.e; own += grid.of_head * GATHER_BLOCK) {
            const int64_t at = head * plan.chunks_most + own / p.e, column = own % p.e;
            const slot_chunk chunk = plan.chunks[at];
            if (chunk.chunk != 0) continue;
            const int32_t *const start = plan.starts + head * (p.S + 1) + chunk.slot;
            const int count = (start[1] - start[0] + MOST - 1) / MOST;
            float sum = 0.0f;
#pragma unroll 8
            for (int n = 0; n < count; ++n) sum += plan.partial[(at + n) * p.e + column];
            bank_of<T>(p, head)[chunk.slot * p.table_stride_s + column] = narrow<T>(sum);
        }
    });
}

struct run {
    const gather_params &p;
    const scatter_plan &plan;
    const cudaStream_t stream;

    template <typename T, int N>
    int with() const {
        const int64_t columns = p.e / N;
        const dim3 block(GATHER_BLOCK);
        const head_grid slots(p, p.S * columns), chunks(p, plan.chunks_most * columns);
        const dim3 grid(static_cast<unsigned>(std::min(slots.blocks + chunks.blocks, most_blocks())));
        const int error =
            VTS_LAUNCH((memory_scatter_kernel<T, N>), grid, block, (RING_BYTES<T, N>), stream, p, plan, slots, chunks);
        if (error != cudaSuccess || plan.chunks_most == 0) return error;
        const head_grid sums(p, std::min(plan.chunks_most * p.e, FINISHING));
        return VTS_LAUNCH(memory_scatter_finish_kernel<T>, sums.size(), block, 0, stream, p, plan, sums);
    }
};

// Slots of more than MOST positions have, together, at most 2 chunks for each MOST positions.
int64_t most_chunks(const gather_params &p) { return p.n * p.k <= MOST ? 0 : 2 * (p.n * p.k / MOST); }

// The parts of scratch, in order: what begins as zeros (what the sort counts, the count of chunks), entries, starts,
// chunks, their sums, what the sort wants.
struct parts {
    int64_t count, entries, starts, chunks, partial, sort, end;

    explicit parts(const gather_params &p) {
        const int64_t heads = p.G * p.H, most = heads * most_chunks(p);
        count = rounded(sort_counters(p));
        entries = count + rounded(heads * 4);
        starts = entries + rounded(heads * p.n * p.k * static_cast<int64_t>(sizeof(entry)));
        chunks = starts + rounded(heads * (p.S + 1) * 4);
        partial = chunks + rounded(most * static_cast<int64_t>(sizeof(slot_chunk)));
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
    if (p->G * p->H * p->S * p->e == 0) return cudaSuccess;
    const mem::parts at(*p);
    const auto part = [&](int64_t offset) {
        return static_cast<void *>(static_cast<unsigned char *>(scratch) + offset);
    };
    mem::scatter_plan plan{
        static_cast<mem::entry *>(part(at.entries)),
        nullptr,
        static_cast<int32_t *>(part(at.starts)),
        static_cast<mem::slot_chunk *>(part(at.chunks)),
        static_cast<int32_t *>(part(at.count)),
        static_cast<float *>(part(at.partial)),
        p->n * p->k,
        mem::most_chunks(*p)};
    int error = cudaMemsetAsync(scratch, 0, static_cast<size_t>(at.entries), on);
    if (error != cudaSuccess) return error;
    error =
        mem::sort_positions(*p, static_cast<mem::entry *>(part(at.entries)), &plan.slots, part(at.sort), scratch, on);
    if (error != cudaSuccess) return error;
    const mem::head_grid slots(*p, p->S + 1);
    error =
        VTS_LAUNCH(mem::memory_scatter_starts_kernel, slots.size(), dim3(mem::GATHER_BLOCK), 0, on, plan, slots, p->S);
    if (error != cudaSuccess) return error;
    return mem::with_vectors(*p, mem::run{*p, plan, on});
}

}  // extern "C"
