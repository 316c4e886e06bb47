"""The text of a video in which nothing is said and nobody describes the pictures: what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.speech.merge import Sentence
from vtsum.summary.text import MAX_SENTENCES, clock_time

if TYPE_CHECKING:
    from vtsum.summary.planning import Plan
    from vtsum.summary.watching import Watched
    from vtsum.video import VideoInfo

DARK, BRIGHT = 50.0, 190.0  # levels of 255 of the mean picture
SILENT = 1e-3  # of full scale: the loudest tenth of a second of a stretch that is called silent
EDGE = 0.25  # seconds near the ends of a stretch that are not listened to: sound seldom changes with the very picture
STANDS_OUT = 1.5  # times the second: what is called the most lively or the loudest


def measured_text(source: Path, info: VideoInfo, watched: Watched, plan: Plan) -> list[Sentence]:
    """Sentences of the parts that were found, their light, movement and loudness. Never empty.

    Only what is beyond doubt is said: a part is called dark, bright, still or silent by fixed limits, and the most
    lively or the loudest where it is so by far.
    """
    spans = [plan.span(i) for i in range(len(plan.shots))]
    loudness = _loudness(source, spans) if info.has_audio else None
    whole = _whole(spans, watched.duration, None if loudness is None else max(loudness))
    lively = [watched.changes.liveliness(start, end) for start, end in spans]
    most, loudest = _stands_out(lively), _stands_out(loudness or [])
    told: list[Sentence] = []
    for i in sorted(range(len(spans)), key=lambda i: plan.ranks[i]):
        start, end = spans[i]
        found = []
        light = watched.changes.brightness(start, end)
        if light is not None:
            found += ["dark pictures"] if light < DARK else ["bright pictures"] if light > BRIGHT else []
            found += ["hardly anything moves"] if watched.changes.is_still(start, end) else []
        found += ["more movement than in any other"] if i == most else []
        if loudness is not None and max(loudness) >= SILENT:
            found += ["silent"] if loudness[i] < SILENT else ["louder than any other"] if i == loudest else []
        if found and len(told) < MAX_SENTENCES - 1:
            which = f"Part {i + 1}" if len(spans) > 1 else "All of it"
            told.append(_sentence(f"{which}: {', '.join(found)}", (start, end), (i,) if i in plan.clips else ()))
    return [whole, *sorted(told, key=lambda sentence: sentence.times)]


def _whole(spans: Sequence[tuple[float, float]], duration: float, loudest: float | None) -> Sentence:
    lengths = sorted(end - start for start, end in spans)
    if len(spans) == 1:
        text = "No change of scene was found"
    elif len(spans) <= MAX_SENTENCES:
        starts = [clock_time(start) for start, _ in spans]
        text = f"{len(spans)} parts were found, beginning at {', '.join(starts[:-1])} and {starts[-1]}"
    else:
        text = f"{len(spans)} parts were found, of {lengths[0]:.0f} to {lengths[-1]:.0f} s"
    if loudest is None:
        text += "; there is no sound"
    elif loudest < SILENT:
        text += "; the sound is silent"
    return _sentence(text, (0.0, duration), ())


def _sentence(text: str, span: tuple[float, float], shots: tuple[int, ...]) -> Sentence:
    return Sentence(f"{text}.", 1.0, (span,), "measured", shots)


def _stands_out(values: Sequence[float]) -> int | None:
    """The index of the largest value, where it is so by far."""
    if len(values) < 2:
        return None
    second, first = np.argsort(values)[-2:]
    return int(first) if values[first] > max(STANDS_OUT * values[second], 1e-9) else None


def _loudness(source: Path, spans: Sequence[tuple[float, float]]) -> list[float]:
    """The loudest tenth of a second (root mean square, of full scale) of each stretch; 0 where no sound was decoded."""
    from vtsum.enhance.speech.sound import read_sound

    loudest = [0.0] * len(spans)
    at = 0
    for time, block in read_sound(source, rate=8_000, block=0.1):
        while at < len(spans) - 1 and time >= spans[at][1]:
            at += 1
        start, end = spans[at]
        if end - start > 4 * EDGE and not start + EDGE <= time <= end - EDGE:
            continue
        loudest[at] = max(loudest[at], float(np.sqrt(np.mean(np.square(block, dtype=np.float64)))))
    return loudest
