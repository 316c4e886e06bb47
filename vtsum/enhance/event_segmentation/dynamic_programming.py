"""The dynamic programming behind every segmentation: least-cost paths through a band of segment costs.

A segmentation with m change points costs  F = sum of its segments' costs + sum of the prices of its change points.
Wanted is the least  F + g(m)  for a fee g that is concave in the number of change points. Counting change points in the
state would multiply its work by their number. It is not needed: let H be the lower convex hull of
F(m) = min over segmentations with m change points. Between two neighbouring corners of H the function H + g is concave,
so it is least at a corner, where H = F; hence the least F + g lies at a corner of H, and each corner is the answer to

    minimise  F + fee * m        for some constant fee,

which one pass over the frames solves. At the best m the constant fee is the slope g'(m). The search begins with fees
spread over the slopes that can occur and then refines: between two corners at least cost differs by the chord's slope,
which is the next fee to try, unless what the two passes say already rules out that anything better lies between.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

_SPREAD = 8  # fees of the first pass
_CLOSE = 1e-10  # of the costs' size: sums that differ by less are the same


@dataclass(frozen=True)
class Path:
    """A best segmentation under a constant fee a change point: its change points, F without the fee, its edges."""

    points: int
    cost: float
    fee: float
    edges: tuple[int, ...]

    def line(self, points: float) -> float:
        """No segmentation with so many change points costs less: the bound that this path's optimality gives."""
        return self.cost + self.fee * (self.points - points)


