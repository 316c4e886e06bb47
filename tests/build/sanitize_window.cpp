// Runs the CPU kernels of sliding-window attention on tensors that end where their memory ends, forward and backward,
// first on one thread and then with the tasks spread over several, and compares the bits. Built with a sanitizer, it
// shows reads and writes out of bounds, undefined behaviour, and threads that touch each other's data.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "vtsum/sliding_window_attention.h"

namespace {

using params = vts_sliding_window_attention_params;

struct option {
    int64_t B, H, K, T, D, left, right, dilation;
    bool shift, mask, packed, bias, dropout;
    vts_dtype dtype;
};

uint32_t state = 1;
uint32_t draw() { return state = state * 1664525u + 1013904223u; }
double uniform() { return draw() / 4294967296.0 - 0.5; }

int64_t bytes_of(vts_dtype dtype) { return dtype == VTS_FLOAT64 ? 8 : dtype == VTS_FLOAT32 ? 4 : 2; }

// A tensor [B, H, T, D] in a block of its own, to the byte.
struct tensor {
    std::vector<char> bytes;
    vts_bhtd rows;

    tensor(const option &o, int64_t heads, bool filled) : bytes(o.B * heads * o.T * o.D * bytes_of(o.dtype), '\x7f') {
        bytes.shrink_to_fit();
        rows = {bytes.data(), heads * o.T * o.D, o.T * o.D, o.D};
        for (int64_t i = 0; filled && i < o.B * heads * o.T * o.D; ++i) {
            if (o.dtype == VTS_FLOAT64) {
                reinterpret_cast<double *>(bytes.data())[i] = uniform();
            } else if (o.dtype == VTS_FLOAT32) {
                reinterpret_cast<float *>(bytes.data())[i] = static_cast<float>(uniform());
            } else {  // any number between 0.25 and 2 will do
                const uint16_t bits = o.dtype == VTS_BFLOAT16 ? 0x3E80 + draw() % 0x180 : 0x3400 + draw() % 0xC00;
                reinterpret_cast<uint16_t *>(bytes.data())[i] = bits;
            }
        }
    }
};

template <typename Run>
void spread(int64_t tasks, int threads, const Run &run) {
    std::vector<std::thread> pool;
    for (int n = 0; n < threads; ++n)
        pool.emplace_back([=, &run] { run(tasks * n / threads, tasks * (n + 1) / threads); });
    for (std::thread &one : pool) one.join();
}

// All results of one call, one after the other.
std::vector<char> results(const option &o, int threads) {
    state = 7;
    const int64_t wide = o.dtype == VTS_FLOAT64 ? 8 : 4;
    const int64_t entries = (o.shift ? 2 : 1) * (o.left + o.right) + 1;
    tensor q(o, o.H, true), k(o, o.K, true), v(o, o.K, true), dout(o, o.H, true);
    tensor out(o, o.H, false), dq(o, o.H, false), dk(o, o.H, false), dv(o, o.H, false);
    std::vector<char> lse(o.B * o.H * o.T * wide), bias(o.bias ? o.H * entries * wide : 0), dbias(bias.size());
    std::vector<uint8_t> mask(o.B * o.T);
    for (uint8_t &one : mask) one = draw() % 4 != 0;
    const std::vector<int32_t> ends = {
        0, static_cast<int32_t>(o.T / 3), static_cast<int32_t>(o.T / 3), static_cast<int32_t>(o.T)};
    const int64_t seed = 12345;
    params p = {};
    p.q = q.rows, p.k = k.rows, p.v = v.rows, p.out = out.rows, p.lse = lse.data();
    p.B = o.B, p.H = o.H, p.K = o.K, p.T = o.T, p.D = o.D;
    p.left = o.left, p.right = o.right, p.dilation = o.dilation, p.scale = 0.3, p.dtype = o.dtype;
    p.border = o.shift ? VTS_SHIFT : VTS_TRUNCATE;
    if (o.mask) p.mask = mask.data(), p.mask_stride_b = o.T, p.mask_stride_t = 1;
    if (o.packed) p.cu_seqlens = ends.data(), p.sequences = 3;
    if (o.bias) p.bias = bias.data();
    if (o.dropout) p.seed = &seed, p.drop_below = 1u << 30, p.keep_scale = 4.0 / 3;
    spread(vts_sliding_window_attention_fwd_cpu_tasks(&p), threads, [&](int64_t begin, int64_t end) {
        if (vts_sliding_window_attention_fwd_cpu(&p, begin, end)) std::abort();
    });
    p.out = {}, p.lse = nullptr;
    std::vector<char> dlse(o.B * o.H * o.T * wide);  // zeros
    p.dout = dout.rows, p.dq = dq.rows, p.dk = dk.rows, p.dv = dv.rows, p.dlse = dlse.data();
    std::vector<char> scratch(vts_sliding_window_attention_bwd_cpu_scratch(&p));
    if (o.bias) p.dbias = dbias.data(), p.scratch = scratch.data();
    spread(vts_sliding_window_attention_bwd_cpu_tasks(&p), threads, [&](int64_t begin, int64_t end) {
        if (vts_sliding_window_attention_bwd_cpu(&p, begin, end)) std::abort();
    });
    if (o.bias) vts_sliding_window_attention_bwd_cpu_finish(&p);
    std::vector<char> all;
    for (const std::vector<char> *part : {&out.bytes, &lse, &dq.bytes, &dk.bytes, &dv.bytes, &dbias})
        all.insert(all.end(), part->begin(), part->end());
    return all;
}

}  // namespace

int main() {
    int calls = 0;
    const vts_dtype dtypes[] = {VTS_FLOAT32, VTS_BFLOAT16, VTS_FLOAT16, VTS_FLOAT64};
    const int64_t widths[] = {64, 32, 24, 7}, lengths[] = {1, 5, 66, 200};
    for (int n = 0; n < 4 * 4 * 8; ++n) {  // each length meets each dtype, width and set of options
        const int options = n % 8, d = n / 8 % 4, t = n / 32;
        const bool shift = options & 1, packed = options & 2, rest = options & 4;
        const int64_t D = widths[d], T = lengths[(options + d + t) % 4];
        const option o = {packed ? 1 : 2, 4,     rest ? 2 : 4, T,      D,    shift ? 3 : 2, 2,
                          rest ? 2 : 1,   shift, rest,         packed, rest, rest,          dtypes[t]};
        const std::vector<char> once = results(o, 1), again = results(o, 3);
        if (once != again) {
            std::printf("bits differ: dtype %d D %d T %d options %d\n", dtypes[t], (int)D, (int)T, options);
            return 1;
        }
        ++calls;
    }
    const option wide = {1, 1, 1, 300, 64, 40, 40, 1, false, true, false, false, false, VTS_FLOAT32};
    if (results(wide, 1) != results(wide, 3)) return 1;
    std::printf("level %s: %d calls\n", vts_cpu_level(), calls + 1);
    return 0;
}
