"""Kernel temporal segmentation (KTS) of frame features, exact, by dynamic programming.

Source: Potapov, Douze, Harchaoui, Schmid, "Category-specific video summarization", ECCV 2014, section 3. The search
over constant fees is that of Haynes, Eckley, Fearnhead, "Computationally efficient changepoint detection for a range
of penalties", JCGS 2017; why it is exact for Potapov's penalty is said in `dynamic_programming`.
"""

from __future__ import annotations

import math

import numpy as np

from vtsum.enhance.event_segmentation.dynamic_programming import LeastCostPaths
from vtsum.enhance.event_segmentation.segments import Segment, between, checked_features

_BLOCK = 256  # frames whose band of segment costs is computed by one matrix product


def kts(
    features: np.ndarray,
    *,
    max_segments: int | None = None,
    min_length: int = 1,
    max_length: int | None = None,
    penalty: float = 1.0,
    prices: np.ndarray | None = None,
) -> list[Segment]:
    """Split a video into segments of low scatter; their number is chosen by Potapov's penalty.

        minimise  sum_segments scatter(segment)  +  sum_points price(point)  +  penalty * m / 2 * (log(T / m) + 1)

    over m change points. scatter(segment) is the sum of squared distances of its frames to their mean (the linear
    kernel). The minimum is exact among segmentations whose lengths lie in min_length..max_length. Memory and time grow
    with T * max_length, not with the number of segments; where max_segments is less than the penalty alone would give,
    time grows with T * max_length * max_segments.

    Args:
        features (Tensor): [T, C], any real dtype; scale matters: the penalty is meant for rows of unit length, or for
            features whose mean squared distance to their mean is about 1.
        max_segments (int | None): at most so many segments; None: as many as fit.
        min_length (int): shortest segment, in frames. A video shorter than this is one segment.
        max_length (int | None): longest segment, in frames, at least 2 * min_length - 1, so that every T can be split.
        penalty (float): the weight C of the penalty (vmax in the authors' code); larger gives fewer segments.
        prices (array | None): [T], finite; what a change point before each frame costs besides. Below 0: other evidence
            speaks for it. The first is not read.
    Returns:
        list[Segment]: in order, covering 0..T without gaps; empty for T = 0. Their times are not known here.
    Raises:
        ValueError: for a wrong shape or setting, or features that are not finite.
    Source: Potapov et al. 2014, section 3, with the penalty as in the authors' published code.
    """
    x = checked_features(features, "kts")
    if not (math.isfinite(penalty) and penalty >= 0):
        raise ValueError(f"kts: penalty must be a finite number of at least 0, got {penalty}")
    frames = len(x)
    longest = checked_lengths("kts", frames, min_length, max_length, max_segments)
    extra = _checked_prices(prices, frames)
    if frames <= min_length:
        return [Segment(0, frames)] if frames else []
    cost = _band_costs(x, min_length, longest)
    return cheapest(cost, min_length, max_segments, extra, penalty)


def checked_lengths(
    function: str, frames: int, min_length: int, max_length: int | None, max_segments: int | None
) -> int:
    """max_length as the search takes it, at most the video's own.

    Raises:
        ValueError: lengths or a number of segments that no segmentation can keep.
    """
    if min_length < 1:
        raise ValueError(f"{function}: min_length must be at least 1, got {min_length}")
    least = 2 * min_length - 1
    if max_length is not None and max_length < least:
        raise ValueError(f"{function}: max_length must be at least 2 * min_length - 1 = {least}, got {max_length}")
    longest = max(frames if max_length is None else min(max_length, frames), 1)
    if max_segments is not None and max_segments < max(math.ceil(frames / longest), 1):
        need = max(math.ceil(frames / longest), 1)
        raise ValueError(f"{function}: max_segments must be at least T / max_length = {need}, got {max_segments}")
    return longest


def cheapest(
    cost: np.ndarray, min_length: int, max_segments: int | None, prices: np.ndarray | None, penalty: float
) -> list[Segment]:
    """The segments of least cost + prices + Potapov's penalty; `cost` as `LeastCostPaths` takes it."""
    frames = len(cost)
    paths = LeastCostPaths(cost, min_length, prices)

    def fee(points: float) -> float:
        return penalty * points / 2.0 * (math.log(frames / points) + 1.0) if points else 0.0

    def slope(points: float) -> float:
        return penalty / 2.0 * math.log(frames / points)

    path = paths.best(fee, slope)
    if max_segments is not None and path.points >= max_segments:
        path = paths.best_of_few(fee, max_segments - 1)
    return between(path.edges)


def _checked_prices(prices: np.ndarray | None, frames: int) -> np.ndarray | None:
    if prices is None:
        return None
    own = np.asarray(prices, np.float64)
    if own.shape != (frames,):
        raise ValueError(f"kts: prices must be [T] = [{frames}], got {list(own.shape)}")
    if not np.isfinite(own).all():
        raise ValueError("kts: prices must be finite, got NaN or infinity")
    return own


def _band_costs(x: np.ndarray, min_length: int, max_length: int) -> np.ndarray:
    """cost[j - 1, c]: scatter of the max_length - c frames that end before frame j; infinite where there are none.

    Returns [T, max_length - min_length + 1] float64. Columns run from the longest segment to the shortest, so that the
    candidates of the search are a window of it in memory order.
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
        between_ends = squares[ends][:, None] + squares[at] - 2.0 * np.take_along_axis(gram, at, axis=1)
        within = total[low + ends][:, None] - total[low + at] - between_ends / lengths[None, :]
        cost[first:last][inside] = np.maximum(within, 0.0)[inside]
    return cost
