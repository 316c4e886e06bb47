// A stable radix sort of chosen slots, without atomics that could change the order: the same bits in every run.
//
// Keys are slots, or S where the weight is 0, of at most 9 bits a pass: one pass below 512 slots, two below 262,144. A
// pass counts the digits of each tile of positions, turns the counts into first positions by a scan, and moves them.
// Its bytes are few beside those of the rows that scatter reads (16 a position and pass against 2 e): launches and
// latency are what it costs.
#include "sort.h"

namespace vts::memory {
namespace {

constexpr int SORT_BLOCK = 256, SORT_WARPS = SORT_BLOCK / 32, ROUNDS = 16, TILE = SORT_BLOCK * ROUNDS, DIGIT_BITS = 9,
              DIGITS = 1 << DIGIT_BITS, SCAN_BLOCK = 1024;
constexpr unsigned ALL = 0xFFFFFFFFu;

struct sort_plan {
    int64_t positions, tiles;  // of a head
    int passes, bits;          // bits of a pass
};

sort_plan plan_of(const gather_params &p) {
    int bits = 1;
    while (p.S >> bits != 0) ++bits;
    const int passes = (bits + DIGIT_BITS - 1) / DIGIT_BITS;
    return {p.n * p.k, (p.n * p.k + TILE - 1) / TILE, passes, (bits + passes - 1) / passes};
}

// Where a pass reads and writes; every array has one part of `positions` for each head. The first reads the index, the
// last writes entries.
struct sort_pass {
    const int32_t *keys_from, *positions_from;
    int32_t *keys_to, *positions_to;
    entry *entries;
    int32_t *counts;  // [heads, digits, tiles]
    int shift, bits;
    bool first, last;
};

// The key of a position of a head, which is there.
__device__ __forceinline__ int32_t key_of(const gather_params &p, const sort_pass &pass, int64_t at) {
    if (!pass.first) return pass.keys_from[at];
    return static_cast<const float *>(p.weights)[at] == 0.0f ? static_cast<int32_t>(p.S) : p.index[at];
}

__global__ void __launch_bounds__(SORT_BLOCK) memory_sort_count_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ sort_plan plan,
    const __grid_constant__ sort_pass pass) {
    __shared__ int counts[DIGITS];
    const int64_t head = blockIdx.x / plan.tiles, tile = blockIdx.x % plan.tiles;
    const int digits = 1 << pass.bits;
    for (int d = static_cast<int>(threadIdx.x); d < digits; d += SORT_BLOCK) counts[d] = 0;
    __syncthreads();
#pragma unroll 4
    for (int r = 0; r < ROUNDS; ++r) {
        const int64_t position = tile * TILE + r * SORT_BLOCK + threadIdx.x;
        if (position >= plan.positions) continue;
        const int32_t key = key_of(p, pass, head * plan.positions + position);
        atomicAdd(counts + (key >> pass.shift & (digits - 1)), 1);  // sums of integers: any order gives the same
    }
    __syncthreads();
    for (int d = static_cast<int>(threadIdx.x); d < digits; d += SORT_BLOCK)
        pass.counts[(head * digits + d) * plan.tiles + tile] = counts[d];
}

// counts of a head, each replaced by the sum of those before it.
__global__ void __launch_bounds__(SCAN_BLOCK) memory_sort_scan_kernel(int32_t *counts, int64_t length) {
    __shared__ int of_warp[32];
    int32_t *const own = counts + blockIdx.x * length;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int64_t share = (length + SCAN_BLOCK - 1) / SCAN_BLOCK, begin = min(thread * share, length),
                  end = min(begin + share, length);
    int sum = 0;
#pragma unroll 8
    for (int64_t at = begin; at < end; ++at) sum += own[at];
    int before = sum;  // of this thread and those before it in its warp
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(ALL, before, step);
        if (lane >= step) before += other;
    }
    if (lane == 31) of_warp[warp] = before;
    __syncthreads();
    if (warp == 0) {
        int total = of_warp[lane];
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(ALL, total, step);
            if (lane >= step) total += other;
        }
        of_warp[lane] = total;
    }
    __syncthreads();
    before += (warp > 0 ? of_warp[warp - 1] : 0) - sum;
#pragma unroll 8
    for (int64_t at = begin; at < end; ++at) {
        const int own_count = own[at];
        own[at] = before;
        before += own_count;
    }
}

// The lanes of the warp whose digit is this lane's.
__device__ __forceinline__ unsigned peers_of(int digit, int bits) {
    unsigned peers = ALL;
    for (int b = 0; b < bits; ++b) {
        const unsigned set = __ballot_sync(ALL, digit >> b & 1);
        peers &= digit >> b & 1 ? set : ~set;
    }
    return peers;
}

