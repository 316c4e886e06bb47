"""The checks that both memory ops share, and the split into heads."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks


class Call(NamedTuple):
    """A checked call of either op: x flattened to [N, H, d], the bank as [H, S, d] and [H, S, e]."""

    x: Tensor
    keys: Tensor
    values: Tensor
    scale: float | Tensor
    normalize: bool
    slot_mask: Tensor | None
    query_mask: Tensor | None


def check_bank(op: str, keys: Tensor, values: Tensor | None, num_heads: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The bank as [H, S, d] and [H, S, e] (views)."""
    checks.is_positive_int(op, "num_heads", num_heads)
    checks.matches(op, "keys", keys, "x", like)
    split_keys = _split(op, "keys", keys, num_heads)
    if values is None:
        return split_keys, split_keys
    checks.matches(op, "values", values, "x", like)
    split_values = _split(op, "values", values, num_heads)
    if split_values.shape[1] != split_keys.shape[1]:
        checks.fail(op, "values", f"of as many slots as keys, {split_keys.shape[1]}", split_values.shape[1])
    return split_keys, split_values


def _split(op: str, name: str, bank: Tensor, heads: int) -> Tensor:
    if bank.dim() == 2:
        if bank.shape[1] % heads:
            checks.fail(op, name, f"[S, D] with D divisible by num_heads = {heads}", list(bank.shape))
        return bank.unflatten(1, (heads, bank.shape[1] // heads)).transpose(0, 1)
    if bank.dim() == 3:
        if bank.shape[0] != heads:
            checks.fail(op, name, f"[H, S, d] with H = num_heads = {heads}", list(bank.shape))
        return bank
    checks.fail(op, name, "of shape [S, D] or [H, S, d]", list(bank.shape))


def check_masks(
    op: str, x: Tensor, slots: int, slot_mask: Tensor | None, query_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    if slot_mask is not None:
        checks.is_mask(op, "slot_mask", slot_mask, (slots,), "[S]", x.device)
    if query_mask is not None:
        checks.is_mask(op, "query_mask", query_mask, tuple(x.shape[:-1]), "x's [..., T]", x.device)
        query_mask = query_mask.reshape(-1)
    return slot_mask, query_mask


def check_scale(op: str, scale: float | Tensor | None, head_dim: int, like: Tensor) -> float | Tensor:
    """A float, or a tensor of one element with a gradient (a learned temperature)."""
    if scale is None:
        return 1.0 / math.sqrt(head_dim)
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            checks.fail(op, "scale", "a float or a tensor of one element", list(scale.shape))
        if not scale.is_floating_point():
            checks.fail(op, "scale", "of a floating dtype", scale.dtype, TypeError)
        if scale.device != like.device:
            checks.fail(op, "scale", f"on the device of x, {like.device}", scale.device)
        return scale.reshape(()).to(torch.float64 if like.dtype == torch.float64 else torch.float32)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        checks.fail(
            op, "scale", "a float, a tensor of one element or None (1 / sqrt(d))", type(scale).__name__, TypeError
        )
    if not math.isfinite(scale):
        checks.fail(op, "scale", "finite", scale)
    return float(scale)


def check_queries(op: str, x: Tensor) -> None:
    checks.is_floating(op, "x", x)
    if x.dim() < 2:
        checks.fail(op, "x", "of shape [..., T, D]", list(x.shape))


def split_queries(op: str, x: Tensor, heads: int, head_dim: int) -> Tensor:
    """[..., T, D] as [N, H, d]."""
    if x.shape[-1] != heads * head_dim:
        checks.fail(op, "x", f"of shape [..., T, D] with D = {heads * head_dim}, as the keys have", list(x.shape))
    return x.reshape(-1, heads, head_dim)
