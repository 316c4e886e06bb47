"""The boundary head: where one event ends and the next begins, learned with the saliency."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtsum.errors import VTSumError

if TYPE_CHECKING:
    from vtsum_kernels.distributed.stretch import Stretch

WIDTHS = (1, 2, 4)
"""Frames before and after a boundary whose means are compared."""
VIEWS, VIEW = 8, 16
"""Learned views of a frame in which they are compared, and the dimension of each."""
REACH = 2
"""Frames to either side whose contrasts are looked at too: a boundary is a peak."""
HIDDEN = 32
HALO = max(WIDTHS) + REACH
"""Frames to either side that a logit sees."""
PART = 1024
"""Rows that are compared at once where nothing is trained."""
NEIGHBOUR = 0.5
"""What a boundary is worth at the frames beside it: annotators agree to a frame or so, not better."""


class BoundaryHead(nn.Module):
    """The logit that a new event begins at a frame, from how what follows differs from what came before.

        d_vw[t] = |mean(v[t .. t + w - 1]) - mean(v[t - w .. t - 1])|^2 / dim v      w = 1, 2, 4; cut off at the ends
        logit[t] = MLP(d[t - 2 .. t + 2], d[t - 2 .. t + 2] / mean_t d)

    The views v are the frame embeddings x at unit variance, what the saliency head reads (h), likewise, and eight
    learned projections of both. At a video's first frame nothing came before: d = 0; beyond its ends too. The second
    half of the MLP's input says how much a contrast stands out in its own video.

    Args:
        dim: C of both.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.views = nn.Linear(2 * dim, VIEWS * VIEW)
        contrasts = (VIEWS + 2) * len(WIDTHS)
        self.mlp = nn.Sequential(nn.Linear(2 * contrasts * (2 * REACH + 1), HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))

    def forward(
        self,
        embeddings: Tensor,
        frames: Tensor,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        stretch: Stretch | None = None,
    ) -> Tensor:
        """Logits.

        Args:
            embeddings, frames: [B, T, C]; packed [total, C].
            mask: bool [B, T], True for a real frame; None where all are, and with cu_seqlens.
            cu_seqlens: int [B + 1], where each packed video starts and the last one ends.
            stretch: what the others are this rank's part of.
        Returns:
            Tensor: [B, T]; packed [total].
        """
        if stretch is not None:
            return self._of_stretch(embeddings, frames, mask, stretch)
        rows = [x.flatten(0, -2) for x in (embeddings, frames)]
        videos = _Videos(frames.shape[:-1], mask, cu_seqlens, frames.device, frames.dtype)
        found = self._compared(rows, videos)
        return self._logits(found, videos, videos.mean(found)).view(frames.shape[:-1])

    def _of_stretch(self, embeddings: Tensor, frames: Tensor, mask: Tensor | None, stretch: Stretch) -> Tensor:
        """With the frames beside the stretch, and the means of whole videos."""
        own = torch.ones(frames.shape[:-1], dtype=torch.bool, device=frames.device) if mask is None else mask
        dtype, length = torch.promote_types(embeddings.dtype, frames.dtype), frames.shape[1]
        x, y, real, before = stretch.with_halo(embeddings.to(dtype), frames.to(dtype), own, HALO)
        videos = _Videos(y.shape[:-1], real, None, y.device, y.dtype)
        found = self._compared([x.flatten(0, -2), y.flatten(0, -2)], videos)
        # Frames of the halo count where they belong.
        there = torch.zeros_like(real)
        there[:, before : before + length] = own
        sums, counts = videos.sums(found, there.flatten()[:, None].to(found.dtype))
        whole = stretch.sum(torch.cat([sums, counts], 1))
        means = (whole[:, :-1] / whole[:, -1:].clamp_min(1))[videos.number]
        return self._logits(found, videos, means).view(y.shape[:-1])[:, before : before + length]

    def _compared(self, rows: list[Tensor], videos: _Videos) -> Tensor:
        """d of all rows, [N, contrasts]."""
        count = len(videos.at)
        # What is compared takes a dozen times the frames' own memory: of hours, without a gradient, a part at a time.
        part = count if torch.is_grad_enabled() or torch.compiler.is_compiling() else PART
        starts = range(0, max(count, 1), max(part, 1))  # a stretch may be empty
        return torch.cat([self._contrasts(rows, videos, first, min(first + part, count)) for first in starts])

    def _logits(self, found: Tensor, videos: _Videos, means: Tensor) -> Tensor:
        """[N], from d and the mean of d in each row's video."""
        found = torch.cat([found, found / (means + 1e-3)], 1)
        near = [videos.shifted(found, offset)[0] for offset in range(-REACH, REACH + 1)]
        logits: Tensor = self.mlp(torch.cat(near, 1))[:, 0]
        return logits

    def _contrasts(self, rows: list[Tensor], videos: _Videos, first: int, last: int) -> Tensor:
        """d of rows first to last: [last - first, contrasts]."""
        start, stop = max(first - max(WIDTHS), 0), min(last + max(WIDTHS), len(videos.at))
        both = torch.cat([F.layer_norm(x[start:stop], x.shape[-1:]) for x in rows], -1)
        near = videos if stop - start == len(videos.at) else videos.stretch(start, stop)
        found = torch.cat([_distances(both, 2, near), _distances(self.views(both), VIEWS, near)], 1)
        return found[first - start : last - start]


