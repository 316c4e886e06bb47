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
BLOCK = 0.1  # seconds that are weighed together
EDGE = 0.25  # seconds near the ends of a stretch that are not listened to: sound seldom changes with the very picture
STANDS_OUT = 1.5  # times the second: what is called the most lively or the loudest
MOVES = 1.0  # levels of 255 from picture to picture: less may lie between the few hundred pixels that are compared


def measured_text(source: Path, info: VideoInfo, watched: Watched, plan: Plan) -> list[Sentence]:
    """Sentences of the video's length, the parts that were found, their light, change and loudness. Never empty.

    Only what is beyond doubt is said: a part is called dark, bright, still or silent by fixed limits, and the one that
    changes most or the loudest where it is so by far. Night is not told from a dark room, nor movement from
    a flickering light. Where sound could not be decoded, nothing is said of silence or loudness.
    """
    spans = [plan.span(i) for i in range(len(plan.shots))]
    sound = Loudness.of(source) if info.has_audio else None
    lively = [watched.changes.liveliness(start, end) for start, end in spans]
    most = _stands_out(lively, MOVES)
    loudest = sound.stands_out(spans) if sound is not None else None
    told: list[Sentence] = []
    for i in sorted(range(len(spans)), key=lambda i: plan.ranks[i]):
        start, end = spans[i]
        found = []
        light = watched.changes.brightness(start, end)
        if light is not None:
            found += ["dark pictures"] if light < DARK else ["bright pictures"] if light > BRIGHT else []
            found += ["hardly anything moves"] if watched.changes.is_still(start, end) else []
        found += ["its pictures change more than those of any other"] if i == most else []
        if sound is not None and not sound.is_silent(0.0, watched.duration):
            inner = _inside(start, end, watched.duration)
            found += ["silent"] if sound.is_silent(*inner) else ["louder than any other"] if i == loudest else []
        if found and len(told) < MAX_SENTENCES - 1:
            which = f"Part {i + 1}" if len(spans) > 1 else "All of it"
            told.append(_sentence(f"{which}: {', '.join(found)}", (start, end), (i,) if i in plan.clips else ()))
    whole = _whole(spans, watched.duration, info.has_audio, sound)
    return [whole, *sorted(told, key=lambda sentence: sentence.times)]


def _whole(spans: Sequence[tuple[float, float]], duration: float, has_audio: bool, sound: Loudness | None) -> Sentence:
    lengths = sorted(end - start for start, end in spans)
    length = round(spans[-1][1], 3)  # that at the head of the text
    text = f"{clock_time(length) if length >= 10 else f'{length:.1f} s'} long; "
    if len(spans) == 1:
        text += "no change of scene was found"
    elif len(spans) <= MAX_SENTENCES:
        starts = [clock_time(start) for start, _ in spans]
        text += f"{len(spans)} parts were found, beginning at {', '.join(starts[:-1])} and {starts[-1]}"
    else:
        text += f"{len(spans)} parts were found, of {lengths[0]:.0f} to {lengths[-1]:.0f} s"
    if not has_audio:
        text += "; there is no sound"
    elif sound is not None and sound.is_silent(0.0, duration):
        text += "; the sound is silent"
    return _sentence(text, (0.0, length), ())


def _sentence(text: str, span: tuple[float, float], shots: tuple[int, ...]) -> Sentence:
    return Sentence(f"{text}.", 1.0, (span,), "measured", shots)


def _inside(start: float, end: float, duration: float) -> tuple[float, float]:
    """A part without its edges beside other parts."""
    if end - start <= 4 * EDGE:
        return start, end
    return start + EDGE if start > 0 else start, end - EDGE if end < duration - EDGE else end


def _stands_out(values: Sequence[float], least: float) -> int | None:
    """The index of the largest value, where it is so by far, and `least` or more."""
    if len(values) < 2:
        return None
    second, first = np.argsort(values)[-2:]
    return int(first) if values[first] >= max(STANDS_OUT * values[second], least) else None


class Loudness:
    """How loud each tenth of a second of a video is (root mean square, of full scale), where it could be decoded.

    Args:
        times, levels: [N], the start of each tenth of a second in order, and how loud it is.
        damaged: (start, end) in seconds, where sound could not be decoded.
    """

    def __init__(self, times: np.ndarray, levels: np.ndarray, damaged: Sequence[tuple[float, float]] = ()) -> None:
        self._times, self._levels, self._damaged = times, levels, damaged

    @classmethod
    def of(cls, source: Path) -> Loudness:
        """Listen to a video's sound once."""
        from vtsum.enhance.speech.sound import read_sound
        from vtsum.video.damage import Damage

        damage = Damage()
        found = [
            (time, float(np.sqrt(np.mean(np.square(block, dtype=np.float64)))))
            for time, block in read_sound(source, rate=8_000, block=0.1, damage=damage)
        ]
        heard = np.array(found).reshape(-1, 2)
        return cls(heard[:, 0], heard[:, 1], damage.spans())

    def is_silent(self, start: float, end: float) -> bool:
        """Whether all of the stretch was decoded, and no tenth of a second of it is as loud as `SILENT`."""
        if not len(self._times) or any(a < end and b > start for a, b in self._damaged):
            return False
        return self._loudest((self._times > start - BLOCK) & (self._times < end)) < SILENT

    def stands_out(self, spans: Sequence[tuple[float, float]]) -> int | None:
        """The part that is louder than all others by far, where everything was decoded."""
        if len(spans) < 2 or not len(self._times) or self._damaged:
            return None
        cores = [_inside(*span, spans[-1][1]) for span in spans]
        inner = [self._loudest((self._times >= a) & (self._times + BLOCK <= b)) for a, b in cores]
        best = int(np.argmax(inner))
        start, end = spans[best]
        # Where exactly sound changes beside a cut is not known: it may be a part's own that is heard beyond its edge.
        beside = self._loudest((self._times < start - EDGE - BLOCK) | (self._times > end + EDGE))
        return best if inner[best] > max(STANDS_OUT * max(beside, *inner[:best], *inner[best + 1 :]), SILENT) else None

    def _loudest(self, which: np.ndarray) -> float:
        return float(self._levels[which].max(initial=0.0))
