"""The registered ops of the sparse read: the k best slots of each row, and sums over them.

gather, gather_dot and scatter are each other's gradients, so that each may be differentiated any number of times:
    gather      out[g, i, h] = sum_j weights_j table[index_j]
    gather_dot  weights_j    = rows[g, i, h] . table[index_j]
    scatter     table[s]     = sum of weights rows over all that have the index s
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .. import library
from ..tensors import acc_dtype
from .mapping import by_group


def _topk_fake(x: Tensor, keys: Tensor, factor: Tensor, slot_bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    groups, rows, heads, _ = x.shape
    shape = (groups, heads, rows, k)
    return x.new_empty(shape, dtype=acc_dtype(x.dtype)), x.new_empty(shape, dtype=torch.int32)


def _no_gradient(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError("memory_topk: the choice of slots has no gradient; score what was chosen with memory_gather_dot")


def _mark(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.mark_non_differentiable(*output)


def _gather_fake(weights: Tensor, index: Tensor, table: Tensor) -> Tensor:
    groups, heads, rows, _ = index.shape
    return table.new_empty((groups, rows, heads, table.shape[3]))


def _gather_dot_fake(rows: Tensor, index: Tensor, table: Tensor) -> Tensor:
    return table.new_empty(index.shape, dtype=acc_dtype(table.dtype))


def _scatter_fake(weights: Tensor, index: Tensor, rows: Tensor, slots: int) -> Tensor:
    groups, heads = index.shape[:2]
    return rows.new_empty((groups, heads, slots, rows.shape[3]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _gather_gradient(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    weights, index, table = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    dweights = memory_gather_dot(dout, index, table) if wanted[0] else None
    return dweights, None, memory_scatter(weights, index, dout, table.shape[2]) if wanted[2] else None


def _gather_dot_gradient(ctx: Any, dweights: Tensor) -> tuple[Tensor | None, ...]:
    rows, index, table = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    drows = memory_gather(dweights, index, table) if wanted[0] else None
    return drows, None, memory_scatter(dweights, index, rows, table.shape[2]) if wanted[2] else None


def _scatter_gradient(ctx: Any, dtable: Tensor) -> tuple[Tensor | None, ...]:
    weights, index, rows = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    dweights = memory_gather_dot(rows, index, dtable) if wanted[0] else None
    return dweights, None, memory_gather(weights, index, dtable) if wanted[2] else None, None


library.define(
    "memory_topk(Tensor x, Tensor keys, Tensor factor, Tensor? slot_bias, SymInt k) -> (Tensor scores, Tensor index)",
    _topk_fake,
    _no_gradient,
    _mark,
    by_group,
)
library.define(
    "memory_gather(Tensor weights, Tensor index, Tensor table) -> Tensor",
    _gather_fake,
    _gather_gradient,
    _save,
    by_group,
)
library.define(
    "memory_gather_dot(Tensor rows, Tensor index, Tensor table) -> Tensor",
    _gather_dot_fake,
    _gather_dot_gradient,
    _save,
    by_group,
)
library.define(
    "memory_scatter(Tensor weights, Tensor index, Tensor rows, SymInt slots) -> Tensor",
    _scatter_fake,
    _scatter_gradient,
    _save,
    by_group,
)
memory_topk, memory_gather, memory_gather_dot, memory_scatter = (
    functools.partial(library.call, f"memory_{name}") for name in ("topk", "gather", "gather_dot", "scatter")
)
