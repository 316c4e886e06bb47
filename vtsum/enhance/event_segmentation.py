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
PENALTY = 0.5  # of find_shots, in units of the mean scatter of the video's frames


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


def find_shots(
    features: np.ndarray, fps: float, *, shortest: float = 2.0, longest: float = 60.0
) -> tuple[list[Segment], np.ndarray, float]:
    """Cut a video's frames into shots, whatever the scale of its features.

    Rows are brought to unit length and KTS is run with a penalty of the video's own scatter, but at least four times
    its frame-to-frame noise: the flicker of a still scene makes no events.

    Args:
        features (Tensor): [T, C], finite.
        fps (float): sampled frames a second.
        shortest, longest (float): seconds; a video of less than ten times `shortest` may have shots half as long.
    Returns:
        (list[Segment], array, float): the shots, [M, C] their mean unit features, and the mean squared distance of the
            frames to their mean.
    """
    x = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.maximum(norms, 1e-12)
    frames = len(x)
    scatter = float(((x - x.mean(axis=0)) ** 2).sum() / frames) if frames else 0.0
    # Half the median squared step: boundaries are rare, so the median is the noise inside shots.
    noise = float(np.median(((x[1:] - x[:-1]) ** 2).sum(axis=1))) / 2 if frames > 1 else 0.0
    if frames < 10 * shortest * fps:
        shortest /= 2
    min_length = max(1, round(shortest * fps))
    max_length = max(round(longest * fps), 2 * min_length - 1)
    penalty = max(PENALTY * scatter, 4.0 * noise, 1e-9)
    shots = kts(x, min_length=min_length, max_length=max_length, penalty=penalty)
    means = np.array([x[shot.start : shot.end].mean(axis=0) for shot in shots]).reshape(len(shots), x.shape[1])
    return shots, means, scatter


class PictureChanges:
    """Notes how much the picture changes while a video is decoded: where the hard cuts are, which may lie between two
    sampled frames, and how lively a stretch is.

    `see` costs some ten microseconds a picture: it compares a few hundred pixels of the first plane (luma).
    """

    GRID = 20  # rows and columns of pixels that are compared
    SUDDEN = 4.0  # a cut changes the picture this many times more than the pictures around it, and by
    LEAST = 6.0  # at least so many levels of 255 in the mean

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._times: list[float] = []
        self._changes: list[float] = []

    def see(self, time: float, plane: memoryview, line_size: int, width: int, height: int) -> None:
        """Take note of a picture: its time in seconds, and its first plane of 8-bit values."""
        rows = np.frombuffer(plane, np.uint8, count=line_size * height).reshape(height, line_size)
        small = rows[:: max(height // self.GRID, 1), : width : max(width // self.GRID, 1)].astype(np.float32)
        if self._last is not None and self._last.shape == small.shape:
            self._times.append(time)
            self._changes.append(float(np.abs(small - self._last).mean()))
        self._last = small

    def boundary(self, after: float, until: float) -> float | None:
        """The time of the first picture after a hard cut in after < t <= until, or None where there is no clear one."""
        first, last = np.searchsorted(self._times, [after + 1e-3, until + 1e-3])
        if first >= last:
            return None
        at = int(first + np.argmax(self._changes[first:last]))
        near = self._changes[max(at - 6, 0) : at] + self._changes[at + 1 : at + 7]
        usual = float(np.median(near)) if near else 0.0
        change = self._changes[at]
        return self._times[at] if change >= self.LEAST and change >= self.SUDDEN * usual else None

    def liveliness(self, start: float, end: float) -> float:
        """The median change of the pictures in start < t < end, in levels of 255; 0 where none were seen."""
        first, last = np.searchsorted(self._times, [start + 1e-3, end - 1e-3])
        return float(np.median(self._changes[first:last])) if last > first else 0.0
