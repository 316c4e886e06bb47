"""Transcripts as subtitles: SRT and WebVTT, cut where a reader wants them cut."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

from vtsum.enhance.speech.transcript import Transcript, Word, joined

LINE = 42  # characters a line; two lines a subtitle
LONGEST = 6.0  # seconds
SHORTEST = 0.8  # seconds, where the next subtitle leaves room
_TAG = re.compile("[A-Za-z0-9]+(-[A-Za-z0-9]+)*")  # of a language, BCP 47
PAUSE = 0.8  # seconds of silence at which a subtitle ends


def as_srt(transcript: Transcript) -> str:
    """The transcript as an SRT file's text; empty for a transcript without words."""
    return srt(subtitles(transcript))


def srt(cues: Iterable[tuple[float, float, str]]) -> str:
    """Subtitles (start, end, text), as `subtitles` gives them, as an SRT file's text.

    Its arrow would make a line of words the next subtitle's times, and nothing can be escaped there: it becomes a sign.
    """
    blocks = [
        f"{number}\n{_stamp(start, ',')} --> {_stamp(end, ',')}\n{text.replace('-->', '→')}\n"
        for number, (start, end, text) in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def as_vtt(transcript: Transcript) -> str:
    """The transcript as a WebVTT file's text."""
    return vtt(subtitles(transcript), transcript.language)


def vtt(cues: Iterable[tuple[float, float, str]], language: str | None) -> str:
    """Subtitles (start, end, text), as `subtitles` gives them, as a WebVTT file's text."""
    tag = language_tag(language)  # an arrow in a head begins a subtitle
    head = "WEBVTT\n" + (f"Language: {tag}\n" if tag else "")
    blocks = [
        f"\n{_stamp(start, '.')} --> {_stamp(end, '.')}\n{html.escape(text, quote=False)}\n"
        for start, end, text in cues
    ]
    return head + "".join(blocks)


def language_tag(language: str | None) -> str | None:
    """A language as it may stand in a file's head: nothing but what is shaped like a tag of BCP 47."""
    return language if language and _TAG.fullmatch(language) else None


def subtitles(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """(start, end, text) of each subtitle: at most two lines of 42 characters (a longer word has a line of its own) and
    6 s; a subtitle ends at a pause of 0.8 s, and with its sentence where it is long enough. It stays at least 0.8 s if
    the next one leaves room; only subtitles of people who speak at once overlap.

    Source of the limits: Netflix Timed Text Style Guide and BBC Subtitle Guidelines, rounded.
    """
    groups = [group for utterance in transcript.utterances for group in _groups(utterance.words)]
    groups.sort(key=lambda group: group[0].start)
    for i, group in enumerate(groups):
        start, end = group[0].start, max(word.end for word in group)
        if i + 1 < len(groups):
            end = max(end, min(start + SHORTEST, groups[i + 1][0].start))
        else:
            end = max(end, start + SHORTEST)
        yield start, end, "\n".join(_lines([word.text for word in group]))


def _groups(words: tuple[Word, ...]) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group:
            texts = [w.text for w in group]
            full = len(_lines([*texts, word.text])) > 2
            long = word.end - group[0].start > LONGEST
            sentence = texts[-1][-1] in ".!?…" and len(" ".join(texts)) >= LINE // 2
            if full or long or sentence or word.start - group[-1].end >= PAUSE:
                yield group
                group = []
        group.append(word)
    if group:
        yield group


def _lines(texts: list[str]) -> list[str]:
    lines = [texts[0]]
    for text in texts[1:]:
        if len(lines[-1]) + 1 + len(text) <= LINE:
            lines[-1] = joined((lines[-1], text))
        else:
            lines.append(text)
    return lines


def _stamp(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"
