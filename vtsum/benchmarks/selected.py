"""Training a network on rated videos, one a step, and keeping it as it was after its best epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vtsum.data.tvsum import TVSumVideo
from vtsum.evaluation.baselines import Measure, score_video

Example = tuple[Tensor, Tensor]
"""Features [P, C] and wanted scores [P]."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's random numbers of a seed meanwhile, and afterwards those that would have come."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def train_selected(
    model: nn.Module,
    examples: Sequence[Example],
    validation: Sequence[TVSumVideo],
    *,
    predict: Callable[[np.ndarray], np.ndarray],
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    select: Measure,
) -> None:
    """Train `model` in place, in an order drawn anew each epoch; it is left as it was after the epoch of the best mean
    `select` over the validation videos, the first of several, in evaluation mode.

    Args:
        predict: features [P, C] to scores [P] by the model. loss: from features [1, P, C] and wanted scores [P].
        select: where the file has the raters' mean alone, F instead.
    """
    best, kept = -np.inf, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        model.train()
        for i in torch.randperm(len(examples)).tolist():
            features, wanted = examples[i]
            optimizer.zero_grad()
            loss(features[None], wanted).backward()
            optimizer.step()
        model.eval()
        found = float(np.mean([_measured(predict, video, select) for video in validation]))
        if found > best:
            best, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    model.eval()


def _measured(predict: Callable[[np.ndarray], np.ndarray], video: TVSumVideo, select: Measure) -> float:
    assert video.features is not None  # no method is run without
    scored = score_video(predict(video.features), video)
    return float(getattr(scored, "f" if video.ratings is None else select))
