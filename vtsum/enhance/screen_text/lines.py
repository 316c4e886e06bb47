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
SPELT = 0.1  # the share of a video for which a channel's name is seen in one spelling at least
_WIDE = 0x2E7F  # code points above it are signs of Chinese, Japanese and Korean
COUNTS = 3  # texts at one place, alike but for their digits, from which it is a clock or a counter


@dataclass
class ScreenLine:
    """A row of letters on the screen.

    Attributes:
        text (str). score (float): how sure the reader is, 0..1.
        start, end (float): seconds, of the first and the last picture in which it was seen; one a second is looked at.
        box: left, top, right, bottom, as shares of the picture.
        confirmed (bool): read alike twice (`vtsum.enhance.screen_text.again`); what was not is never quoted.
    """

    text: str
    start: float
    end: float
    score: float
    box: tuple[float, float, float, float]
    confirmed: bool = False

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
    kept = _uncovered(kept)
    standing = _standing(kept, duration) if duration >= LONG else set()
    return [line for line in kept if _plain(line.text) not in standing]


def _uncovered(lines: Iterable[ScreenLine]) -> list[ScreenLine]:
    """Of lines in order of their starts, those that no other one covers."""
    kept: list[ScreenLine] = []
    standing: list[ScreenLine] = []  # few at a time, of however many lines
    for line in lines:
        standing = [other for other in standing if other.end > line.start]
        if not any(_covers(other, line) for other in standing):
            kept.append(line)
        standing.append(line)
    return kept


def _covers(one: ScreenLine, other: ScreenLine) -> bool:
    """Whether one line was at its place before and after another, of which it is a better reading: a pointer that moves
    over letters makes others of them."""
    if not (one.start < other.start and other.end < one.end):
        return False
    high = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    return high > 0.5 * other.height and _ratio(_plain(one.text), _plain(other.text)) >= SAME


def _standing(lines: Sequence[ScreenLine], duration: float) -> set[str]:
    """The spellings of what stands over a video, as a channel's name does."""
    sights: dict[str, list[ScreenLine]] = {}
    for line in lines:
        sights.setdefault(_plain(line.text), []).append(line)
    standing: set[str] = set()
    for common, own in sights.items():
        if _seconds(own) < SPELT * duration:  # few are left, so that each can be held against all
            continue
        spellings = [text for text in sights if _alike(text, common)]
        seen = [line for text in spellings for line in sights[text]]
        whole = max(line.end for line in seen) - min(line.start for line in seen)
        if whole >= STANDS * duration and _seconds(seen) >= SEEN * duration:
            standing.update(spellings)
    return standing


def _seconds(sights: Sequence[ScreenLine]) -> float:
    return sum(line.end - line.start for line in sights)


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
    """Whether two texts, both from `_plain`, are readings of the same; what differs in a digit is not."""
    if one == other:
        return True
    return min(len(one), len(other)) > 3 and _digits(one) == _digits(other) and _ratio(one, other) >= SAME


def _ratio(one: str, other: str) -> float:
    """How alike two texts are, 0..1; 0 for what is below SAME."""
    short, long = sorted((len(one), len(other)))
    if 2 * short < SAME * (short + long):  # no ratio of such lengths is high enough
        return 0.0
    compared = SequenceMatcher(None, one, other, autojunk=False)
    return compared.ratio() if compared.quick_ratio() >= SAME else 0.0  # the quick one is never the lower


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _part(one: ScreenLine, other: ScreenLine) -> bool:
    """Whether one is a part of the other, as where letters come one by one."""
    short, long = sorted((_plain(one.text), _plain(other.text)), key=len)
    beside = one.box[1] < other.box[3] and other.box[1] < one.box[3]
    return len(short) >= 3 and short in long and beside


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _merged(read: Sequence[ScreenLine]) -> list[ScreenLine]:
    """Readings of the same text soon after each other as one line, with the words of the surest, a confirmed
    one before others, or of the whole line where some are parts of it."""
    found: list[ScreenLine] = []
    recent: list[ScreenLine] = []
    for line in sorted(read, key=lambda line: (line.start, line.box[1], line.box[0])):
        recent = [other for other in recent if line.start <= other.end + GAP]
        for other in recent:
            alike = _alike(_plain(line.text), _plain(other.text))
            if alike or _part(line, other):
                other.end = max(other.end, line.end)
                surer = (line.confirmed, line.score) > (other.confirmed, other.score)
                if surer if alike else len(line.text) > len(other.text):
                    other.text, other.score, other.box = line.text, line.score, line.box
                    other.confirmed = line.confirmed
                break
        else:
            recent.append(replace(line))
            found.append(recent[-1])
    return found


def counts_on(one: ScreenLine, other: ScreenLine) -> bool:
    """Whether two lines may be the same clock or counter: at one place, alike but for their digits."""
    return _counted(one) == _counted(other) and bool(_digits(one.text))


def _counted(line: ScreenLine) -> tuple[str, int, int]:
    return re.sub(r"\d+", "0", line.text), round(line.box[0] * 20), round(line.box[1] * 20)


def _clocks(lines: Sequence[ScreenLine]) -> set[int]:
    """Those of which there are several at the same place, the same but for their digits."""
    alike: dict[tuple[str, int, int], list[ScreenLine]] = {}
    for line in lines:
        if _digits(line.text):
            alike.setdefault(_counted(line), []).append(line)
    return {id(line) for group in alike.values() if len({o.text for o in group}) >= COUNTS for line in group}
