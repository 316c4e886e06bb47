"""What the text summary quotes of the screen: the largest confirmed writing of each picture, unless it was said too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vtsum.enhance.screen_text.lines import ScreenLine

TOGETHER = 1.5  # seconds within which lines that appear are quoted together
LETTERS = 160  # of one quotation at most: of a full slide the largest lines
SMALL = 0.5  # of a picture's largest letters: what is lower is small print beside them
SAID = 0.8  # the share of a line's words from which it is a subtitle of what is said then
NEAR = 5.0  # seconds around a line in which that is looked for


@dataclass(frozen=True)
class ScreenSentence:
    """Lines that stand on the screen together, quoted: text, seconds, score (0..1) and rank among the others."""

    text: str
    start: float
    end: float
    confidence: float
    score: float


def quotations(lines: Sequence[ScreenLine], said: Sequence[tuple[str, float]] = ()) -> list[ScreenSentence]:
    """One quotation for each picture with writing, in order of time.

    Args:
        lines: from `lines_of`; those that are not confirmed are not quoted.
        said: (word, seconds) of what is said: subtitles of it are not quoted.
    Returns:
        list[ScreenSentence]: ranked by the size of the largest letters and, less, how long they stand.
    """
    pages: list[list[ScreenLine]] = []
    for line in sorted(lines, key=lambda line: line.start):
        if not line.confirmed or _is_said(line, said):
            continue
        if pages and line.start - pages[-1][0].start <= TOGETHER:
            pages[-1].append(line)
        else:
            pages.append([line])
    return [_quoted(page) for page in pages]


def _quoted(page: list[ScreenLine]) -> ScreenSentence:
    tallest = max(line.height for line in page)
    chosen: list[ScreenLine] = []
    for line in sorted(page, key=lambda line: (-round(line.height / tallest, 1), line.box[1], line.box[0])):
        if line.height >= SMALL * tallest and (not chosen or sum(len(c.text) for c in [*chosen, line]) <= LETTERS):
            chosen.append(line)
    chosen.sort(key=lambda line: (round(line.box[1], 2), line.box[0]))
    start, end = min(line.start for line in chosen), max(line.end for line in chosen)
    return ScreenSentence(
        "On screen: " + ", ".join(f"\u201c{line.text}\u201d" for line in chosen) + ".",
        start,
        end,
        min(line.score for line in chosen),
        tallest * min(max(end - start, 1.0), 5.0) ** 0.5,
    )


def _is_said(line: ScreenLine, said: Sequence[tuple[str, float]]) -> bool:
    heard = {word for text, at in said if line.start - NEAR <= at <= line.end + NEAR for word in _words(text)}
    words = _words(line.text)
    return bool(words) and sum(word in heard for word in words) >= SAID * len(words)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
