"""A segment of a video, and what every method checks of its input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Segment:
    """A run of frames between two event boundaries: frame indices start <= i < end.

    `start_time` and `end_time` are seconds; NaN where a function was told of frames alone (`kts`). Two segments are
    equal where their frames are.
    """

    start: int
    end: int
    start_time: float = field(default=math.nan, compare=False)
    end_time: float = field(default=math.nan, compare=False)

    def __len__(self) -> int:
        return self.end - self.start

    def seconds(self, fps: float, duration: float) -> tuple[float, float]:
        """The times at which the first frame was taken and the first one after, in a video sampled at `fps` frames a
        second that lasts `duration` seconds."""
        return min(self.start / fps, duration), min(self.end / fps, duration)


def between(edges: Sequence[int]) -> list[Segment]:
    """Segments between neighbouring edges."""
    return [Segment(a, b) for a, b in itertools.pairwise(edges)]


def checked_features(features: np.ndarray, function: str) -> np.ndarray:
    """Features as finite float64 [T, C].

    Raises:
        ValueError: another shape, or NaN or infinity, with the frame it stands in.
    """
    x = np.asarray(features)
    if x.ndim != 2:
        raise ValueError(f"{function}: features must be [T, C], got shape {tuple(x.shape)}")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"{function}: features must be finite, got NaN or infinity in frame {bad}")
    return x
