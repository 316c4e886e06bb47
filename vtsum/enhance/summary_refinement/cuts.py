"""Where the cuts of a summary fall: on boundaries of shots, in pauses of speech, and not within a moment of another.

All functions take clips that lie inside their shots, in order, at most one a shot, and return such clips again, of the
same shots, no longer in total than the budget. Times are ticks of the video's frame grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vtsum.enhance.summary_refinement.clips import Clip

REACH = 1.0  # seconds by which a cut is moved into a pause, at most
MARGIN = 0.1  # seconds between a cut and the word beside the pause, where the pause is long enough
SHARE = 0.1  # of the summary that may be given up for cuts in pauses


def merge_short_shots(shots: Sequence[tuple[int, int]], vectors: np.ndarray, shortest: int) -> list[tuple[int, int]]:
    """Join shots shorter than `shortest` with the neighbour that looks more like them, the shortest first.

    Args:
        shots (list): (start, end), in order, without gaps.
        vectors (array): [M, C], mean features of the shots.
        shortest (int): in the unit of the shots; 0 leaves everything as it is.
    Returns:
        list[tuple[int, int]]: runs of shot indices (first, last + 1), in order, that become one shot each.
    """
    runs = [(i, i + 1) for i in range(len(shots))]
    lengths = [float(end - start) for start, end in shots]
    means = [np.asarray(v, dtype=np.float64) for v in vectors]
    while len(runs) > 1:
        at = int(np.argmin(lengths))
        if lengths[at] >= shortest:
            break
        beside = [i for i in (at - 1, at + 1) if 0 <= i < len(runs)]
        other = min(beside, key=lambda i: float(((means[i] - means[at]) ** 2).sum()))
        a, b = sorted((at, other))
        total = lengths[a] + lengths[b]
        shares = (lengths[a] / total, lengths[b] / total) if total > 0 else (0.5, 0.5)
        means[a : b + 1] = [shares[0] * means[a] + shares[1] * means[b]]
        runs[a : b + 1] = [(runs[a][0], runs[b][1])]
        lengths[a : b + 1] = [total]
    return runs


def align_to_shots(clips: Sequence[Clip], shots: Sequence[tuple[int, int]], slack: int) -> list[Clip]:
    """Move clips that begin or end within `slack` of a boundary of their shot onto it; their lengths stay.

    A cut at the boundary is one that the film has already; one just beside it shows a flash of the shot.
    """
    moved = []
    for clip in clips:
        start, end = shots[clip.shot]
        before, after = clip.start - start, end - clip.end
        by = 0
        if before > 0 and after > 0 and min(before, after) <= slack:
            by = -before if before <= after else after
        moved.append(replace(clip, start=clip.start + by, end=clip.end + by))
    return moved


def close_gaps(
    clips: Sequence[Clip], shots: Sequence[tuple[int, int]], budget: int, gap: int, shortest: int
) -> list[Clip]:
    """Join clips of neighbouring shots between which less than `gap` is left out: a jump so short looks like a fault.

    What the gap costs is paid from what is left of the budget, then from the far end of the longer clip, as long as
    that keeps `shortest`; where neither suffices the gap stays.
    """
    joined = list(clips)
    left = budget - sum(len(clip) for clip in joined)
    for n in range(len(clips) - 1):
        a, b = joined[n], joined[n + 1]
        missing = b.start - a.end
        if b.shot != a.shot + 1 or not 0 < missing <= gap:
            continue
        boundary = shots[a.shot][1]
        owed = max(missing - left, 0)
        start, end = a.start, b.end
        if owed:
            # An end where another clip goes on is no far end: to trim it would open a gap there.
            first_free = n == 0 or start - joined[n - 1].end > gap
            last_free = n + 2 == len(joined) or joined[n + 2].start - end > gap
            if first_free and (boundary - start >= end - boundary or not last_free):
                start += owed
            elif last_free:
                end -= owed
            else:
                continue
            if min(boundary - start, end - boundary) < shortest:
                continue
        left -= missing - owed
        both = replace(a, start=start, end=boundary), replace(b, start=boundary, end=end)
        joined[n : n + 2] = [_named(clip, shots) for clip in both]
    return joined


def snap_to_pauses(
    clips: Sequence[Clip],
    shots: Sequence[tuple[int, int]],
    pauses: Sequence[tuple[float, float]],
    budget: int,
    rate: float,
    shortest: int,
) -> list[Clip]:
    """Move cuts that fall into speech to the nearest pause within `REACH` seconds.

    A cut is moved only inside its shot, as far as the budget allows, and where its clip keeps `shortest`. Together the
    moves give up at most a tenth of the summary: better a cut in a word than a summary half as long.

    Args:
        clips (list), shots (list), budget (int), shortest (int): in ticks.
        pauses (list): (start, end) in seconds, where nobody speaks; in any order. None at all: nothing is moved.
        rate (float): ticks a second.
    Returns:
        list[Clip]: in order.
    Raises:
        ValueError: a pause that ends before it starts, or is not finite.
    """
    for start, end in pauses:
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise ValueError(f"snap_to_pauses: pauses must be finite and end after they start, got {(start, end)}")
    quiet = sorted(_ticks(start, end, rate) for start, end in pauses)
    quiet = [(first, last) for first, last in quiet if first <= last]
    moved = list(clips)
    total = sum(len(clip) for clip in moved)
    least = total - SHARE * total
    reach = REACH * rate
    # Twice: what one cut gives up may pay for another before it.
    for n, side in [*itertools.product(range(len(moved)), ("start", "end"))] * 2:
        clip = moved[n]
        cut = clip.start if side == "start" else clip.end
        if any(start * rate <= cut <= end * rate for start, end in pauses):
            continue
        low, high = shots[clip.shot]
        for move in sorted((min(max(cut, first), last) - cut for first, last in quiet), key=abs):
            if abs(move) > reach:
                break
            start, end = (cut + move, clip.end) if side == "start" else (clip.start, cut + move)
            gained = (end - start) - len(clip)
            inside = low <= start < end <= high and (gained >= 0 or end - start >= shortest)
            if inside and (total + gained <= budget if gained >= 0 else total + gained >= least):
                moved[n] = _named(replace(clip, start=start, end=end), shots)
                total += gained
                break
    return moved


def _ticks(start: float, end: float, rate: float) -> tuple[int, int]:
    """The ticks of a pause that are good for a cut: a little away from the words on both sides."""
    margin = min(MARGIN, (end - start) / 2)
    first, last = math.ceil((start + margin) * rate - 1e-6), math.floor((end - margin) * rate + 1e-6)
    middle = round((start + end) / 2 * rate)
    return (first, last) if first <= last or not start * rate <= middle <= end * rate else (middle, middle)


def _named(clip: Clip, shots: Sequence[tuple[int, int]]) -> Clip:
    """The clip with its `part` true again."""
    whole = (clip.start, clip.end) == tuple(shots[clip.shot])
    if whole:
        return replace(clip, part="whole")
    return replace(clip, part="trimmed") if clip.part == "whole" else clip
