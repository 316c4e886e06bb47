"""Attention to keys that lie on several ranks, merged from each rank's attention to its own keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..tensors import acc_dtype
from .group import group_of
from .sums import gather_shared

NAME = "distributed.merge_attention"


@torch.compiler.disable  # as sliding_window_attention
def merge_attention(out: Tensor, lse: Tensor, *, group: Any = None) -> Tensor:
    """Attention of the same queries on all ranks to the keys of all, from each rank's attention to its own keys.

        whole = sum_r exp(lse_r - lse) out_r        lse = log(sum_r exp(lse_r))

    the online softmax's merge. Only out and lse travel, each to every rank, whose size is that of the queries; every
    rank has the same bits then. What each rank makes of it may differ: the gradients of its own out and lse are the
    sum of all ranks'. All ranks go backward through it, or none.

    Args:
        out (Tensor): [..., D]: softmax-weighted values over this rank's keys; zeros where it has none.
        lse (Tensor): [...], out's shape without D: the logarithm of the sum of exponentials of its scores; -inf where
            it has none. Not -inf on all ranks.
        group: a ProcessGroup, a DeviceMesh of one dimension, or None: all processes.
    Returns:
        Tensor: out's shape and dtype.
    Raises:
        ValueError: shapes that do not fit.
        RuntimeError: there is no process group, or a rank does not answer within the group's timeout; it is named.
    """
    members = group_of(NAME, group)
    if lse.shape != out.shape[:-1]:
        checks.fail(NAME, "lse", f"of out's shape without its last dimension, {list(out.shape[:-1])}", list(lse.shape))
    wide = acc_dtype(out.dtype)
    # As one message: a column more.
    both = gather_shared(members, torch.cat([out.to(wide), lse.to(wide)[..., None]], -1))
    weights = both[..., -1].softmax(0)
    return (weights[..., None] * both[..., :-1]).sum(0).to(out.dtype)
