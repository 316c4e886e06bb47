// Runs the CPU kernels of memory attention on tensors that end where their memory ends, on one thread and then with the
// tasks spread over several, and compares the bits. Built with a sanitizer, it shows reads and writes out of bounds,
// undefined behaviour, and threads that touch each other's data.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "vtsum/memory_attention.h"

namespace {

uint32_t state = 1;
uint32_t draw() { return state = state * 1664525u + 1013904223u; }
double uniform() { return draw() / 4294967296.0 - 0.5; }

// Numbers in a block of their own, to the byte.
template <typename T>
std::vector<T> numbers(int64_t count, bool filled = true) {
    std::vector<T> all(count);
    all.shrink_to_fit();
    for (T &one : all) one = filled ? static_cast<T>(uniform()) : T();
    return all;
}
std::vector<uint16_t> halves(int64_t count, vts_dtype dtype) {  // any number between 0.25 and 2 will do
    std::vector<uint16_t> all(count);
    for (uint16_t &one : all) one = dtype == VTS_BFLOAT16 ? 0x3E80 + draw() % 0x180 : 0x3400 + draw() % 0xC00;
    return all;
}

template <typename Run>
void spread(int64_t tasks, int threads, const Run &run) {
    std::vector<std::thread> pool;
    for (int n = 0; n < threads; ++n)
        pool.emplace_back([=, &run] { run(tasks * n / threads, tasks * (n + 1) / threads); });
    for (std::thread &one : pool) one.join();
}

typedef std::vector<char> bits;

template <typename T>
void append(bits &to, const std::vector<T> &from) {
    const char *bytes = reinterpret_cast<const char *>(from.data());
    to.insert(to.end(), bytes, bytes + from.size() * sizeof(T));
}

template <typename A>
bits softmax(int threads, int64_t slots, int64_t n, vts_dtype dtype) {
    vts_memory_softmax_params p = {};
    p.G = 2, p.H = 2, p.n = n, p.S = slots, p.dtype = dtype;
    const int64_t rows = p.G * p.H * p.n;
    auto weights = numbers<A>(rows * slots), factor = numbers<A>(rows), bias = numbers<A>(2 * slots);
    auto lse = numbers<A>(rows, false), sums = numbers<A>(4 * slots, false), dscores = numbers<A>(rows * slots);
    auto partial = numbers<A>(vts_memory_softmax_tasks(&p) * slots, false), dbias = sums;
    auto mask = std::vector<uint8_t>(p.G * n, 1);
    mask[n / 2] = 0;
    p.scores = p.weights = weights.data(), p.factor = factor.data(), p.slot_bias = bias.data();
    p.bias_stride_h = slots, p.query_mask = mask.data(), p.lse = lse.data(), p.partial = partial.data();
    spread(vts_memory_softmax_tasks(&p), threads, [&](int64_t b, int64_t e) { vts_memory_softmax_fwd_cpu(&p, b, e); });
    vts_memory_softmax_sums_cpu(&p, sums.data());
    p.dweights = p.dscores = dscores.data(), p.dlse = factor.data(), p.dusage = sums.data(), p.scaled = true;
    spread(vts_memory_softmax_tasks(&p), threads, [&](int64_t b, int64_t e) { vts_memory_softmax_bwd_cpu(&p, b, e); });
    vts_memory_softmax_sums_cpu(&p, dbias.data());
    vts_memory_unproject_params u = {dscores.data(), weights.data(), factor.data(), slots, rows, slots, dtype, dtype};
    spread(rows, threads, [&](int64_t b, int64_t e) { vts_memory_unproject_cpu(&u, b, e); });
    auto narrow = halves(rows * slots, VTS_BFLOAT16);
    if (dtype == VTS_FLOAT32) {
        u.x = narrow.data(), u.x_dtype = VTS_BFLOAT16;
        spread(rows, threads, [&](int64_t b, int64_t e) { vts_memory_unproject_cpu(&u, b, e); });
    }
    bits all;
    append(all, weights), append(all, lse), append(all, sums), append(all, dscores), append(all, dbias);
    return all;
}

template <typename T, typename A>
bits sums(int threads, int64_t e, std::vector<T> table, std::vector<T> rows, vts_dtype dtype) {
    vts_memory_gather_params p = {};
    p.G = 1, p.H = 2, p.n = 19, p.k = 5, p.S = 11, p.e = e, p.dtype = dtype;
    auto weights = numbers<A>(2 * 19 * 5);
    std::vector<int32_t> index(weights.size()), order(weights.size()), starts(2 * 12);
    for (int32_t &slot : index) slot = draw() % 11;
    p.weights = weights.data(), p.index = index.data(), p.order = order.data(), p.starts = starts.data();
    p.table = table.data(), p.table_stride_h = 11 * e, p.table_stride_s = e;
    p.rows = rows.data(), p.rows_stride_n = 2 * e, p.rows_stride_h = e;
    spread(vts_memory_gather_tasks(&p), threads, [&](int64_t b, int64_t end) { vts_memory_gather_cpu(&p, b, end); });
    spread(
        vts_memory_gather_tasks(&p), threads, [&](int64_t b, int64_t end) { vts_memory_gather_dot_cpu(&p, b, end); });
    spread(2, threads, [&](int64_t b, int64_t end) { vts_memory_sort_cpu(&p, b, end); });
    spread(vts_memory_scatter_tasks(&p), threads, [&](int64_t b, int64_t end) { vts_memory_scatter_cpu(&p, b, end); });
    bits all;
    append(all, rows), append(all, weights), append(all, order), append(all, table);
    return all;
}

template <typename A>
bits search(int threads, int64_t slots, int64_t d, int64_t k, vts_dtype dtype) {
    const int64_t rows = 70, capacity = k + 40;
    auto x = numbers<A>(rows * d), keys = numbers<A>(slots * d), factor = numbers<A>(rows), bias = numbers<A>(slots);
    auto best = numbers<A>(rows * k, false);
    std::vector<int32_t> index(rows * k), counts(rows), kept(rows * capacity);
    std::vector<float> floors(rows * k, -__builtin_inff()), ceilings(rows * capacity);
    vts_memory_search_params p = {};
    p.x = x.data(), p.keys = keys.data(), p.factor = factor.data(), p.slot_bias = bias.data(), p.best = best.data();
    p.index = index.data(), p.x_stride = p.keys_stride = p.d = d, p.rows = rows, p.S = slots, p.k = k, p.dtype = dtype;
    spread(vts_memory_search_tasks(&p), threads, [&](int64_t b, int64_t e) { vts_memory_search_cpu(&p, b, e); });
    bits all;
    append(all, best), append(all, index);
    if constexpr (sizeof(A) == 4) {
        const auto round = [&](std::vector<float> &from, int64_t n, std::vector<uint16_t> &to, std::vector<float> &norm,
                               std::vector<float> &residual) {
            to.resize(n * d), norm.resize(n), residual.resize(n);
            vts_memory_round_params q = {from.data(), to.data(), norm.data(), residual.data(), d, n, d};
            spread(n, threads, [&](int64_t b, int64_t e) { vts_memory_round_cpu(&q, b, e); });
        };
        std::vector<uint16_t> near_x, near_keys, scores(rows * slots);
        std::vector<float> row_norm, row_residual, slot_norm, slot_residual;
        round(x, rows, near_x, row_norm, row_residual), round(keys, slots, near_keys, slot_norm, slot_residual);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t s = 0; s < slots; ++s) {
                float dot = 0;
                for (int64_t i = 0; i < d; ++i) {
                    const uint32_t a = (uint32_t)near_x[r * d + i] << 16, b = (uint32_t)near_keys[s * d + i] << 16;
                    float u, v;
                    std::memcpy(&u, &a, 4), std::memcpy(&v, &b, 4);
                    dot += u * v;
                }
                uint32_t word;
                std::memcpy(&word, &dot, 4);
                scores[r * slots + s] = (word + 0x7FFF + (word >> 16 & 1)) >> 16;
            }
        vts_memory_shortlist_params q = {};
        q.scores = scores.data(), q.row_norm = row_norm.data(), q.row_residual = row_residual.data();
        q.slot_norm = slot_norm.data(), q.slot_residual = slot_residual.data(), q.factor = factor.data();
        q.slot_bias = bias.data(), q.rows = rows, q.slots = slots, q.d = d, q.k = k, q.capacity = capacity;
        q.floors = floors.data(), q.counts = counts.data(), q.kept = kept.data(), q.ceilings = ceilings.data();
        spread(rows, threads, [&](int64_t b, int64_t e) { vts_memory_shortlist_cpu(&q, b, e); });
        p.floors = floors.data(), p.ceilings = ceilings.data(), p.counts = counts.data(), p.kept = kept.data();
        p.capacity = capacity;
        const auto scored = best;
        const auto chosen = index;
        spread(rows, threads, [&](int64_t b, int64_t e) { vts_memory_rescore_cpu(&p, b, e); });
        if (best != scored || index != chosen) all.clear();  // the shortlist lost a slot
    }
    return all;
}

