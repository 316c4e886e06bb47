"""Event boundaries: kernel temporal segmentation (KTS) of frame features, exact, by dynamic programming.

Source: Potapov, Douze, Harchaoui, Schmid, "Category-specific video summarization", ECCV 2014, section 3.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_BLOCK = 256  # frames whose band of segment costs is computed by one matrix product


@dataclass(frozen=True)
class Segment:
    """A run of frames between two event boundaries: frame indices start <= i < end."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def seconds(self, fps: float, duration: float) -> tuple[float, float]:
        """Start and end in seconds of a video sampled at `fps` frames a second that lasts `duration` seconds."""
        return min(self.start / fps, duration), min(self.end / fps, duration)


def kts(
    features: np.ndarray,
    *,
    max_segments: int | None = None,
    min_length: int = 1,
    max_length: int | None = None,
    penalty: float = 1.0,
) -> list[Segment]:
    """Split a video into segments of low scatter; their number is chosen by Potapov's penalty.

        minimise  (1/T) sum_segments scatter(segment)  +  penalty * m / (2 T) * (log(T / m) + 1),   m change points

    scatter(segment) is the sum of squared distances of its frames to their mean (the linear kernel). The minimum is
    exact among segmentations whose lengths lie in min_length..max_length. Memory and the time of one change point
    grow with T * max_length; change points are added only while their penalty alone stays below the best sum so far.

    Args:
        features (Tensor): [T, C], any real dtype; scale matters: the penalty is meant for rows of unit length, or for
            features whose mean squared distance to their mean is about 1.
        max_segments (int | None): at most so many segments; None: as many as fit.
        min_length (int): shortest segment, in frames. A video shorter than this is one segment.
        max_length (int | None): longest segment, in frames, at least 2 * min_length - 1, so that every T can be split.
        penalty (float): the weight C of the penalty (vmax in the authors' code); larger gives fewer segments.
    Returns:
        list[Segment]: in order, covering 0..T without gaps; empty for T = 0.
    Raises:
        ValueError: for a wrong shape or setting, or features that are not finite.
    Source: Potapov et al. 2014, section 3, with the penalty as in the authors' published code.
    """
    x = np.asarray(features)
    if x.ndim != 2:
        raise ValueError(f"kts: features must be [T, C], got shape {tuple(x.shape)}")
    x = x.astype(np.float64)
    frames = len(x)
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"kts: features must be finite, got NaN or infinity in frame {bad}")
    if min_length < 1:
        raise ValueError(f"kts: min_length must be at least 1, got {min_length}")
    if not (math.isfinite(penalty) and penalty >= 0):
        raise ValueError(f"kts: penalty must be a finite number of at least 0, got {penalty}")
    if frames == 0:
        return []
    if max_length is None:
        max_length = frames
    elif max_length < 2 * min_length - 1:
        raise ValueError(
            f"kts: max_length must be at least 2 * min_length - 1 = {2 * min_length - 1}, got {max_length}"
        )
    if max_segments is not None and max_segments < math.ceil(frames / max_length):
        need = math.ceil(frames / max_length)
        raise ValueError(f"kts: max_segments must be at least T / max_length = {need}, got {max_segments}")
    if frames <= min_length:
        return [Segment(0, frames)]

    cost = _band_costs(x, min_length, min(max_length, frames))
    most = frames // min_length if max_segments is None else min(max_segments, frames // min_length)
    return _best_path(cost, frames, min_length, most, penalty)


def _band_costs(x: np.ndarray, min_length: int, max_length: int) -> np.ndarray:
    """cost[j - 1, c]: scatter of the max_length - c frames that end before frame j; infinite where there are none.

    Returns [T, max_length - min_length + 1] float64. Columns run from the longest segment to the shortest, so that the
    candidates of the dynamic programme are a window of it in memory order.
    """
    frames = len(x)
    x = x - x.mean(axis=0)  # scatter does not change; sums stay small, so their differences keep their digits
    total = np.concatenate([[0.0], np.cumsum(np.einsum("tc,tc->t", x, x))])
    lengths = np.arange(max_length, min_length - 1, -1)
    cost = np.full((frames, len(lengths)), np.inf)
    for first in range(0, frames, _BLOCK):
        last = min(first + _BLOCK, frames)
        low = max(0, first + 1 - max_length)
        # Running sums restarted at `low`: memory and rounding follow the band, not the video.
        sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x[low:last], axis=0)])
        squares = np.einsum("tc,tc->t", sums, sums)
        ends = np.arange(first + 1, last + 1) - low
        gram = sums[ends] @ sums.T
        starts = ends[:, None] - lengths[None, :]
        inside = starts >= 0
        at = np.maximum(starts, 0)
        between = squares[ends][:, None] + squares[at] - 2.0 * np.take_along_axis(gram, at, axis=1)
        within = total[low + ends][:, None] - total[low + at] - between / lengths[None, :]
        cost[first:last][inside] = np.maximum(within, 0.0)[inside]
    return cost


def _best_path(cost: np.ndarray, frames: int, min_length: int, most: int, penalty: float) -> list[Segment]:
    """Exact minimum over the number of segments 1..most; early stop once the penalty alone exceeds the best sum."""
    width = cost.shape[1]
    max_length = min_length + width - 1
    # best[p]: least cost of the first p - max_length frames by the current number of segments; infinite padding in
    # front makes every end see a full window of starts.
    best = np.full(max_length + frames + 1, np.inf)
    best[max_length] = 0.0
    buffer = np.empty_like(cost)
    rows = np.arange(frames)
    came_from: list[np.ndarray] = []
    chosen, least = 0, np.inf
    for segments in range(1, most + 1):
        points = segments - 1
        fee = penalty * points / 2.0 * (math.log(frames / points) + 1.0) if points else 0.0
        if fee >= least:
            break
        # The candidate starts of end j are j - max_length .. j - min_length: best[j : j + width] after the padding.
        starts = sliding_window_view(best[1 : 1 + frames + width - 1], width)
        np.add(cost, starts, out=buffer)
        back = np.argmin(buffer, axis=1)
        best = np.full_like(best, np.inf)
        best[max_length + 1 :] = buffer[rows, back]
        came_from.append(back.astype(np.int32))
        if best[-1] + fee < least - 1e-12 * max(1.0, abs(least) if math.isfinite(least) else 1.0):
            chosen, least = segments, best[-1] + fee
    edges = [frames]
    for back in reversed(came_from[:chosen]):
        edges.append(edges[-1] - (max_length - int(back[edges[-1] - 1])))
    edges.reverse()
    return [Segment(a, b) for a, b in itertools.pairwise(edges)]
