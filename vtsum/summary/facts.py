"""The text of a video in which nothing is said and nobody describes the pictures: what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.event_segmentation import unit_mean
from vtsum.enhance.speech.merge import Sentence
from vtsum.summary.loudness import STANDS_OUT, Loudness, inside
from vtsum.summary.text import MAX_SENTENCES, clock_time

if TYPE_CHECKING:
    from vtsum.summary.planning import Plan
    from vtsum.summary.watching import Watched
    from vtsum.video import VideoInfo

DARK, BRIGHT = 50.0, 190.0  # levels of 255 of the mean picture
ALIKE = 1e-5  # squared distance of the mean features of two shots that show the same; slides differ by ten times that
MOVES = 1.0  # levels of 255 from picture to picture: less may lie between the few hundred pixels that are compared


def measured_text(info: VideoInfo, watched: Watched, plan: Plan, sound: Loudness | None) -> list[Sentence]:
    """Sentences of the video's length, the parts that were found, their light, change and loudness. Never empty.

    Only what is beyond doubt is said: a part is called dark, bright, still or silent by fixed limits, and the one that
    changes most or the loudest where it is so by far. Night is not told from a dark room, nor movement from
    a flickering light. Where sound could not be decoded, nothing is said of silence or loudness.
    """
    parts = _parts(watched, plan)
    spans = [(plan.span(shots[0])[0], plan.span(shots[-1])[1]) for shots in parts]
    lively = [watched.changes.liveliness(start, end) for start, end in spans]
    most = _stands_out(lively, MOVES)
    loudest = sound.stands_out(spans) if sound is not None else None
    heard = sound is not None and not sound.is_silent(watched.start, watched.duration)
    told: list[Sentence] = []
    for i in sorted(range(len(spans)), key=lambda i: min(plan.ranks[shot] for shot in parts[i])):
        start, end = spans[i]
        found = []
        light = watched.changes.brightness(start, end)
        if light is not None:
            found += ["dark pictures"] if light < DARK else ["bright pictures"] if light > BRIGHT else []
            found += ["hardly anything moves"] if watched.changes.is_still(start, end) else []
        found += ["its pictures change more than those of any other"] if i == most else []
        if sound is not None and heard:
            inner = inside(start, end, watched.duration)
            found += ["silent"] if sound.is_silent(*inner) else ["louder than any other"] if i == loudest else []
        if found and len(told) < MAX_SENTENCES - 1:
            which = f"Part {i + 1}" if len(spans) > 1 else "All of it"
            shown = tuple(shot for shot in parts[i] if shot in plan.clips)
            told.append(_sentence(f"{which}: {', '.join(found)}", (start, end), shown))
    whole = _whole(spans, (watched.start, watched.duration), info.has_audio, sound)
    return [whole, *sorted(told, key=lambda sentence: sentence.times)]


def _parts(watched: Watched, plan: Plan) -> list[list[int]]:
    """The shots of each part: a picture that stands for long is cut into several, of which none begins anything."""
    means = [unit_mean(watched.event_features[start:end]) for start, end in plan.frames]
    parts = [[0]]
    for shot, (before, mean) in enumerate(pairwise(means), 1):
        stands = watched.changes.is_still(plan.span(shot - 1)[0], plan.span(shot)[1])
        if stands and float(((mean - before) ** 2).sum()) < ALIKE:
            parts[-1].append(shot)
        else:
            parts.append([shot])
    return parts


def _whole(
    spans: Sequence[tuple[float, float]], part: tuple[float, float], has_audio: bool, sound: Loudness | None
) -> Sentence:
    lengths = sorted(end - start for start, end in spans)
    begin, end = round(spans[0][0], 3), round(spans[-1][1], 3)  # those at the head of the text
    length = end - begin
    text = f"{clock_time(length) if length >= 10 else f'{length:.1f} s'} long; "
    if len(spans) == 1:
        text += "no change of scene was found"
    elif len(spans) <= MAX_SENTENCES:
        starts = [clock_time(start) for start, _ in spans]
        text += f"{len(spans)} parts were found, beginning at {', '.join(starts[:-1])} and {starts[-1]}"
    else:
        least, most = f"{lengths[0]:.0f}", f"{lengths[-1]:.0f}"
        lasting = f"about {least} s each" if least == most else f"{least} to {most} s"
        text += f"{len(spans)} parts were found, of {lasting}"
    if not has_audio:
        text += "; there is no sound"
    elif sound is not None and sound.is_silent(*part):
        text += "; the sound is silent"
    return _sentence(text, (begin, end), ())


def _sentence(text: str, span: tuple[float, float], shots: tuple[int, ...]) -> Sentence:
    return Sentence(f"{text}.", 1.0, (span,), "measured", shots)


def _stands_out(values: Sequence[float], least: float) -> int | None:
    """The index of the largest value, where it is so by far, and `least` or more."""
    if len(values) < 2:
        return None
    second, first = np.argsort(values)[-2:]
    return int(first) if values[first] >= max(STANDS_OUT * values[second], least) else None