template <typename E>
bits product(int threads, int64_t m, int64_t n, int64_t k, bool turned, vts_dtype dtype) {
    const auto elements = [&](int64_t count) {
        if constexpr (sizeof(E) == 2)
            return halves(count, dtype);
        else
            return numbers<float>(count);
    };
    auto a = elements(m * k), b = elements(k * n);
    auto c = numbers<float>(m * n);
    if (!vts_memory_product_pays(dtype)) return bits(1);
    vts_memory_product_params p = {};
    p.dtype = dtype, p.a = a.data(), p.b = b.data(), p.c = c.data(), p.m = m, p.n = n, p.k = k, p.c_stride_m = n;
    p.add = turned, p.a_stride_m = turned ? 1 : k, p.a_stride_k = turned ? m : 1;
    p.b_stride_k = turned ? 1 : n, p.b_stride_n = turned ? k : 1;
    auto bias = numbers<float>(n);
    std::vector<uint16_t> rounded(m * n);
    if (!turned) p.bias = bias.data();
    if (dtype == VTS_BFLOAT16 && m % 2 == 0) p.rounded = rounded.data(), p.rounded_stride_m = n;
    auto packed = numbers<float>(vts_memory_product_packed(&p), false);
    p.packed = packed.data();
    for (int64_t block = 0; block < vts_memory_product_blocks(&p); ++block) {
        spread(vts_memory_product_pack_tasks(&p), threads, [&](int64_t begin, int64_t end) {
            vts_memory_product_pack_cpu(&p, block, begin, end);
        });
        spread(vts_memory_product_run_tasks(&p), threads, [&](int64_t begin, int64_t end) {
            vts_memory_product_run_cpu(&p, block, begin, end);
        });
    }
    bits all;
    append(all, c), append(all, rounded);
    return all;
}

