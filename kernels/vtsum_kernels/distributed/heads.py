"""Attention of every frame to every other of a sequence that lies in stretches on ranks: each has some heads whole.

After DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv 2309.14509), for stretches of any lengths and any number of heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import checks
from .group import HEADS, Group, check_lengths, group_of, swap

NAME = "distributed.full_attention"


class _Shares(NamedTuple):
    """How a dimension of [N, B, H, T, D] is shared out: how many of it each rank has, one rank after the other."""

    dim: int
    sizes: list[int]

    def of(self, x: Tensor) -> list[Tensor]:
        """Each rank's part."""
        return list(x.split(self.sizes, self.dim))


@torch.compiler.disable  # as sliding_window_attention
def full_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Sequence[int],
    group: Any = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention of every frame to every valid frame of a sequence that lies in stretches on a group's ranks.

        out[b, h, i] = sum_j softmax_j(q_i . k_j / sqrt(D)) v_j     over all frames j of all ranks

    Frames are exchanged for heads: a rank gets all frames of its share of the heads, computes those by PyTorch's fused
    kernel, and gives each rank its rows back. So it holds, sends and receives of q, k, v and out about as much as its
    own stretch has, however many ranks there are. With fewer heads than ranks some have nothing to compute. All ranks
    go backward through it, or none.

    Args:
        q, k, v (Tensor): [B, H, T, D] of one shape: this rank's T frames, as many as it has, or none.
        lengths (Sequence[int]): how many frames each rank has.
        group: a ProcessGroup, a DeviceMesh of one dimension, or None: all processes.
        key_mask (Tensor | None): bool [B, sum of lengths], True = valid, of the whole sequence, the same on all ranks.
            A row without a valid key is as `scaled_dot_product_attention` has it.
        dropout_p (float): each rank draws for its own heads.
    Returns:
        Tensor: q's shape and dtype.
    Raises:
        ValueError: shapes that do not fit.
        RuntimeError: there is no process group, or a rank does not answer within the group's timeout; it is named.
    """
    members = group_of(NAME, group)
    if q.dim() != 4 or k.shape != q.shape or v.shape != q.shape:
        shapes = [list(x.shape) for x in (q, k, v)]
        checks.fail(NAME, "q, k and v", "of one shape [B, H, T, D]", shapes)
    check_lengths(NAME, members, lengths, q.shape[2])
    total = sum(lengths)
    if key_mask is not None and key_mask.shape != (q.shape[0], total):
        checks.fail(NAME, "key_mask", f"[B, {total}], of the whole sequence", list(key_mask.shape))
    count, ranks = q.shape[1], members.ranks
    heads = _Shares(2, [count * (rank + 1) // ranks - count * rank // ranks for rank in range(ranks)])
    frames = _Shares(3, list(lengths))
    of_heads: Tensor = _Swap.apply(torch.stack([q, k, v]), members, heads, frames)
    if of_heads.numel():
        mask = None if key_mask is None else key_mask[:, None, None]
        q, k, v = of_heads.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    else:
        out = of_heads.sum(0)
    whole: Tensor = _Swap.apply(out[None], members, frames, heads)
    return whole[0]


class _Swap(torch.autograd.Function):
    """What each rank has of the `taken` dimension, with its own share of the `given` one; backward the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, given: _Shares, taken: _Shares) -> Tensor:
        ctx.exchange = group, taken, given
        return _swapped(x, group, given, taken)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _swapped(gradient, *ctx.exchange), None, None, None


def _swapped(x: Tensor, group: Group, given: _Shares, taken: _Shares) -> Tensor:
    parts = given.of(x)
    sizes = list(parts[group.rank].shape)
    found = [x.new_empty([*sizes[: taken.dim], size, *sizes[taken.dim + 1 :]]) for size in taken.sizes]
    swap(group, parts, found, HEADS)
    return torch.cat(found, taken.dim)
