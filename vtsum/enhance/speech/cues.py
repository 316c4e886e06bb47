"""A subtitle as a file holds it, and how many there may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vtsum.errors import VTSumError

MAX_LINE = 10_000  # characters of a line of subtitles, which has 42 or so
MAX_LINES = 600_000  # of a transcript's file; a day of rolling captions has 350,000
MAX_WORDS = 300_000  # a day's speech is 200,000


@dataclass(frozen=True)
class Cue:
    """A subtitle: seconds, and its lines as they stand in the file, with tags."""

    start: float
    end: float
    lines: tuple[str, ...]


def check_words(count: int, where: str) -> None:
    """Refuse more than 300,000 words; `where` begins the message.

    Raises:
        VTSumError: there are more.
    """
    if count > MAX_WORDS:
        raise VTSumError(f"{where}: must hold at most {MAX_WORDS} words, got more")


def bounded(cues: Iterable[Cue], where: str) -> Iterator[Cue]:
    """The subtitles without their empty lines, refused as soon as they or their lines are more than there may be words.

    Raises:
        VTSumError: see `check_words`; or one has a line of more than 10,000 characters.
    """
    lines = 0
    for count, given in enumerate(cues, 1):
        # A mark that ends a line takes one or two bytes: a file may hold millions of lines with nothing in them.
        cue = replace(given, lines=tuple(line for line in given.lines if line.strip()))
        lines += len(cue.lines)
        check_words(max(count, lines), where)
        if (longest := max(map(len, cue.lines), default=0)) > MAX_LINE:
            raise VTSumError(
                f"{where}: subtitle {count}: must have at most {MAX_LINE} characters a line, got {longest}"
            )
        yield cue
