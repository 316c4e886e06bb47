"""Where a summary shows what a stretch of the source video holds: the one answer that text and page give."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from vtsum.summary.schema import ClipEntry, SentenceEntry, ShotEntry

ENOUGH = 0.5  # of a stretch: if the summary shows less, it does not show it
GLANCE = 0.5  # seconds of writing that stands on the screen: who sees so much of it has seen it


@dataclass(frozen=True)
class Moment:
    """A stretch of the source in seconds; where in the source the summary begins to show it and when that is in the
    summary, None where it does not."""

    start: float
    end: float
    at: float | None = None
    summary: float | None = None


class Clips:
    """The clips of a summary.

    Args:
        shots: of summary.json.
    """

    def __init__(self, shots: Sequence[ShotEntry]) -> None:
        clips = [shot["clip"] for shot in shots if shot["clip"] is not None]
        self._clips = sorted(clips, key=lambda clip: clip["start"])
        self._ends = [clip["end"] for clip in self._clips]

    def moment(self, start: float, end: float | None = None, *, stands: bool = False) -> Moment:
        """A stretch, or a point where there is no end, which a clip shows that it lies in. `stands`: the same is there
        all the while, as writing is, so that a glance shows it."""
        until = start if end is None else end
        enough = ENOUGH * (until - start)
        first: ClipEntry | None = None
        shown = 0.0
        for clip in self._clips[bisect_right(self._ends, start) :]:
            if clip["start"] > until or (clip["start"] == until > start):
                break
            first = first or clip
            shown += min(clip["end"], until) - max(clip["start"], start)
        if first is None or shown < (min(enough, GLANCE) if stands else enough):
            return Moment(start, until)
        at = max(start, first["start"])
        speed = (first["summary_end"] - first["summary_start"]) / (first["end"] - first["start"])
        return Moment(start, until, at, first["summary_start"] + (at - first["start"]) * speed)

    def first_in(self, start: float, end: float) -> Moment | None:
        """The first clip that begins in a stretch."""
        clip = next((clip for clip in self._clips if start <= clip["start"] < end), None)
        return None if clip is None else self.moment(clip["start"], clip["end"])


def moments_of(sentence: SentenceEntry, shots: Sequence[ShotEntry], clips: Clips) -> list[Moment]:
    """When what a sentence speaks of is; of a sentence seen, the clips of its shots: what its describer looked at."""
    spans = [(span["start"], span["end"]) for span in sentence["times"]]
    if sentence["origin"] == "seen":
        for i, index in enumerate(sentence["shots"]):
            if clip := shots[index]["clip"]:
                spans[i] = (clip["start"], clip["end"])
    return [clips.moment(start, end, stands=sentence["origin"] == "read") for start, end in spans]
