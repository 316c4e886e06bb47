// Matrix products in float32, compiled for AVX-512 alone.
#include "memory_product_impl.h"

namespace vts::VTS_LEVEL {
namespace {

struct product_of_float32 {
    typedef float storage, word;
    static constexpr int each = 1;  // elements along k in a word

    static VTS_INLINE vec<float> load_words(const float *from) { return load(from); }
    static VTS_INLINE float dense_word(const float *from) { return *from; }
    static VTS_INLINE float word_at(const float *from, int64_t, int64_t) { return *from; }
    static VTS_INLINE void pack_across(const float *from, int64_t, int64_t, float *to) { store(to, load(from)); }
    static VTS_INLINE vec<float> add_products(vec<float> sum, vec<float> b, float a) { return sum + b * a; }
};

}  // namespace

void memory_product_pack(const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end) {
    pack_panels<product_of_float32>(p, part, begin, end);
}
void memory_product_run(const vts_memory_product_params &p, const product_part &part, int64_t begin, int64_t end) {
    run_blocks<product_of_float32>(p, part, begin, end);
}

}  // namespace vts::VTS_LEVEL
