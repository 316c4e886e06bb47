"""What is said in a video, from the best source there is."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from vtsum.enhance.speech.activity import MODEL, Stretch, missing_package, model_sha256, voice_activity, voiced
from vtsum.enhance.speech.again import heard_again
from vtsum.enhance.speech.recognisers import Recogniser, is_understood, make_recogniser
from vtsum.enhance.speech.sound import RATE, claimed_seconds, picture_rate, read_sound, shown_video
from vtsum.enhance.speech.subtitle_track import read_subtitle_track, unread_subtitles
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.enhance.speech.transcript import Transcript, Utterance
from vtsum.video.damage import Damage, told
from vtsum.video.part import WHOLE, Part
from vtsum.video.source import open_container, show
from vtsum.video.timeline import claimed_duration

Denoiser = Callable[[Transcript], Transcript]
NOT_UNDERSTOOD = "could not be understood: another language, noise or music?"
_SPEECH = 2.0  # seconds of voice that hold words, if anybody speaks; less may be a cough
_SCAN = 0.3  # of the work of listening: finding the voice, before any of it is recognised


def transcribe(
    path: str | os.PathLike[str],
    *,
    recogniser: str | Recogniser | None = "auto",
    transcript: str | os.PathLike[str] | Transcript | None = None,
    denoiser: Denoiser | Literal["embedded"] | None = "embedded",
    limit: float | None = None,
    device: str = "auto",
    progress: Callable[[float], None] | None = None,
    part: Part = WHOLE,
) -> Transcript:
    """The words of a video with their times: of a transcript that the user has, else of the subtitle track in the
    file, else of a recogniser that listens to the stretches with voice.

    Args:
        path: a video or sound file in any format that FFmpeg knows.
        recogniser: a name (`recognisers.make_recogniser`), an object of that interface, or None: listen to nothing.
        transcript: a transcript's file (`read_transcript`) or a Transcript, which then is the answer.
        denoiser: applied to what a recogniser heard, never to what somebody wrote: "embedded" (`denoise`), a function,
            or None.
        limit (float | None): a recogniser listens to at most so many seconds of voice, spread evenly over the video;
            what it leaves out is in `unheard`.
        device (str): where a recogniser that is named listens (`make_recogniser`).
        progress: called with the share of the work that is done, 0..1, as the sound is read and as it is recognised.
        part: start and end in seconds of what a recogniser listens to; None: the end.
    Returns:
        Transcript: without utterances where nothing is said; `warnings` say what a reader should know.
    Raises:
        VTSumError: a file that cannot be read, or a recogniser that cannot be had or stopped.
        ValueError: a limit that is not above 0.
    """
    if limit is not None and not limit > 0:
        raise ValueError(f"transcribe: limit must be above 0 seconds or None, got {limit}")
    if isinstance(transcript, Transcript):
        return transcript
    if transcript is not None:
        length = _Length(path, progress)
        stretches = voice_activity(length) if missing_package() is None else None
        for _ in length:  # what is left, for the length
            pass
        seconds = length.seconds or _shown_seconds(path)
        return read_transcript(transcript, stretches=stretches, duration=seconds, rate=picture_rate(path))
    if (track := read_subtitle_track(path)) is not None:
        return track
    drawn = unread_subtitles(path)
    notes = () if drawn is None else (drawn,)
    if recogniser is None:
        return Transcript((), "none", None, notes)
    found = make_recogniser(recogniser, device) if isinstance(recogniser, str) else recogniser
    heard = _listen(path, found, math.inf if limit is None else limit, progress, part)
    heard = replace(heard, warnings=(*notes, *heard.warnings))
    if denoiser == "embedded":
        from vtsum.enhance.speech.denoise import denoise

        denoiser = denoise
    if denoiser is not None and heard.utterances:
        heard = denoiser(heard)
    return replace(heard, again=partial(heard_again, path, found, part=part))


def _shown_seconds(path: str | os.PathLike[str]) -> float | None:
    """How long a file says that its pictures are shown; None: it does not say, or has none."""
    with closing(open_container(path, "transcribe")) as container:
        video = shown_video(container, path, "transcribe")
        return None if video is None else claimed_duration(container, video)


class _Length:
    """A file's blocks of sound, whose length and damage are known when they have been read; tells how far it is."""

    def __init__(
        self, path: str | os.PathLike[str], progress: Callable[[float], None] | None, part: Part = WHOLE
    ) -> None:
        self.damage = Damage()
        self._blocks = read_sound(path, damage=self.damage, part=part)
        self._part = part
        self._progress = progress
        self._claimed = claimed_seconds(path) if progress is not None else None
        self.seconds = 0.0

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        for start, block in self._blocks:
            self.seconds = start + len(block) / RATE
            if self._progress is not None and self._claimed is not None:
                begin, end = self._part
                whole = min(self._claimed, end or self._claimed) - begin
                self._progress(min((self.seconds - begin) / max(whole, 1e-9), 1.0))
            yield start, block


