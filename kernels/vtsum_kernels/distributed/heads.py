"""Attention of every frame to every other of a sequence that lies in stretches on ranks: each has some heads whole.

After DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv 2309.14509), for stretches of any lengths and any number of heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import checks
from .group import HEADS, Group, Message, Post, check_lengths, group_of

NAME = "distributed.full_attention"


class _Shares(NamedTuple):
    """Which frames are whose, and which heads: [first, end) of each rank."""

    group: Group
    frames: list[tuple[int, int]]
    heads: list[tuple[int, int]]


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
    frames = list(itertools.pairwise(itertools.accumulate(lengths, initial=0)))
    heads = [(q.shape[1] * r // members.ranks, q.shape[1] * (r + 1) // members.ranks) for r in range(members.ranks)]
    shares = _Shares(members, frames, heads)
    of_heads: Tensor = _ToHeads.apply(torch.stack([q, k, v]), shares)
    if of_heads.numel():
        mask = None if key_mask is None else key_mask[:, None, None]
        q, k, v = of_heads.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    else:
        out = of_heads.sum(0)
    whole: Tensor = _ToFrames.apply(out[None], shares)
    return whole[0]


def _to_heads(x: Tensor, shares: _Shares) -> Tensor:
    """[N, B, H, T_r, D] -> [N, B, H_r, T, D]."""
    group, (first, end) = shares.group, shares.heads[shares.group.rank]
    n, batch, _, _, dim = x.shape
    parts = [x.new_empty(n, batch, end - first, b - a, dim) for a, b in shares.frames]
    parts[group.rank] = x[:, :, first:end]
    others = [rank for rank in range(group.ranks) if rank != group.rank]
    messages = [Message(rank, x[:, :, slice(*shares.heads[rank])].contiguous(), True) for rank in others]
    messages += [Message(rank, parts[rank], False) for rank in others]
    Post(group, messages, HEADS).finish()
    return torch.cat(parts, 3)


def _to_frames(x: Tensor, shares: _Shares) -> Tensor:
    """[N, B, H_r, T, D] -> [N, B, H, T_r, D]."""
    group, (first, end) = shares.group, shares.frames[shares.group.rank]
    n, batch, _, _, dim = x.shape
    parts = [x.new_empty(n, batch, b - a, end - first, dim) for a, b in shares.heads]
    parts[group.rank] = x[:, :, :, first:end]
    others = [rank for rank in range(group.ranks) if rank != group.rank]
    messages = [Message(rank, x[:, :, :, slice(*shares.frames[rank])].contiguous(), True) for rank in others]
    messages += [Message(rank, parts[rank], False) for rank in others]
    Post(group, messages, HEADS).finish()
    return torch.cat(parts, 2)


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: _Shares) -> Tensor:
        ctx.shares = shares
        return _to_heads(x, shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _to_frames(gradient, ctx.shares), None


class _ToFrames(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: _Shares) -> Tensor:
        ctx.shares = shares
        return _to_frames(x, shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _to_heads(gradient, ctx.shares), None
