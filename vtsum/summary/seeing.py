"""Who describes the pictures of a video, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.speech.transcript import joined
from vtsum.errors import VTSumError
from vtsum.summary.text import MAX_SENTENCES, Moment, ShotCaption, best_of, gathered

if TYPE_CHECKING:
    from vtsum.enhance.speech import Transcript
    from vtsum.protocols import Captioner

CAPTIONERS = ("auto", "embedded", "none")
SHOWN = 0.5
"""A caption is shown where its chance of being right is above this: a rule set before any caption was looked at. Of the
embedded decoder's captions none has such a chance: on held-out videos they are hardly likelier beside their own frames
than beside another video's. A captioner that cannot tell its chance (BLIP) is heard only where the user names it."""
RESEARCH = (
    "what is said to be seen was written by the embedded decoder, as --captioner embedded asks: most of it is not true"
)
UNCALIBRATED = (
    "what is said to be seen was written by {}, found in the hub's cache, and is shown where it calls it true itself: "
    "how often it is was not measured (--captioner none leaves it out)"
)


@dataclass(frozen=True)
class Scene:
    """What a captioner is given of a shot (`vtsum.protocols.Seen`)."""

    pictures: tuple[np.ndarray, ...]
    heard: str


def named_captioner(name: str, device: str = "auto") -> Captioner | None:
    """The captioner that the user names, on that device (`make_captioner`); None for the names in CAPTIONERS.

    Raises:
        VTSumError: it cannot be had.
    """
    if name in CAPTIONERS:
        return None
    from vtsum.model.captioners import make_captioner

    return make_captioner(name, device)


def captioner_at_hand(name: str, guesses: bool, offline_default: bool, device: str = "auto") -> Captioner | None:
    """For "auto": the best that the hub's cache holds, where the model's own captions are `guesses`."""
    if name != "auto" or not guesses or offline_default:
        return None
    from vtsum.model.captioners import best_at_hand

    return best_at_hand(device)


def model_describes(name: str, guesses: bool) -> bool:
    """Whether the captions are the model's own; `guesses`: they would be."""
    return name == "embedded" or (name == "auto" and not guesses)


def look(
    captioner: Captioner,
    source: Path,
    moments: Sequence[Moment],
    clips: Sequence[tuple[int, float, float]],
    said: Transcript | None,
) -> list[ShotCaption]:
    """Captions of the best moments, those with a chance of `SHOWN` or less left out.

    Args:
        captioner: told the pictures of the clip that the summary shows, and the words heard in the shot.
        source: the video.
        moments, said: as for `vtsum.summary.text`.
        clips: (shot, start, end) of the chosen shots, in seconds.
    Raises:
        VTSumError: the captioner stopped working, gave another number of captions than it was given shots, or a
            confidence that is no number.
    """
    from vtsum.model.frame_encoder import check_finite
    from vtsum.video.stills import pictures_at

    best = best_of(moments, MAX_SENTENCES)
    spans = {shot: (start, end) for shot, start, end in clips}
    count = min(max(captioner.pictures, 1), 16)
    words = said.words if said is not None else ()
    times = []
    for start, end in (spans[moment.shot] for moment in best):
        times += [start + (end - start) * (i + 0.5) / count for i in range(count)]
    pictures = pictures_at(source, times)  # in one go: to open a broadcast is to read all of it
    scenes = []
    for number, moment in enumerate(best):
        heard = joined(w.text for w in words if moment.span[0] <= w.start < moment.span[1])
        scenes.append(Scene(tuple(pictures[number * count : (number + 1) * count]), heard))
    captions = list(captioner.describe(scenes)) if scenes else []
    if len(captions) != len(scenes):
        raise VTSumError(
            f"captioner: {captioner.name} must give a caption for each of {len(scenes)} shots, got {len(captions)}"
        )
    check_finite(np.array([c.confidence for c in captions]), "confidences", captioner.name, "captioner")
    kept = [
        (moment, caption)
        for moment, caption in zip(best, captions, strict=True)
        if caption.chance is None or caption.chance > SHOWN
    ]
    return gathered([moment for moment, _ in kept], [caption for _, caption in kept])