def _listen(
    path: str | os.PathLike[str],
    recogniser: Recogniser,
    limit: float,
    progress: Callable[[float], None] | None,
    part: Part,
) -> Transcript:
    """Find the voice, then listen to as much of it as `limit` allows, in order: by what stands beside a stretch a
    recogniser tells what is said in it."""
    sound = _Length(path, None if progress is None else lambda done: progress(_SCAN * done), part)
    spans = [(stretch.start, stretch.end) for stretch in voiced(sound, recogniser.longest)]
    lengths = np.array([end - start for start, end in spans])
    chosen = evenly(lengths, limit)
    work = _Work(progress, float(sum(lengths[sorted(chosen)])))
    heard = list(recogniser.recognise(work.stretches(path, recogniser.longest, chosen, part)))
    understood = is_understood(recogniser, heard)
    kept = [u for u in heard if understood and np.mean([w.confidence for w in u.words]) >= recogniser.doubtful]
    unheard = [span for i, span in enumerate(spans) if i not in chosen] if understood else []
    name = show(os.path.basename(os.fspath(path)))
    warnings = []
    if not sound.seconds:
        warnings.append(f"{name} has no sound that can be decoded")
    elif lost := sound.damage.spans(sound.seconds):
        warnings.append(f"sound of {name} could not be decoded at {told(lost)}")
    if doubtful := len(heard) - len(kept) + _wordless([spans[i] for i in sorted(chosen)], heard):
        what = "stretch of sound" if doubtful == 1 else "stretches of sound"
        warnings.append(f"{doubtful} {what} {NOT_UNDERSTOOD}")
    if unheard:
        minutes = [sum(lengths[sorted(chosen)]) / 60, lengths.sum() / 60]
        warnings.append(f"{minutes[0]:.1f} of {minutes[1]:.1f} minutes of voice were listened to, spread evenly")
    digests: dict[str, str] = getattr(recogniser, "sha256", {})
    return Transcript(
        tuple(kept),
        recogniser.name,
        recogniser.language if kept else None,
        tuple(warnings),
        tuple(unheard),
        (
            ("voice activity", MODEL, model_sha256(), "cpu"),
            ("speech", recogniser.name, dict(digests), _device(recogniser)),
        ),
    )


def _wordless(spans: list[tuple[float, float]], heard: list[Utterance]) -> int:
    """How many stretches with voice are long enough for words, and none were heard in them."""
    return sum(
        end - start >= _SPEECH and not any(u.start < end and u.end > start for u in heard) for start, end in spans
    )


def _device(recogniser: Recogniser) -> str | None:
    device = getattr(recogniser, "device", None)
    return None if device is None else str(device)


def evenly(lengths: np.ndarray, limit: float) -> set[int]:
    """Indices of stretches, spread evenly over all, whose lengths add up to about `limit`; all where they fit."""
    total, taken = float(lengths.sum()), 0.0
    if total <= limit:
        return set(range(len(lengths)))
    chosen = set()
    for i, passed in enumerate(np.cumsum(lengths)):
        if taken + lengths[i] / 2 <= limit * passed / total:
            chosen.add(i)
            taken += float(lengths[i])
    return chosen


class _Work:
    """Hands chosen stretches to a recogniser and tells the share of the work that is done."""

    def __init__(self, progress: Callable[[float], None] | None, seconds: float) -> None:
        self._progress, self._whole, self._done = progress, max(seconds, 1e-9), 0.0

    def stretches(
        self, path: str | os.PathLike[str], longest: float, chosen: set[int], part: Part
    ) -> Iterator[Stretch]:
        if not chosen:
            if self._progress is not None:
                self._progress(1.0)
            return
        for i, stretch in enumerate(voiced(read_sound(path, part=part), longest)):
            if i in chosen:
                yield stretch
                self._done += stretch.end - stretch.start
                if self._progress is not None:
                    self._progress(_SCAN + (1 - _SCAN) * min(self._done / self._whole, 1.0))
            if i == max(chosen):
                return
