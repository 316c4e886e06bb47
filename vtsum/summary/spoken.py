"""What is said in a summary, on the clock of the summary: its subtitles."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

from vtsum.enhance.speech.subtitle_text import subtitles, vtt
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.summary.schema import SummaryDocument

if TYPE_CHECKING:
    from vtsum.video.tracks import Track


def summary_subtitles(data: SummaryDocument) -> str | None:
    """A WebVTT file's text with what is said in the summary's clips; None where nothing is."""
    cues = summary_cues(data)
    return vtt(cues, data["speech"]["language"]) if cues and data["speech"] else None


def kept_subtitles(source: Path, data: SummaryDocument) -> list[Track]:
    """All tracks of words in a video, each with what is said in the summary's clips, on the clock of the summary; a
    subtitle that begins before a clip, or ends after it, is shown within it."""
    from vtsum.enhance.speech.subtitle_track import subtitle_tracks
    from vtsum.video.tracks import Track, apart

    clips = [shot["clip"] for shot in data["shots"] if shot["clip"]]
    kept = []
    for track in subtitle_tracks(source):
        cues = []
        for start, end, text in track.cues:
            for clip in clips:
                first, last = max(start, clip["start"]), min(end, clip["end"])
                moved = clip["summary_start"] - clip["start"]
                if last > first:
                    cues.append((first + moved, min(last + moved, clip["summary_end"]), text))
        kept.append(Track(apart(cues), track.language, track.title))
    return [track for track in kept if track.cues]


def summary_cues(data: SummaryDocument) -> list[tuple[float, float, str]]:
    """(start, end, text) of what is said in the summary's clips, in seconds of the summary, in order.

    A word belongs to the clip that its middle lies in, and is shown no longer than the clip; no subtitle goes on over
    a cut.
    """
    speech = data["speech"]
    if speech is None:
        return []
    cues: list[tuple[float, float, str]] = []
    clips = sorted((shot["clip"] for shot in data["shots"] if shot["clip"]), key=lambda clip: clip["summary_start"])
    ends = [clip["end"] for clip in clips]
    heard: list[list[Utterance]] = [[] for _ in clips]
    for utterance in speech["utterances"]:
        parts: dict[int, list[Word]] = {}
        for word in utterance["words"]:
            middle = (word["start"] + word["end"]) / 2
            number = bisect_right(ends, middle)
            if number < len(clips) and clips[number]["start"] <= middle:
                clip = clips[number]
                start, end, first = clip["start"], clip["end"], clip["summary_start"]
                begin = first + min(max(word["start"], start) - start, clip["summary_end"] - first)
                until = first + min(min(word["end"], end) - start, clip["summary_end"] - first)
                parts.setdefault(number, []).extend(
                    Word(text, begin, until, word["confidence"]) for text in word["text"].split()
                )
        for number, words in parts.items():
            if words:
                heard[number].append(Utterance(tuple(words)))
    for clip, utterances in zip(clips, heard, strict=True):
        last = clip["summary_end"]
        utterances.sort(key=lambda utterance: utterance.start)
        here = Transcript(tuple(utterances), speech["source"], speech["language"])
        cues += [(a, min(b, last), text) for a, b, text in subtitles(here) if min(b, last) > a]
    return sorted(cues)
