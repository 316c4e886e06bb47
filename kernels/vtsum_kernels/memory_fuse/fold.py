"""Folding: the products of a bank with the weights around it, which every frame shares.

K' = K Wq   so that   (x Wq^T) K^T = x K'^T        V' = V W2^T   so that   (P V) W2^T = P V'
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..memory_attention.call import Bank, Keys
from ..memory_attention.products import matmul
from ..memory_attention.read import ready_keys
from ..tensors import acc_dtype


class Folded(NamedTuple):
    """A bank with what is folded into it, in the dtype that products take: on the CPU float32 at least."""

    keys: Keys  # [G, H, S, d] as queries are compared with them; K' [G, H, S, C] where projected
    values: Tensor | None  # V' [G, H, S, O]; None where the values are not folded
    projected: bool  # the query projection is in the keys: frames themselves are the queries
    normalize: bool  # the keys are of norm 1


def fold(bank: Bank, weight: Tensor, query_weight: Tensor | None, normalize: bool, keys: bool, values: bool) -> Folded:
    """keys, values: which of the two products are made. A cosine of projected queries needs the projection's norm."""
    heads, value_dim = bank.values.shape[1], bank.values.shape[3]
    projected = keys and can_fold_keys(bank, query_weight, normalize)
    if projected:
        by_head = query_weight.unflatten(0, (heads, bank.key_dim))  # type: ignore[union-attr]
        folded: Keys = _product(bank.keys, by_head[None])  # type: ignore[arg-type]
    else:
        folded = ready_keys(bank.keys, normalize)
    if not values:
        return Folded(folded, None, projected, normalize)
    outward = weight[:, weight.shape[1] - heads * value_dim :].unflatten(1, (heads, value_dim))
    return Folded(folded, _product(bank.values, outward.permute(1, 2, 0)[None]), projected, normalize)


def can_fold_keys(bank: Bank, query_weight: Tensor | None, normalize: bool) -> bool:
    """Not for a cosine of projected queries, which needs the projection's norm; product keys are searched by halves."""
    return query_weight is not None and not normalize and isinstance(bank.keys, Tensor)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A product in float32 at least on the CPU, where what it feeds is float32 too; on a GPU in its own dtype."""
    if a.device.type == "cpu":
        a, b = a.to(acc_dtype(a.dtype)), b.to(acc_dtype(b.dtype))
    return matmul(a, b.expand(a.shape[0], -1, -1, -1))


def saves(
    bank: Bank, frames: int, dim: int, out_dim: int, top_k: int | None, made: bool = False, layer_speed: int = 1
) -> tuple[bool, bool]:
    """Whether folding saves multiplications: the query projection into the keys, the linear layer into the values.

    Args:
        frames: of a group, each of which has a bank of its own. dim: C. out_dim: O.
        top_k: a frame reads that many slots and not all of them, but is compared with all.
        made: what folding itself costs is paid already.
        layer_speed: how many times as fast as others the products of the folded layer are, once its values are folded.
    """
    (groups, heads, slots, value_dim), key_dim = bank.values.shape, bank.key_dim
    # An exported call serves any number of frames: so many that folding costs next to nothing.
    made = made or torch.compiler.is_exporting()
    once = 0 if made else groups * heads * slots
    read = slots if top_k is None else min(top_k, slots)
    rows = groups * (1 if made else frames)
    keys_apart = rows * heads * key_dim * (dim + slots)
    keys_folded = once * dim * key_dim + rows * heads * slots * dim
    values_apart = rows * heads * value_dim * (out_dim + read)
    values_folded = once * out_dim * value_dim + rows * heads * read * out_dim
    return keys_folded < keys_apart, values_folded < values_apart * layer_speed
