"""Lines of a screen from many readings of it: what is the same becomes one, what tells nothing is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Protocol

from vtsum.shown import one_line

SURE = 0.9  # the score under which a line is not believed
SAME = 0.8  # likeness of two readings of one line
GAP = 3.0  # seconds between two readings of one line
STANDS, SEEN = 0.8, 0.4  # the share of a video from whose first to last sight, and for which, a line is a channel's
LONG = 20.0  # seconds of a video from which that can be told
_WIDE = 0x2E7F  # code points above it are signs of Chinese, Japanese and Korean
COUNTS = 3  # texts at one place, alike but for their digits, from which it is a clock or a counter


@dataclass
class ScreenLine:
    """A row of letters on the screen.

    Attributes:
        text (str). score (float): how sure the reader is, 0..1.
        start, end (float): seconds, of the first and the last picture in which it was seen; one a second is looked at.
        box: left, top, right, bottom, as shares of the picture.
    """

    text: str
    start: float
    end: float
    score: float
    box: tuple[float, float, float, float]

    @property
    def height(self) -> float:
        """Of the letters, as a share of the picture's height."""
        return self.box[3] - self.box[1]


def lines_of(read: Iterable[ScreenLine], duration: float) -> list[ScreenLine]:
    """Lines in order of time and, within a picture, from top to bottom; each once, unless it comes back later.

    Left out are lone characters, what the reader is not sure of, clocks and counters, and what stands over nearly the
    whole of a video.
    """
    merged = _merged([replace(line, text=one_line(line.text)) for line in read if tells(line)])
    clocks = _clocks(merged)
    kept = [
        replace(line, end=min(max(line.end, line.start + 0.1), duration))
        for line in merged
        if id(line) not in clocks and line.start < duration
    ]
    return [
        line
        for line in kept
        if not (duration >= LONG and _stands([o for o in kept if _alike(o.text, line.text)], duration))
    ]


def _stands(sights: Sequence[ScreenLine], duration: float) -> bool:
    """Whether what is seen so often stands over the video, as a channel's name does."""
    whole = max(line.end for line in sights) - min(line.start for line in sights)
    return whole >= STANDS * duration and sum(line.end - line.start for line in sights) >= SEEN * duration


class Scored(Protocol):
    """A text and how sure the reader is of it."""

    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float: ...


def tells(line: Scored) -> bool:
    """Whether a line read is believed and tells something: not a lone sign, and not digits alone."""
    letters = [c for c in line.text if c.isalpha()]
    # A Chinese word has two signs, a Latin one that tells something three letters: "2" and "II" are noise more often.
    return line.score >= SURE and len(letters) + sum(ord(c) > _WIDE for c in letters) >= 3


def _alike(one: str, other: str) -> bool:
    a, b = _plain(one), _plain(other)
    return a == b or (min(len(a), len(b)) > 3 and SequenceMatcher(None, a, b, autojunk=False).ratio() >= SAME)


def _same(one: ScreenLine, other: ScreenLine) -> bool:
    """Whether they are readings of one line, or one is a part of the other, as where letters come one by one."""
    if _alike(one.text, other.text):
        return True
    short, long = sorted((_plain(one.text), _plain(other.text)), key=len)
    beside = one.box[1] < other.box[3] and other.box[1] < one.box[3]
    return len(short) >= 3 and short in long and beside


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _merged(read: Sequence[ScreenLine]) -> list[ScreenLine]:
    """Readings of the same text soon after each other as one line, with the words of the surest, or of the
    whole line where some are parts of it."""
    found: list[ScreenLine] = []
    for line in sorted(read, key=lambda line: (line.start, line.box[1], line.box[0])):
        for other in found:
            if line.start <= other.end + GAP and _same(line, other):
                other.end = max(other.end, line.end)
                alike = _alike(line.text, other.text)
                if line.score > other.score if alike else len(line.text) > len(other.text):
                    other.text, other.score, other.box = line.text, line.score, line.box
                break
        else:
            found.append(replace(line))
    return found


def _clocks(lines: Sequence[ScreenLine]) -> set[int]:
    """Those of which there are several at the same place, the same but for their digits."""
    alike: dict[tuple[str, int, int], list[ScreenLine]] = {}
    for line in lines:
        if re.search(r"\d", line.text):
            place = (re.sub(r"\d+", "0", line.text), round(line.box[0] * 20), round(line.box[1] * 20))
            alike.setdefault(place, []).append(line)
    return {id(line) for group in alike.values() if len({o.text for o in group}) >= COUNTS for line in group}
