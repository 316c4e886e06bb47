"""From shots and their scores to the clips of a summary: the budget, the exact knapsack, trimming and filling.

All lengths inside are whole ticks of the video's frame grid, so a plan never exceeds its budget by rounding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vtsum.errors import VTSumError

MIN_CLIP = 1.0  # seconds; a clip shorter than this is not worth its cut
LEAST_LIMIT, MOST_LIMIT = 1.5, 10.0  # seconds; what one shot may take of a summary at first
LIMIT_SHARE = 6  # one shot takes at most a sixth of the budget at first, so that several get in
NEW_CLIP = 2.0  # seconds left over from which another shot is opened rather than a chosen one lengthened

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,3}):(\d{2}(?:\.\d+)?)")
_UNITS: tuple[tuple[re.Pattern[str], Literal["share", "seconds", "frames"], float], ...] = (
    (re.compile(_NUMBER + r"\s*%"), "share", 0.01),
    (re.compile(_NUMBER + r"\s*(?:s|sec|seconds?)"), "seconds", 1.0),
    (re.compile(_NUMBER + r"\s*(?:m|min|minutes?)"), "seconds", 60.0),
    (re.compile(r"(\d+)\s*frames?"), "frames", 1.0),
)


@dataclass(frozen=True)
class Budget:
    """How long a summary may be: a share of the video, a time, or a count of sampled frames.

    `value` is a share (0..1], seconds, or frames; `text` is what the user wrote.
    """

    text: str
    kind: Literal["share", "seconds", "frames"]
    value: float

    def seconds(self, duration: float, fps: float) -> float:
        """The budget in seconds for a video of `duration` seconds sampled at `fps` frames a second.

        Raises:
            VTSumError: if the budget is longer than the video.
        """
        if self.kind == "share":
            return self.value * duration
        wanted = self.value if self.kind == "seconds" else self.value / fps
        # One sampling period of grace: a video of 9.97 s has ten frames at 1 fps, and "10s" of it is all of it.
        if wanted > duration + 1.0 / fps:
            raise VTSumError(
                f"summarize: budget must be at most the length of the video, {duration:.1f} s, "
                f"got {self.text!r} ({wanted:g} s)"
            )
        return min(wanted, duration)


def parse_budget(text: str | Budget) -> Budget:
    """Read a budget: "15%", "30s", "2min", "1:30", "1:02:03" or "12frames" (frames as sampled, one a second unless
    the sampling rate is changed; the field counts so).

    Raises:
        VTSumError: for anything else, for zero, and for a share above 100%.
    """
    if isinstance(text, Budget):
        return text
    if not isinstance(text, str):
        raise VTSumError(f'summarize: budget must be text like "15%", "30s" or "12frames", got {text!r}')
    plain = text.strip().lower()
    found: tuple[Literal["share", "seconds", "frames"], float] | None = None
    if clock := _CLOCK.fullmatch(plain):
        hours, minutes, rest = clock.groups()
        if float(rest) < 60 and (hours is None or int(minutes) < 60):
            found = "seconds", 3600.0 * int(hours or 0) + 60.0 * int(minutes) + float(rest)
    for pattern, kind, unit in _UNITS:
        if match := pattern.fullmatch(plain):
            found = kind, float(match.group(1)) * unit
    if found is None:
        raise VTSumError(
            f"summarize: budget must be a share (15%), a time (30s, 2min, 1:30) or a count (12frames), got {text!r}"
        )
    kind, value = found
    if not (math.isfinite(value) and value > 0):
        raise VTSumError(f"summarize: budget must be above zero, got {text!r}")
    if kind == "share" and value > 1 + 1e-12:
        raise VTSumError(f"summarize: budget must be at most 100%, got {text!r}")
    return Budget(text.strip(), kind, value)


def select_shots(scores: Sequence[float] | np.ndarray, durations: Sequence[int] | np.ndarray, budget: int) -> list[int]:
    """The exact 0/1 knapsack over float values: shots of the greatest total score whose durations fit the budget.

    Time M * budget, memory M * budget / 8 bytes. A shot of score 0 or less is never taken; among equal sums the one
    without the later shot is kept.

    Args:
        scores (array): [M], finite values of the shots.
        durations (array): [M], whole lengths (frames) of at least 0.
        budget (int): total length to fill.
    Returns:
        list[int]: indices of the chosen shots, ascending.
    Raises:
        ValueError: for unequal lengths, values that are not finite, durations that are not whole or are negative.
    Source: the keyshot protocol of Zhang et al. 2016 and Song et al. 2015; values are not rounded to integers.
    """
    values = np.asarray(scores, dtype=np.float64)
    lengths = np.asarray(durations)
    if values.ndim != 1 or values.shape != lengths.shape:
        raise ValueError(
            f"select_shots: scores and durations must be [M], got shapes {values.shape} and {lengths.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("select_shots: scores must be finite, got NaN or infinity")
    whole = lengths.astype(np.int64)
    if (whole != lengths).any() or (whole < 0).any():
        raise ValueError("select_shots: durations must be whole numbers of at least 0, got others")
    capacity = int(budget)
    able = [int(i) for i in np.flatnonzero((values > 0) & (whole <= capacity))]
    if sum(int(whole[i]) for i in able) <= capacity:
        return able
    best = np.zeros(capacity + 1)
    taken: list[np.ndarray] = []
    for i in able:
        length = int(whole[i])
        offer = best[: capacity + 1 - length] + values[i]
        better = offer > best[length:]
        taken.append(np.packbits(better))
        np.copyto(best[length:], offer, where=better)
    chosen: list[int] = []
    left = capacity
    for i, bits in zip(reversed(able), reversed(taken), strict=True):
        at = left - int(whole[i])
        if at >= 0 and bits[at >> 3] >> (7 - (at & 7)) & 1:
            chosen.append(i)
            left = at
    return chosen[::-1]


def discount_repeats(
    scores: np.ndarray, vectors: np.ndarray, scatter: float, strength: float = 0.8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower the scores of shots that look like a better one, so that a summary shows different things.

        out[i] = scores[i] * (1 - strength * max_j exp(-2 |v_i - v_j|^2 / scatter))   over j with a higher score

    Args:
        scores (array): [M], at least 0.
        vectors (array): [M, C], mean features of the shots.
        scatter (float): the mean squared distance of the video's frames to their mean; the yardstick of "alike".
        strength (float): 0..1; how much of its score an exact repeat loses.
    Returns:
        (array, array, array): [M] discounted scores, [M] likeness 0..1 to the most similar better shot, [M] its index
            (-1 for the best shot).
    """
    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    like = np.zeros(len(scores))
    twin = np.full(len(scores), -1)
    for rank in range(1, len(order)):
        i, before = order[rank], order[:rank]
        distance = ((vectors[before] - vectors[i]) ** 2).sum(axis=1)
        nearest = int(np.argmin(distance))
        like[i] = math.exp(-2.0 * float(distance[nearest]) / max(scatter, 1e-12))
        twin[i] = before[nearest]
    return scores * (1.0 - strength * like), like, twin


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
    held = np.interp(begins + length, edges, area) - np.interp(begins, edges, area)
    inside = np.flatnonzero((edges[:-1] < end) & (edges[1:] > start))
    peak = inside[np.argmax(saliency[inside])]
    middle = (max(edges[peak], start) + min(edges[peak + 1], end)) / 2
    good = np.flatnonzero(held >= held.max() - 1e-9 * max(1.0, abs(float(held.max()))))
    begin = int(begins[good[np.argmin(np.abs(begins[good] + length / 2 - middle))]])
    # Between two equally good ends of a plateau the peak may be centred exactly.
    if len(good) > 1:
        centred = round(float(min(max(middle - length / 2, begins[good].min()), begins[good].max())))
        if np.interp(centred + length, edges, area) - np.interp(centred, edges, area) >= held.max() - 1e-9:
            begin = centred
    return begin, begin + length


