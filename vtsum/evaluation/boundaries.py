"""How well event boundaries are found: matched one to one within a tolerance, or ranked by their probability.

Source: the evaluation of shot boundary detection since TRECVID: precision, recall and F of transitions matched one to
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.5
"""Seconds between a boundary found and the true one that count as a match."""


@dataclass(frozen=True)
class BoundaryScore:
    """Counts of boundaries; sums of scores are scores."""

    found: int
    true: int
    matched: int

    @property
    def precision(self) -> float:
        """Of the boundaries found, the share that is true; 1 where nothing was found."""
        return self.matched / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Of the true boundaries, the share that was found; 1 where there are none."""
        return self.matched / self.true if self.true else 1.0

    @property
    def f(self) -> float:
        """The harmonic mean of both."""
        total = self.found + self.true
        return 2 * self.matched / total if total else 1.0

    def __add__(self, other: BoundaryScore) -> BoundaryScore:
        return BoundaryScore(self.found + other.found, self.true + other.true, self.matched + other.matched)


def match_boundaries(
    found: Iterable[float], true: Iterable[float], tolerance: float = TOLERANCE
) -> tuple[BoundaryScore, list[int]]:
    """Match times one to one, as many as possible.

    Args:
        found, true: seconds (or frames), in any order; a video's start and end are no boundaries. tolerance: at most so
            far apart, the ends included.
    Returns:
        (BoundaryScore, list[int]): the counts, and which of `true`, in order of time, were found.
    Raises:
        ValueError: a tolerance below 0, or times that are not finite.
    """
    if tolerance < 0:
        raise ValueError(f"match_boundaries: tolerance must be at least 0, got {tolerance}")
    ours, theirs = sorted(found), sorted(true)
    if not np.isfinite([*ours, *theirs]).all():
        raise ValueError("match_boundaries: times must be finite, got NaN or infinity")
    matched: list[int] = []
    at = 0
    # Both in order and one tolerance for all: to give each true boundary the earliest that fits is best possible.
    for number, time in enumerate(theirs):
        while at < len(ours) and ours[at] < time - tolerance - 1e-9:
            at += 1
        if at < len(ours) and ours[at] <= time + tolerance + 1e-9:
            matched.append(number)
            at += 1
    return BoundaryScore(len(ours), len(theirs), len(matched)), matched


def average_precision(scores: np.ndarray, true: np.ndarray) -> float:
    """The area under precision against recall when frames are taken by falling score; NaN without a true frame.

        sum_n (R_n - R_(n-1)) P_n    over the distinct scores, as in scikit-learn

    Args:
        scores: [T], finite. true: bool [T].
    """
    scores, true = np.asarray(scores, np.float64), np.asarray(true, bool)
    if scores.ndim != 1 or scores.shape != true.shape:
        raise ValueError(f"average_precision: scores and true must be [T], got {scores.shape} and {true.shape}")
    if not true.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of equal scores
    recall = hits[last] / hits[-1]
    precision = hits[last] / (last + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def annotated_boundaries(labels: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Frames at which at least `share` of the annotators begin or end a selection: 0/1 [A, T] -> bool [T]."""
    marked = np.asarray(labels, np.float64)
    changed = np.zeros(marked.shape[1])
    changed[1:] = np.abs(np.diff(marked, axis=1)).mean(axis=0)
    return changed >= share - 1e-9


def boundary_record(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """One video's average precision of its boundary logits [T] against `annotated_boundaries` of its labels [A, T], and
    what chance gives, the share of frames with one; None both where the annotators mark none."""
    true = annotated_boundaries(labels) if len(labels) else np.zeros(len(logits), bool)
    if not true.any():
        return {"boundary_average_precision": None, "boundary_chance": None}
    return {
        "boundary_average_precision": average_precision(logits, true),
        "boundary_chance": float(true.mean()),
    }


def total(scores: Sequence[BoundaryScore]) -> BoundaryScore:
    """All boundaries of several videos together."""
    return sum(scores, BoundaryScore(0, 0, 0))
