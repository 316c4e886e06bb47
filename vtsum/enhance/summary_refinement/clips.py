"""From shots and their scores to the clips of a summary: trimming long shots and filling the budget.

All lengths are whole ticks of the video's frame grid, so a plan never exceeds its budget by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vtsum.enhance.summary_refinement.diverse import STRENGTH, novelty, select_diverse
from vtsum.enhance.summary_refinement.knapsack import select_shots

MIN_CLIP = 1.0  # seconds; a clip shorter than this is not worth its cut
LEAST_LIMIT, MOST_LIMIT = 1.5, 10.0  # seconds; what one shot may take of a summary at first
LIMIT_SHARE = 6  # one shot takes at most a sixth of the budget at first, so that several get in
NEW_CLIP = 2.0  # seconds left over from which another shot is opened rather than a chosen one lengthened


def best_window(saliency: np.ndarray, edges: np.ndarray, start: int, end: int, length: int) -> tuple[int, int]:
    """The `length` ticks of start..end that hold the most saliency; among equals the window nearest to the peak's.

    Args:
        saliency (array): [T], one value a sampled frame.
        edges (array): [T + 1], ticks at which the frames' turns begin and the last one ends, ascending.
        start, end, length (int): ticks.
    Returns:
        (int, int): first and last tick (exclusive) of the window.
    """
    if length >= end - start:
        return start, end
    area = np.concatenate([[0.0], np.cumsum(saliency * np.diff(edges))])
    # The sum over a sliding window is piecewise linear: its maximum lies where an end of the window meets an edge.
    marks = edges[(edges > start) & (edges < end)]
    begins = np.unique(np.clip(np.concatenate([[start], marks, marks - length, [end - length]]), start, end - length))
    covered = np.interp(begins + length, edges, area) - np.interp(begins, edges, area)
    inside = np.flatnonzero((edges[:-1] < end) & (edges[1:] > start))
    peak = inside[np.argmax(saliency[inside])]
    middle = (max(edges[peak], start) + min(edges[peak + 1], end)) / 2
    good = np.flatnonzero(covered >= covered.max() - 1e-9 * max(1.0, abs(float(covered.max()))))
    begin = int(begins[good[np.argmin(np.abs(begins[good] + length / 2 - middle))]])
    # Between two equally good ends of a plateau the peak may be centred exactly.
    if len(good) > 1:
        centred = round(float(min(max(middle - length / 2, begins[good].min()), begins[good].max())))
        if np.interp(centred + length, edges, area) - np.interp(centred, edges, area) >= covered.max() - 1e-9:
            begin = centred
    return begin, begin + length


@dataclass(frozen=True)
class Clip:
    """A part of a shot that the summary shows: its shot's index, first and last tick (exclusive), and why.

    part: "whole", "trimmed" (the best part of a long shot), "filler" (trimmed to what was left of the budget) or "kept"
    (the user wants it).
    """

    shot: int
    start: int
    end: int
    part: Literal["whole", "trimmed", "filler", "kept"]

    def __len__(self) -> int:
        return self.end - self.start


def first_offers(lengths: np.ndarray, budget: int, ticks_per_second: float, least: float = MIN_CLIP) -> np.ndarray:
    """How much of each shot is weighed at first: [M] ticks, all of a short shot and the best part of a long one, of
    `least` seconds or more."""
    shortest, longest = max(LEAST_LIMIT, least) * ticks_per_second, max(MOST_LIMIT, least) * ticks_per_second
    limit = int(min(max(budget / LIMIT_SHARE, shortest), longest))
    return np.minimum(lengths, max(1, min(limit, budget)))


def plan_clips(
    shots: Sequence[tuple[int, int]],
    scores: np.ndarray,
    saliency: np.ndarray,
    edges: np.ndarray,
    budget: int,
    ticks_per_second: float,
    vectors: np.ndarray | None = None,
    scale: float | None = None,
    least: float = MIN_CLIP,
    strength: float = STRENGTH,
) -> list[Clip]:
    """Choose what the summary shows.

    A long shot first offers only its best part, so that several shots get in; the exact knapsack then takes the offers
    that hold the most score x time, or `select_diverse` those that hold much and differ; what is left of the budget
    opens one more shot at its peak or lengthens the chosen clips, best first. The clips never exceed the budget, and
    use it up where the video has enough to show.

    Args:
        shots (list): (start, end) in ticks, in order, without overlap.
        scores (array): [M], scores per tick of the shots; only their ratios matter.
        saliency (array), edges (array): [T] and [T + 1], as for best_window.
        budget (int): ticks, at least 1.
        ticks_per_second (float): the frame rate of the grid.
        vectors (array | None): [M, C], mean features of the shots: choose different ones. None: the knapsack.
        scale (float | None), strength (float): with vectors, as for select_diverse.
        least (float): seconds that a clip lasts at least, where its shot and the budget do.
    Returns:
        list[Clip]: in order of time; at least one if there is a shot.
    """
    lengths = np.array([end - start for start, end in shots], dtype=np.int64)
    second = max(1, round(ticks_per_second))
    floor = 1e-3 * max(float(np.max(scores, initial=0.0)), 1e-12)
    worth = np.maximum(np.asarray(scores, dtype=np.float64), floor)
    if budget < 2 * least * second and (roomy := lengths >= 0.8 * budget).any():
        # Room for one clip: a shot too short to fill it would leave a rest too short for another.
        worth = np.where(roomy, worth, 0.0)
    offers = first_offers(lengths, budget, ticks_per_second, least)
    if vectors is None:
        chosen = select_shots(worth * offers, offers, budget)
    else:
        chosen = select_diverse(worth * offers, offers, budget, vectors, strength=strength, scale=scale)
        worth = worth * novelty(worth * offers, vectors, chosen, strength=strength, scale=scale)
    shown = {i: int(offers[i]) for i in chosen}
    fillers: set[int] = set()
    best_first = [int(i) for i in np.argsort(-worth, kind="stable")]
    left = budget - sum(shown.values())

    def open_another(needed: int) -> None:
        nonlocal left
        for i in best_first:
            if left >= needed and i not in shown and lengths[i] >= needed:
                shown[i] = int(min(lengths[i], left))
                fillers.add(i)
                left -= shown[i]

    open_another(round(max(NEW_CLIP, least) * second))
    for i in best_first:
        if i in shown:
            more = int(min(lengths[i] - shown[i], left))
            shown[i] += more
            left -= more
    open_another(round(least * second))

    clips = []
    for i in sorted(shown):
        start, end = best_window(saliency, edges, *shots[i], shown[i])
        part: Literal["trimmed", "filler"] = "filler" if i in fillers else "trimmed"
        clips.append(Clip(i, start, end, "whole" if shown[i] == lengths[i] else part))
    return clips
