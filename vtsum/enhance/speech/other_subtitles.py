"""Subtitles that are neither SRT nor WebVTT: ASS, TTML, MicroDVD, MPL2, and what Whisper writes (JSON, TSV)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from vtsum.enhance.speech.cues import MAX_LINE, Cue, bounded
from vtsum.enhance.speech.ttml import ttml_cues
from vtsum.errors import VTSumError
from vtsum.reading import parse_json

_LATEST = 1e7  # seconds
_ASS_TIME = re.compile(r"(\d{1,3}):(\d{1,2}):(\d{1,2}(?:[.:]\d{1,3})?)")
_OVERRIDE = re.compile(r"\{[^{}]*\}")
_DRAWING = re.compile(r"\\p[1-9]")  # in an override: what follows is a shape, no words
_COUNTED = re.compile(r"\{(\d{1,9})\}\{(\d{0,9})\}(.*)|\[(\d{1,9})\]\[(\d{0,9})\](.*)")  # MicroDVD, MPL2
_CONTROL = re.compile(r"\{[A-Za-z]:[^{}]*\}")  # of MicroDVD: {y:i}
_TENTHS = 10.0  # a second, which MPL2 counts
_STAYS = 15.0  # seconds that a subtitle stays where nothing says it


def other_cues(text: str, where: str, rate: float | None) -> tuple[list[Cue], str | None, list[str]] | None:
    """The subtitles in order of time, a note on what had to be taken for granted, and which ("line 7", "segment 2") are
    left out since their times cannot be read; None for SRT, WebVTT and plain text.

    Args:
        rate: pictures a second of the video, for MicroDVD that does not state it.
    Raises:
        VTSumError: a kind that is not read (SAMI), MicroDVD of an unknown rate, JSON of another form, or a line of more
        than 10,000 characters; `where` begins the message.
    """
    head = text[:4096].lstrip("\ufeff \t\r\n")
    note = None
    broken: list[str] = []
    if re.match(r"<sami\b", head, re.IGNORECASE):
        raise VTSumError(f"{where}: must be SRT, WebVTT, ASS, TTML or another kind that is read, got SAMI")
    if re.match(r"<(\?xml|!--|(\w+:)?tt\b)", head):
        found: Iterable[Cue] = ttml_cues(text, where)
    elif _COUNTED.match(head):
        found, note = _counted(text, where, rate)
    elif re.match(r'\{\s*"|\[\s*\{\s*"', head):
        found = _whisper_json(text, where, broken)
    elif re.match(r"start\tend\ttext\s*\n", head):
        found = _whisper_tsv(text, broken)
    elif re.match(r"\[(Script Info|V4\+? Styles|Events)\]", head) or re.search(r"^Dialogue:.*,", head, re.MULTILINE):
        found = _ass(text, where, broken)
    else:
        return None
    return sorted(bounded(found, where), key=lambda cue: cue.start), note, broken


def _counted(text: str, where: str, rate: float | None) -> tuple[list[Cue], str | None]:
    """MicroDVD, which counts pictures ("{25}{50}Two|lines"), and MPL2, which counts tenths of a second. The first line
    of MicroDVD may state the pictures of a second ("{1}{1}23.976")."""
    found: list[tuple[int, int | None, str]] = []
    stated = None
    tenths = False
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if len(line) > MAX_LINE:
            raise VTSumError(f"{where}: line {number}: must have at most {MAX_LINE} characters, got {len(line)}")
        if (match := _COUNTED.match(line.strip())) is None:
            continue
        tenths = match[4] is not None
        start, end, said = match.groups()[3:] if tenths else match.groups()[:3]
        if not found and start == end and not tenths and re.fullmatch(r"\s*\d{1,3}(?:[.,]\d{1,6})?\s*", said):
            stated = float(said.replace(",", "."))
        else:
            found.append((int(start), int(end) if end else None, said))
    scale = _TENTHS if tenths else stated or rate
    if not scale:
        raise VTSumError(f"{where}: must state times, got MicroDVD, which counts pictures, without their rate")
    cues = []
    for start, end, said in found:
        lines = [line.lstrip("/") if tenths else _CONTROL.sub("", line) for line in said.split("|")]
        cues.append(Cue(start / scale, start / scale + _STAYS if end is None else end / scale, tuple(lines)))
    guessed = not tenths and not stated
    return cues, f"it counts pictures: {scale:g} a second were taken, as in the video" if guessed else None


def _ass(text: str, where: str, broken: list[str]) -> Iterator[Cue]:
    names = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    events, usable = False, True
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise VTSumError(f"{where}: line {number}: must have at most {MAX_LINE} characters, got {len(line)}")
        kind, _, rest = line.partition(":")
        if line.startswith("["):
            events = line.strip().lower() == "[events]"
        elif kind == "Format" and events:
            names = [name.strip().lower() for name in rest.split(",")]
            usable = {"start", "end", "text"} <= set(names)  # once a format: it may name thousands of fields
        elif kind == "Dialogue" and usable:
            fields = dict(zip(names, rest.split(",", len(names) - 1), strict=False))
            times = [_ASS_TIME.fullmatch(fields.get(name, "").strip()) for name in ("start", "end")]
            said = fields.get("text", "")
            if _DRAWING.search(said):
                continue
            if None in times:
                broken.append(f"line {number}")
                continue
            start, end = (
                int(t[1]) * 3600 + int(t[2]) * 60 + float(t[3].replace(":", ".")) for t in times if t is not None
            )
            plain = _OVERRIDE.sub("", said).replace("\\h", " ").replace("\\n", "\\N")
            yield Cue(start, end, tuple(plain.split("\\N")))


def _whisper_tsv(text: str, broken: list[str]) -> Iterator[Cue]:
    for number, line in enumerate(text.splitlines()[1:], 2):
        start, _, rest = line.partition("\t")
        end, _, said = rest.partition("\t")
        if start.isdecimal() and end.isdecimal() and len(start) < 12 and len(end) < 12:
            yield Cue(int(start) / 1000, int(end) / 1000, (said,))
        elif line.strip():
            broken.append(f"line {number}")


def _whisper_json(text: str, where: str, broken: list[str]) -> list[Cue]:
    """Whisper's {"segments": [{"start", "end", "text"}]}, whisper.cpp's {"transcription": [{"offsets", "text"}]}, or a
    list of such segments."""
    data: Any = parse_json(text.lstrip("\ufeff"), object, where)
    segments = data.get("segments", data.get("transcription")) if isinstance(data, dict) else data
    found = []
    for number, segment in enumerate(segments if isinstance(segments, list) else (), 1):
        if not isinstance(segment, dict) or not isinstance(segment.get("text"), str):
            continue
        offsets = segment.get("offsets")
        if isinstance(offsets, dict):
            times = [_seconds(offsets.get(key), 1000) for key in ("from", "to")]
        else:
            times = [_seconds(segment.get(key), 1) for key in ("start", "end")]
        if times[0] is not None and times[1] is not None:
            found.append(Cue(times[0], times[1], (segment["text"],)))
        else:
            broken.append(f"segment {number}")
    if not found:
        raise VTSumError(
            f"{where}: must hold segments with start, end and text, as Whisper writes them, got other JSON"
        )
    return found


def _seconds(value: Any, by: int) -> float | None:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value / by <= _LATEST:
        return None
    return float(value / by)
