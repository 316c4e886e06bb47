"""What VTSum gives, and what its losses are means over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vtsum.config import VTSumConfig

if TYPE_CHECKING:
    from vtsum_kernels.distributed.stretch import Stretch


class VTSumOutput(NamedTuple):
    """loss = lambda_vsum * loss_vsum + lambda_tsum * loss_tsum + lambda_boundary * loss_boundary +, while gradients are
    recorded, lambda_balance * the mean of the banks' balance losses; what was not asked for is None.

    saliency_logits [B, T] and frames [B, T, C], or [total] and [total, C] for packed videos; text_logits [B, L, V];
    decoder_targets [B, L], -100 where a token carries no loss. Logits predict the token after the one they stand at.
    boundary_logits [B, T] or [total], of models with a boundary head: that an event begins at the frame.
    (A tuple, in which sharded training finds the tensors that its hooks belong to.)
    """

    saliency_logits: Tensor
    frames: Tensor
    loss: Tensor | None = None
    loss_vsum: Tensor | None = None
    loss_tsum: Tensor | None = None
    text_logits: Tensor | None = None
    decoder_targets: Tensor | None = None
    loss_balance: Tensor | None = None
    boundary_logits: Tensor | None = None
    loss_boundary: Tensor | None = None


class LossCounts(NamedTuple):
    """What the losses of a forward pass are divided by: real frames that somebody annotated, and words (tokens that
    carry a loss)."""

    frames: float
    words: float


def saliency_loss(
    config: VTSumConfig, logits: Tensor, mask: Tensor | None, labels: Tensor, frames: float | None
) -> Tensor:
    """Of `VTSum.video_loss`, whose arguments these are."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    labels = labels.to(dtype)
    logits = logits.to(dtype).unsqueeze(-2).expand_as(labels)
    counted = torch.ones_like(labels) if mask is None else mask.to(dtype).unsqueeze(-2).expand_as(labels)
    if config.loss_type == "l2":
        each = (logits.sigmoid() - labels).square()
    else:
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    total = (each * counted).sum()
    if frames is not None:
        return total / (frames * labels.shape[-2])
    if _released(config):
        return total / labels.numel()
    return total / counted.sum().clamp_min(1)


def _released(config: VTSumConfig) -> bool:
    """Whether padded frames count in the number of frames, as in VideoXum's code."""
    return config.loss_mean == "released" and config.loss_type == "cross_entropy"


def frames_counted(config: VTSumConfig, stretch: Stretch, videos: int) -> tuple[float, float]:
    """Of what the losses of saliency and boundaries are means, over all ranks that have a stretch of the videos."""
    every = videos * stretch.total
    real = every if stretch.mask is None else max(1, int(stretch.mask.sum()))
    return every if _released(config) else real, real
