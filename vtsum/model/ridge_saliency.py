"""Saliency in closed form: ridge regression on frames and their surroundings, its scores spread over what is alike.

The ridge knows what mattered in other videos; which of its differences are a matter of this video, the video's own
features tell: a direction in which its frames hardly differ is no subject of it. So each frame is given, beside its own
score, the scores of all frames of its video, weighted by the covariance of their features with its own. That is one
step of power iteration, and the same as multiplying the weights by the video's own covariance.

What a video is mostly about it finds better than a network does, rare moments worse: so a network's scores make half of
the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vtsum.model.neighbourhood import place_features, units, window_means

REACHES = (2, 8, 20)
"""Frames to either side of the windows that the ridge looks at; seconds, at one frame a second."""
SMOOTHING = 1
"""Frames to either side over which its scores are averaged."""
SPREAD_REACHES = (1, 7)
"""Frames to either side of the windows by which frames are alike."""
SHARE = 0.7
"""Of the spread scores in the ridge's."""
NETWORK = 0.5
"""Of the network's scores in the result."""


@dataclass(frozen=True)
class RidgeSaliency:
    """What the shipped model says a frame is worth, beside its head.

    Attributes:
        mean: [C], of features of length 1 over the training videos.
        weights: [(1 + R) C + 3], of the columns of `columns`.
        calibration: slope and offset of the straight line from `scores` to the share of viewers who keep a frame.
    """

    mean: np.ndarray
    weights: np.ndarray
    calibration: np.ndarray

    def __post_init__(self) -> None:
        wanted = {"mean": self.mean.shape, "calibration": (2,)}
        wanted["weights"] = ((1 + len(REACHES)) * self.mean.size + 3,)
        for name, shape in wanted.items():
            found = getattr(self, name)
            if found.shape != shape or found.ndim != 1 or not np.isfinite(found).all():
                raise ValueError(f"saliency.{name} must be {len(shape) and list(shape)} finite numbers")

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> RidgeSaliency:
        """From what `state` gives.

        Raises:
            ValueError: a tensor is missing or of another shape, or a number is not finite.
        """
        if set(state) != set(cls.__dataclass_fields__):
            raise ValueError(
                f"saliency must have {', '.join(cls.__dataclass_fields__)}, got {', '.join(sorted(state))}"
            )
        return cls(**{name: value.double().numpy() for name, value in state.items()})

    def state(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(getattr(self, name)).float() for name in self.__dataclass_fields__}

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Features of one video's frames in order, a second apart, [T, C] -> [T] of mean 0 and deviation 1; 0 where all
        frames are alike."""
        raw, first = np.zeros(len(features)), 0
        for block in _blocks(features, self.mean):
            raw += block @ self.weights[first : first + block.shape[1]]
            first += block.shape[1]
        own = window_means(raw, SMOOTHING)
        return standardised(mixed(own, features, SHARE, SPREAD_REACHES))

    def saliency(self, features: np.ndarray, network: np.ndarray) -> np.ndarray:
        """The share of viewers who would keep each frame in a summary of 15%, as those of the training videos did:
        features [T, C], the network's scores of the same frames [T] -> float32 [T] in 0..1."""
        both = standardised((1 - NETWORK) * self.scores(features) + NETWORK * standardised(network.astype(np.float64)))
        slope, offset = self.calibration
        return np.clip(slope * both + offset, 0, 1).astype(np.float32)


def columns(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What the ridge is on: each frame of length 1, less `mean`, and the means around it (REACHES), and the likeness to
    the whole video and the position as `place_features` has them: [T, C] -> [T, (1 + R) C + 3]."""
    return np.column_stack(list(_blocks(features, mean)))


def _blocks(features: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    """`columns`, a few at a time: of a day of video all together take gigabytes."""
    narrow = units(features)
    narrow -= mean
    yield narrow
    for reach in REACHES:
        yield window_means(narrow, reach)
    yield place_features(features).astype(np.float32)


def mixed(scores: np.ndarray, features: np.ndarray, share: float, reaches: Sequence[int]) -> np.ndarray:
    """Scores [T] and what `spread` makes of them, standardised both, `share` of the latter: [T]."""
    own = standardised(scores)
    return own if share == 0 else (1 - share) * own + share * standardised(spread(own, features, reaches))


def spread(scores: np.ndarray, features: np.ndarray, reaches: Sequence[int]) -> np.ndarray:
    """The sum of all frames' scores, each weighted by the covariance of its surroundings' features with the frame's:
    X X' scores, where the rows of X are means of windows of these reaches less their mean over the video: [T] -> [T].
    """
    rows = units(features)
    total = np.zeros(len(rows))
    for reach in reaches:
        around = window_means(rows, reach)
        around -= around.mean(axis=0)
        total += around @ (around.T @ scores)
    return total


def standardised(scores: np.ndarray) -> np.ndarray:
    return np.asarray((scores - scores.mean()) / max(float(scores.std()), 1e-12))
