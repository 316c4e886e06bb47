"""Frames of a few spans of a video, side by side in one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vtsum.errors import VTSumError


def gather_spans(frames: Tensor, spans: Sequence[tuple[int, int]], limit: int = 64) -> tuple[Tensor, Tensor]:
    """Frames [T, C] and spans [start, end) -> ([N, L, C], mask bool [N, L]); longer spans are thinned to `limit`.

    Raises:
        VTSumError: a span that is empty or reaches outside the frames.
    """
    t = frames.shape[0]
    picks = []
    for start, end in spans:
        if not 0 <= start < end <= t:
            raise VTSumError(f"gather_spans: spans must lie within 0..{t} and not be empty, got ({start}, {end})")
        n = end - start
        picks.append(
            torch.linspace(start, end - 1, min(n, limit)).round().long() if n > limit else torch.arange(start, end)
        )
    length = max((len(p) for p in picks), default=0)
    out = frames.new_zeros(len(picks), length, frames.shape[1])
    mask = torch.zeros(len(picks), length, dtype=torch.bool, device=frames.device)
    for row, p in enumerate(picks):
        out[row, : len(p)] = frames[p.to(frames.device)]
        mask[row, : len(p)] = True
    return out, mask
