"""A checked call of `memory_fuse`, and the checks of what it takes beside a bank."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..memory_attention.call import Bank, Options
from ..tensors import acc_dtype
from .fold import Folded

NAME = "memory_fuse"
Norm = tuple[Tensor | None, Tensor | None, float]


class Call(NamedTuple):
    """x as [G, n, C], the bank in its one form, and what is folded into it."""

    x: Tensor
    bank: Bank
    options: Options
    weight: Tensor
    bias: Tensor | None
    query_weight: Tensor | None
    residual: Tensor | None  # [G, n, O]
    norm: Norm | None
    fold: Folded | tuple[bool, bool]  # or whether the query projection and the linear layer shall be
    leading: torch.Size  # x's [..., T]
    return_usage: bool
    backend: str

    @property
    def heads(self) -> int:
        return self.bank.values.shape[1]


def check_query_weight(op: str, x: Tensor, query_weight: Tensor | None) -> int:
    """The size of a query."""
    dim = x.shape[-1]
    if query_weight is None:
        return dim
    checks.matches(op, "query_weight", query_weight, "x", x)
    checks.has_rank(op, "query_weight", query_weight, 2, "[D, C]")
    checks.has_shape(op, "query_weight", query_weight, (query_weight.shape[0], dim), "[D, C]")
    return query_weight.shape[0]


def check_weight(op: str, x: Tensor, weight: Tensor, retrieved: int) -> None:
    """`retrieved`: E, the size of what was read, in all heads."""
    checks.matches(op, "weight", weight, "x", x)
    checks.has_rank(op, "weight", weight, 2, "[O, C + E]")
    checks.has_shape(op, "weight", weight, (weight.shape[0], x.shape[-1] + retrieved), "[O, C + E]")


def check_norm(norm: Any, x: Tensor, size: int) -> Norm:
    if not isinstance(norm, (tuple, list)) or len(norm) != 3:
        checks.fail(NAME, "norm", "a tuple (weight, bias, eps) or None", type(norm).__name__, TypeError)
    gain, shift, eps = norm
    for name, tensor in (("norm[0]", gain), ("norm[1]", shift)):
        if tensor is not None:
            checks.matches(NAME, name, tensor, "x", x)
            checks.has_shape(NAME, name, tensor, (size,), "[E]")
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        checks.fail(NAME, "norm[2]", "a float, the eps", type(eps).__name__, TypeError)
    return gain, shift, float(eps)


def check_folded(
    folded: Folded, x: Tensor, bank: Bank, weight: Tensor, query_weight: Tensor | None, normalize: bool
) -> None:
    """Whether it can have been folded of this bank and these weights, and whether it may stand in for them."""
    sources = {"keys": bank.keys, "values": bank.values, "weight": weight, "query_weight": query_weight}
    for name, tensor in sources.items():
        if torch.is_grad_enabled() and isinstance(tensor, Tensor) and tensor.requires_grad:
            rule = f'"auto", True or False where {name} may want a gradient (or the call under torch.no_grad())'
            checks.fail(NAME, "fold", rule, "a folded bank")
    keys, values, projected = folded.keys, folded.values, folded.projected and query_weight is not None
    if isinstance(keys, tuple) or isinstance(bank.keys, tuple):
        checks.fail(NAME, "fold", '"auto", True or False with product keys', "a folded bank")
    sizes = list(bank.values.shape[:3])
    of_keys, of_values = [*sizes, x.shape[-1] if projected else bank.key_dim], [*sizes, weight.shape[0]]
    dtype = acc_dtype(x.dtype) if x.device.type == "cpu" else x.dtype
    wanted = (of_keys, of_values, dtype, x.device, projected, normalize)
    got_values = of_values if values is None else list(values.shape)
    got = (list(keys.shape), got_values, keys.dtype, keys.device, folded.projected, folded.normalize)
    if got != wanted:
        what = "shapes of keys and values, dtype, device, projected, normalize"
        checks.fail(NAME, "fold", f"fold_bank of this bank, these weights and options ({what}) = {wanted}", got)
