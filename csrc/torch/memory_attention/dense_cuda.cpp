// vtsum_kernels::memory_weights_{fwd,bwd} and memory_flash_{fwd,bwd} on CUDA: products by torch's BLAS, and between
// them our kernels. The flash ops go through blocks of rows, so that the scores of one block are all there is.
#include <tuple>

#include "cuda_tensors.h"
#include "vtsum/memory_attention.h"

namespace vts::glue {
namespace {

using torch::stable::new_empty;

// Some rows of a checked call: x [G, n, H, d], keys [G, H, S, d], factor [G, H, n], query_mask [G, n].
struct call {
    const char *op;
    Tensor x, keys, factor;
    std::optional<Tensor> query_mask;
    int64_t G, n, H, d, S;

    call(
        const char *op_, const Tensor &x_, const Tensor &keys_, const Tensor &factor_,
        const std::optional<Tensor> &mask)
        : op(op_),
          x(with_dense_last(x_)),
          keys(with_dense_last(keys_)),
          factor(torch::stable::contiguous(factor_)),
          query_mask(mask) {
        STD_TORCH_CHECK(x.dim() == 4 && keys.dim() == 4, op, ": x must be [G, n, H, d] and keys [G, H, S, d]");
        G = x.size(0), n = x.size(1), H = x.size(2), d = x.size(3), S = keys.size(2);
        STD_TORCH_CHECK(has_shape(keys, {G, H, S, d}), op, ": keys must be of x's groups, heads and width");
        STD_TORCH_CHECK(
            dtype_of(x, op) != VTS_FLOAT64 && keys.scalar_type() == x.scalar_type(), op,
            ": x and keys must be both float32, float16 or bfloat16 on CUDA");
        (void)dense(op, "factor", factor, {G, H, n}, ScalarType::Float);
        if (query_mask.has_value()) {
            query_mask = torch::stable::contiguous(*query_mask);
            (void)dense(op, "query_mask", *query_mask, {G, n}, ScalarType::Bool);
        }
    }

    const uint8_t *mask() const {
        return query_mask.has_value() ? static_cast<const uint8_t *>(query_mask->data_ptr()) : nullptr;
    }

