"""torch's `scaled_dot_product_attention` for code that says "band" by writing a mask of T x T.

band = window_from_mask(mask)                        # once, where the mask is made
out = scaled_dot_product_attention(q, k, v, band)    # as often as there are layers
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..sliding_window_attention import sliding_window_attention


class Band(NamedTuple):
    """A mask that is a window: row i sees i - left * dilation .. i + right * dilation, in steps of `dilation`."""

    left: int
    right: int
    dilation: int
    key_mask: Tensor | None  # bool [B, T], True = valid; None where every key is
    frames: int

    def mask(self) -> Tensor:
        """The mask written out: bool [B or 1, 1, T, T]."""
        device = None if self.key_mask is None else self.key_mask.device
        at = torch.arange(self.frames, device=device)
        offset = at[None, :] - at[:, None]
        band = (offset >= -self.left * self.dilation) & (offset <= self.right * self.dilation)
        band &= offset % self.dilation == 0
        seen = band[None, None]
        return seen if self.key_mask is None else seen & self.key_mask[:, None, None, :]


def window_from_mask(mask: Tensor) -> Band | None:
    """The window that a mask describes, or None if it is not a window with padded keys left out.

    The mask is read once, and on a GPU the host waits for it: do this where the mask is made, not in every layer.

    Args:
        mask (Tensor): bool (True = seen) or float (0 = seen, -inf = not) [T, T], [H, T, T] or [B, H, T, T], all
            heads alike.
    Returns:
        Band | None: whose mask() is exactly the mask given.
    Raises:
        TypeError: if mask is no tensor.
    """
    checks.is_tensor("window_from_mask", "mask", mask)
    frames = mask.shape[-1] if mask.dim() else 0
    if mask.dim() not in (2, 3, 4) or mask.shape[-2] != frames or frames == 0 or 0 in mask.shape or mask.requires_grad:
        return None
    if mask.dtype != torch.bool:
        if not mask.is_floating_point() or not bool(((mask == 0) | (mask == -math.inf)).all()):
            return None
        mask = mask == 0
    mask = mask[(None,) * (4 - mask.dim())]  # as torch broadcasts masks: from the right
    if mask.shape[1] > 1 and not bool((mask == mask[:, :1]).all()):
        return None
    mask = mask[:, 0]
    valid = mask.diagonal(dim1=-2, dim2=-1)  # a window holds the row's own key, unless that is padding
    seen = mask.any(0).nonzero()
    if len(seen) == 0:
        return None
    offsets = (seen[:, 1] - seen[:, 0]).unique().tolist()
    dilation = math.gcd(*offsets) or 1
    padding = None if bool(valid.all()) else valid.clone()
    band = Band(max(-offsets[0] // dilation, 0), max(offsets[-1] // dilation, 0), dilation, padding, frames)
    return band if bool((band.mask()[:, 0].to(mask.device) == mask).all()) else None


def _serves(band: Band, query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> bool:
    """A window that leaves out something, over the tensors the op takes."""
    heads = key.shape[1] if key.dim() == 4 else 0
    return (
        query.dim() == 4
        and key.shape == value.shape
        and query.shape[0] == key.shape[0]
        and query.shape[2:] == key.shape[2:]
        and (query.shape[1] == heads or (enable_gqa and heads > 0 and query.shape[1] % heads == 0))
        and (band.key_mask is None or band.key_mask.shape[0] in (1, query.shape[0]))
        and min(band.left, band.right) * band.dilation < band.frames - 1
    )


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Band | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, by the op where the mask is a window and by torch otherwise.

    Args:
        query (Tensor): [B, H, T, D].
        key, value (Tensor): [B, H, T, D]; with enable_gqa [B, K, T, D], H a multiple of K.
        attn_mask (Tensor | Band | None): a mask as torch takes it, which is read to see whether it is a window, or the
            Band that `window_from_mask` found in it before, which costs nothing.
        dropout_p, is_causal, scale, enable_gqa: as torch's.
    Returns:
        Tensor: as torch's. A row that sees nothing gives 0.
    Raises:
        ValueError: if a Band is not of the query's T.
    """
    band = window_from_mask(attn_mask) if isinstance(attn_mask, Tensor) and not is_causal else attn_mask
    if isinstance(band, Band):
        if isinstance(attn_mask, Band):
            if band.frames != query.shape[-2]:
                checks.fail(
                    "scaled_dot_product_attention", "attn_mask", f"a Band of T = {query.shape[-2]}", band.frames
                )
            if is_causal:
                checks.fail("scaled_dot_product_attention", "is_causal", "False where there is an attn_mask", is_causal)
        if _serves(band, query, key, value, enable_gqa):
            padding = band.key_mask
            return sliding_window_attention(
                query,
                key,
                value,
                (band.left, band.right),
                scale=scale,
                dilation=band.dilation,
                key_mask=None if padding is None else padding.expand(query.shape[0], -1),
                dropout_p=dropout_p,
            )
    mask = attn_mask
    if isinstance(mask, Band):
        written = mask.mask().to(query.device)
        mask = written if mask.key_mask is not None else written[0, 0]  # as wide as any query's batch
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )
