"""The shots of a stream: what is kept of each, what is known of all, and the bounded store of those worth keeping.

The store holds shots up to ROOM times the budget by what each may first take of a summary (`first_offers`). When more
have come, it keeps those that the summary's own choice would take with so much room: the greedy search of

    f(S) = log det(I + L_S)                    (`vtsum.enhance.summary_refinement.select_diverse`)

by gain per length. What a store gives up is known: with lost = f(before) - f(kept) of each time, summed to D, and f as
it is now,

    f(all shots that ever came) <= f(store) + D,

since f is submodular: what new shots add to all that came before is at most what they add to the store.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vtsum.enhance.summary_refinement import (
    MIN_CLIP,
    STRENGTH,
    Clip,
    align_to_shots,
    close_gaps,
    first_offers,
    greedy_map,
    likeness,
    plan_clips,
)
from vtsum.summary.planning import LIVELY, NEAR_EDGE, SHORT_GAP, contrast, lively_levels

ROOM = 8  # budgets that the store holds, by what each shot may first take,
LEAST_ROOM = 600.0  # and at least so many seconds


@dataclass(frozen=True)
class Shot:
    """What is kept of a shot.

    Attributes:
        edges: int64 [k + 1], ticks at which the turns of its frames begin, and the last one ends.
        saliency: float32 [k], of its frames, smoothed.
        mean: float64 [C], of its frames' unit features.
        change: the median change of its pictures, in levels of 255.
        peak: tick of its most telling frame. picture: that frame, a JPEG.
    """

    edges: np.ndarray
    saliency: np.ndarray
    mean: np.ndarray
    change: float
    peak: int
    picture: bytes

    @property
    def span(self) -> tuple[int, int]:
        """Its first tick, and the one behind its last."""
        return int(self.edges[0]), int(self.edges[-1])

    @property
    def worth(self) -> float:
        """The mean saliency of its frames."""
        return float(self.saliency.mean())

    @property
    def level(self) -> float:
        """Its change on a scale of ratios."""
        return math.log1p(self.change)


@dataclass(frozen=True)
class Totals:
    """What is known of all shots of a stream, kept or not: the scales on which one is weighed.

    Attributes:
        shots, frames: how many. saliency, level: the least and the greatest of the shots' means and levels.
        offered: the sums over shots of what each may first take, of that times its saliency, and times its level.
        rows: [C], the sum of the frames' unit features; squares: the sum of their squares.
    """

    shots: int = 0
    frames: int = 0
    saliency: tuple[float, float] = (math.inf, -math.inf)
    level: tuple[float, float] = (math.inf, -math.inf)
    offered: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rows: np.ndarray | None = None
    squares: float = 0.0

    def with_shots(self, shots: Sequence[Shot], rows: np.ndarray, squares: float, offers: np.ndarray) -> Totals:
        """With more shots; `rows`, `squares`: sums over their frames, `offers`: what each may first take."""
        if not shots:
            return self
        worth, level = np.array([shot.worth for shot in shots]), np.array([shot.level for shot in shots])
        sums = (float(offers.sum()), float((offers * worth).sum()), float((offers * level).sum()))
        return Totals(
            self.shots + len(shots),
            self.frames + sum(len(shot.saliency) for shot in shots),
            (min(self.saliency[0], float(worth.min())), max(self.saliency[1], float(worth.max()))),
            (min(self.level[0], float(level.min())), max(self.level[1], float(level.max()))),
            (self.offered[0] + sums[0], self.offered[1] + sums[1], self.offered[2] + sums[2]),
            rows if self.rows is None else self.rows + rows,
            self.squares + squares,
        )

    def worth(self, saliency: np.ndarray, level: np.ndarray) -> np.ndarray:
        """What shots are worth, as a summary of a whole video weighs them (`vtsum.summary.planning`)."""
        return (1 - LIVELY) * contrast(saliency, *self.saliency) + LIVELY * lively_levels(level, *self.level)

    @property
    def scale(self) -> float:
        """The squared distance of unit features at which likeness falls to 1 / e."""
        if self.rows is None or not self.frames:
            return 1e-9 / 2
        return max(self.squares / self.frames - float(((self.rows / self.frames) ** 2).sum()), 1e-9) / 2

    @property
    def mean_value(self) -> float:
        """The mean over all shots of their worth times what each may first take; `worth` is linear in both scales."""
        none, some = np.zeros(1), np.ones(1)
        base = float(self.worth(none, none)[0])
        by_saliency, by_level = float(self.worth(some, none)[0]) - base, float(self.worth(none, some)[0]) - base
        sums = self.offered
        return (base * sums[0] + by_saliency * sums[1] + by_level * sums[2]) / max(self.shots, 1)


@dataclass
class Store:
    """The settled shots that are kept.

    Attributes:
        budget: ticks of the summary. rate: ticks a second. shots: in order of time. totals: of all that were settled.
        left_out: shots that were given up. lost: D above.
    """

    budget: int
    rate: float
    shots: list[Shot] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    left_out: int = 0
    lost: float = 0.0

    def offers(self, shots: Sequence[Shot]) -> np.ndarray:
        """What each shot may first take of the summary, in ticks."""
        lengths = np.array([shot.span[1] - shot.span[0] for shot in shots], np.int64)
        return first_offers(lengths, self.budget, self.rate) if len(lengths) else lengths

    def add(self, shots: Sequence[Shot], rows: np.ndarray, squares: float) -> None:
        """Take settled shots; those that are worth least beside the others go, where there is no room."""
        self.totals = self.totals.with_shots(shots, rows, squares, self.offers(shots))
        self.shots += shots
        offers, room = self.offers(self.shots), max(ROOM * self.budget, round(LEAST_ROOM * self.rate))
        if offers.sum() <= room:
            return
        means, quality = np.array([shot.mean for shot in self.shots]), self._quality(self.shots, offers)
        kept = sorted(
            greedy_map(quality, means, budget=room, lengths=offers, similarity="gaussian", scale=self.totals.scale)
        )
        before, after = (_value(quality[part], means[part], self.totals.scale) for part in (slice(None), kept))
        self.lost += max(before - after, 0.0)
        self.left_out += len(self.shots) - len(kept)
        self.shots = [self.shots[i] for i in kept]

    def _quality(self, shots: Sequence[Shot], offers: np.ndarray) -> np.ndarray:
        return np.sqrt(STRENGTH * self._worth(shots, self.totals) * offers / max(self.totals.mean_value, 1e-12))

    @staticmethod
    def _worth(shots: Sequence[Shot], totals: Totals) -> np.ndarray:
        worth = totals.worth(np.array([shot.worth for shot in shots]), np.array([shot.level for shot in shots]))
        return np.maximum(worth, 1e-9)

    @property
    def given_up(self) -> float:
        """The share of the value of all settled shots that may have been given up, at most: 0..1."""
        if not self.lost or not self.shots:
            return 0.0
        offers = self.offers(self.shots)
        means = np.array([shot.mean for shot in self.shots])
        return self.lost / (self.lost + _value(self._quality(self.shots, offers), means, self.totals.scale))

    def choose(
        self, open_shots: Sequence[Shot], rows: np.ndarray, squares: float, room: int
    ) -> list[tuple[Shot, Clip, float]]:
        """What a summary of `room` ticks shows now: (shot, clip, the shot's worth), in order of time.

        Args:
            open_shots: those behind the settled ones, with the sums over their frames.
        """
        shots = [*self.shots, *open_shots]
        if not shots:
            return []
        totals = self.totals.with_shots(open_shots, rows, squares, self.offers(open_shots))
        worth, spans = self._worth(shots, totals), [shot.span for shot in shots]
        edges, saliency = _joined(shots)
        strength = STRENGTH
        if self.left_out:  # the shots that were given up are not in the mean that plan_clips divides by
            strength *= float((worth * self.offers(shots)).mean()) / max(totals.mean_value, 1e-12)
        means = np.array([shot.mean for shot in shots])
        clips = plan_clips(spans, worth, saliency, edges, room, self.rate, means, totals.scale, strength=strength)
        clips = align_to_shots(clips, spans, round(NEAR_EDGE * self.rate))
        clips = close_gaps(clips, spans, room, round(SHORT_GAP * self.rate), round(MIN_CLIP * self.rate))
        return [(shots[clip.shot], clip, float(worth[clip.shot])) for clip in clips]

    def copy(self) -> Store:
        """One of its own; what it holds is never changed."""
        return replace(self, shots=list(self.shots))


def _joined(shots: Sequence[Shot]) -> tuple[np.ndarray, np.ndarray]:
    """Edges [T + 1] and saliency [T] of all frames of the shots; what lies between two of them is a frame of none."""
    edges, saliency = [shots[0].edges], [shots[0].saliency]
    for before, shot in itertools.pairwise(shots):
        if shot.edges[0] > before.edges[-1]:
            edges.append(shot.edges)
            saliency.append(np.zeros(1, np.float32))
        else:
            edges.append(shot.edges[1:])
        saliency.append(shot.saliency)
    return np.concatenate(edges), np.concatenate(saliency)


def _value(quality: np.ndarray, means: np.ndarray, scale: float) -> float:
    """f: log det(I + L)."""
    kernel = quality[:, None] * likeness(means, means, scale) * quality
    return float(np.linalg.slogdet(np.eye(len(kernel)) + kernel)[1])
