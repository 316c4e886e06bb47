"""The joined product on the CPU, and the whole folded layer of one head as one op: what autograd would copy is
accumulated in place.

    y = x W1^T + P V' + bias,   P = softmax(factor x K'^T + slot_bias),   factor = scale, or scale / |x| for cosine

Products are counted: three forward and six backward, none of them over what another already made. With t = factor ds,
the scaled gradient of the scores, u = t K' and dK' = t^T x:
    dscale = sum_n x . (u / factor) factor / scale = <K', dK'> / scale, so that no pass over the rows is needed;
    a cosine's norm passes back - (x . u) x / |x|^2, added to u while it is in the cache; then dx = u + dy W1.

bfloat16 stays so where the processor multiplies it and adds up in float32 (`products`), and is widened before
otherwise. P, nearly even at the published scale, would lose in 8 digits what tells its slots apart: its distances from
e, 1 / S in bfloat16, are multiplied instead, P V' = (P - e) V' + e sum V' and P^T dy = (P - e)^T dy + e sum dy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import library
from ..memory_attention.call import Bank, Options
from ..memory_attention.cpu import in_full_precision, rows_softmax, rows_softmax_backward, widened
from ..memory_attention.products import OURS, add_product, product, rounded_sum
from ..memory_attention.read import keeps_weights
from ..memory_attention.reference import NORM_FLOOR
from ..tensors import acc_dtype, contiguous, dense_rows
from . import ops as _ops  # noqa: F401  (the schema of the join is theirs)
from .call import Call
from .fold import Folded

_TENSORS = "Tensor x, Tensor keys, Tensor bank, Tensor weight, Tensor? bias, Tensor scale, Tensor? slot_bias"
_INPUTS = f"{_TENSORS}, Tensor? query_mask, bool normalize, bool rounds"

library.LIB.define("memory_unproject_(Tensor(a!) u, Tensor x, Tensor share) -> ()")
_unproject = library.OPS.memory_unproject_.default
#: Elements of a part of a matrix that is converted on the way to what needs it, while it is in the second cache.
PART = 2**17


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return x.split(max(PART // max(x.shape[1], 1), 1))


def joined(x: Tensor, weight: Tensor, bias: Tensor | None, weights: Tensor, bank: Tensor, rounds: bool) -> Tensor:
    """x W1^T + weights bank + bias, without a copy of either pair side by side; `rounds`: in x's dtype."""
    y = product(x, weight.t(), bias)
    if rounds:
        return rounded_sum(y, weights, bank)
    add_product(y, weights, bank)
    return y