class _Videos:
    """Where each row of the videos laid end to end belongs."""

    def __init__(
        self,
        shape: torch.Size,
        mask: Tensor | None,
        cu_seqlens: Tensor | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if cu_seqlens is None:
            cu_seqlens = torch.arange(shape[0] + 1, device=device) * shape[1]
        bounds = cu_seqlens.to(device=device, dtype=torch.int64)
        lengths = bounds.diff()
        self.count = len(lengths)
        self.number = torch.arange(self.count, device=device).repeat_interleave(lengths)
        self.starts, self.ends = bounds[self.number], bounds[self.number + 1]
        self.at = torch.arange(len(self.number), device=device)
        real = torch.ones_like(self.at, dtype=dtype) if mask is None else mask.flatten().to(dtype)
        self.real = real[:, None]

    def stretch(self, start: int, stop: int) -> _Videos:
        """Rows start to stop alone, as if videos began and ended with them."""
        part = copy(self)
        part.at = self.at[: stop - start]
        part.starts = (self.starts[start:stop] - start).clamp_min(0)
        part.ends = (self.ends[start:stop] - start).clamp_max(stop - start)
        part.number, part.real = self.number[start:stop], self.real[start:stop]
        return part

    def shifted(self, rows: Tensor, offset: int) -> tuple[Tensor, Tensor]:
        """The row `offset` further in the same video [N, D], zeros where there is none, and 1 or 0 [N, 1]."""
        where = self.at + offset
        inside = (where >= self.starts) & (where < self.ends)
        where = torch.where(inside, where, self.at)
        weight = self.real[where] * inside[:, None]
        return rows[where] * weight, weight

    def mean(self, rows: Tensor) -> Tensor:
        """The mean of each video's real rows, at each of its rows: [N, D]."""
        sums, counts = self.sums(rows, self.real)
        return (sums / counts.clamp_min(1))[self.number]

    def sums(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of each video, the weighted sum of its rows [B, D] and of the weights [N, 1] -> [B, 1]."""
        sums = rows.new_zeros(self.count, rows.shape[1]).index_add(0, self.number, rows * weights)
        return sums, rows.new_zeros(self.count, 1).index_add(0, self.number, weights)


def _distances(rows: Tensor, parts: int, videos: _Videos) -> Tensor:
    """Mean squared difference of the means before and after each row, for each part of the columns and each width:
    [N, D] -> [N, parts * len(WIDTHS)]."""

    def side(offsets: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Means of the first frames at the offsets, and whether there is one, for each of WIDTHS."""
        total, count = torch.zeros_like(rows), torch.zeros_like(videos.real)
        out = []
        for number, offset in enumerate(offsets, 1):
            value, weight = videos.shifted(rows, offset)
            total, count = total + value, count + weight
            if number in WIDTHS:
                out.append((total / count.clamp_min(1), (count > 0).to(rows.dtype)))
        return out

    after = side(list(range(max(WIDTHS))))
    before = side([-1 - i for i in range(max(WIDTHS))])
    found = []
    for (later, there), (earlier, also) in zip(after, before, strict=True):
        difference = (later - earlier) * (there * also)
        found.append(difference.square().unflatten(1, (parts, -1)).mean(-1))
    return torch.cat(found, 1)


def boundary_targets(
    labels: Tensor, mask: Tensor | None = None, cu_seqlens: Tensor | None = None, stretch: Stretch | None = None
) -> Tensor:
    """The share of annotators for whom something begins or ends at a frame, and half of it at its neighbours.

        share[t] = mean_a |labels[a, t] - labels[a, t - 1]|        target[t] = max(share[t], share[t +- 1] / 2)

    A video's first frame is no boundary, nor is its end.

    Args:
        labels: [B, A, T] in 0..1, what each annotator chose; packed [A, total].
        mask, cu_seqlens, stretch: as `BoundaryHead.forward` takes them.
    Returns:
        Tensor: [B, T] in 0..1; packed [total].
    """
    if stretch is not None:
        rows, length = labels.transpose(1, 2), labels.shape[-1]
        own = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device) if mask is None else mask.bool()
        rows, _, real, before = stretch.with_halo(rows, rows, own, 2)
        if not length:
            return rows.new_zeros(rows.shape[:2])
        return boundary_targets(rows.transpose(1, 2), real)[:, before : before + length]
    share = F.pad((labels[..., 1:] - labels[..., :-1]).abs().mean(-2), (1, 0))
    inside = torch.ones_like(share, dtype=torch.bool)  # a change between this frame and the one before it counts
    inside[..., :1] = False
    own = torch.ones_like(inside) if mask is None else mask.bool()
    inside &= own
    if cu_seqlens is not None:
        inside[cu_seqlens[:-1].long()] = False
    share = share * inside
    # What lies before a frame that follows another in its own video, and what follows such a frame.
    left = F.pad(share[..., :-1], (1, 0)) * inside
    right = F.pad((share * inside)[..., 1:], (0, 1))
    return torch.maximum(share, NEIGHBOUR * torch.maximum(left, right)) * own


def boundary_loss(logits: Tensor, targets: Tensor, mask: Tensor | None = None, frames: float | None = None) -> Tensor:
    """Binary cross entropy, the mean over real frames; `frames`: their number, where it is not that of the logits'.

    Raises:
        VTSumError: targets of another shape than the logits.
    """
    if logits.shape != targets.shape:
        raise VTSumError(f"boundary_loss: targets must be {list(logits.shape)}, got {list(targets.shape)}")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    counted = torch.ones_like(logits, dtype=dtype) if mask is None else mask.to(dtype)
    each = F.binary_cross_entropy_with_logits(logits.to(dtype), targets.to(dtype), reduction="none")
    return (each * counted).sum() / (counted.sum().clamp_min(1) if frames is None else frames)
