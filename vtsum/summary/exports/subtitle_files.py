"""What is said, as subtitle files."""

from __future__ import annotations

from vtsum.enhance.speech.subtitle_text import srt as _srt
from vtsum.enhance.speech.subtitle_text import vtt as _vtt
from vtsum.errors import VTSumError
from vtsum.summary.exports.times import Clocked


def _cues(of: Clocked) -> list[tuple[float, float, str]]:
    cues = of.cues()
    if not cues:
        where = "in the summary's clips" if of.clock == "summary" else "in the video"
        raise VTSumError(f"export: something must be heard {where} for subtitles, got no words")
    return cues


def srt(of: Clocked) -> str:
    """SubRip."""
    return _srt(_cues(of))


def webvtt(of: Clocked) -> str:
    """WebVTT."""
    return _vtt(_cues(of), of.language)
