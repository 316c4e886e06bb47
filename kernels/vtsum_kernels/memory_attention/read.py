"""The read: rows [G, n, H, d] from a bank whose keys are ready, by all slots or by the k best."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from ..tensors import acc_dtype, dense_rows
from . import plan
from .call import Bank, Keys, Options
from .products import matmul
from .reference import NORM_FLOOR, unit
from .sparse import memory_gather, memory_gather_dot, memory_scatter, memory_topk


class Weights(NamedTuple):
    """Weights [G, H, n, S], or with `chosen` those of the k best slots [G, H, n, k]; lse [G, H, n]; usage [G, H, S]."""

    weights: Tensor
    chosen: Tensor | None
    lse: Tensor
    usage: Tensor


def ready_keys(keys: Keys, normalize: bool) -> Keys:
    """Keys as rows are compared with them: of norm 1 for cosine; on the CPU in float32 at least."""
    if isinstance(keys, tuple):
        return tuple(ready_keys(half, False) for half in keys)  # type: ignore[return-value]
    wide = keys.to(acc_dtype(keys.dtype)) if normalize or keys.device.type == "cpu" else keys
    if normalize:
        wide = unit(wide)
    # On a GPU products take the keys' own dtype.
    return wide if keys.device.type == "cpu" else wide.to(keys.dtype)


def factor_of(x: Tensor, scale: float | Tensor, normalize: bool) -> Tensor:
    """What a row's scores are multiplied by [G, H, n]: the scale, for cosine over the row's norm; 0 as `unit` is."""
    groups, rows, heads, _ = x.shape
    if normalize:
        norms = torch.linalg.vector_norm(x, dim=-1, dtype=acc_dtype(x.dtype))
        return (scale / norms.masked_fill(norms < NORM_FLOOR, torch.inf)).transpose(1, 2).contiguous()
    if isinstance(scale, Tensor):
        return scale.expand(groups, heads, rows).contiguous()
    return x.new_full((groups, heads, rows), scale, dtype=acc_dtype(x.dtype))


def ready_rows(x: Tensor, query_mask: Tensor | None) -> Tensor:
    """Rows without what the mask leaves out; on the CPU in float32 at least."""
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, :, None, None], 0.0)
    return x.to(acc_dtype(x.dtype)) if x.device.type == "cpu" else x


def dense_weights(x: Tensor, bank: Bank, options: Options, factor: Tensor, suffix: str) -> Weights:
    """Of all slots, in float32 at least: what 16 bits would lose of nearly even weights is all that they say."""
    op = f"memory_weights{suffix}_fwd"
    weights, lse, usage = library.call(op, x, bank.keys, factor, bank.slot_bias, options.query_mask, acc_dtype(x.dtype))
    return Weights(weights, None, lse, usage)


def sparse_weights(x: Tensor, bank: Bank, options: Options, factor: Tensor, top_k: int) -> Weights:
    """Of the k best slots. The choice has no gradient; the scores of what was chosen are computed again and do."""
    x, keys, bias = dense_rows(x), bank.keys, bank.slot_bias
    with torch.no_grad():
        if isinstance(keys, tuple):
            best, index = _best_pairs(x, keys, factor, top_k)
        else:
            best, index = memory_topk(x, keys, factor, bias, top_k)
        usable = best > -torch.inf
        if options.query_mask is not None:
            usable = usable & options.query_mask[:, None, :, None]
    if isinstance(keys, tuple):
        other, half = keys[1].shape[2], x.shape[3] // 2
        first = memory_gather_dot(x[..., :half], (index // other).int(), dense_rows(keys[0]))
        scores = first + memory_gather_dot(x[..., half:], (index % other).int(), dense_rows(keys[1]))
    else:
        scores = memory_gather_dot(x, index, dense_rows(keys))
    scores = scores * factor[..., None]
    if bias is not None:
        groups, heads, rows, k = index.shape
        spread = bias.expand(groups, heads, bias.shape[2])
        scores = scores + spread.gather(2, index.long().view(groups, heads, rows * k)).view(index.shape)
    # The dtype's lowest value and not -inf: a row that sees nothing would be NaN, and so would its gradient.
    scores = scores.masked_fill(~usable, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1).masked_fill(~usable, 0.0)
    lse = torch.logsumexp(scores, -1).masked_fill(~usable.any(-1), -torch.inf)
    groups, heads, rows, _ = index.shape
    ones = weights.new_ones((1, 1, 1, 1)).expand(groups, rows, heads, 1)
    usage = memory_scatter(weights, index, ones, bank.slots).squeeze(-1)
    return Weights(weights, index, lse, usage)


def _best_pairs(x: Tensor, keys: tuple[Tensor, Tensor], factor: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of product keys: of the k best of either half, since a slot outside has k at least as good before it.

    The r-th best of one half beside the c-th of the other has r c - 1 pairs at least as good before it, so that pairs
    with r c <= k are all there is to look at: k log k of k k. Sums of two halves are compared in float64, which does
    not make equal what float32 tells apart.
    """
    half, other = x.shape[3] // 2, keys[1].shape[2]
    if k == 0:  # no slots: one half is empty, and of the other nothing is needed
        shape = (*factor.shape, 0)
        return factor.new_empty(shape), factor.new_empty(shape, dtype=torch.int32)
    tops = [
        memory_topk(part, key, factor, None, min(k, key.shape[2]))
        for part, key in ((x[..., :half], keys[0]), (x[..., half:], keys[1]))
    ]
    (a, i), (b, j) = tops
    rank = torch.arange(a.shape[3], device=a.device)
    beside = (k // (rank + 1)).clamp_max(b.shape[3])
    count = sum(min(k // (r + 1), b.shape[3]) for r in range(a.shape[3]))  # told, so that a GPU is not waited for
    first = torch.repeat_interleave(rank, beside, output_size=count)
    second = torch.arange(count, device=a.device) - (beside.cumsum(0) - beside)[first]
    sums = a.double()[..., first] + b.double()[..., second]
    slots = i.long()[..., first] * other + j.long()[..., second]
    # By slot first and then, stably, by score: ties go to the lower slot.
    by_slot = torch.argsort(slots, dim=-1)
    order = torch.argsort(sums.gather(-1, by_slot), dim=-1, descending=True, stable=True)[..., :k]
    chosen = by_slot.gather(-1, order)
    index = slots.gather(-1, chosen).to(torch.int32)
    best = sums.gather(-1, chosen).to(a.dtype)
    return best, index.masked_fill(best == -torch.inf, 0)


def apply(found: Weights, values: Tensor, dropout_p: float, dtype: torch.dtype) -> Tensor:
    """Weights times values [G, n, H, e], in `dtype`: not rounded to values of less."""
    weights = F.dropout(found.weights, dropout_p) if dropout_p > 0 else found.weights
    if found.chosen is not None:
        return memory_gather(weights, found.chosen, dense_rows(values.to(dtype)))
    if values.device.type != "cpu" and values.dtype in (torch.float16, torch.bfloat16):
        return centred_product(weights, values, found.lse > -torch.inf).to(dtype)
    return matmul(weights, values.to(weights.dtype)).transpose(1, 2).to(dtype)


def centred_product(weights: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """float32 weights [G, H, n, S] times 16-bit values, by 16-bit products: (P - 1/S) V + mean(V), 0 where not `seen`.

    Weights that are nearly even differ in digits that 16 bits do not hold; their distances from the mean are held.
    """
    slots = max(values.shape[2], 1)
    apart = torch.matmul((weights - 1.0 / slots).to(values.dtype), values)
    out = apart.float() + values.float().sum(2, keepdim=True) / slots
    return out.masked_fill(~seen[..., None], 0.0).transpose(1, 2)


def weigh(x: Tensor, bank: Bank, options: Options, suffix: str) -> Weights:
    """The weights of rows x [G, n, H, d], before dropout."""
    x = ready_rows(x, options.query_mask)
    factor = factor_of(x, options.scale, options.normalize)
    if options.top_k is not None:
        return sparse_weights(x, bank, options, factor, options.top_k)
    return dense_weights(x, bank, options, factor, suffix)


def read(x: Tensor, bank: Bank, options: Options, suffix: str, need_usage: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Retrieved [G, n, H, e] of x's dtype, lse [G, H, n] and usage [G, H, S] (maybe empty where it is not needed)."""
    dtype = x.dtype
    if options.top_k is not None or options.dropout_p > 0 or keeps_weights(x, bank):
        found = weigh(x, bank, options, suffix)
        return apply(found, bank.values, options.dropout_p, dtype), found.lse, found.usage
    x = ready_rows(x, options.query_mask)
    factor = factor_of(x, options.scale, options.normalize)
    flash = f"memory_flash{suffix}_fwd"
    out, lse, usage = library.call(
        flash, x, bank.keys, bank.values.to(x.dtype), factor, bank.slot_bias, options.query_mask, need_usage
    )
    return out.to(dtype), lse, usage


def keeps_weights(x: Tensor, bank: Bank) -> bool:
    groups, rows, heads, dim = x.shape
    grad = torch.is_grad_enabled()
    widest = max(dim, bank.values.shape[3])
    item = acc_dtype(x.dtype).itemsize if x.device.type == "cpu" else x.dtype.itemsize
    return plan.keeps_weights(x.device, groups * rows, heads, bank.slots, widest, item, grad)
