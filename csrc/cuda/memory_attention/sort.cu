// A stable radix sort of chosen slots, whose order depends on no race: the same bits in every run.
//
// Keys are slots, or S where the weight is 0, of at most 9 bits a pass: one pass below 512 slots, two below 262,144.
// All passes' digits are counted first, in one reading. Then a pass is one launch: a tile of positions counts its
// digits, says so, adds up what the tiles before it have said, says that, and moves its positions ("decoupled
// look-back", Merrill and Garland 2016; for sorting Adinets and Merrill, arXiv 2206.01784). Its bytes are few beside
// those of the rows that scatter reads (16 a position and pass against 2 e): launches and latency are what it costs.
#include "../look_back.h"
#include "sort.h"

namespace vts::memory {
namespace {

constexpr int SORT_BLOCK = 256, SORT_WARPS = SORT_BLOCK / 32, ROUNDS = 16, TILE = SORT_BLOCK * ROUNDS, DIGIT_BITS = 9,
              DIGITS = 1 << DIGIT_BITS, MOST_PASSES = 4;
static_assert(DIGITS == 2 * SORT_BLOCK);  // two digits a thread
constexpr unsigned ALL = 0xFFFFFFFFu;

struct sort_plan {
    int64_t positions, tiles;  // of a head
    int passes, bits;          // bits of a pass

    __host__ __device__ int digits() const { return 1 << bits; }
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
    const int32_t *counts;  // [heads, digits]
    said *tiles;            // [heads, tiles, digits]
    int32_t *begun;         // tiles of all heads
    int shift;
    bool first, last;
};

// The key of a position of a head as the index has it: of one that is there.
__device__ __forceinline__ int32_t key_of(const gather_params &p, int64_t at) {
    return static_cast<const float *>(p.weights)[at] == 0.0f ? static_cast<int32_t>(p.S) : p.index[at];
}

// How often each digit of each pass is there: counts [passes, heads, digits].
__global__ void __launch_bounds__(SORT_BLOCK) memory_sort_count_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ sort_plan plan, int32_t *counts) {
    __shared__ int own[MOST_PASSES][DIGITS];
    const int64_t head = blockIdx.x / plan.tiles, tile = blockIdx.x % plan.tiles, heads = p.G * p.H;
    for (int at = static_cast<int>(threadIdx.x); at < MOST_PASSES * DIGITS; at += SORT_BLOCK)
        own[at / DIGITS][at % DIGITS] = 0;
    __syncthreads();
#pragma unroll 4
    for (int r = 0; r < ROUNDS; ++r) {
        const int64_t position = tile * TILE + r * SORT_BLOCK + threadIdx.x;
        if (position >= plan.positions) continue;
        const int32_t key = key_of(p, head * plan.positions + position);
        for (int n = 0; n < plan.passes; ++n)  // sums of integers: any order gives the same
            atomicAdd(&own[n][key >> n * plan.bits & (plan.digits() - 1)], 1);
    }
    __syncthreads();
    for (int n = 0; n < plan.passes; ++n)
        for (int d = static_cast<int>(threadIdx.x); d < plan.digits(); d += SORT_BLOCK)
            if (own[n][d] != 0) atomicAdd(counts + (n * heads + head) * plan.digits() + d, own[n][d]);
}

// The sum of `x` over this thread and those before it in the block.
__device__ __forceinline__ int sum_so_far(int x, int (&of_warp)[SORT_WARPS]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(ALL, x, step);
        if (lane >= step) x += other;
    }
    if (lane == 31) of_warp[warp] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < SORT_WARPS; ++w)
        if (w < warp) x += of_warp[w];
    return x;
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
__global__ void __launch_bounds__(SORT_BLOCK) memory_sort_pass_kernel(
    const __grid_constant__ gather_params p, const __grid_constant__ sort_plan plan,
    const __grid_constant__ sort_pass pass) {
    __shared__ int next[SORT_WARPS][DIGITS];
    __shared__ int of_warp[SORT_WARPS], number;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, digits = plan.digits();
    if (thread == 0) number = atomicAdd(pass.begun, 1);  // blocks may begin in any order, tiles not
    for (int at = thread; at < SORT_WARPS * DIGITS; at += SORT_BLOCK) next[at / DIGITS][at % DIGITS] = 0;
    __syncthreads();
    const int64_t head = number / plan.tiles, tile = number % plan.tiles, base = head * plan.positions;
    const int64_t begin = tile * TILE + warp * (TILE / SORT_WARPS) + lane;
    int32_t keys[ROUNDS];
#pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        const int64_t at = base + begin + r * 32;
        keys[r] = begin + r * 32 >= plan.positions ? -1 : pass.first ? key_of(p, at) : pass.keys_from[at];
    }
#pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        const bool there = keys[r] >= 0;
        const int digit = there ? keys[r] >> pass.shift & (digits - 1) : 0;
        const unsigned peers = peers_of(digit, plan.bits) & __ballot_sync(ALL, there);
        if (there && lane == __ffs(static_cast<int>(peers)) - 1) next[warp][digit] += __popc(peers);
        __syncwarp();
    }
    __syncthreads();

    const int d = 2 * thread;
    const bool mine = d < digits;
    int own[2] = {}, all[2] = {};  // of two digits: in this tile, in the head
    said *const words = pass.tiles + head * plan.tiles * digits + d;
    if (mine) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
#pragma unroll
            for (int w = 0; w < SORT_WARPS; ++w) own[e] += next[w][d + e];
            say(words + tile * digits + e, tile == 0 ? ALL_SO_FAR : OWN, own[e]);
            all[e] = pass.counts[head * digits + d + e];
        }
    }
    int first = sum_so_far(all[0] + all[1], of_warp) - all[0] - all[1];  // of the first digit's places
    if (mine) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int before = before_tile(words + e, digits, tile);
            if (tile > 0) say(words + tile * digits + e, ALL_SO_FAR, before + own[e]);
            int to = first + before;
#pragma unroll
            for (int w = 0; w < SORT_WARPS; ++w) {
                const int count = next[w][d + e];
                next[w][d + e] = to;
                to += count;
            }
            first += all[e];
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        const bool there = keys[r] >= 0;
        const int digit = there ? keys[r] >> pass.shift & (digits - 1) : 0;
        const unsigned peers = peers_of(digit, plan.bits) & __ballot_sync(ALL, there);
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

}  // namespace

// Two arrays of keys, and two of positions where a pass reads what another has written.
int64_t sort_scratch(const gather_params &p) {
    const sort_plan plan = plan_of(p);
    return (2 + std::min(plan.passes - 1, 2)) * rounded(p.G * p.H * plan.positions * 4);
}

// Of each pass the tiles' words, then the counts of all passes and of tiles begun.
int64_t sort_counters(const gather_params &p) {
    const sort_plan plan = plan_of(p);
    const int64_t digits = p.G * p.H * plan.digits();
    return plan.passes * (digits * plan.tiles * static_cast<int64_t>(sizeof(said)) + digits * 4 + 4);
}

int sort_positions(
    const gather_params &p, entry *entries, const int32_t **slots, void *scratch, void *counters, cudaStream_t stream) {
    const sort_plan plan = plan_of(p);
    const int64_t heads = p.G * p.H, tiles = heads * plan.tiles, step = rounded(heads * plan.positions * 4) / 4;
    if (tiles > 0x7FFFFFFF) return cudaErrorInvalidValue;
    const auto array = [&](int n) { return static_cast<int32_t *>(scratch) + n * step; };
    *slots = array((plan.passes + 1) % 2);
    if (tiles == 0) return cudaSuccess;

    said *const words = static_cast<said *>(counters);
    int32_t *const counts = reinterpret_cast<int32_t *>(words + plan.passes * tiles * plan.digits());
    const dim3 grid(static_cast<unsigned>(tiles)), block(SORT_BLOCK);
    int error = VTS_LAUNCH(memory_sort_count_kernel, grid, block, 0, stream, p, plan, counts);
    for (int n = 0; n < plan.passes && error == cudaSuccess; ++n) {
        sort_pass pass{};
        pass.keys_from = array((n + 1) % 2), pass.keys_to = array(n % 2);
        pass.positions_from = array(2 + (n + 1) % 2), pass.positions_to = array(2 + n % 2);
        pass.entries = entries;
        pass.counts = counts + n * heads * plan.digits();
        pass.tiles = words + n * tiles * plan.digits();
        pass.begun = counts + plan.passes * heads * plan.digits() + n;
        pass.shift = n * plan.bits, pass.first = n == 0, pass.last = n == plan.passes - 1;
        error = VTS_LAUNCH(memory_sort_pass_kernel, grid, block, 0, stream, p, plan, pass);
    }
    return error;
}

}  // namespace vts::memory