// Each warp moves TILE / 8 neighbouring positions, 32 at a time; those before them in the tile are counted first.
__global__ void __launch_bounds__(SORT_BLOCK) memory_sort_move_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ sort_plan plan,
    const __grid_constant__ sort_pass pass) {
    __shared__ int next[SORT_WARPS][DIGITS];
    const int64_t head = blockIdx.x / plan.tiles, tile = blockIdx.x % plan.tiles, base = head * plan.positions;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int digits = 1 << pass.bits;
    for (int at = thread; at < SORT_WARPS * DIGITS; at += SORT_BLOCK) next[at / DIGITS][at % DIGITS] = 0;
    __syncthreads();
    const int64_t begin = tile * TILE + warp * (TILE / SORT_WARPS) + lane;
    int32_t keys[ROUNDS];
#pragma unroll
    for (int r = 0; r < ROUNDS; ++r)
        keys[r] = begin + r * 32 < plan.positions ? key_of(p, pass, base + begin + r * 32) : -1;
#pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        const bool there = keys[r] >= 0;
        const int digit = there ? keys[r] >> pass.shift & (digits - 1) : 0;
        const unsigned peers = peers_of(digit, pass.bits) & __ballot_sync(ALL, there);
        if (there && lane == __ffs(static_cast<int>(peers)) - 1) next[warp][digit] += __popc(peers);
        __syncwarp();
    }
    __syncthreads();
    for (int d = thread; d < digits; d += SORT_BLOCK) {
        int first = pass.counts[(head * digits + d) * plan.tiles + tile];
#pragma unroll
        for (int w = 0; w < SORT_WARPS; ++w) {
            const int count = next[w][d];
            next[w][d] = first;
            first += count;
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        const bool there = keys[r] >= 0;
        const int digit = there ? keys[r] >> pass.shift & (digits - 1) : 0;
        const unsigned peers = peers_of(digit, pass.bits) & __ballot_sync(ALL, there);
        int to = 0;
        if (there) to = next[warp][digit] + __popc(peers & ((1u << lane) - 1));
        __syncwarp();
        if (there && lane == __ffs(static_cast<int>(peers)) - 1) next[warp][digit] += __popc(peers);
        __syncwarp();
        if (!there) continue;
        const int64_t from = begin + r * 32;
        const int32_t position = pass.first ? static_cast<int32_t>(from) : pass.positions_from[base + from];
        pass.keys_to[base + to] = keys[r];
        if (pass.last)
            pass.entries[base + to] = {
                position / static_cast<int32_t>(p.k), static_cast<const float *>(p.weights)[base + position]};
        else
            pass.positions_to[base + to] = position;
    }
}

// A thread finds the first of its slot's positions by bisection.
__global__ void __launch_bounds__(GATHER_BLOCK) memory_sort_starts_kernel(
    const __grid_constant__ head_grid grid, const int32_t *keys, int64_t positions, int64_t S, int32_t *starts) {
    grid.each([&](int64_t head, int64_t slot) {
        if (slot > S) return;
        int low = 0, high = static_cast<int>(positions);  // the number of positions before slot lies in [low, high]
        while (low < high) {
            const int middle = low + (high - low) / 2;
            if (keys[head * positions + middle] < slot)
                low = middle + 1;
            else
                high = middle;
        }
        starts[head * (S + 1) + slot] = low;
    });
}

int64_t rounded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

int64_t sort_scratch(const gather_params &p) {
    const sort_plan plan = plan_of(p);
    const int64_t heads = p.G * p.H;
    return 3 * rounded(heads * plan.positions * 4) + heads * (int64_t{1} << plan.bits) * plan.tiles * 4;
}

int sort_positions(const gather_params &p, entry *entries, int32_t *starts, void *scratch, cudaStream_t stream) {
    const sort_plan plan = plan_of(p);
    const int64_t heads = p.G * p.H, tiles = heads * plan.tiles, step = rounded(heads * plan.positions * 4) / 4;
    if (tiles > 0x7FFFFFFF) return cudaErrorInvalidValue;
    int32_t *const keys[2] = {static_cast<int32_t *>(scratch), static_cast<int32_t *>(scratch) + step};
    sort_pass pass{};
    pass.positions_to = static_cast<int32_t *>(scratch) + 2 * step;
    pass.counts = static_cast<int32_t *>(scratch) + 3 * step;
    pass.bits = plan.bits, pass.entries = entries;
    const dim3 grid(static_cast<unsigned>(tiles));
    for (int n = 0; n < plan.passes && tiles > 0; ++n) {
        pass.first = n == 0, pass.last = n == plan.passes - 1, pass.shift = n * plan.bits;
        pass.keys_from = keys[(n + 1) % 2], pass.keys_to = keys[n % 2];
        if (int error = VTS_LAUNCH(memory_sort_count_kernel, grid, dim3(SORT_BLOCK), 0, stream, p, plan, pass); error)
            return error;
        const int64_t length = (int64_t{1} << plan.bits) * plan.tiles;
        if (int error = VTS_LAUNCH(
                memory_sort_scan_kernel, dim3(static_cast<unsigned>(heads)), dim3(SCAN_BLOCK), 0, stream, pass.counts,
                length);
            error)
            return error;
        if (int error = VTS_LAUNCH(memory_sort_move_kernel, grid, dim3(SORT_BLOCK), 0, stream, p, plan, pass); error)
            return error;
        pass.positions_from = pass.positions_to;
    }
    const head_grid slots(p, p.S + 1);
    const int32_t *const sorted = keys[(plan.passes + 1) % 2];
    return VTS_LAUNCH(
        memory_sort_starts_kernel, slots.size(), dim3(GATHER_BLOCK), 0, stream, slots, sorted, plan.positions, p.S,
        starts);
}

}  // namespace vts::memory