@dataclass(frozen=True)
class Clip:
    """A part of a shot that the summary shows: its shot's index, first and last tick (exclusive), and why.

    part: "whole", "trimmed" (the best part of a long shot) or "filler" (trimmed to what was left of the budget).
    """

    shot: int
    start: int
    end: int
    part: Literal["whole", "trimmed", "filler"]

    def __len__(self) -> int:
        return self.end - self.start


def plan_clips(
    shots: Sequence[tuple[int, int]],
    scores: np.ndarray,
    saliency: np.ndarray,
    edges: np.ndarray,
    budget: int,
    ticks_per_second: float,
) -> list[Clip]:
    """Choose what the summary shows.

    A long shot first offers only its best part, so that several shots get in; the exact knapsack then takes the offers
    that hold the most score x time; what is left of the budget opens one more shot at its peak or lengthens the chosen
    clips, best first. The clips never exceed the budget, and use it up where the video has enough to show.

    Args:
        shots (list): (start, end) in ticks, in order, without overlap.
        scores (array): [M], scores per tick of the shots; only their ratios matter.
        saliency (array), edges (array): [T] and [T + 1], as for best_window.
        budget (int): ticks, at least 1.
        ticks_per_second (float): the frame rate of the grid.
    Returns:
        list[Clip]: in order of time; at least one if there is a shot.
    """
    lengths = np.array([end - start for start, end in shots], dtype=np.int64)
    second = max(1, round(ticks_per_second))
    limit = int(min(max(budget / LIMIT_SHARE, LEAST_LIMIT * ticks_per_second), MOST_LIMIT * ticks_per_second))
    limit = max(1, min(limit, budget))
    floor = 1e-3 * max(float(np.max(scores, initial=0.0)), 1e-12)
    worth = np.maximum(np.asarray(scores, dtype=np.float64), floor)
    if budget < 2 * MIN_CLIP * second and (roomy := lengths >= 0.8 * budget).any():
        # Room for one clip: a shot too short to fill it would leave a rest too short for another.
        worth = np.where(roomy, worth, 0.0)
    offers = np.minimum(lengths, limit)
    shown = {i: int(offers[i]) for i in select_shots(worth * offers, offers, budget)}
    fillers: set[int] = set()
    best_first = [int(i) for i in np.argsort(-worth, kind="stable")]
    left = budget - sum(shown.values())

    def open_another(least: int) -> None:
        nonlocal left
        for i in best_first:
            if left >= least and i not in shown and lengths[i] >= least:
                shown[i] = int(min(lengths[i], left))
                fillers.add(i)
                left -= shown[i]

    open_another(round(NEW_CLIP * second))
    for i in best_first:
        if i in shown:
            more = int(min(lengths[i] - shown[i], left))
            shown[i] += more
            left -= more
    open_another(round(MIN_CLIP * second))

    clips = []
    for i in sorted(shown):
        start, end = best_window(saliency, edges, *shots[i], shown[i])
        part: Literal["whole", "trimmed", "filler"] = "filler" if i in fillers else "trimmed"
        clips.append(Clip(i, start, end, "whole" if shown[i] == lengths[i] else part))
    return clips
