"""What is said in a video, from the best source there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from vtsum.enhance.speech.activity import voice_activity, voiced
from vtsum.enhance.speech.recognisers import Recogniser, is_understood, make_recogniser
from vtsum.enhance.speech.sound import RATE, read_sound
from vtsum.enhance.speech.subtitle_track import read_subtitle_track
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.enhance.speech.transcript import Transcript
from vtsum.video.source import show

Denoiser = Callable[[Transcript], Transcript]


def transcribe(
    path: str | os.PathLike[str],
    *,
    recogniser: str | Recogniser | None = "pocketsphinx",
    transcript: str | os.PathLike[str] | Transcript | None = None,
    denoiser: Denoiser | Literal["embedded"] | None = "embedded",
    progress: Callable[[float], None] | None = None,
) -> Transcript:
    """The words of a video with their times: of a transcript that the user has, else of the subtitle track in the
    file, else of a recogniser that listens to the stretches with voice.

    Args:
        path: a video or sound file in any format that FFmpeg knows.
        recogniser: a name (`recognisers.make_recogniser`), an object of that interface, or None: listen to nothing.
        transcript: a transcript's file (SRT, WebVTT, plain text) or a Transcript, which then is the answer.
        denoiser: applied to what a recogniser heard, never to what somebody wrote: "embedded" (`denoise`), a function,
            or None.
        progress: called with the seconds of sound read so far.
    Returns:
        Transcript: without utterances where nothing is said; `warnings` say what a reader should know.
    Raises:
        VTSumError: a file that cannot be read, or a recogniser that cannot be had or stopped.
    """
    if isinstance(transcript, Transcript):
        return transcript
    if transcript is not None:
        length = _Length(path, progress)
        stretches = voice_activity(length)
        return read_transcript(transcript, stretches=stretches, duration=length.seconds or None)
    if (track := read_subtitle_track(path)) is not None:
        return track
    if recogniser is None:
        return Transcript((), "none", None)
    found = make_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
    heard = _listen(path, found, progress)
    if denoiser is None or not heard.utterances:
        return heard
    if denoiser == "embedded":
        from vtsum.enhance.speech.denoise import denoise

        return denoise(heard)
    return denoiser(heard)


class _Length:
    """A file's blocks of sound, whose length is known when they have been read."""

    def __init__(self, path: str | os.PathLike[str], progress: Callable[[float], None] | None) -> None:
        self._blocks = read_sound(path)
        self._progress = progress
        self.seconds = 0.0

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        for start, block in self._blocks:
            self.seconds = start + len(block) / RATE
            yield start, block
            if self._progress is not None:
                self._progress(self.seconds)


def _listen(
    path: str | os.PathLike[str], recogniser: Recogniser, progress: Callable[[float], None] | None
) -> Transcript:
    blocks = _Length(path, progress)
    heard = list(recogniser.recognise(voiced(blocks, recogniser.longest)))
    understood = is_understood(recogniser, heard)
    kept = [u for u in heard if understood and np.mean([w.confidence for w in u.words]) >= recogniser.doubtful]
    name = show(os.path.basename(os.fspath(path)))
    warnings = []
    if not blocks.seconds:
        warnings.append(f"{name} has no sound that can be decoded")
    if doubtful := len(heard) - len(kept):
        what = "stretch of sound" if doubtful == 1 else "stretches of sound"
        warnings.append(f"{doubtful} {what} could not be understood: another language, noise or music?")
    return Transcript(tuple(kept), recogniser.name, recogniser.language if kept else None, tuple(warnings))
