"""The checks that `memory_attention` and `memory_fuse` share, and the one form that every call is brought to.

Rows are [G, n, H, d] and banks [G, H, S, d]: G is 1 where all rows share a bank, and n then counts all rows; with a
bank a batch entry, G is the batch and n its T.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..tensors import acc_dtype, readable

Keys = Tensor | tuple[Tensor, Tensor]


class Bank(NamedTuple):
    """keys [G, H, S, d], or a pair of product keys [G, H, Sa, d / 2] and [G, H, Sb, d / 2]; values [G, H, S, e];
    slot_bias [G or 1, H or 1, S], -inf where slot_mask leaves a slot out; batched: G is x's batch."""

    keys: Keys
    values: Tensor
    slot_bias: Tensor | None
    batched: bool

    @property
    def slots(self) -> int:
        return self.values.shape[2]

    @property
    def key_dim(self) -> int:
        keys = self.keys
        return keys[0].shape[3] + keys[1].shape[3] if isinstance(keys, tuple) else keys.shape[3]


def hidden(bias: Tensor | None, *tables: Tensor) -> list[Tensor]:
    """Tables [G, H, S, ...] with 0 in the slots that a bias of -inf leaves out, whatever they held: 0 * NaN is NaN."""
    if bias is None:
        return list(tables)
    dead = (bias == -torch.inf)[..., None]
    looked_at = readable(dead) and not torch._C._are_functorch_transforms_active()
    if dead.device.type == "cpu" and looked_at and not dead.any():
        return list(tables)
    return [table.masked_fill(dead, 0.0) for table in tables]


def usable(bank: Bank) -> Bank:
    """The bank without what the slots hold that nobody may read. Product keys have no such slots."""
    if bank.slot_bias is None or isinstance(bank.keys, tuple):
        return bank
    if bank.values is bank.keys:
        (keys,) = hidden(bank.slot_bias, bank.keys)
        return bank._replace(keys=keys, values=keys)
    keys, values = hidden(bank.slot_bias, bank.keys, bank.values)
    return bank._replace(keys=keys, values=values)


class Options(NamedTuple):
    """What both ops take beside tensors of features."""

    scale: float | Tensor
    normalize: bool
    query_mask: Tensor | None  # [G, n]
    top_k: int | None
    dropout_p: float


class Call(NamedTuple):
    """A checked call of `memory_attention`: x as [G, n, H, d], and the bank in its one form."""

    x: Tensor
    bank: Bank
    options: Options
    leading: torch.Size  # x's [..., T]
    return_lse: bool
    return_usage: bool
    backend: str


def check_rows(op: str, x: Any) -> None:
    checks.is_floating(op, "x", x)
    if x.dim() < 2:
        checks.fail(op, "x", "of shape [..., T, D]", list(x.shape))


