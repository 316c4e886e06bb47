"""A subtitle as a file holds it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LINE = 10_000  # characters of a line of subtitles, which has 42 or so


@dataclass(frozen=True)
class Cue:
    """A subtitle: seconds, and its lines as they stand in the file, with tags."""

    start: float
    end: float
    lines: tuple[str, ...]
