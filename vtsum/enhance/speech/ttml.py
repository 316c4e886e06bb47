"""Subtitles in TTML (W3C, "Timed Text Markup Language 2"; DFXP, IMSC and EBU-TT are kinds of it)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.parsers import expat

from vtsum.enhance.speech.cues import MAX_LINE, MAX_LINES, Cue
from vtsum.errors import VTSumError

_DEEPEST = 64  # elements in one another
_LONGEST = 15.0  # seconds that a subtitle stays where nothing says it
_CLOCK = re.compile(r"(\d{2,4}):(\d\d):(\d\d)(?:(\.\d{1,9})|:(\d{2,3})(?:\.\d{1,3})?)?")
_OFFSET = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(h|ms|m|s|f|t)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SPACE = re.compile(r"[ \t\r\n]+")


def ttml_cues(text: str, where: str) -> list[Cue]:
    """The subtitles of a TTML file, those with times that cannot be read left out.

    Raises:
        VTSumError: it is no XML, declares a document type or entities, is not TTML, puts its times one behind the other
            (`timeContainer="seq"`), or has more than 600,000 elements or a line of more than 10,000 characters; `where`
            begins the message.
    """
    reader = _Reader(where)
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.say
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.buffer_text = True
    try:
        # What it states of its encoding was true of its bytes.
        parser.Parse(re.sub(r"^\ufeff?\s*<\?xml[^<>]*>", "", text, count=1).encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise VTSumError(f"{where}: must be TTML, got XML that is broken in line {error.lineno}") from None
    return reader.cues


@dataclass(frozen=True)
class _Span:
    """When an element is shown, in seconds; `begin` None: nothing says when, or what says it cannot be read."""

    begin: float | None = 0.0
    end: float | None = None
    timed: bool = False
    kept: bool = True


class _Reader:
    """Takes the pieces of an XML file one by one."""

    def __init__(self, where: str) -> None:
        self.cues: list[Cue] = []
        self._where = where
        self._open: list[tuple[str, _Span]] = []
        self._said: list[str] = []
        self._paragraph = False
        self._elements = 0
        self._rate, self._ticks = 30.0, 1.0

    def refuse_doctype(self, *_: object) -> None:
        raise VTSumError(f"{self._where}: must be TTML without a document type, got one")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_LINES:  # each is at most a line or a subtitle
            raise VTSumError(f"{self._where}: must have at most {MAX_LINES} elements, got more")
        name = name.rpartition(":")[2]
        given = {key.rpartition(":")[2]: value.strip() for key, value in attributes.items()}
        if not self._open:
            if name != "tt":
                raise VTSumError(f"{self._where}: must be TTML where it is XML, got <{name[:40]}>")
            self._set_rates(given)
        if len(self._open) >= _DEEPEST:
            raise VTSumError(f"{self._where}: must have at most {_DEEPEST} elements in one another, got more")
        if given.get("timeContainer") == "seq":
            raise VTSumError(f"{self._where}: must state each subtitle's own time, got timeContainer seq")
        span = self._span(given)
        if self._paragraph and span.timed:
            self._flush()
        if name == "p":
            self._paragraph = True
        elif name == "br":
            self._said.append("\n")
        self._open.append((name, span))

    def end(self, _: str) -> None:
        name, span = self._open[-1]
        if self._paragraph and (name == "p" or span.timed):
            self._flush()
        self._paragraph = self._paragraph and name != "p"
        self._open.pop()

    def say(self, text: str) -> None:
        if self._paragraph and self._open[-1][1].kept:
            self._said.append(_SPACE.sub(" ", text))

    def _flush(self) -> None:
        """What was said so far belongs to the innermost element that is open."""
        lines = tuple(line.strip() for line in "".join(self._said).split("\n"))
        self._said.clear()
        if max(map(len, lines)) > MAX_LINE:
            raise VTSumError(f"{self._where}: lines must have at most {MAX_LINE} characters, got more")
        span = self._open[-1][1]
        timed = any(outer.timed for _, outer in self._open)
        if timed and span.begin is not None and any(lines):
            self.cues.append(Cue(span.begin, span.begin + _LONGEST if span.end is None else span.end, lines))

    def _span(self, given: dict[str, str]) -> _Span:
        outer = self._open[-1][1] if self._open else _Span()
        kept = outer.kept and given.get("ruby") not in ("text", "textContainer", "delimiter")  # how it is pronounced
        times = {key: self._seconds(given[key]) for key in ("begin", "end", "dur") if key in given}
        if not times or outer.begin is None:
            return _Span(outer.begin, outer.end, False, kept)
        if None in times.values():
            return _Span(None, None, True, kept)
        begin = outer.begin + (times.get("begin") or 0.0)
        ends = [outer.end, None if "end" not in times else outer.begin + (times["end"] or 0.0)]
        ends.append(None if "dur" not in times else begin + (times["dur"] or 0.0))
        return _Span(begin, min((end for end in ends if end is not None), default=None), True, kept)

    def _set_rates(self, given: dict[str, str]) -> None:
        self._rate = _number(given.get("frameRate")) or 30.0
        top, _, bottom = given.get("frameRateMultiplier", "").partition(" ")
        self._rate *= (_number(top) or 1.0) / (_number(bottom) or 1.0)
        self._ticks = _number(given.get("tickRate")) or (self._rate if "frameRate" in given else 1.0)

    def _seconds(self, text: str) -> float | None:
        if found := _CLOCK.fullmatch(text):
            hours, minutes, seconds, fraction, frames = found.groups()
            whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
            return whole + float(fraction or 0) + int(frames or 0) / self._rate
        if found := _OFFSET.fullmatch(text):
            scale = {**_UNITS, "f": 1 / self._rate, "t": 1 / self._ticks}[found[2]]
            return float(found[1]) * scale
        return None


def _number(text: str | None) -> float | None:
    """A rate, or None where none is stated that could be one."""
    return float(text) if text is not None and re.fullmatch(r"[1-9][0-9]{0,8}", text) else None
