"""Times of a summary on one of its two clocks: the source video's, or that of summary.mp4."""

from __future__ import annotations

from bisect import bisect_right

from vtsum.enhance.speech.subtitle_text import subtitles
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.summary.schema import ClipEntry, SummaryDocument
from vtsum.summary.spoken import summary_cues

CLOCKS = ("summary", "source")


def clips_of(document: SummaryDocument) -> list[ClipEntry]:
    """The summary's clips, in order."""
    clips = [shot["clip"] for shot in document["shots"] if shot["clip"] is not None]
    return sorted(clips, key=lambda clip: clip["summary_start"])


class Clocked:
    """What a summary has subtitles and chapters of, on the clock asked for.

    Attributes:
        clock (str): "summary" or "source". duration (float): of that video, in seconds. title, language (str | None).
    """

    def __init__(self, document: SummaryDocument, clock: str) -> None:
        self._document = document
        self._clips = clips_of(document)
        self.clock = clock
        self.duration = document["summary" if clock == "summary" else "source"]["duration"]
        self.title = document["title"]["text"]
        self.language = document["speech"]["language"] if document["speech"] else None

    def cues(self) -> list[tuple[float, float, str]]:
        """(start, end, text) of each subtitle, in seconds."""
        if self.clock == "summary":
            return summary_cues(self._document)
        speech = self._document["speech"]
        if speech is None:
            return []
        utterances = (
            tuple(
                Word(part, w["start"], w["end"], w["confidence"]) for w in each["words"] for part in w["text"].split()
            )
            for each in speech["utterances"]
        )
        spoken = tuple(Utterance(words) for words in utterances if words)
        cues = subtitles(Transcript(spoken, speech["source"], speech["language"]))
        return [(start, min(end, self.duration), text) for start, end, text in cues if start < self.duration]

    def chapters(self) -> list[tuple[float, float, str]]:
        """(start, end, title) of each chapter, in seconds, without gaps; on the summary's clock those of which it
        shows something, from where it does."""
        chapters = self._document["chapters"]
        if not chapters:
            return []
        ends = [chapter["start"] for chapter in chapters[1:]] + [self._document["source"]["duration"]]
        starts: list[tuple[float, str]] = []
        for chapter, end in zip(chapters, ends, strict=True):
            start = chapter["start"] if self.clock == "source" else self._shown(chapter["start"], end)
            if start is not None:
                starts.append((start, chapter["title"]))
        ends = [start for start, _ in starts[1:]] + [self.duration]
        return [(start, end, title) for (start, title), end in zip(starts, ends, strict=False) if end > start]

    def _shown(self, start: float, end: float) -> float | None:
        """When the summary first shows something of a stretch of the source; None where it does not."""
        first = bisect_right(self._clips, start, key=lambda clip: clip["end"])
        clip = self._clips[first] if first < len(self._clips) else None
        if clip is None or clip["start"] >= end:
            return None
        return clip["summary_start"] + max(0.0, start - clip["start"])
