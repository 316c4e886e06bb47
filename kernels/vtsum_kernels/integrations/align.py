"""Queries and keys of different lengths, brought onto one line of frames, as the op wants them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sliding_window_attention import sliding_window_attention


class Span(NamedTuple):
    """Where the queries and the keys that any of them sees lie on a common line of frames."""

    frames: int  # of the common line
    first_query: int  # its position there
    queries: int
    first_key: int
    begin: int  # the keys kept are begin .. end - 1
    end: int


def span(queries: int, keys: int, window: tuple[int, int], offset: int) -> Span:
    """The shortest line of frames that holds every query and every key that one of them sees.

    Args:
        queries, keys (int): how many there are.
        window (tuple[int, int]): keys before and after, inclusive, in frames; -1 = unbounded.
        offset (int): query i stands at the position of key i + offset.
    """
    left, right = window
    begin = 0 if left < 0 else min(max(offset - left, 0), keys)
    end = keys if right < 0 else max(min(offset + queries + right, keys), begin)
    start = min(offset, begin) if end > begin else offset
    stop = max(offset + queries, end) if end > begin else offset + queries
    return Span(stop - start, offset - start, queries, begin - start if end > begin else 0, begin, end)


def _place(x: Tensor, first: int, frames: int) -> Tensor:
    """[B, H, n, D] at `first` of `frames` frames, zeros around it."""
    after = frames - first - x.shape[2]
    return x if first == 0 and after == 0 else F.pad(x, (0, 0, first, after))


def aligned_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: tuple[int, int],
    *,
    offset: int = 0,
    key_padding_mask: Tensor | None = None,
    return_lse: bool = False,
    **rest: Any,
) -> Any:
    """`sliding_window_attention` where query i stands at the position of key i + offset.

    Keys that no query sees are dropped and missing ones masked, so that the work grows with the queries and the window
    and not with the number of keys. Heads of v may be wider or narrower than those of q and k.

    Args:
        q (Tensor): [B, H, Tq, D].
        k (Tensor): [B, K, Tk, D].
        v (Tensor): [B, K, Tk, Dv].
        window (tuple[int, int]): keys before and after, inclusive, in frames (dilation 1); -1 = unbounded.
        offset (int): Tk - Tq aligns the last query with the last key; 0 the first with the first.
        key_padding_mask (Tensor | None): bool [B, Tk], True = valid.
        return_lse (bool): also return lse [B, H, Tq].
        **rest: `scale`, `bias`, `dropout_p`, `backend` of the op.
    Returns:
        Tensor: [B, H, Tq, Dv]; with `return_lse` a tuple of it and lse.
    """
    line = span(q.shape[2], k.shape[2], window, offset)
    k, v = k[:, :, line.begin : line.end], v[:, :, line.begin : line.end]
    kept = line.end - line.begin
    if key_padding_mask is not None:
        key_padding_mask = key_padding_mask[:, line.begin : line.end]
    if kept < line.frames:
        valid = torch.ones(1, kept, dtype=torch.bool, device=q.device) if key_padding_mask is None else key_padding_mask
        after = line.frames - line.first_key - kept
        key_padding_mask = F.pad(valid, (line.first_key, after), value=False).expand(q.shape[0], -1)
    q = _place(q, line.first_query, line.frames)
    k, v = _place(k, line.first_key, line.frames), _place(v, line.first_key, line.frames)

    width, narrow = v.shape[3], v.shape[3] - q.shape[3]
    if narrow:
        rest["scale"] = q.shape[3] ** -0.5 if rest.get("scale") is None else rest["scale"]
        q, k = (F.pad(x, (0, max(narrow, 0))) for x in (q, k))
        v = F.pad(v, (0, max(-narrow, 0)))
    found = sliding_window_attention(q, k, v, window, key_padding_mask=key_padding_mask, return_lse=return_lse, **rest)
    rows = slice(line.first_query, line.first_query + line.queries)
    return (found[0][:, :, rows, :width], found[1][:, :, rows]) if return_lse else found[:, :, rows, :width]
