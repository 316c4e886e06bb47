"""What a rank holds of videos whose frames lie on the ranks of a group, one stretch after another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vtsum.errors import VTSumError
from vtsum.model.losses import LossCounts
from vtsum.model.text_decoder import fingerprint

if TYPE_CHECKING:
    from vtsum_kernels.distributed.stretch import Stretch

    from vtsum.model.vtsum import VTSum


def stretch_of(
    model: VTSum, group: Any, x: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, **alike: int | float
) -> Stretch | None:
    """This rank's part of videos, once all ranks have said the same of `alike`; None without a group.

    Args:
        group: as `VTSum.forward` takes it, or a stretch, which is given back.
        x, mask, cu_seqlens: this rank's, as `VTSum.forward` takes them.
    Raises:
        VTSumError: packed videos, a loss of the user's own, no frame anywhere.
        ValueError: ranks differ. RuntimeError: one does not answer.
    """
    if group is None:
        return None
    from vtsum_kernels.distributed import stretch  # imports what only training needs

    if isinstance(group, stretch.Stretch):
        return group
    if cu_seqlens is not None:
        raise VTSumError("VTSum: cu_seqlens must be None with a group, whose ranks hold padded videos, got some")
    if model.own_loss is not None:
        raise VTSumError("VTSum: group must be None with a loss of one's own, which sees a stretch alone, got one")
    alike |= {"training": model.training, "gradients recorded": torch.is_grad_enabled()}
    found = stretch.stretch_of("VTSum", group, x, None if mask is None else mask.bool(), alike)
    if not found.total:
        raise VTSumError("VTSum: video_embeddings must have frames on some rank of the group, got none on any")
    return found


def alike_on_ranks(
    vsum_labels: Tensor | None,
    tsum_labels: list[str] | Tensor | None,
    max_text_length: int | None,
    counts: LossCounts | None,
) -> dict[str, int | float]:
    """What all ranks of a group must say alike when they call `VTSum.forward`, as numbers."""
    return {
        "rows of vsum_labels": -1 if vsum_labels is None else math.prod(vsum_labels.shape[:-1]),
        "tsum_labels": -1 if tsum_labels is None else fingerprint(tsum_labels),
        "max_text_length": max_text_length or 0,
        "frames of counts": -1.0 if counts is None else float(counts.frames),
        "words of counts": -1.0 if counts is None else float(counts.words),
    }