    // Rows [first, first + rows) of each group.
    call rows(int64_t first, int64_t rows) const {
        if (rows == n) return *this;
        std::optional<Tensor> part;
        if (query_mask.has_value()) part = part_of(*query_mask, 1, first, rows);
        return call(op, part_of(x, 1, first, rows), keys, part_of(factor, 2, first, rows), part);
    }
};

// Of each group; all heads of a block are read at once.
int64_t rows_of_block(const call &c) {
    return std::max(BLOCK_PRODUCTS / std::max<int64_t>(c.G * c.H * c.S, 1), BLOCK_ROWS / 4);
}

vts_memory_softmax_params softmax_params(const call &c, const Tensor &weights) {
    vts_memory_softmax_params p = {};
    p.weights = weights.data_ptr(), p.factor = c.factor.data_ptr(), p.query_mask = c.mask();
    p.G = c.G, p.H = c.H, p.n = c.n, p.S = c.S;
    p.dtype = VTS_FLOAT32, p.weights_dtype = dtype_of(weights, c.op);
    return p;
}

// Few slots: scores that are never stored. False where that kernel does not take the call.
bool weights_at_once(const call &c, const bias_of_slots &bias, Tensor &weights, Tensor &lse, Tensor &usage) {
    vts_memory_weights_params p = {};
    p.x = c.x.data_ptr(), p.keys = c.keys.data_ptr(), p.factor = static_cast<const float *>(c.factor.data_ptr());
    p.x_stride_g = c.x.stride(0), p.x_stride_n = c.x.stride(1), p.x_stride_h = c.x.stride(2);
    p.keys_stride_g = c.keys.stride(0), p.keys_stride_h = c.keys.stride(1), p.keys_stride_s = c.keys.stride(2);
    p.slot_bias = bias.data, p.bias_stride_g = bias.stride_g, p.bias_stride_h = bias.stride_h;
    p.query_mask = c.mask(), p.weights = weights.data_ptr();
    p.lse = static_cast<float *>(lse.data_ptr()), p.usage = static_cast<float *>(usage.data_ptr());
    p.G = c.G, p.H = c.H, p.n = c.n, p.S = c.S, p.d = c.d;
    p.dtype = dtype_of(c.x, c.op), p.weights_dtype = dtype_of(weights, c.op);
    if (!vts_memory_weights_cuda_takes(&p)) return false;
    const workspace partial(c.x, vts_memory_weights_cuda_scratch(&p));
    p.partial = static_cast<float *>(partial.data());
    check_launch(c.op, vts_memory_weights_fwd_cuda(&p, stream_of(c.x)));
    return true;
}

// weights [G, H, n, S], lse [G, H, n] and, where it is given, usage [G, H, S] are written.
void weigh(const call &c, const bias_of_slots &bias, Tensor &weights, Tensor &lse, Tensor *usage) {
    if (usage != nullptr && weights_at_once(c, bias, weights, lse, *usage)) return;
    Tensor scores = weights.scalar_type() == ScalarType::Float ? weights : new_float(c.x, {c.G, c.H, c.n, c.S});
    multiply(by_head(c.x), transposed(c.keys), scores);
    auto p = softmax_params(c, weights);
    p.scores = scores.data_ptr(), p.lse = lse.data_ptr();
    p.usage = usage == nullptr ? nullptr : usage->data_ptr();
    p.slot_bias = bias.data, p.bias_stride_g = bias.stride_g, p.bias_stride_h = bias.stride_h;
    const workspace partial(c.x, usage == nullptr ? 0 : vts_memory_softmax_cuda_scratch(&p));
    p.partial = partial.data();
    check_launch(c.op, vts_memory_softmax_fwd_cuda(&p, stream_of(c.x)));
}

const void *gradient(
    const call &c, const char *name, const std::optional<Tensor> &x, std::initializer_list<int64_t> shape,
    ScalarType dtype) {
    if (!x.has_value()) return nullptr;
    return dense(c.op, name, *x, shape, dtype);
}

// ds [G, H, n, S] of x's dtype, and dslot_bias [G, H, S] where it is given.
Tensor softmax_backward(
    const call &c, const std::optional<Tensor> &dweights, const std::optional<Tensor> &dlse,
    const std::optional<Tensor> &dusage, const Tensor &weights, Tensor *dslot_bias) {
    auto p = softmax_params(c, weights);
    Tensor ds = new_empty(c.x, {c.G, c.H, c.n, c.S}, c.x.scalar_type());
    p.dweights = gradient(c, "dweights", dweights, {c.G, c.H, c.n, c.S}, weights.scalar_type());
    p.dlse = gradient(c, "dlse", dlse, {c.G, c.H, c.n}, ScalarType::Float);
    p.dusage = gradient(c, "dusage", dusage, {c.G, c.H, c.S}, ScalarType::Float);
    p.dweights_dtype = p.weights_dtype, p.dscores_dtype = dtype_of(c.x, c.op);
    p.dscores = ds.data_ptr(), p.dslot_bias = dslot_bias == nullptr ? nullptr : dslot_bias->data_ptr();
    const workspace partial(c.x, dslot_bias == nullptr ? 0 : vts_memory_softmax_cuda_scratch(&p));
    p.partial = partial.data();
    check_launch(c.op, vts_memory_softmax_bwd_cuda(&p, stream_of(c.x)));
    return ds;
}

// dx [G, n, H, d] and dfactor [G, H, n], both contiguous, are written; gives factor x [G, n, H, d].
Tensor rows_backward(const call &c, const Tensor &ds, Tensor &dx, Tensor &dfactor) {
    multiply(ds, c.keys, by_head(dx));
    Tensor scaled = new_empty(c.x, {c.G, c.n, c.H, c.d}, c.x.scalar_type());
    vts_memory_factor_bwd_params p = {};
    p.x = c.x.data_ptr(), p.u = dx.data_ptr(), p.scaled = scaled.data_ptr();
    p.x_stride_g = c.x.stride(0), p.x_stride_n = c.x.stride(1), p.x_stride_h = c.x.stride(2);
    p.factor = static_cast<const float *>(c.factor.data_ptr());
    p.dfactor = static_cast<float *>(dfactor.data_ptr()), p.query_mask = c.mask();
    p.G = c.G, p.H = c.H, p.n = c.n, p.d = c.d, p.dtype = dtype_of(c.x, c.op);
    check_launch(c.op, vts_memory_factor_bwd_cuda(&p, stream_of(c.x)));
    return scaled;
}

std::tuple<Tensor, Tensor, Tensor> weights_forward(
    Tensor x, Tensor keys, Tensor factor, std::optional<Tensor> slot_bias, std::optional<Tensor> query_mask,
    ScalarType dtype) {
    check_devices(
        "memory_weights_fwd", {"x", x},
        {{"keys", keys}, {"factor", factor}, {"slot_bias", slot_bias}, {"query_mask", query_mask}});
    const DeviceGuard guard(x.get_device_index());
    const call c("memory_weights_fwd", x, keys, factor, query_mask);
    STD_TORCH_CHECK(
        dtype == ScalarType::Float || dtype == c.x.scalar_type(), c.op, ": dtype must be float32 or that of x");
    const bias_of_slots bias(c.op, slot_bias, c.G, c.H, c.S);
    Tensor weights = new_empty(c.x, {c.G, c.H, c.n, c.S}, dtype);
    Tensor lse = new_float(c.x, {c.G, c.H, c.n}), usage = new_float(c.x, {c.G, c.H, c.S});
    weigh(c, bias, weights, lse, &usage);
    return {weights, lse, usage};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> weights_backward(
    std::optional<Tensor> dweights, std::optional<Tensor> dlse, std::optional<Tensor> dusage, Tensor weights, Tensor x,
    Tensor keys, Tensor factor, std::optional<Tensor> query_mask, bool need_bias) {
    check_devices(
        "memory_weights_bwd", {"x", x},
        {{"dweights", dweights},
         {"dlse", dlse},
         {"dusage", dusage},
         {"weights", weights},
         {"keys", keys},
         {"factor", factor},
         {"query_mask", query_mask}});
    const DeviceGuard guard(x.get_device_index());
    const call c("memory_weights_bwd", x, keys, factor, query_mask);
    dweights = contiguous(dweights), dlse = contiguous(dlse), dusage = contiguous(dusage);
    weights = torch::stable::contiguous(weights);
    (void)dense(c.op, "weights", weights, {c.G, c.H, c.n, c.S}, weights.scalar_type());
    Tensor dx = new_empty(c.x, {c.G, c.n, c.H, c.d}, c.x.scalar_type());
    Tensor dkeys = new_empty(c.x, {c.G, c.H, c.S, c.d}, c.x.scalar_type());
    Tensor dfactor = new_float(c.x, {c.G, c.H, c.n});
    Tensor dslot_bias = need_bias ? new_float(c.x, {c.G, c.H, c.S}) : new_float(c.x, {0});
    const Tensor ds = softmax_backward(c, dweights, dlse, dusage, weights, need_bias ? &dslot_bias : nullptr);
    const Tensor scaled = rows_backward(c, ds, dx, dfactor);
    multiply(transposed(ds), by_head(scaled), dkeys);
    return {dx, dkeys, dfactor, dslot_bias};
}

std::tuple<Tensor, Tensor, Tensor> flash_forward(
    Tensor x, Tensor keys, Tensor values, Tensor factor, std::optional<Tensor> slot_bias,
    std::optional<Tensor> query_mask, bool need_usage) {
    check_devices(
        "memory_flash_fwd", {"x", x},
        {{"keys", keys}, {"values", values}, {"factor", factor}, {"slot_bias", slot_bias}, {"query_mask", query_mask}});
    const DeviceGuard guard(x.get_device_index());
    const call c("memory_flash_fwd", x, keys, factor, query_mask);
    const bias_of_slots bias(c.op, slot_bias, c.G, c.H, c.S);
    STD_TORCH_CHECK(
        has_shape(values, {c.G, c.H, c.S, values.size(values.dim() - 1)}) && values.scalar_type() == c.x.scalar_type(),
        c.op, ": values must be [G, H, S, e] of x's dtype");
    Tensor out = new_empty(c.x, {c.G, c.n, c.H, values.size(3)}, c.x.scalar_type());
    Tensor lse = new_float(c.x, {c.G, c.H, c.n});
    const int64_t step = rows_of_block(c), blocks = (c.n + step - 1) / step;
    Tensor usages = need_usage ? new_float(c.x, {std::max<int64_t>(blocks, 1), c.G, c.H, c.S}) : new_float(c.x, {0});
    if (blocks == 0) (void)torch::stable::zero_(usages);
    for (int64_t b = 0; b < blocks; ++b) {
        const call part = c.rows(b * step, std::min(step, c.n - b * step));
        Tensor weights = new_empty(c.x, {c.G, c.H, part.n, c.S}, c.x.scalar_type());
        Tensor own_lse = blocks == 1 ? lse : new_float(c.x, {c.G, c.H, part.n});
        std::optional<Tensor> usage;
        if (need_usage) usage = torch::stable::select(usages, 0, b);
        weigh(part, bias, weights, own_lse, need_usage ? &*usage : nullptr);
        multiply(weights, values, by_head(part_of(out, 1, b * step, part.n)));
        if (blocks > 1) copy_to(part_of(lse, 2, b * step, part.n), own_lse);
    }
    if (!need_usage) return {out, lse, usages};
    return {out, lse, blocks <= 1 ? torch::stable::select(usages, 0, 0) : torch::stable::sum(usages, {{0}})};
}

// A sum over blocks of rows of products [G, H, S, .]: in float32, unless there is but one block.
class block_sum {
  public:
    block_sum(const call &c, int64_t width, int64_t blocks)
        : op_(c.op),
          total_(new_empty(c.x, {c.G, c.H, c.S, width}, blocks == 1 ? c.x.scalar_type() : ScalarType::Float)),
          dtype_(c.x.scalar_type()) {
        if (blocks == 0) (void)torch::stable::zero_(total_);
    }

    void add(const Tensor &a, const Tensor &b) {
        if (first_) {
            multiply(a, b, total_);
        } else {
            if (!term_.has_value()) term_ = torch::stable::empty_like(total_);
            multiply(a, b, *term_);
            check_launch(
                op_, vts_memory_add_cuda(
                         static_cast<float *>(total_.data_ptr()), static_cast<const float *>(term_->data_ptr()),
                         total_.numel(), stream_of(total_)));
        }
        first_ = false;
    }

    Tensor result() const { return in_dtype(total_, dtype_); }

  private:
    const char *op_;
    Tensor total_;
    std::optional<Tensor> term_;
    ScalarType dtype_;
    bool first_ = true;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> flash_backward(
    Tensor dout, std::optional<Tensor> dlse, std::optional<Tensor> dusage, Tensor x, Tensor keys, Tensor values,
    Tensor factor, std::optional<Tensor> slot_bias, std::optional<Tensor> query_mask, Tensor out, Tensor lse) {
    check_devices(
        "memory_flash_bwd", {"x", x},
        {{"dout", dout},
         {"dlse", dlse},
         {"dusage", dusage},
         {"keys", keys},
         {"values", values},
         {"factor", factor},
         {"slot_bias", slot_bias},
         {"query_mask", query_mask},
         {"out", out},
         {"lse", lse}});
    const DeviceGuard guard(x.get_device_index());
    const call c("memory_flash_bwd", x, keys, factor, query_mask);
    dusage = contiguous(dusage);
    const bias_of_slots bias(c.op, slot_bias, c.G, c.H, c.S);
    const auto type = c.x.scalar_type();
    STD_TORCH_CHECK(
        has_shape(values, {c.G, c.H, c.S, values.size(values.dim() - 1)}) &&
            has_shape(dout, {c.G, c.n, c.H, values.size(3)}) && values.scalar_type() == type &&
            dout.scalar_type() == type,
        c.op, ": values must be [G, H, S, e] and dout [G, n, H, e], of x's dtype");
    const int64_t step = rows_of_block(c), blocks = (c.n + step - 1) / step;
    Tensor dx = new_empty(c.x, {c.G, c.n, c.H, c.d}, type), dfactor = new_float(c.x, {c.G, c.H, c.n});
    Tensor biases = new_float(c.x, {std::max<int64_t>(blocks, 1), c.G, c.H, c.S});
    if (blocks == 0) (void)torch::stable::zero_(biases);
    block_sum dkeys(c, c.d, blocks), dvalues(c, values.size(3), blocks);
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t first = b * step;
        const call part = c.rows(first, std::min(step, c.n - first));
        Tensor weights = new_empty(c.x, {c.G, c.H, part.n, c.S}, type), own_lse = new_float(c.x, {c.G, c.H, part.n});
        weigh(part, bias, weights, own_lse, nullptr);
        const Tensor own_dout = by_head(part_of(dout, 1, first, part.n));
        Tensor dweights = new_empty(c.x, {c.G, c.H, part.n, c.S}, type);
        multiply(own_dout, transposed(values), dweights);
        dvalues.add(transposed(weights), own_dout);
        std::optional<Tensor> own_dlse;
        if (dlse.has_value()) own_dlse = torch::stable::contiguous(part_of(*dlse, 2, first, part.n));
        Tensor own_bias = torch::stable::select(biases, 0, b);
        const Tensor ds = softmax_backward(part, dweights, own_dlse, dusage, weights, &own_bias);
        Tensor own_dx = blocks == 1 ? dx : new_empty(c.x, {c.G, part.n, c.H, c.d}, type);
        Tensor own_dfactor = blocks == 1 ? dfactor : new_float(c.x, {c.G, c.H, part.n});
        const Tensor scaled = rows_backward(part, ds, own_dx, own_dfactor);
        dkeys.add(transposed(ds), by_head(scaled));
        if (blocks == 1) break;
        copy_to(part_of(dx, 1, first, part.n), own_dx);
        copy_to(part_of(dfactor, 2, first, part.n), own_dfactor);
    }
    const Tensor dslot_bias = blocks <= 1 ? torch::stable::select(biases, 0, 0) : torch::stable::sum(biases, {{0}});
    return {dx, dkeys.result(), dvalues.result(), dfactor, dslot_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(VTS_NAMESPACE, CUDA, m) {
    m.impl("memory_weights_fwd", TORCH_BOX(&weights_forward));
    m.impl("memory_weights_bwd", TORCH_BOX(&weights_backward));
    m.impl("memory_flash_fwd", TORCH_BOX(&flash_forward));
    m.impl("memory_flash_bwd", TORCH_BOX(&flash_backward));
}

}  // namespace vts::glue