class LeastCostPaths:
    """Least-cost paths over frames 0..T.

    Args:
        cost: [T, W] float64; cost[j - 1, c] is that of the segment of max_length - c frames that ends before frame j,
            infinite where it would begin before frame 0; W = max_length - min_length + 1.
        min_length: the shortest segment, in frames.
        prices: [T], what a change point at each frame costs besides (less than 0: it is wanted); None: nothing.
    """

    def __init__(self, cost: np.ndarray, min_length: int, prices: np.ndarray | None = None) -> None:
        self.cost = cost
        self.frames, self.width = cost.shape
        self.min_length = min_length
        self.max_length = min_length + self.width - 1
        self.prices = np.zeros(self.frames + 1)
        if prices is not None:
            self.prices[1:-1] = prices[1:]
        self.fewest = math.ceil(self.frames / self.max_length) - 1
        self.most = self.frames // self.min_length - 1

    def best(self, fee: Callable[[float], float], slope: Callable[[float], float]) -> Path:
        """The path of least cost + fee(its change points); among equals the one with fewer change points.

        Args:
            fee: concave, 0 at 0. slope: its derivative, at 1 change point and more.
        """
        low, high = slope(max(self.most, 1)), slope(max(self.fewest, 1))
        count = _SPREAD if high > low else 1
        found = self.under(np.linspace(high, low, count))
        if self.fewest == 0:
            found += self.under([math.inf])
        size = max(abs(path.cost) for path in found) + abs(fee(max(self.most, 1))) + 1e-300

        def worth(path: Path) -> float:
            return path.cost + fee(path.points)

        open_pairs = _neighbours([p for p in found if math.isfinite(p.fee)])
        while True:
            least = min(worth(path) for path in found)
            trying = [pair for pair in open_pairs if _may_hold_better(*pair, fee, least - _CLOSE * size)]
            if not trying:
                break
            chords = [(a.cost - b.cost) / (b.points - a.points) for a, b in trying]
            new = self.under(chords)
            open_pairs = []
            for (a, b), chord, middle in zip(trying, chords, new, strict=True):
                on_chord = a.cost - chord * (middle.points - a.points)
                if a.points < middle.points < b.points and middle.cost < on_chord - _CLOSE * size:
                    found.append(middle)
                    open_pairs += [(a, middle), (middle, b)]
        least = min(worth(path) for path in found)
        return min((p for p in found if worth(p) <= least + 1e-12 * size), key=lambda p: p.points)

    def under(self, fees: Sequence[float] | np.ndarray) -> list[Path]:
        """The least-cost path under each constant fee (infinity: no change point), all in one pass over the frames."""
        if len(fees) == 1 and math.isinf(fees[0]):
            return [Path(0, float(self.cost[-1, self.max_length - self.frames]), math.inf, (0, self.frames))]
        fee = np.asarray(fees, np.float64)
        frames, width, block = self.frames, self.width, self.min_length
        # best[k, i + max_length]: the least cost of the first i frames, a change point at i included; the infinite
        # padding in front gives every end a full window of starts.
        best = np.full((len(fee), self.max_length + frames + 1), np.inf)
        best[:, self.max_length] = 0.0
        ahead, step = best.strides
        starts = as_strided(best, (len(fee), frames + 1, width), (ahead, step, step), writeable=False)
        back = np.empty((len(fee), frames), np.min_scalar_type(width))
        buffer = np.empty((len(fee), min(block, frames), width))
        add = fee[:, None] + self.prices[None, :]
        add[:, -1] = 0.0
        for first in range(1, frames + 1, block):  # ends first..last - 1 see no start that lies among them
            last = min(first + block, frames + 1)
            sums = buffer[:, : last - first]
            np.add(starts[:, first:last], self.cost[first - 1 : last - 1], out=sums)
            taken = sums.argmin(axis=2)
            back[:, first - 1 : last - 1] = taken
            values = np.take_along_axis(sums, taken[:, :, None], axis=2)[:, :, 0]
            best[:, first + self.max_length : last + self.max_length] = values + add[:, first:last]
        paths = []
        for k in range(len(fee)):
            edges = self._walk(lambda end, k=k: int(back[k, end - 1]))  # type: ignore[misc]
            points = len(edges) - 2
            paths.append(Path(points, float(best[k, -1]) - fee[k] * points, float(fee[k]), edges))
        return paths

    def _walk(self, back: Callable[[int], int]) -> tuple[int, ...]:
        edges = [self.frames]
        while edges[-1] > 0:
            edges.append(edges[-1] - (self.max_length - back(edges[-1])))
        return tuple(reversed(edges))

    def best_of_few(self, fee: Callable[[float], float], most: int) -> Path:
        """The same among paths of at most `most` change points, by counting them: work and memory grow with most * T.

        A bound on their number has no constant fee that stands for it.
        """
        floor = float(np.minimum(self.prices, 0.0).sum())
        best = np.full(self.max_length + self.frames + 1, np.inf)
        best[self.max_length] = 0.0
        buffer = np.empty(self.cost.shape)
        rows = np.arange(self.frames)
        came_from: list[np.ndarray] = []
        chosen, least = 0, math.inf
        for points in range(most + 1):
            if fee(points) + floor >= least:
                break
            starts = sliding_window_view(best[1 : 1 + self.frames + self.width - 1], self.width)
            np.add(self.cost, starts, out=buffer)
            back = np.argmin(buffer, axis=1)
            value = buffer[rows, back]
            best = np.full_like(best, np.inf)
            best[self.max_length + 1 :] = value + self.prices[1:]
            came_from.append(back.astype(np.min_scalar_type(self.width)))
            if value[-1] + fee(points) < least - 1e-12 * max(1.0, abs(least) if math.isfinite(least) else 1.0):
                chosen, least = points, float(value[-1] + fee(points))
        steps = iter(reversed(came_from[: chosen + 1]))
        edges = self._walk(lambda end: int(next(steps)[end - 1]))
        return Path(chosen, least - fee(chosen), 0.0, edges)


def _neighbours(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Pairs of paths with neighbouring numbers of change points, one path a number."""
    by_points = {path.points: path for path in paths}
    ordered = [by_points[points] for points in sorted(by_points)]
    return list(itertools.pairwise(ordered))


def _may_hold_better(a: Path, b: Path, fee: Callable[[float], float], than: float) -> bool:
    """Whether a path with more change points than `a` and fewer than `b` may cost less than `than`, fee included.

    Both lines bound the cost from below; their larger one has a corner between, and with the concave fee added it is
    least there or at the ends, which are known.
    """
    if b.points - a.points < 2:
        return False
    if a.fee <= b.fee:
        return False
    corner = (a.line(0) - b.line(0)) / (a.fee - b.fee)
    corner = min(max(corner, a.points), b.points)
    return max(a.line(corner), b.line(corner)) + fee(corner) < than
