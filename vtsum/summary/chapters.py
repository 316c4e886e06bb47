"""A title, and chapters for what is longer than two minutes: where they begin, and what they are called.

Blocks of a few seconds are described by their pictures and by the words around them; kernel temporal segmentation
parts them. A chapter begins with a sentence, or with a shot where nobody speaks, and is called by what can be read or
heard in it; where there is nothing, by its number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtsum.enhance.event_segmentation.kernel import kts
from vtsum.enhance.screen_text import ScreenLine
from vtsum.enhance.speech.plain_words import plain
from vtsum.summary.choosing import LEANING, Span, words_of

FROM = 120.0  # seconds from which a video has chapters
EACH = 150.0  # seconds of a chapter, about
MOST = 12
SHORTEST = 20.0  # seconds of a chapter
BLOCK = 5.0  # seconds
AROUND = 15.0  # seconds around a block whose words tell of it
NEAR = 15.0  # seconds within which a chapter's beginning is moved to that of a sentence or a shot
LARGE = 0.04  # of the picture's height: letters of a title
WORDS, LETTERS = 12, 4  # of a title: at most, at least
PENALTIES = (1.0, 0.5, 0.25, 0.1)  # of the segmentation; the first that finds more than one chapter


@dataclass(frozen=True)
class Title:
    """A title: "given" (by the user), "file" (the file's own), "read", "heard", "written", "name" (of the file) or
    "number"; when it was."""

    text: str
    origin: str
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chapter:
    """A chapter: its first second, its end, its title."""

    start: float
    end: float
    title: Title


def title_of(own: str | None, name: str, spans: Sequence[Span], lines: Sequence[ScreenLine]) -> Title:
    """The file's own title, else the largest line on the screen, else the best short sentence heard, else the name."""
    if own and own.strip():
        return Title(own, "file")
    return _written(lines) or _heard(spans) or Title(name, "name")


def chapters_of(
    duration: float,
    features: np.ndarray,
    fps: float,
    spans: Sequence[Span],
    rows: np.ndarray,
    lines: Sequence[ScreenLine],
    shots: Sequence[tuple[float, float]],
    start: float = 0.0,
) -> list[Chapter]:
    """The chapters of a video, in order, the first from its start; none for one of two minutes and less.

    Args:
        duration (float), start (float): seconds at which it, or the part of it that was watched, ends and begins.
        features (array): [T, C], of the frames sampled at `fps` a second.
        spans, rows: what is heard and read, and its tf-idf rows [N, C'] (`vtsum.summary.choosing.spans_of`).
        lines: on the screen. shots: (start, end) in seconds.
    """
    if duration - start <= FROM or not len(features):
        return []
    starts = [start]
    for time in _changes(start, duration, features, fps, spans, rows):
        begin = _moved(time, spans, [start for start, _ in shots])
        if begin is not None and begin - starts[-1] >= SHORTEST and duration - begin >= SHORTEST:
            starts.append(begin)
    found: list[Chapter] = []
    called: set[str] = set()
    for number, (first, end) in enumerate(itertools.pairwise([*starts, duration]), 1):
        title = (
            _written([line for line in lines if first - 1 <= line.start < end and line.text not in called])
            or _heard([span for span in spans if first <= span.start < end and span.text not in called])
            or Title(f"Part {number}", "number")
        )
        called.add(title.text)
        found.append(Chapter(first, end, title))
    return found


def _changes(
    begin: float, end: float, features: np.ndarray, fps: float, spans: Sequence[Span], rows: np.ndarray
) -> list[float]:
    """Seconds at which pictures and words change together."""
    duration = end - begin
    block = max(BLOCK, duration / 1000)
    count = math.ceil(duration / block)
    at = np.minimum((np.arange(len(features)) / fps / block).astype(int), count - 1)
    pictures = np.zeros((count, features.shape[1]))
    np.add.at(pictures, at, features)
    words = np.zeros((count, rows.shape[1] if len(rows) else 1))
    for span, row in zip(spans, rows, strict=True):
        around = (span.start - begin - AROUND, span.end - begin + AROUND)
        first, last = (min(max(int(t / block), 0), count - 1) for t in around)
        words[first : last + 1] += row
    x = np.concatenate([_unit(pictures - pictures.mean(0)), _unit(words)], axis=1)
    few = min(max(round(duration / EACH), 2), MOST)
    shortest = max(math.ceil(SHORTEST / block), 1)
    parts = []
    for penalty in PENALTIES:
        parts = kts(x, max_segments=few, min_length=shortest, penalty=penalty)
        if len(parts) > 1:
            break
    return [begin + part.start * block for part in parts[1:]]


def _moved(time: float, spans: Sequence[Span], shots: Sequence[float]) -> float | None:
    """The beginning of a sentence near `time`, one that leans on none before it if there is one; or of a shot where
    nobody speaks; None where there is neither."""
    heard = [span for span in spans if span.origin == "heard"]
    near = [span for span in heard if abs(span.start - time) <= NEAR]
    free = [span.start for span in near if plain(span.text.split()[0]) not in LEANING]
    quiet = [s for s in shots if abs(s - time) <= NEAR and not any(span.start < s < span.end for span in heard)]
    options = free or [span.start for span in near] or quiet
    return min(options, key=lambda option: abs(option - time), default=None)


def _written(lines: Sequence[ScreenLine]) -> Title | None:
    """The largest confirmed line, and longest of the equally large, if its letters are large enough."""
    fit = [line for line in lines if line.confirmed and line.height >= LARGE and _titles(line.text)]
    best = max(fit, key=lambda line: line.height * min(max(line.end - line.start, 1.0), 5.0) ** 0.5, default=None)
    return None if best is None else Title(best.text, "read", (best.start, best.end))


def _heard(spans: Sequence[Span]) -> Title | None:
    """The best sentence of a title's length."""
    fit = [span for span in spans if span.origin == "heard" and _titles(span.text)]
    best = max(fit, key=lambda span: span.score, default=None)
    return None if best is None or best.score <= 0 else Title(best.text.rstrip("."), "heard", (best.start, best.end))


def _titles(text: str) -> bool:
    return len(words_of(text)) <= WORDS and sum(c.isalpha() for c in text) >= LETTERS


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
