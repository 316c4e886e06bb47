"""The dense ops on the CPU: matrix products, and our compiled rows between them.

Scores are written once and overwritten by their softmax; in the backward pass the gradient of the weights is
overwritten by that of the scores. 16-bit tensors are widened to float32 first: torch's 16-bit products round their
results, and a score rounded to 8 bits is a weight that is off by a per cent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import library
from ..tensors import acc_dtype, contiguous
from .plan import block_rows
from .products import add_product, multiply

library.LIB.define(
    "memory_rows_softmax_(Tensor(a!) scores, Tensor factor, Tensor? slot_bias, Tensor? query_mask, bool need_usage) "
    "-> (Tensor lse, Tensor usage)"
)
library.LIB.define(
    "memory_rows_slopes_(Tensor(a!) dweights, Tensor? dlse, Tensor? dusage, Tensor weights, Tensor? factor, "
    "Tensor? query_mask, bool need_bias) -> Tensor"
)
rows_softmax = library.OPS.memory_rows_softmax_.default
rows_softmax_backward = library.OPS.memory_rows_slopes_.default


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with autocast off: its products are in the dtype that it chose."""

    def call(*arguments: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*arguments)
        with torch.autocast("cpu", enabled=False):
            return function(*arguments)

    return call


def add_products(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out[g, h] += a[g, h] b[g, h]; the rows of out must be dense."""
    for g in range(out.shape[0]):
        for h in range(out.shape[1]):
            add_product(out[g, h], a[g, h], b[g, h])


def by_head(x: Tensor) -> Tensor:
    """[G, n, H, d] as [G, H, n, d], a view."""
    return x.transpose(1, 2)


def widened(*tensors: Tensor | None) -> list[Tensor]:
    return [t if t is None else t.to(acc_dtype(t.dtype)) for t in tensors]  # type: ignore[misc]


def _scores(x: Tensor, keys: Tensor) -> Tensor:
    groups, rows, heads, _ = x.shape
    scores = x.new_empty((groups, heads, rows, keys.shape[2]))
    multiply(scores, by_head(x), keys.transpose(2, 3))
    return scores


def _bias(slot_bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if slot_bias is None else slot_bias.to(like.dtype).contiguous()


def weights_forward(
    x: Tensor, keys: Tensor, factor: Tensor, slot_bias: Tensor | None, query_mask: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    x, keys = widened(x, keys)
    scores = _scores(x, keys)
    mask = None if query_mask is None else query_mask.contiguous()
    lse, usage = rows_softmax(scores, factor.contiguous(), _bias(slot_bias, scores), mask, True)
    return scores.to(dtype), lse, usage


def scores_backward(ds: Tensor, x: Tensor, keys: Tensor, factor: Tensor, dx: Tensor, dkeys: Tensor) -> Tensor:
    """Adds what ds [G, H, n, S], the gradient of the scaled scores, gives dkeys, and writes dx; returns dfactor.

    ds is overwritten.
    """
    # u = ds K before the factor; dx = factor u and dfactor = x . u.
    multiply(dx, ds, keys)
    dfactor = torch.linalg.vecdot(by_head(x), dx)
    dx.mul_(factor[..., None])
    ds.mul_(factor[..., None])
    add_products(dkeys, ds.transpose(2, 3), by_head(x))
    return dfactor


def weights_backward(
    dweights: Tensor | None,
    dlse: Tensor | None,
    dusage: Tensor | None,
    weights: Tensor,
    x: Tensor,
    keys: Tensor,
    factor: Tensor,
    query_mask: Tensor | None,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtypes = x.dtype, keys.dtype
    x, keys, w = widened(x, keys, weights)
    factor, w = factor.contiguous(), w.contiguous()
    mask, dlse, dusage = (contiguous(t) for t in (query_mask, dlse, dusage))
    ds = torch.zeros_like(w) if dweights is None else dweights.to(w.dtype, copy=True).contiguous()
    dslot_bias = rows_softmax_backward(ds, dlse, dusage, w, None, mask, need_bias)
    dx = x.new_empty((x.shape[0], x.shape[2], x.shape[1], x.shape[3]))
    dkeys = torch.zeros_like(keys, memory_format=torch.contiguous_format)
    dfactor = scores_backward(ds, x, keys, factor, dx, dkeys)
    return dx.transpose(1, 2).to(dtypes[0]).contiguous(), dkeys.to(dtypes[1]), dfactor, dslot_bias


def _blocks(rows: int, slots: int) -> list[slice]:
    size = block_rows(slots)
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def flash_forward(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    need_usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks of rows, each with the scores of all slots: never more than a block's weights at once."""
    dtype = x.dtype
    x, keys, values = widened(x, keys, values)
    (groups, rows, heads, _), slots = x.shape, keys.shape[2]
    out = x.new_zeros((groups, heads, rows, values.shape[3]))
    lse = factor.new_full((groups, heads, rows), -torch.inf)
    usage = factor.new_zeros((groups, heads, slots) if need_usage else (0,))
    bias = _bias(slot_bias, x)
    for part in _blocks(rows, slots):
        scores = _scores(x[:, part], keys)
        mask = None if query_mask is None else query_mask[:, part].contiguous()
        lse[:, :, part], share = rows_softmax(scores, factor[:, :, part].contiguous(), bias, mask, need_usage)
        if need_usage:
            usage += share
        multiply(out[:, :, part], scores, values)
    return out.transpose(1, 2).to(dtype).contiguous(), lse, usage


def flash_backward(
    dout: Tensor,
    dlse: Tensor | None,
    dusage: Tensor | None,
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtypes = x.dtype, keys.dtype, values.dtype
    dout, x, keys, values = widened(dout, x, keys, values)
    (groups, rows, heads, dim), slots = x.shape, keys.shape[2]
    dx = x.new_zeros((groups, heads, rows, dim))
    dkeys, dvalues = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (keys, values))
    dfactor = torch.zeros_like(factor, memory_format=torch.contiguous_format)
    dslot_bias = factor.new_zeros((groups, heads, slots))
    bias, dusage = _bias(slot_bias, x), contiguous(dusage)
    for part in _blocks(rows, slots):
        mask = None if query_mask is None else query_mask[:, part].contiguous()
        mine, dpart = factor[:, :, part].contiguous(), by_head(dout[:, part])
        weights = _scores(x[:, part], keys)
        rows_softmax(weights, mine, bias, mask, False)
        ds = torch.empty_like(weights)
        multiply(ds, dpart, values.transpose(2, 3))
        add_products(dvalues, weights.transpose(2, 3), dpart)
        dlse_part = None if dlse is None else dlse[:, :, part].contiguous()
        share = rows_softmax_backward(ds, dlse_part, dusage, weights, None, mask, slot_bias is not None)
        if slot_bias is not None:
            dslot_bias += share
        dfactor[:, :, part] = scores_backward(ds, x[:, part], keys, mine, dx[:, :, part], dkeys)
    dx = dx.transpose(1, 2).to(dtypes[0]).contiguous()
    return dx, dkeys.to(dtypes[1]), dvalues.to(dtypes[2]), dfactor, dslot_bias


for _op, _function in (
    ("memory_weights_fwd", weights_forward),
    ("memory_weights_bwd", weights_backward),
    ("memory_flash_fwd", flash_forward),
    ("memory_flash_bwd", flash_backward),
):
    library.LIB.impl(_op, in_full_precision(_function), "CPU")
