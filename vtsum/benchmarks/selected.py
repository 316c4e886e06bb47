"""Training a network on rated videos, one a step or a few, and keeping it as it was after its best epoch."""

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
"""Features [P, C] and what is wanted at each pick: a score, [P], or several numbers, [P, K]."""


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
    batch: int = 1,
    clip: float | None = None,
) -> None:
    """Train `model` in place, in an order drawn anew each epoch; it is left as it was after the epoch of the best mean
    `select` over the validation videos, the first of several, in evaluation mode.

    Args:
        predict: features [P, C] to scores [P] by the model. loss: from features [1, P, C] and what is wanted.
        select: where the file has the raters' mean alone, F instead. batch: videos a step, whose losses are added up.
        clip: the greatest norm that the gradient of a step may have; None: any.
    """
    best, kept = -np.inf, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(examples)).tolist()
        for first in range(0, len(order), batch):
            optimizer.zero_grad()
            for i in order[first : first + batch]:
                features, wanted = examples[i]
                loss(features[None], wanted).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
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
