"""Queries that stand anywhere beside their keys, brought to where the op wants them: the last at the last key."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sliding_window_attention import sliding_window_attention


def aligned_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: tuple[int, int],
    *,
    offset: int = 0,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    **rest: Any,
) -> Any:
    """`sliding_window_attention` where query i stands at the position of key i + offset, be there such a key or not.

    The op's own call where offset is Tk - Tq, and not negative. Elsewhere queries or masked keys are added at the ends.
    Keys that no query sees are left out. Heads of v may be wider or narrower than those of q and k.

    Args:
        q (Tensor): [B, H, Tq, D].
        k (Tensor): [B, K, Tk, D].
        v (Tensor): [B, K, Tk, Dv].
        window (tuple[int, int]): keys before and after, inclusive, in frames (dilation 1); -1 = unbounded.
        offset (int): Tk - Tq aligns the last query with the last key; 0 the first with the first.
        key_mask (Tensor | None): bool [B, Tk], True = valid.
        return_lse (bool): also return lse [B, H, Tq].
        **rest: `scale`, `bias`, `dropout_p`, `sinks`, `softcap`, `backend` of the op.
    Returns:
        Tensor: [B, H, Tq, Dv]; with `return_lse` a tuple of it and lse.
    """
    (left, right), queries, keys = window, q.shape[2], k.shape[2]
    end = keys if right < 0 else max(min(offset + queries + right, keys), 0)
    begin = 0 if left < 0 else max(min(offset - left, end), 0)
    offset -= begin
    if begin > 0 or end < keys:
        k, v = k[:, :, begin:end], v[:, :, begin:end]
        key_mask = None if key_mask is None else key_mask[:, begin:end]
    before, after = max(-offset, 0), offset + queries - (end - begin)
    if after < 0:
        q, after = F.pad(q, (0, 0, 0, -after)), 0
    if before > 0 or after > 0:
        if key_mask is None:
            key_mask = torch.ones(q.shape[0], end - begin, dtype=torch.bool, device=q.device)
        key_mask = F.pad(key_mask, (before, after), value=False)
        k, v = (F.pad(x, (0, 0, before, after)) for x in (k, v))

    width, narrow = v.shape[3], v.shape[3] - q.shape[3]
    if narrow:
        rest["scale"] = q.shape[3] ** -0.5 if rest.get("scale") is None else rest["scale"]
        q, k = (F.pad(x, (0, max(narrow, 0))) for x in (q, k))
        v = F.pad(v, (0, max(-narrow, 0)))
    found = sliding_window_attention(q, k, v, window, key_mask=key_mask, return_lse=return_lse, **rest)
    if not return_lse:
        return found[:, :, :queries, :width]
    return found[0][:, :, :queries, :width], found[1][:, :, :queries]
