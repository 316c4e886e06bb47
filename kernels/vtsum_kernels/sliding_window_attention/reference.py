"""Sliding-window attention in plain PyTorch: the oracle of every test and the fallback of last resort."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sliding_window_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    left: int,
    right: int,
    *,
    scale: float,
    dilation: int = 1,
    key_padding_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention over a band of keys, differentiable, with memory O(T * window) for finite windows.

    Args:
        q, k, v (Tensor): [B, H, T, D].
        left, right (int): keys before and after the query, in steps of `dilation`; -1 = unbounded.
        scale (float): factor of the scores.
        dilation (int): distance in frames between neighbouring keys of a window.
        key_padding_mask (Tensor | None): bool [B, T], True = valid.
    Returns:
        tuple[Tensor, Tensor]: out [B, H, T, D] of q's dtype; lse [B, H, T] in float32 (float64 for float64), -inf where
        a row sees nothing.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    dtype, frames = q.dtype, q.shape[2]
    q, k, v = q.to(wide) * scale, k.to(wide), v.to(wide)
    if key_padding_mask is not None:
        # Whatever padded frames hold, NaN too, must not reach a valid row: 0 * NaN would.
        padded = ~key_padding_mask[:, None, :, None]
        k, v = k.masked_fill(padded, 0.0), v.masked_fill(padded, 0.0)
    reach = max(frames - 1, 0) // dilation
    left = reach if left < 0 else left
    right = reach if right < 0 else right
    if left + right + 1 < frames:
        out, lse = _banded(q, k, v, left, right, dilation, key_padding_mask)
    else:
        out, lse = _dense(q, k, v, left, right, dilation, key_padding_mask)
    return out.to(dtype), lse


def _softmax(scores: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last dimension among visible entries; a row without any gives zeros and lse = -inf."""
    scores = scores.masked_fill(~visible, -torch.inf)
    top = scores.detach().amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, torch.zeros_like(top), top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    seen = total > 0
    safe = torch.where(seen, total, torch.ones_like(total))
    lse = torch.where(seen, top + torch.log(safe), torch.full_like(top, -torch.inf))
    return weights / safe, lse.squeeze(-1)


def _banded(
    q: Tensor, k: Tensor, v: Tensor, left: int, right: int, dilation: int, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One shifted product for each key of the window; nothing of size T x T."""
    frames, keys = q.shape[2], left + right + 1
    pad = (left * dilation, right * dilation)
    k, v = F.pad(k, (0, 0, *pad)), F.pad(v, (0, 0, *pad))
    valid = torch.ones(1, frames, dtype=torch.bool, device=q.device) if key_padding_mask is None else key_padding_mask
    valid = F.pad(valid, pad, value=False)
    starts = range(0, keys * dilation, dilation)
    visible = torch.stack([valid[:, s : s + frames] for s in starts], -1)[:, None]
    scores = torch.stack([(q * k[:, :, s : s + frames]).sum(-1) for s in starts], -1)
    weights, lse = _softmax(scores, visible)
    out = torch.zeros_like(q)
    for column, s in enumerate(starts):
        out = out + weights[..., column, None] * v[:, :, s : s + frames]
    return out, lse


def _dense(
    q: Tensor, k: Tensor, v: Tensor, left: int, right: int, dilation: int, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All T x T scores under a band mask: less work than shifts where the window is as wide as the sequence."""
    frames = q.shape[2]
    if frames == 0:
        return q + k + v, q.sum(-1)  # nothing, tied to all three inputs
    position = torch.arange(frames, device=q.device)
    offset = position[None, :] - position[:, None]
    visible = (-left * dilation <= offset) & (offset <= right * dilation) & (offset % dilation == 0)
    visible = visible[None, None]
    if key_padding_mask is not None:
        visible = visible & key_padding_mask[:, None, None, :]
    weights, lse = _softmax(q @ k.transpose(-1, -2), visible)
    return weights @ v, lse