def join_forward(
    x: Tensor, weights: Tensor, weight: Tensor, bank: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    """x W1^T + weights bank + bias + residual in float32, rounded once."""
    dtype = x.dtype
    x, weights, weight, bank, bias, residual = widened(x, weights, weight, bank, bias, residual)
    y = joined(x, weight, bias, weights, bank, False)
    if residual is not None:
        y.add_(residual)
    return y.to(dtype)


def _factor(x: Tensor, scale: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """factor [1, 1, N], and 1 / |x| [N] (for cosine, else empty); both 0 where the norm is under the floor or NaN."""
    if not normalize:
        return scale.expand(1, 1, x.shape[0]).contiguous(), scale.new_empty(0)
    dtype = acc_dtype(x.dtype)
    parts = (x,) if x.dtype == dtype else _parts(x)
    norms = torch.cat([torch.linalg.vector_norm(part, dim=-1, dtype=dtype) for part in parts])
    inverse = torch.where(norms >= NORM_FLOOR, norms.reciprocal(), 0.0)
    return (scale * inverse).view(1, 1, -1), inverse


def _even(weights: Tensor, dtype: torch.dtype) -> float:
    """e of this module's head: 0 where weights keep all their digits, and where no slot may be read."""
    if dtype != torch.bfloat16 or not (weights[:1].any() or weights.any()):
        return 0.0
    return float(torch.tensor(1.0 / weights.shape[1], dtype=dtype))


def _apart(weights: Tensor, even: float, dtype: torch.dtype) -> Tensor:
    """weights - even, in a dtype that holds the difference better than the weights."""
    if not even:
        return weights.to(dtype)
    apart = torch.empty_like(weights, dtype=dtype)
    for to, part in zip(_parts(apart), _parts(weights), strict=True):
        to.copy_(part - even)
    return apart


def _sum_of_rows(dy: Tensor, dtype: torch.dtype) -> Tensor:
    """In `dtype`; where our products take dy as it is, by one of them: what torch sums it converts whole before."""
    if dy.dtype != dtype and dy.dtype in OURS:
        return product(dy.new_ones((1, dy.shape[0])), dy)[0]
    return dy.sum(0, dtype=dtype)


def _forward(
    x: Tensor,
    keys: Tensor,
    bank: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    normalize: bool,
    rounds: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rounds: y is in x's dtype, not that of its sums."""
    factor, inverse = _factor(x, scale, normalize)
    weights = product(x, keys.to(x.dtype).t())
    mask = None if query_mask is None else query_mask.reshape(1, -1).contiguous()
    shift = None if slot_bias is None else slot_bias.view(1, 1, -1).contiguous()
    _, usage = rows_softmax(weights.view(1, 1, *weights.shape), factor, shift, mask, True)
    if even := _even(weights, x.dtype):
        common = bank.sum(0) * even
        bias = common if bias is None else common.add_(bias)
    y = joined(x, weight, bias, _apart(weights, even, x.dtype), bank.to(x.dtype), rounds)
    if query_mask is not None:
        y.masked_fill_(~query_mask[:, None], 0.0)
    return y, weights, usage.view(-1), inverse


def _backward(
    dy: Tensor | None,
    dusage: Tensor | None,
    x: Tensor,
    keys: Tensor,
    bank: Tensor,
    weight: Tensor,
    scale: Tensor,
    query_mask: Tensor | None,
    weights: Tensor,
    inverse: Tensor,
    normalize: bool,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """wanted: which of dx, dkeys, dbank, dweight, dbias, dscale and dslot_bias are; the others come back empty."""
    want_x, want_keys, want_bank, want_weight, want_bias, want_scale, want_slot_bias = wanted
    dx, dkeys, dbank, dweight, dbias, dscale, dslot_bias = (weights.new_empty(0) for _ in wanted)
    keys, bank = keys.to(x.dtype), bank.to(x.dtype)
    mask = None
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, None], 0.0)  # what left-out rows hold, NaN too, must not reach a sum
        mask = query_mask.reshape(1, -1).contiguous()
    dy = x.new_zeros(x.shape[0], weight.shape[0]) if dy is None else dy.to(x.dtype)
    if query_mask is not None:
        dy = dy.masked_fill(~query_mask[:, None], 0.0)
    even = _even(weights, x.dtype)
    dy_sum = _sum_of_rows(dy, weights.dtype) if want_bias or (want_bank and even) else dbias
    if want_bank:
        dbank = product(_apart(weights, even, x.dtype).t(), dy)
        if even:
            dbank.add_(dy_sum, alpha=even)
    if want_weight:
        dweight = product(dy.t(), x).to(weight.dtype)
    if want_bias:
        dbias = dy_sum
    if want_x or want_keys or want_scale or want_slot_bias:
        # A scale of 0 passes nothing to rows and keys, and its own gradient must not be divided by it.
        still = bool(scale == 0)
        factor = torch.ones_like(scale) if still else scale
        if normalize:
            factor = factor * inverse
        factor = factor.expand(1, 1, x.shape[0]).contiguous()
        t = product(dy, bank.t())
        shape = (1, 1, *t.shape)
        share = None if dusage is None else dusage.view(1, 1, -1).contiguous()
        dslot_bias = rows_softmax_backward(
            t.view(shape), None, share, weights.view(shape), factor, mask, want_slot_bias
        ).view(-1)
        t = t.to(x.dtype)
        if want_keys or want_scale:
            dkeys = product(t.t(), x)
        if want_scale:
            dscale = torch.dot(keys.to(dkeys.dtype).reshape(-1), dkeys.reshape(-1)) / (1.0 if still else scale)
        if still:
            t.zero_()
            dkeys.zero_()
        if want_x:
            dx = product(t, keys)
            if normalize:
                _unproject(dx, x, inverse)
    if want_x:
        dx = rounded_sum(dx, dy, weight)
    return dx, dkeys if want_keys else weights.new_empty(0), dbank, dweight, dbias, dscale, dslot_bias


def _forward_fake(
    x: Tensor,
    keys: Tensor,
    bank: Tensor,
    weight: Tensor,
    bias: Any,
    scale: Any,
    slot_bias: Any,
    mask: Any,
    norm: bool,
    rounds: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, slots = x.shape[0], keys.shape[0]
    weights, usage, inverse = (scale.new_empty(shape) for shape in ((rows, slots), slots, rows if norm else 0))
    y = scale.new_empty((rows, weight.shape[0]), dtype=x.dtype if rounds else scale.dtype)
    return y, weights, usage, inverse


def _backward_fake(
    dy: Any,
    dusage: Any,
    x: Tensor,
    keys: Tensor,
    bank: Tensor,
    weight: Tensor,
    scale: Tensor,
    query_mask: Any,
    weights: Any,
    inverse: Any,
    normalize: bool,
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    like = (
        (x, x.shape),
        (weights, keys.shape),
        (weights, bank.shape),
        (weight, weight.shape),
        (weights, weight.shape[:1]),
        (weights, scale.shape),
        (weights, keys.shape[:1]),
    )
    return tuple(
        tensor.new_empty(shape) if want else weights.new_empty(0)
        for (tensor, shape), want in zip(like, wanted, strict=True)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, keys, bank, weight, _, scale, _, query_mask, ctx.normalize, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1], output[3])
    ctx.save_for_backward(x, keys, bank, weight, scale, query_mask, output[1], output[3])


def _gradient(ctx: Any, dy: Tensor | None, _: Any, dusage: Tensor | None, __: Any) -> tuple[Tensor | None, ...]:
    x, keys, bank, weight, scale, query_mask, weights, inverse = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:7])
    gradients = library.call(
        "memory_layer_bwd",
        contiguous(dy),
        contiguous(dusage),
        x,
        keys,
        bank,
        weight,
        scale,
        query_mask,
        weights,
        inverse,
        ctx.normalize,
        wanted,
    )
    return *(grad if want else None for grad, want in zip(gradients, wanted, strict=True)), None, None, None


library.define(
    f"memory_layer_fwd({_INPUTS}) -> (Tensor y, Tensor weights, Tensor usage, Tensor inverse)",
    _forward_fake,
    _gradient,
    _save,
)
library.define(
    "memory_layer_bwd(Tensor? dy, Tensor? dusage, Tensor x, Tensor keys, Tensor bank, Tensor weight, Tensor scale, "
    "Tensor? query_mask, Tensor weights, Tensor inverse, bool normalize, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_fake,
    library.refuse_double_backward("memory_fuse"),
)
library.LIB.impl("memory_join_fwd", in_full_precision(join_forward), "CPU")
library.LIB.impl("memory_layer_fwd", in_full_precision(_forward), "CPU")
library.LIB.impl("memory_layer_bwd", in_full_precision(_backward), "CPU")


def _reads_one_bank(x: Tensor, bank: Bank, options: Options) -> bool:
    """One head, one bank, weights of all slots that can be kept."""
    return (
        bank.values.shape[1] == 1
        and not bank.batched
        and options.top_k is None
        and options.dropout_p == 0
        and keeps_weights(x[:, :, None], bank)
    )


def is_one_layer(call: Call, folded: Folded) -> bool:
    """Whether the op of the whole layer serves the call."""
    whole = call.query_weight is None or folded.projected
    return whole and _reads_one_bank(call.x, call.bank, call.options)


def layer_speed(x: Tensor, bank: Bank, options: Options) -> int:
    """2 where the folded layer, of frames that are the queries, multiplies bfloat16 as it is, which all else widens to
    float32 before; else 1."""
    halved = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.dtype in OURS
    return 2 if halved and _reads_one_bank(x, bank, options) else 1


def folded_layer(call: Call, folded: Folded) -> tuple[Tensor, Tensor]:
    """y [1, N, O] in x's dtype, and usage [1, 1, S]."""
    x, options, slot_bias, scale = call.x[0], call.options, call.bank.slot_bias, call.options.scale
    keys: Tensor = folded.keys  # type: ignore[assignment]  # a pair is never scored in full
    values: Tensor = folded.values  # type: ignore[assignment]
    dtype = acc_dtype(x.dtype)
    factors = x.dtype if x.dtype in OURS else dtype  # of what is multiplied
    y, _, usage, _ = library.call(
        "memory_layer_fwd",
        dense_rows(x.to(factors)),
        keys[0, 0].to(dtype),
        values[0, 0].to(dtype),
        call.weight[:, : x.shape[1]].to(factors),
        None if call.bias is None else call.bias.to(dtype),
        scale if isinstance(scale, Tensor) else torch.full((), scale, dtype=dtype),
        None if slot_bias is None else slot_bias.flatten(),
        None if options.query_mask is None else options.query_mask[0],
        options.normalize,
        call.residual is None,
    )
    y = y[None] if call.residual is None else y + call.residual
    return y.to(x.dtype), usage[None, None]
