"""Chapters as other programs read them."""

from __future__ import annotations

from vtsum.errors import VTSumError
from vtsum.summary.exports.times import Clocked

# YouTube shows no chapters otherwise (support.google.com/youtube/answer/9884579).
_FEWEST, _SHORTEST = 3, 10.0


def _chapters(of: Clocked) -> list[tuple[float, float, str]]:
    found = of.chapters()
    if not found:
        raise VTSumError("export: the summary must have chapters, got none: its video is of two minutes or less")
    return [(start, end, " ".join(title.split())) for start, end, title in found]


def chapter_list(of: Clocked) -> str:
    """Two lines a chapter, in the simple (OGM) form that mkvmerge, MP4Box and HandBrake read."""
    lines = []
    for number, (start, _, title) in enumerate(_chapters(of), 1):
        lines += [f"CHAPTER{number:02}={_stamp(start)}", f"CHAPTER{number:02}NAME={title}"]
    return "\n".join(lines) + "\n"


def ffmetadata(of: Clocked) -> str:
    """FFmpeg's own metadata file: `ffmpeg -i VIDEO -i FILE -map_metadata 1 -codec copy OUT`."""
    lines = [";FFMETADATA1", f"title={_escaped(of.title)}"]
    for start, end, title in _chapters(of):
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", f"START={round(start * 1000)}", f"END={round(end * 1000)}"]
        lines.append(f"title={_escaped(title)}")
    return "\n".join(lines) + "\n"


def youtube(of: Clocked) -> str:
    """Lines for a video's description on YouTube; a chapter too short for it is part of the one before.

    Raises:
        VTSumError: fewer than three chapters are left, and YouTube would show none.
    """
    kept: list[tuple[float, str]] = []
    for start, end, title in _chapters(of):
        if kept and (start - kept[-1][0] < _SHORTEST or (end == of.duration and end - start < _SHORTEST)):
            continue
        kept.append((start if kept else 0.0, title))
    if len(kept) < _FEWEST:
        raise VTSumError(f"export: YouTube wants {_FEWEST} chapters of at least {_SHORTEST:.0f} s, got {len(kept)}")
    hours = of.duration >= 3600
    return "".join(f"{_clock(start, hours)} {title}\n" for start, title in kept)


def _escaped(text: str) -> str:
    text = " ".join(text.split())
    return "".join("\\" + c if c in "=;#\\" else c for c in text)


def _stamp(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _clock(seconds: float, hours: bool) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if hours else f"{whole // 60}:{whole % 60:02}"
