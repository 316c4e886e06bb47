"""What the user wants in the summary, or out of it: stretches of the video by their times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from vtsum.errors import VTSumError
from vtsum.summary.schema import Span
from vtsum.summary.text import clock_time

Range = tuple[float, float]
_TIME = r"(?:(?:(\d{1,9}):)?(\d{1,9}):)?(\d{1,18}(?:\.\d{1,18})?)s?"
_ONE = re.compile(_TIME)
_RANGE = re.compile(rf"{_TIME}\s?[-–]\s?{_TIME}")


def parse_ranges(given: str | Sequence[str | Range], what: str) -> list[Range]:
    """Stretches in seconds, in order, from texts such as "0:10-0:20, 1:02:03-1:02:30.5" or pairs of numbers.

    Raises:
        VTSumError: it is something else, or two of them overlap; `what` begins the message.
    """
    parts: list[str | Range] = []
    for one in [given] if isinstance(given, str) else given:
        parts += [part for part in one.split(",") if part.strip()] if isinstance(one, str) else [one]
    ranges = sorted(_range(part, what) for part in parts)
    for (start, end), (after, _) in pairwise(ranges):
        if after < end:
            raise VTSumError(
                f"{what} must not overlap, got {clock_time(start)}-{clock_time(end)} and {clock_time(after)}-"
            )
    return ranges


def spans_of(given: str | Sequence[str | Range], what: str) -> list[Span]:
    """The same as summary.json has them, to a thousandth of a second."""
    return [{"start": round(start, 3), "end": round(end, 3)} for start, end in parse_ranges(given, what)]


def seconds_in(text: str) -> float | None:
    """Seconds of a time such as 90, 2.5s, 1:30 or 1:02:03.5; None where it is something else."""
    found = _ONE.fullmatch(text)
    return None if found is None else _seconds(found.groups())


def _seconds(groups: Sequence[str | None]) -> float:
    hours, minutes, seconds = (float(number or 0) for number in groups)
    return (hours * 60 + minutes) * 60 + seconds


def _range(part: str | Range, what: str) -> Range:
    found = _RANGE.fullmatch(part.strip()) if isinstance(part, str) else None
    if found is not None:
        start, end = _seconds(found.groups()[:3]), _seconds(found.groups()[3:])
    elif not isinstance(part, str) and len(part) == 2:
        start, end = float(part[0]), float(part[1])
    else:
        raise VTSumError(f"{what} must be stretches such as 0:10-0:20, got {part!r:.60}")
    if not 0 <= start < end < float("inf"):
        raise VTSumError(f"{what} must end after they start, got {part!r:.60}")
    return start, end


class ByHand:
    """The stretches to keep and to drop, as ticks of a video, and its frames parted at their edges.

    Args:
        keep, drop: stretches in seconds. part: start and end of what is watched. rate: ticks a second.
    Attributes:
        keep, drop (list[tuple[int, int]]): in ticks.
    Raises:
        VTSumError: a stretch lies beyond the video, or one to keep meets one to drop.
    """

    def __init__(self, keep: Sequence[Range], drop: Sequence[Range], part: Range, rate: float) -> None:
        begin, duration = part
        for name, ranges in (("keep", keep), ("drop", drop)):
            for start, end in ranges:
                span = f"{clock_time(start)}-{clock_time(end)}"
                if end <= begin:
                    raise VTSumError(f"summarize: {name} must lie in the part from {begin:.1f} s on, got {span}")
                if start >= duration:
                    raise VTSumError(f"summarize: {name} must lie in the video of {duration:.1f} s, got {span}")
        for start, end in keep:
            for other, until in drop:
                if start < until and other < end:
                    both = f"{clock_time(max(start, other))}-{clock_time(min(end, until))}"
                    raise VTSumError(f"summarize: keep and drop must not meet, got {both} in both")
        first = round(begin * rate)
        last = max(round(duration * rate), first + 1)
        self.keep = [_ticks(span, rate, first, last) for span in keep]
        self.drop = [_ticks(span, rate, first, last) for span in drop]
        self._rate, self._ends = rate, {first, last}

    def part(self, edges: np.ndarray) -> list[int]:
        """Move the nearest edges of frames onto those of the stretches, in place; their numbers, rising.

        Args:
            edges: [T + 1], ticks at which the turns of the sampled frames begin, and the last one ends.
        Raises:
            VTSumError: two edges lie so near each other that there is no frame between them.
        """
        placed: list[int] = []
        for tick in sorted({edge for span in (*self.keep, *self.drop) for edge in span} - self._ends):
            k = int(np.argmin(np.abs(edges[1:-1] - tick))) + 1 if len(edges) > 2 else 0
            if not 0 < k < len(edges) - 1 or k in placed or not edges[k - 1] < tick < edges[k + 1]:
                where = clock_time(tick / self._rate)
                raise VTSumError(
                    "summarize: keep and drop must be of stretches longer than the time between two frames looked at "
                    f"(--fps), got an edge too near another at {where}"
                )
            edges[k] = tick
            placed.append(k)
        return placed

    def kept(self, shot: tuple[int, int]) -> bool:
        return any(start <= shot[0] and shot[1] <= end for start, end in self.keep)

    def dropped(self, shot: tuple[int, int]) -> bool:
        return any(start <= shot[0] and shot[1] <= end for start, end in self.drop)


def _ticks(span: Range, rate: float, first: int, last: int) -> tuple[int, int]:
    start, end = (round(min(max(second * rate, first), last)) for second in span)
    start = min(start, last - 1)
    return start, max(end, start + 1)


def split(frames: Sequence[tuple[int, int]], at: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first, last + 1, number of the run it was part of) of runs of frames, parted at the frames `at`."""
    parts = []
    for number, (first, last) in enumerate(frames):
        marks = [first, *(k for k in at if first < k < last), last]
        parts += [(a, b, number) for a, b in pairwise(marks)]
    return parts