int calls = 0;

template <typename Call>
bool same(const Call &call) {
    bits found[2];
    for (int threads : {1, 3}) state = 7, found[threads == 3] = call(threads);
    ++calls;
    return !found[0].empty() && found[0] == found[1];
}

}  // namespace

int main() {
    bool good = true;
    for (const int64_t slots : {1, 7, 16, 33, 100})
        for (const int64_t n : {1, 65}) {
            good &= same([=](int t) { return softmax<float>(t, slots, n, VTS_FLOAT32); });
            good &= same([=](int t) { return softmax<double>(t, slots, n, VTS_FLOAT64); });
        }
    for (const int64_t e : {1, 16, 31, 128, 165}) {
        good &= same([=](int t) {
            return sums<float, float>(t, e, numbers<float>(22 * e), numbers<float>(38 * e), VTS_FLOAT32);
        });
        good &= same([=](int t) {
            return sums<double, double>(t, e, numbers<double>(22 * e), numbers<double>(38 * e), VTS_FLOAT64);
        });
        for (const vts_dtype dtype : {VTS_FLOAT16, VTS_BFLOAT16})
            good &= same([=](int t) {
                return sums<uint16_t, float>(t, e, halves(22 * e, dtype), halves(38 * e, dtype), dtype);
            });
    }
    for (const int64_t slots : {3, 64, 150})
        for (const int64_t d : {1, 16, 45})
            for (const int64_t k : {1, 3}) {
                good &= same([=](int t) { return search<float>(t, slots, d, k, VTS_FLOAT32); });
                good &= same([=](int t) { return search<double>(t, slots, d, k, VTS_FLOAT64); });
            }
    const int64_t rows[] = {1, 12, 97}, columns[] = {1, 31, 70}, depths[] = {1, 48, 1041};
    for (int i = 0; i < 18; ++i) {  // every pair of sizes
        const bool turned = i >= 9;
        const int64_t m = rows[i % 3], n = columns[i / 3 % 3], k = depths[(i + i / 3) % 3];
        good &= same([=](int t) { return product<float>(t, m, n, k, turned, VTS_FLOAT32); });
        good &= same([=](int t) { return product<uint16_t>(t, m, n, k, turned, VTS_BFLOAT16); });
    }
    std::printf("%d calls%s\n", calls, good ? "" : ", and results that differ");
    return good ? 0 : 1;
}