def check_bank(
    op: str,
    x: Tensor,
    keys: Any,
    values: Tensor | None,
    heads: int,
    dim: int,
    slot_mask: Any = None,
    slot_bias: Any = None,
) -> Bank:
    """The bank in its one form (views). `dim` is the size of a query: x's last, or the projection's."""
    checks.is_positive_int(op, "num_heads", heads)
    if isinstance(keys, (tuple, list)):
        if len(keys) != 2:
            checks.fail(op, "keys", "one tensor or a pair (product keys)", f"{len(keys)} tensors")
        if dim % (2 * heads):
            checks.fail(op, "x", f"of a D that 2 * num_heads = {2 * heads} divides, for product keys", dim)
        if values is None:
            checks.fail(op, "values", "given with product keys", None)
        first, batched = _split(op, "keys[0]", keys[0], heads, x, dim // 2)
        second, other = _split(op, "keys[1]", keys[1], heads, x, dim // 2)
        if other != batched:
            checks.fail(op, "keys[1]", "a shared bank or one a batch entry, as keys[0] is", list(keys[1].shape))
        split_keys: Keys = (first, second)
        slots = first.shape[2] * second.shape[2]
    else:
        split_keys, batched = _split(op, "keys", keys, heads, x, dim)
        slots = split_keys.shape[2]
    if values is None:
        split_values: Tensor = split_keys  # type: ignore[assignment]  # no pair: those want values
    else:
        split_values, other = _split(op, "values", values, heads, x, None)
        if other != batched:
            checks.fail(op, "values", "a shared bank or one a batch entry, as the keys are", list(values.shape))
        if split_values.shape[2] != slots:
            checks.fail(op, "values", f"of as many slots as keys, {slots}", split_values.shape[2])
    bias = _check_bias(op, x, heads, slots, split_values.shape[0] if batched else None, slot_mask, slot_bias)
    return Bank(split_keys, split_values, bias, batched)


def _split(op: str, name: str, bank: Any, heads: int, x: Tensor, dim: int | None) -> tuple[Tensor, bool]:
    """A bank as [G, H, S, d], and whether each batch entry has its own: the number of dimensions says which."""
    checks.matches(op, name, bank, "x", x)
    shape = list(bank.shape)
    if bank.dim() == 2:
        if bank.shape[1] % heads:
            checks.fail(op, name, f"[S, D] with D divisible by num_heads = {heads}", shape)
        split = bank.unflatten(1, (heads, bank.shape[1] // heads)).transpose(0, 1)[None]
    elif bank.dim() == 3:
        if bank.shape[0] != heads or (dim is not None and bank.shape[2] * heads != dim):
            rule = f"[H, S, d] with H = num_heads = {heads}{_of(dim, heads)}"
            if x.dim() == 3 and bank.shape[0] == x.shape[0]:
                rule += ", or [B, H, S, d] where each batch entry has its own"
            checks.fail(op, name, rule, shape)
        split = bank[None]
    elif bank.dim() == 4:
        if x.dim() != 3 or bank.shape[0] != x.shape[0] or bank.shape[1] != heads:
            checks.fail(op, name, f"[B, H, S, d] for x [B, T, D], with H = num_heads = {heads}", shape)
        split = bank
    else:
        checks.fail(op, name, "of shape [S, D], [H, S, d], or, for x [B, T, D], [B, H, S, d]", shape)
    size = split.shape[3] * heads
    if dim is not None and size != dim:
        if name != "keys":
            checks.fail(op, name, f"of {dim} features in all heads, half of a query's", size)
        if dim == x.shape[-1]:
            checks.fail(op, "x", f"of shape [..., T, D] with D = {size}, as the keys have", list(x.shape))
        checks.fail(op, "query_weight", f"of shape [D, C] with D = {size}, as the keys have", [dim, x.shape[-1]])
    return split, bank.dim() == 4


def _of(dim: int | None, heads: int) -> str:
    return "" if dim is None or dim % heads else f" and d = {dim // heads}"


def _check_bias(
    op: str, x: Tensor, heads: int, slots: int, groups: int | None, slot_mask: Any, slot_bias: Any
) -> Tensor | None:
    """slot_mask and slot_bias as one bias [G or 1, H or 1, S], in the dtype of statistics."""
    if slot_mask is not None:
        own = groups is not None and isinstance(slot_mask, Tensor) and slot_mask.dim() == 2
        shape, names = ((groups, slots), "[B, S]") if own else ((slots,), "[S]")
        checks.is_mask(op, "slot_mask", slot_mask, shape, names, x.device)  # type: ignore[arg-type]
        slot_mask = slot_mask[:, None] if own else slot_mask[None, None]
    if slot_bias is not None:
        checks.is_floating(op, "slot_bias", slot_bias)
        if slot_bias.device != x.device:
            checks.fail(op, "slot_bias", f"on the device of x, {x.device}", slot_bias.device)
        shapes = [[slots], [heads, slots], *([] if groups is None else [[groups, heads, slots]])]
        if list(slot_bias.shape) not in shapes:
            names = "[S] or [H, S]" if groups is None else "[S], [H, S] or [B, H, S]"
            checks.fail(op, "slot_bias", f"of shape {names} = {' or '.join(map(str, shapes))}", list(slot_bias.shape))
        slot_bias = slot_bias.to(acc_dtype(x.dtype)).reshape((1,) * (3 - slot_bias.dim()) + tuple(slot_bias.shape))
    if slot_mask is None:
        return slot_bias
    if slot_bias is None:
        slot_bias = torch.zeros((1, 1, 1), dtype=acc_dtype(x.dtype), device=x.device)
    return torch.where(slot_mask, slot_bias, -torch.inf)


def check_options(
    op: str,
    x: Tensor,
    bank: Bank,
    scale: Any,
    normalize: Any,
    query_mask: Any,
    top_k: Any,
    dropout_p: Any,
) -> Options:
    if query_mask is not None:
        checks.is_mask(op, "query_mask", query_mask, tuple(x.shape[:-1]), "x's [..., T]", x.device)
        query_mask = query_mask if bank.batched else query_mask.flatten()[None]
    if not isinstance(normalize, bool):
        checks.fail(op, "normalize", "True or False", repr(normalize), TypeError)
    if top_k is not None:
        checks.is_positive_int(op, "top_k", top_k)
        # Of no slots there are no k best: the read of all of them says what an empty bank gives.
        top_k = min(top_k, bank.slots) if bank.slots > 0 or isinstance(bank.keys, tuple) else None
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, (int, float)):
        checks.fail(op, "dropout_p", "a float", type(dropout_p).__name__, TypeError)
    if not 0 <= dropout_p < 1:
        checks.fail(op, "dropout_p", "at least 0 and less than 1", dropout_p)
    if isinstance(bank.keys, tuple):
        if top_k is None:
            checks.fail(op, "top_k", "given with product keys, which are searched and never all scored", None)
        if normalize:
            checks.fail(op, "normalize", "False with product keys (normalise x and the two halves themselves)", True)
        if bank.slot_bias is not None:
            checks.fail(
                op, "slot_mask and slot_bias", "None with product keys, whose scores are sums of two", "a tensor"
            )
    return Options(_check_scale(op, scale, bank.key_dim, x), normalize, query_mask, top_k, float(dropout_p))


def _check_scale(op: str, scale: Any, head_dim: int, like: Tensor) -> float | Tensor:
    """A float, or a tensor of one element with a gradient (a learned temperature)."""
    if scale is None:
        return 1.0 / math.sqrt(max(head_dim, 1))
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            checks.fail(op, "scale", "a float or a tensor of one element", list(scale.shape))
        if not scale.is_floating_point():
            checks.fail(op, "scale", "of a floating dtype", scale.dtype, TypeError)
        if scale.device != like.device:
            checks.fail(op, "scale", f"on the device of x, {like.device}", scale.device)
        return scale.reshape(()).to(acc_dtype(like.dtype))
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        checks.fail(
            op, "scale", "a float, a tensor of one element or None (1 / sqrt(d))", type(scale).__name__, TypeError
        )
    if not -math.inf < scale < math.inf:  # as comparisons, which torch's compiler can take
        checks.fail(op, "scale", "finite", scale)
    return float(scale)


def rows_of(x: Tensor, bank: Bank) -> Tensor:
    """x as [G, n, C]."""
    return x if bank.batched else x.flatten(0, -2)[None]
