"""Sliding-window attention in plain PyTorch: the oracle of every test and the fallback of last resort."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import bounded
from .dropout import drop_below, frame_number, philox


def sliding_window_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    left: int,
    right: int,
    *,
    scale: float,
    dilation: int = 1,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    bias: Tensor | None = None,
    shift: bool = False,
    seed: Tensor | None = None,
    dropout_p: float = 0.0,
    row_offset: int = 0,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attention over a band of keys, differentiable any number of times, with memory O(T * window) for finite windows.

    A row that holds or sees what is not finite is NaN, and passes no gradient on.

    Args:
        q (Tensor): [B, H, T, D]. k, v (Tensor): [B, K, Tk, D], where K divides H. The last query stands at the last
            key: query i at key i + Tk - T, where Tk is at least T.
        left, right (int): keys before and after the query, in steps of `dilation`; -1 = unbounded.
        scale (float): factor of the scores.
        dilation (int): distance in frames between neighbouring keys of a window.
        key_mask (Tensor | None): bool [B, Tk], True = valid.
        cu_seqlens (Tensor | None): [N + 1], where the sequences packed into Tk = T begin; B is 1.
        bias (Tensor | None): [H, left + right + 1], or [H, 2 * (left + right) + 1] for shifted windows.
        shift (bool): windows are moved inside the sequence at its ends, not cut off.
        seed (Tensor | None), dropout_p (float), row_offset (int): see `dropout.py`.
        sinks (Tensor | None): [H], a logit in each row's softmax that no value belongs to.
        softcap (float): scores become softcap * tanh(score / softcap) before the bias is added; 0 = none.
    Returns:
        tuple[Tensor, Tensor]: out [B, H, T, D] of q's dtype; lse [B, H, T] in float32 (float64 for float64), the
        sink where a row sees nothing, -inf without one.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    dtype, frames, key_heads = q.dtype, k.shape[2], k.shape[1]
    queries, group = q.shape[2], q.shape[1] // max(key_heads, 1)
    q, k, v = q.to(wide) * scale, k.to(wide), v.to(wide)
    # What is not finite must not reach a row that does not see it, as 0 * NaN would: it is left out of all products,
    # and the rows that hold or see it are made NaN in the end.
    odd_row, odd_key = _odd(q), _odd(k) | _odd(v)
    q, k, v = (x.where(x.isfinite(), 0.0) for x in (q, k, v))
    odd_key = odd_key.repeat_interleave(group, 1) if group > 1 else odd_key
    reach = max(frames - 1, 0) // dilation
    left, right = (reach if side < 0 else side for side in (left, right))
    left, right, dilation, bias = bounded(frames, left, right, dilation, shift, bias)
    # Columns of the band: keys i + o * dilation, -before <= o <= after. A shifted window reaches further from its row.
    before, after = (left + right, left + right) if shift else (left, right)
    # Else products with all keys: of few queries those that none of them sees were left out.
    banded = before + after + 1 < queries
    rows = torch.arange(frames - queries, frames, device=q.device)
    if banded:
        offsets = torch.arange(-before, after + 1, device=q.device)
        keys, column = rows[:, None] + offsets * dilation, offsets.expand(queries, -1)
    else:
        keys = torch.arange(frames, device=q.device).expand(queries, frames)
        column = torch.div(keys - rows[:, None], dilation, rounding_mode="floor")
    visible = _visible(rows, keys, frames, left, right, dilation, shift, cu_seqlens)[None, None]
    if key_mask is not None:
        visible = visible & key_mask[:, keys.clamp(0, max(frames - 1, 0))][:, None]
    if banded:
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        pad = (0, 0, before * dilation, after * dilation)
        k, v = F.pad(k, pad), F.pad(v, pad)
        starts = range(frames - queries, frames - queries + offsets.shape[0] * dilation, dilation)
        scores = torch.stack([(q * k[:, :, s : s + queries]).sum(-1) for s in starts], -1)
    else:  # the query heads of a key head one after another, as rows of one product
        scores = q.unflatten(1, (key_heads, group)).flatten(2, 3) @ k.transpose(-1, -2)
        scores = scores.unflatten(2, (group, queries)).flatten(1, 2)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias[:, (column + before).clamp(0, bias.shape[1] - 1)]
    weights, lse = softmax_among(scores, visible, sinks)
    if seed is not None:
        head = torch.arange(q.shape[0] * q.shape[1], device=q.device).reshape(*q.shape[:2], 1, 1)
        numbers = (frame_number(rows[:, None], row_offset), frame_number(keys, row_offset), head)
        kept = philox(seed, numbers) >= drop_below(dropout_p)
        weights = weights * kept / (1.0 - dropout_p)
    if banded:
        out = torch.zeros_like(q)
        for i, s in enumerate(starts):
            out = out + weights[..., i, None] * v[:, :, s : s + queries]
    else:
        out = weights.unflatten(1, (key_heads, group)).flatten(2, 3) @ v
        out = out.unflatten(2, (group, queries)).flatten(1, 2)
    odd_seen = odd_key[:, :, keys.clamp(0, max(frames - 1, 0))] if banded else odd_key[:, :, None]
    odd_row = odd_row | (visible & odd_seen).any(-1)
    out, lse = out.masked_fill(odd_row[..., None], torch.nan), lse.masked_fill(odd_row, torch.nan)
    return out.to(dtype), lse


def _odd(x: Tensor) -> Tensor:
    """bool [B, H, T], True where a row holds what is not finite."""
    return ~x.isfinite().all(-1)


def _visible(
    rows: Tensor,
    keys: Tensor,
    frames: int,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    cu_seqlens: Tensor | None,
) -> Tensor:
    """bool [T, n], True where the window of rows[i] holds keys[i, :], of so many frames; padding aside."""
    if cu_seqlens is None:
        first, last = torch.zeros_like(rows), torch.full_like(rows, frames)
    else:
        starts = cu_seqlens.long()
        sequence = torch.searchsorted(starts, rows, right=True).clamp(1, max(starts.shape[0] - 1, 1))
        first, last = starts[sequence - 1], starts[sequence.clamp_max(starts.shape[0] - 1)]
        last = torch.where((rows >= first) & (rows < last), last, first)  # outside of every sequence: sees nothing
    steps = torch.div(keys - rows[:, None], dilation, rounding_mode="floor")
    seen = (keys - rows[:, None] == steps * dilation) & (keys >= first[:, None]) & (keys < last[:, None])
    if not shift:
        return seen & (steps >= -left) & (steps <= right)
    own = torch.div(rows - first, dilation, rounding_mode="floor")
    phase = rows - first - own * dilation
    length = torch.div(last - first - phase + dilation - 1, dilation, rounding_mode="floor")
    count = left + right + 1
    begin = torch.minimum(own - left, length - count).clamp_min(0)[:, None]
    index = own[:, None] + steps
    return seen & (index >= begin) & (index < begin + count)


def softmax_among(scores: Tensor, visible: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax of [B, H, T, n] among visible entries and the head's sink; a row without any gives zeros, lse = -inf."""
    scores = scores.masked_fill(~visible, -torch.inf)
    if scores.shape[-1] == 0:
        return scores, scores.sum(-1)
    top = scores.detach().amax(-1, keepdim=True)
    sink = None if sinks is None else sinks[:, None, None]
    top = top if sink is None else torch.maximum(top, sink.detach())
    top = torch.where(top == -torch.inf, torch.zeros_like(top), top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    total = total if sink is None else total + torch.exp(sink - top)
    seen = total != 0
    safe = torch.where(seen, total, torch.ones_like(total))
    lse = torch.where(seen, top + torch.log(safe), torch.full_like(top, -torch.inf))
    return weights / safe, lse.squeeze(-1)
